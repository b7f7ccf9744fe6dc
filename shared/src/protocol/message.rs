//! The JSON messages of a session.

use std::borrow::Cow;
use std::net::{Ipv4Addr, Ipv6Addr};

use chrono::{DateTime, Utc};
use ipnet::{Ipv4Net, Ipv6Net};
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer, Serialize};
use uuid::Uuid;

use super::{DecodeError, MAX_FRAME_BYTES, StateHash};
use crate::ids::{ConnectionId, Generation, PeerId, Revision, SessionId};
use crate::text;
use crate::wireguard::{PresharedKey, PublicKey};

/// From the agent to the plane.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum AgentMessage {
    Hello(Hello),
    Applied(Applied),
    Load(Load),
    /// An [`Apply`] did not start where this agent stands: send a snapshot.
    Resync,
    /// The node's token is past two thirds of its life: send a new one.
    RenewToken,
    /// Round trips of the peers that [`PlaneMessage::Watch`] named (since version 2).
    RoundTrips(RoundTrips),
    /// The interface's next key is made; it takes over at the time (since version 2).
    NextKey(NextKey),
    /// A message of a later version; ignored.
    Unknown,
}

/// From the plane to the agent.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum PlaneMessage {
    Welcome(Welcome),
    Refused(Refused),
    Snapshot(SnapshotPart),
    Apply(Apply),
    Token(NodeToken),
    /// What the operator wants of the node as a whole: after each [`Welcome`], and whenever it changes
    /// (since version 2).
    Settings(Settings),
    /// Whose round trip to measure from now on: these and no others (since version 2).
    Watch(Watch),
    /// A message of a later version; ignored.
    Unknown,
}

/// Reads a frame's type first and then the message of that type in place: a derived reader would hold the
/// whole frame in between.
macro_rules! frame {
    (@read $text:ident $variant:ident $content:ty) => {
        Self::$variant(serde_json::from_str::<$content>($text)?)
    };
    (@read $text:ident $variant:ident) => {{
        let IgnoredAny = serde_json::from_str($text)?;
        Self::$variant
    }};
    ($name:ident { $($kind:literal => $variant:ident $(($content:ty))?,)* }) => {
        impl $name {
            /// Reads one text frame. Refuses oversized ones before parsing.
            pub fn decode(text: &str) -> Result<Self, DecodeError> {
                let kind = kind(text)?;
                Ok(match kind.as_ref() {
                    $($kind => frame!(@read text $variant $($content)?),)*
                    _ => frame!(@read text Unknown),
                })
            }

            /// The message as one text frame.
            #[must_use]
            pub fn encode(&self) -> String {
                serde_json::to_string(self).unwrap_or_default()
            }
        }
    };
}

frame! {
    AgentMessage {
        "hello" => Hello(Hello),
        "applied" => Applied(Applied),
        "load" => Load(Load),
        "resync" => Resync,
        "renew_token" => RenewToken,
        "round_trips" => RoundTrips(RoundTrips),
        "next_key" => NextKey(NextKey),
    }
}

frame! {
    PlaneMessage {
        "welcome" => Welcome(Welcome),
        "refused" => Refused(Refused),
        "snapshot" => Snapshot(SnapshotPart),
        "apply" => Apply(Apply),
        "token" => Token(NodeToken),
        "settings" => Settings(Settings),
        "watch" => Watch(Watch),
    }
}

/// The frame's type. It comes first in what we write, and anywhere in what others do.
fn kind(text: &str) -> Result<Cow<'_, str>, DecodeError> {
    #[derive(Deserialize)]
    struct Kind<'a> {
        #[serde(borrow, rename = "type")]
        kind: Cow<'a, str>,
    }
    if text.len() > MAX_FRAME_BYTES {
        return Err(DecodeError::TooLarge(text.len()));
    }
    let first = text.strip_prefix(r#"{"type":""#);
    match first.and_then(|rest| rest.split_once('"')) {
        Some((kind, _)) if !kind.contains('\\') => Ok(Cow::Borrowed(kind)),
        _ => Ok(serde_json::from_str::<Kind<'_>>(text)?.kind),
    }
}

/// The agent's first message: who it is and where it stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Hello {
    /// Newest protocol version that the agent speaks.
    pub protocol: u16,
    /// Oldest protocol version that the agent speaks.
    pub min_protocol: u16,
    pub agent_version: String,
    /// Changes with every boot of the host.
    pub boot_id: Uuid,
    /// Changes whenever the interface was made anew and its counters began at zero.
    pub interface_epoch: Uuid,
    /// Last revision of the desired state that this agent applied; zero before the first.
    pub applied_revision: Revision,
    /// Hash over the peers that the agent holds.
    pub state_hash: StateHash,
    /// The interface's public key. Its private half never leaves the node.
    pub public_key: PublicKey,
    /// Where clients reach WireGuard, `host:port`.
    pub endpoint: String,
    /// Where the agent takes client addresses from.
    pub subnet: Ipv4Net,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subnet_v6: Option<Ipv6Net>,
    /// How many clients the pool can hold.
    pub capacity: u32,
    /// `kernel`, `userspace` or `simulated`.
    pub backend: String,
    /// The operator has asked this node to take no new clients.
    #[serde(default)]
    pub draining: bool,
    /// The key that the interface will have next, where a rotation is planned (since version 2).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_key: Option<NextKey>,
}

