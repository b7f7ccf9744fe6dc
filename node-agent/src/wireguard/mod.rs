//! One WireGuard interface, whatever implements it.
//!
//! [`Device`] is all that the agent needs of WireGuard. `kernel` drives the kernel module over
//! netlink, `userspace` drives a supervised `wireguard-go` over its UAPI socket, `fake` keeps a
//! device in memory for tests. Implementations never replace all peers: they are only told what to
//! add, update and remove. Client endpoints never leave an implementation.

pub mod fake;
mod interface_name;

use async_trait::async_trait;
use ipnet::IpNet;
use shared::wireguard::{PresharedKey, PrivateKey, PublicKey};

pub use interface_name::{InterfaceName, InvalidInterfaceName};

/// What the interface shall be, apart from its peers.
#[derive(Debug, Clone)]
pub struct InterfaceSetup {
    pub private_key: PrivateKey,
    pub listen_port: u16,
    /// The node's own addresses inside the tunnel, with the pool's prefix length.
    pub addresses: Vec<IpNet>,
    pub mtu: u32,
}

/// What the system says of the interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InterfaceStatus {
    /// The kernel's interface index; a new one means that the counters began again.
    pub index: u32,
    pub public_key: Option<PublicKey>,
    pub listen_port: u16,
}

/// A peer as it shall be in the interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerSpec {
    pub public_key: PublicKey,
    pub preshared_key: Option<PresharedKey>,
    pub allowed_ips: Vec<IpNet>,
}

/// One change of the interface's peers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PeerOp {
    /// The peer is not there yet.
    Add(PeerSpec),
    /// The peer is there with another preshared key or other allowed IPs.
    Update(PeerSpec),
    Remove(PublicKey),
}

/// A peer as it is in the interface. The counters are the interface's: `rx_bytes` came from the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerStatus {
    pub public_key: PublicKey,
    pub preshared_key: Option<PresharedKey>,
    /// Sorted.
    pub allowed_ips: Vec<IpNet>,
    pub rx_bytes: u64,
    pub tx_bytes: u64,
    /// Unix time in seconds of the last handshake; none before the first.
    pub last_handshake: Option<u64>,
}

/// Why WireGuard could not be driven.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    #[error("no such interface")]
    Missing,
    #[error("{0} is not available: {1}")]
    Unavailable(&'static str, String),
    #[error("not permitted: {0} (needs CAP_NET_ADMIN)")]
    Permission(String),
    #[error("{context}: {source}")]
    Io {
        context: &'static str,
        source: std::io::Error,
    },
    #[error("netlink: {0}")]
    Netlink(String),
}

impl DeviceError {
    /// Whether the same call may succeed later without anyone's help.
    #[must_use]
    pub fn is_recoverable(&self) -> bool {
        matches!(self, Self::Missing | Self::Io { .. } | Self::Netlink(_))
    }
}

/// One WireGuard interface.
#[async_trait]
pub trait Device: Send + Sync + std::fmt::Debug {
    /// `kernel`, `userspace` or `fake`.
    fn backend(&self) -> &'static str;

    /// Makes the interface if it is not there and brings key, port, addresses and MTU to `setup`,
    /// changing only what differs. Peers stay as they are.
    async fn ensure(&self, setup: &InterfaceSetup) -> Result<InterfaceStatus, DeviceError>;

    /// Every peer, each once.
    async fn peers(&self) -> Result<Vec<PeerStatus>, DeviceError>;

    /// Carries the operations out in order. After an error some may have been carried out.
    async fn apply(&self, operations: &[PeerOp]) -> Result<(), DeviceError>;

    /// Removes the interface, peers first. Succeeds where there is none.
    async fn teardown(&self) -> Result<(), DeviceError>;
}
