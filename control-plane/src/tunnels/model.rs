//! A connection as the rules see it.

use chrono::{DateTime, Utc};
use shared::ids::{ConnectionId, PeerId, ServerId, UserId};
use shared::protocol::{Addresses, FailureReason};
use shared::wireguard::PublicKey;

use crate::fleet::Server;
use crate::usage::ledger::Ledger;

/// Where a connection stands. It only moves forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Status {
    /// Asked of the node.
    Connecting,
    /// The node acknowledged the peer.
    Connected,
    /// Over for the user; the node has not said yet that the peer is gone.
    Disconnecting,
    /// Gone, its counters final.
    Disconnected,
}

impl Status {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Connected => "connected",
            Self::Disconnecting => "disconnecting",
            Self::Disconnected => "disconnected",
        }
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        [
            Self::Connecting,
            Self::Connected,
            Self::Disconnecting,
            Self::Disconnected,
        ]
        .into_iter()
        .find(|status| status.as_str() == text)
    }

    pub(super) fn is_live(self) -> bool {
        self < Self::Disconnecting
    }
}

/// Why a connection ended, where one of our rules ended it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndReason {
    /// The user asked for it.
    Disconnected,
    /// Another connection took its place.
    Moved,
    /// The node did not acknowledge in time.
    NoAnswer,
    /// The client was gone before the connection was there.
    Abandoned,
    /// The node gave out an address that another live connection has.
    AddressConflict,
    /// Its user's account was suspended.
    Suspended,
    /// Its user's account was deleted.
    Deleted,
    /// Its user removed the device with its key.
    DeviceRemoved,
    /// It was offered, and its own server takes no clients any more.
    Withdrawn,
    /// Its server was taken out of the fleet.
    ServerGone,
    /// Its user's quota of the month is used up.
    Quota,
    /// Its user's plan has no place for it any more.
    Plan,
}

impl EndReason {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Disconnected => "disconnected",
            Self::Moved => "moved",
            Self::NoAnswer => "no_answer",
            Self::Abandoned => "abandoned",
            Self::AddressConflict => "address_conflict",
            Self::Suspended => "suspended",
            Self::Deleted => "deleted",
            Self::DeviceRemoved => "device_removed",
            Self::Withdrawn => "withdrawn",
            Self::ServerGone => "server_gone",
            Self::Quota => "quota",
            Self::Plan => "plan",
        }
    }
}

/// The word under which a node's failure is stored.
pub(super) const fn failure_word(reason: FailureReason) -> &'static str {
    match reason {
        FailureReason::PoolExhausted => "pool_exhausted",
        FailureReason::Interface => "interface",
        FailureReason::Expired => "expired",
        FailureReason::Draining => "draining",
        FailureReason::Unknown => "failed",
    }
}

/// One connection, its server's name and place included.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Connection {
    pub(super) id: ConnectionId,
    pub(super) user: UserId,
    pub(super) server: Option<ServerSummary>,
    pub(super) peer: PeerId,
    pub(super) status: Status,
    pub(super) end_reason: Option<String>,
    pub(super) public_key: PublicKey,
    /// None where it ended, or was made before there were any.
    pub(super) sealed_psk: Option<Vec<u8>>,
    pub(super) addresses: Option<Addresses>,
    pub(super) ledger: Ledger,
    pub(super) peak_bytes_per_second: u64,
    pub(super) last_handshake: Option<DateTime<Utc>>,
    /// The last that was measured, which is only while somebody looks.
    pub(super) round_trip_us: Option<u32>,
    pub(super) expires_at: Option<DateTime<Utc>>,
    pub(super) started_at: DateTime<Utc>,
    pub(super) ended_at: Option<DateTime<Utc>>,
}

/// What a client has to know of a server.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ServerSummary {
    pub(super) id: ServerId,
    pub(super) hostname: String,
    pub(super) ip_address: std::net::IpAddr,
    pub(super) location: String,
    /// `host:port`
    pub(super) endpoint: String,
    pub(super) public_key: PublicKey,
}

impl From<&Server> for ServerSummary {
    fn from(server: &Server) -> Self {
        Self {
            id: server.id,
            hostname: server.hostname.clone(),
            ip_address: server.ip_address,
            location: server.location.clone(),
            endpoint: server.endpoint.clone(),
            public_key: server.public_key,
        }
    }
}