/// The plane accepts the session.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Welcome {
    pub session: SessionId,
    /// The version that both sides use from here on.
    pub protocol: u16,
    pub resume: Resume,
    /// The desired revision at this moment.
    pub revision: Revision,
    /// How often the agent sends counters and load, in milliseconds.
    pub report_interval_ms: u32,
    pub server_time: DateTime<Utc>,
}

/// What follows a [`Welcome`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resume {
    /// Changes from the agent's revision on.
    Delta,
    /// The whole desired state, in parts.
    Snapshot,
}

/// The plane does not accept the session, and closes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    pub reason: RefusedReason,
    /// For the operator's log.
    pub message: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusedReason {
    UnsupportedProtocol,
    Unauthorized,
    #[serde(other)]
    Unknown,
}

/// A client's addresses inside the tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Addresses {
    pub v4: Ipv4Addr,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub v6: Option<Ipv6Addr>,
}

/// A peer as the plane wants it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    pub peer: PeerId,
    pub connection: ConnectionId,
    pub public_key: PublicKey,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preshared_key: Option<PresharedKey>,
    /// The addresses that the agent acknowledged earlier; the agent keeps them. None for a new peer:
    /// the agent chooses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub addresses: Option<Addresses>,
    /// The node removes the peer by itself at this time.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "end"
    )]
    pub not_after: Option<DateTime<Utc>>,
    /// What the peer may use (since version 2).
    #[serde(default, skip_serializing_if = "Limits::are_none")]
    pub limits: Limits,
}

/// A time in RFC 3339 and in no form that resembles it, which takes a tenth of chrono's own reading.
fn end<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<DateTime<Utc>>, D::Error> {
    #[derive(Deserialize)]
    struct End(#[serde(deserialize_with = "time")] DateTime<Utc>);

    fn time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<DateTime<Utc>, D::Error> {
        text::read(deserializer, DateTime::parse_from_rfc3339).map(|at| at.to_utc())
    }
    Ok(Option::<End>::deserialize(deserializer)?.map(|End(at)| at))
}

/// What a peer may use. What is absent is not limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Limits {
    /// Towards the client, in bits a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub download_bps: Option<u64>,
    /// From the client, in bits a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upload_bps: Option<u64>,
    /// The lease of the client's quota: bytes of the packets inside the tunnel, both directions
    /// together, since the peer came to this node. Beyond it nothing passes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowance: Option<u64>,
}

impl Limits {
    /// Whether nothing is limited.
    #[must_use]
    pub const fn are_none(&self) -> bool {
        self.download_bps.is_none() && self.upload_bps.is_none() && self.allowance.is_none()
    }
}

/// What the operator wants of a node as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Settings {
    /// Take no new clients.
    #[serde(default)]
    pub draining: bool,
    /// When the interface's key is to be replaced by a new one; none where it is to stay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotate_key_at: Option<DateTime<Utc>>,
}

/// A key that the interface will have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct NextKey {
    pub public_key: PublicKey,
    /// When it takes the place of the present one.
    pub at: DateTime<Utc>,
}

/// Peers whose round trip somebody looks at, at most [`MAX_WATCHED`](super::MAX_WATCHED).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Watch {
    pub peers: Vec<PeerId>,
}

/// Round trips between the node and clients through the tunnel. Who did not answer is not in it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RoundTrips {
    /// In microseconds.
    pub peers: Vec<(PeerId, u32)>,
}

/// One part of the whole desired state. Applied when the last part is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotPart {
    pub revision: Revision,
    /// Counts from zero.
    pub part: u32,
    pub last: bool,
    pub peers: Vec<Peer>,
}

/// Changes that lead from one revision to another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Apply {
    /// Where the agent must stand; otherwise it answers [`AgentMessage::Resync`].
    pub from: Revision,
    pub to: Revision,
    pub changes: Vec<Change>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Change {
    /// The peer shall be there as given. Repeating it changes nothing.
    Upsert(Peer),
    /// The peer shall be gone. Repeating it changes nothing.
    Remove { peer: PeerId },
    #[serde(other)]
    Unknown,
}

