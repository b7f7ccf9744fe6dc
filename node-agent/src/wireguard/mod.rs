//! One WireGuard interface, whatever implements it.
//!
//! [`Device`] is all that the agent needs of WireGuard. `kernel` drives the kernel module over
//! netlink, `userspace` drives a supervised `wireguard-go` over its UAPI socket, `fake` keeps a
//! device in memory for tests. Implementations never replace all peers: they are only told what to
//! add, update and remove. Client endpoints never leave an implementation.

pub mod fake;
mod interface_name;
pub mod kernel;
mod link;
mod traffic;
pub mod userspace;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use ipnet::IpNet;
use shared::wireguard::{PresharedKey, PrivateKey, PublicKey};

use self::kernel::KernelDevice;
use self::userspace::UserspaceDevice;

#[doc(hidden)]
pub use self::kernel::peers_in_dump;

pub use self::interface_name::{InterfaceName, InvalidInterfaceName};
pub use self::traffic::{Hosts, Traffic};

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
        source: io::Error,
    },
    #[error("netlink: {0}")]
    Netlink(String),
}

impl DeviceError {
    /// An error number from the kernel, as what it means here.
    fn from_io(context: &'static str, source: io::Error) -> Self {
        use nix::errno::Errno;

        match source.raw_os_error().map(Errno::from_raw) {
            Some(Errno::ENODEV) => Self::Missing,
            Some(Errno::EPERM | Errno::EACCES) => Self::Permission(context.to_owned()),
            Some(Errno::EOPNOTSUPP) => Self::Unavailable(context, source.to_string()),
            _ => Self::Io { context, source },
        }
    }

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

    /// Every peer's counters, in the table given, whose room is used again. Where the interface changes
    /// meanwhile some peers may be missing; what is there is right.
    async fn counters(&self, mut table: Vec<Traffic>) -> Result<Vec<Traffic>, DeviceError> {
        table.clear();
        table.extend(self.peers().await?.iter().map(Traffic::from));
        Ok(table)
    }

    /// Carries the operations out in order. After an error some may have been carried out.
    async fn apply(&self, operations: &[PeerOp]) -> Result<(), DeviceError>;

    /// Removes the interface, peers first. Succeeds where there is none.
    async fn teardown(&self) -> Result<(), DeviceError>;
}

/// Which implementation of WireGuard to drive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Backend {
    /// The kernel's where it has one, else userspace.
    #[default]
    Auto,
    Kernel,
    Userspace,
}

/// Opens the interface's device, which does not make the interface yet. `wireguard_go` is the
/// program to start for the userspace backend. Sockets are opened in the calling thread's network
/// namespace.
pub async fn open(
    backend: Backend,
    interface: InterfaceName,
    wireguard_go: PathBuf,
) -> Result<Arc<dyn Device>, DeviceError> {
    match backend {
        Backend::Kernel => Ok(Arc::new(KernelDevice::open(interface)?)),
        Backend::Userspace => Ok(Arc::new(UserspaceDevice::open(interface, wireguard_go)?)),
        // A process that serves clients is not abandoned because a module has appeared.
        Backend::Auto if userspace::is_running(&interface).await => {
            Ok(Arc::new(UserspaceDevice::open(interface, wireguard_go)?))
        }
        Backend::Auto => match KernelDevice::open(interface.clone()) {
            Ok(device) => Ok(Arc::new(device)),
            Err(DeviceError::Unavailable(..)) => {
                Ok(Arc::new(UserspaceDevice::open(interface, wireguard_go)?))
            }
            Err(error) => Err(error),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn auto_takes_the_kernels_where_it_has_one() {
        let expected = match kernel::available().await {
            Ok(()) => "kernel",
            Err(DeviceError::Unavailable(..)) => "userspace",
            Err(error) => panic!("{error}"),
        };
        let name: InterfaceName = "auto-test".parse().unwrap();
        let device = open(Backend::Auto, name.clone(), "wireguard-go".into()).await;
        assert_eq!(device.unwrap().backend(), expected);
        let kernel = open(Backend::Kernel, name, PathBuf::new()).await;
        assert_eq!(kernel.is_ok(), expected == "kernel");
    }
}