/// The agent has applied everything up to `revision`; one result for each peer that was named.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Applied {
    pub revision: Revision,
    /// Hash over the peers that the agent now holds.
    pub state_hash: StateHash,
    pub results: Vec<PeerResult>,
    #[serde(default)]
    pub timings: Timings,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "FlatResult", into = "FlatResult")]
pub struct PeerResult {
    pub peer: PeerId,
    pub outcome: Outcome,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The interface accepts this peer's handshake from now on.
    Active {
        addresses: Addresses,
    },
    /// The interface does not know the peer. `counters` are final; none when it was not there.
    Removed {
        counters: Option<PeerCounters>,
    },
    /// The peer is not in the interface, and will not be.
    Failed {
        reason: FailureReason,
    },
    Unknown,
}

/// A [`PeerResult`] in JSON: its outcome lies flat beside the peer.
#[derive(Serialize, Deserialize)]
struct FlatResult {
    peer: PeerId,
    status: Status,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    addresses: Option<Addresses>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    counters: Option<PeerCounters>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reason: Option<FailureReason>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Status {
    Active,
    Removed,
    Failed,
    #[serde(other)]
    Unknown,
}

impl From<PeerResult> for FlatResult {
    fn from(result: PeerResult) -> Self {
        let flat = |status| Self {
            peer: result.peer,
            status,
            addresses: None,
            counters: None,
            reason: None,
        };
        match result.outcome {
            Outcome::Active { addresses } => Self {
                addresses: Some(addresses),
                ..flat(Status::Active)
            },
            Outcome::Removed { counters } => Self {
                counters,
                ..flat(Status::Removed)
            },
            Outcome::Failed { reason } => Self {
                reason: Some(reason),
                ..flat(Status::Failed)
            },
            Outcome::Unknown => flat(Status::Unknown),
        }
    }
}

impl TryFrom<FlatResult> for PeerResult {
    type Error = &'static str;

    fn try_from(flat: FlatResult) -> Result<Self, Self::Error> {
        let outcome = match flat.status {
            Status::Active => Outcome::Active {
                addresses: flat.addresses.ok_or("an active peer without addresses")?,
            },
            Status::Removed => Outcome::Removed {
                counters: flat.counters,
            },
            Status::Failed => Outcome::Failed {
                reason: flat.reason.ok_or("a failure without a reason")?,
            },
            Status::Unknown => Outcome::Unknown,
        };
        Ok(Self {
            peer: flat.peer,
            outcome,
        })
    }
}

/// A peer's cumulative counters in one generation, in bytes and seen from the client:
/// `sent` is what the client uploaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerCounters {
    pub generation: Generation,
    pub sent: u64,
    pub received: u64,
    /// Unix time in seconds of the last handshake.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_handshake: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureReason {
    /// No free address.
    PoolExhausted,
    /// The interface did not take the peer.
    Interface,
    /// The peer's `not_after` has passed.
    Expired,
    /// The node takes no new clients.
    Draining,
    #[serde(other)]
    Unknown,
}

/// What the agent spent on an [`Applied`], in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Timings {
    /// From reading the message to sending the acknowledgement.
    pub total_us: u64,
    /// Of that, writing the ledger.
    pub ledger_us: u64,
    /// Of the ledger's, what its disk took when the interface was programmed already (since version 2).
    #[serde(default, skip_serializing_if = "is_zero")]
    pub disk_us: u64,
    /// Of that, programming the interface.
    pub interface_us: u64,
}

/// The host's load. Fractions are 0–1.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Load {
    /// The worst component, 0–100: what selection sorts by.
    pub current_load: f64,
    pub cpu: f64,
    pub softirq: f64,
    pub memory: f64,
    /// Connection-tracking entries against their limit; none where the kernel tracks nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conntrack: Option<f64>,
    /// Bits a second over the uplink.
    pub rx_bps: u64,
    pub tx_bps: u64,
    /// The uplink's speed in bits a second, when known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nic_bps: Option<u64>,
    pub peers: u32,
    /// Addresses in use or in quarantine, out of `capacity`.
    pub pool_used: u32,
    pub capacity: u32,
    #[serde(default)]
    pub draining: bool,
    /// Differences between ledger and interface that were repaired since the agent started (since
    /// version 2).
    #[serde(default, skip_serializing_if = "is_zero")]
    pub drift: u64,
    /// Removals in a snapshot that waits for the operator, because it removes too many peers (since
    /// version 2).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_removals: Option<u32>,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
const fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// A node's credential. Its Debug form hides the token.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeToken {
    pub token: String,
    pub expires_at: DateTime<Utc>,
}

impl std::fmt::Debug for NodeToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NodeToken")
            .field("token", &"redacted")
            .field("expires_at", &self.expires_at)
            .finish()
    }
}
