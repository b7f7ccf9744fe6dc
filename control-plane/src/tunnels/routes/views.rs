//! What callers read about their connections.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use chrono::{DateTime, Utc};
use serde::Serialize;
use shared::ids::ServerId;
use shared::protocol::NextKey;
use shared::wireguard::PresharedKey;
use utoipa::ToSchema;
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::fleet::FleetView;
use crate::tunnels::client_config::ClientConfig;
use crate::tunnels::connect::Established;
use crate::tunnels::model::{Connection, ServerSummary, Status};
use crate::usage::format::{rate, real};
use crate::usage::ledger::Ledger;
use crate::usage::{Live, milliseconds};

/// The server of a connection.
#[derive(Serialize, ToSchema)]
#[schema(as = ConnectionServer)]
pub(super) struct ServerView {
    id: Uuid,
    #[schema(example = "us-east-1.vpn.example.com")]
    hostname: String,
    #[schema(value_type = String, example = "192.0.2.1")]
    ip_address: IpAddr,
    #[schema(example = "us-east")]
    location: String,
    #[schema(example = "192.0.2.1:51820")]
    endpoint: String,
}

impl From<&ServerSummary> for ServerView {
    fn from(server: &ServerSummary) -> Self {
        Self {
            id: server.id.0,
            hostname: server.hostname.clone(),
            ip_address: server.ip_address,
            location: server.location.clone(),
            endpoint: server.endpoint.clone(),
        }
    }
}

/// A connection that accepts the client's handshake from now on.
#[derive(Serialize, ToSchema)]
#[schema(as = NewConnection)]
pub struct ConnectView {
    #[schema(example = "active")]
    status: &'static str,
    connection_id: Uuid,
    server: ServerView,
    #[schema(example = "192.0.2.1:51820")]
    server_endpoint: String,
    #[schema(example = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=")]
    server_public_key: String,
    #[schema(value_type = String, example = "10.8.0.2")]
    assigned_ip: Ipv4Addr,
    #[schema(value_type = Option<String>, example = "fd42::2")]
    assigned_ipv6: Option<Ipv6Addr>,
    #[schema(value_type = Vec<String>, example = json!(["10.8.0.1"]))]
    dns: Vec<IpAddr>,
    /// Goes into the client's peer, beside the server's public key. It is this connection's alone.
    #[serde(
        skip_serializing_if = "Option::is_none",
        serialize_with = "as_optional_text"
    )]
    #[schema(value_type = Option<String>, nullable = false, example = "FpCyhws9cxwWoV4xELtfJvjJN+zQVRPISllRWgeopVE=")]
    preshared_key: Option<Zeroizing<String>>,
    /// What `wg-quick` takes. Has the private key only where the pair was made here, and then this
    /// is the only place and time that it is shown.
    #[schema(value_type = String, example = "[Interface]\nAddress = 10.8.0.2/32\n")]
    #[serde(serialize_with = "as_text")]
    wg_config: Zeroizing<String>,
    started_at: DateTime<Utc>,
    /// The connection ends at this time.
    expires_at: Option<DateTime<Utc>>,
}

impl std::fmt::Debug for ConnectView {
    /// Without its keys.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ConnectView")
            .field("connection_id", &self.connection_id)
            .finish_non_exhaustive()
    }
}

fn as_text<S: serde::Serializer>(text: &Zeroizing<String>, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(text)
}

fn as_optional_text<S: serde::Serializer>(
    text: &Option<Zeroizing<String>>,
    to: S,
) -> Result<S::Ok, S::Error> {
    text.as_deref().serialize(to)
}

impl ConnectView {
    pub(in crate::tunnels) fn new(made: &Established, dns: &[IpAddr]) -> Self {
        let config = ClientConfig {
            private_key: made.private_key.as_ref(),
            public_key: &made.public_key,
            addresses: made.addresses,
            dns,
            server_key: &made.server.public_key,
            preshared_key: made.preshared_key.as_ref(),
            endpoint: &made.server.endpoint,
        };
        Self {
            status: "active",
            connection_id: made.connection.0,
            server: ServerView::from(&made.server),
            server_endpoint: made.server.endpoint.clone(),
            server_public_key: made.server.public_key.to_base64(),
            assigned_ip: made.addresses.v4,
            assigned_ipv6: made.addresses.v6,
            dns: dns.to_vec(),
            preshared_key: made.preshared_key.as_ref().map(PresharedKey::expose_base64),
            wg_config: config.render(),
            started_at: made.started_at,
            expires_at: made.expires_at,
        }
    }
}

/// A connection that is over.
#[derive(Serialize, ToSchema)]
#[schema(as = EndedConnection)]
pub(super) struct DisconnectView {
    connection_id: Uuid,
    #[schema(example = "ended")]
    status: &'static str,
    started_at: DateTime<Utc>,
    ended_at: DateTime<Utc>,
    /// Seconds.
    duration: u64,
    duration_seconds: u64,
    /// What the client uploaded, as the node counted it.
    bytes_sent: u64,
    bytes_received: u64,
    total_bytes: u64,
    /// The node has said that the peer is gone: the counts do not change any more.
    is_final: bool,
    last_handshake: Option<DateTime<Utc>>,
    /// The last round trip between server and client that was measured; null where nobody looked.
    #[schema(example = 25)]
    ping_ms: Option<u32>,
    summary: Summary,
}

#[derive(Serialize, ToSchema)]
#[schema(as = ConnectionSummary)]
struct Summary {
    #[schema(example = "1.2 MB/s")]
    avg_speed: String,
    #[schema(example = "2.5 MB/s")]
    peak_speed: String,
}

impl DisconnectView {
    pub(super) fn new(connection: &Connection, live: &Live, now: DateTime<Utc>) -> Self {
        let usage = Usage::of(connection, live);
        let ended_at = connection.ended_at.unwrap_or(now);
        let seconds = seconds_between(connection.started_at, ended_at);
        let average = usage.average(seconds);
        Self {
            connection_id: connection.id.0,
            status: "ended",
            started_at: connection.started_at,
            ended_at,
            duration: seconds,
            duration_seconds: seconds,
            bytes_sent: usage.ledger.sent,
            bytes_received: usage.ledger.received,
            total_bytes: usage.total(),
            is_final: connection.status == Status::Disconnected,
            last_handshake: usage.last_handshake,
            ping_ms: usage.ping,
            summary: Summary {
                avg_speed: rate(average),
                peak_speed: rate(usage.peak_beside(average)),
            },
        }
    }
}

/// The live connections, the newest first.
#[derive(Serialize, ToSchema)]
#[schema(as = LiveConnections)]
pub(super) struct StatusView {
    connections: Vec<ConnectionView>,
    /// How many of them a client can use.
    active: usize,
}

/// One live connection.
#[derive(Serialize, ToSchema)]
#[schema(as = LiveConnection)]
pub(super) struct ConnectionView {
    connection_id: Uuid,
    /// `connecting` or `active`.
    #[schema(example = "active")]
    status: &'static str,
    server: Option<ServerView>,
    #[schema(value_type = Option<String>, example = "10.8.0.2")]
    assigned_ip: Option<Ipv4Addr>,
    #[schema(value_type = Option<String>, example = "fd42::2")]
    assigned_ipv6: Option<Ipv6Addr>,
    bytes_sent: u64,
    bytes_received: u64,
    #[schema(example = "1.2 MB/s")]
    current_speed: String,
    /// Over the whole time, both directions together.
    #[schema(example = "0.8 MB/s")]
    avg_speed: String,
    /// In the fastest second.
    #[schema(example = "2.5 MB/s")]
    peak_speed: String,
    /// The last round trip between server and client that was measured, which is while somebody looks.
    #[schema(example = 25)]
    ping_ms: Option<u32>,
    last_handshake: Option<DateTime<Utc>>,
    started_at: DateTime<Utc>,
    duration_seconds: u64,
    expires_at: Option<DateTime<Utc>>,
    /// The key that the server will have, where it is going to change.
    #[schema(example = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=")]
    next_public_key: Option<String>,
    key_changes_at: Option<DateTime<Utc>>,
}

/// The key that a server will have, where it is going to change.
pub(super) fn next_key(fleet: &FleetView, server: ServerId) -> Option<NextKey> {
    fleet.get(server).and_then(|server| server.next_key)
}

impl StatusView {
    pub(super) fn new(
        connections: &[Connection],
        live: &Live,
        fleet: &FleetView,
        now: DateTime<Utc>,
    ) -> Self {
        let connected = |it: &&Connection| it.status == Status::Connected;
        Self {
            active: connections.iter().filter(connected).count(),
            connections: connections
                .iter()
                .map(|connection| ConnectionView::new(connection, live, fleet, now))
                .collect(),
        }
    }
}

impl ConnectionView {
    fn new(connection: &Connection, live: &Live, fleet: &FleetView, now: DateTime<Utc>) -> Self {
        let usage = Usage::of(connection, live);
        let seconds = seconds_between(connection.started_at, now);
        let average = usage.average(seconds);
        let server = connection.server.as_ref();
        let next_key = server.and_then(|server| next_key(fleet, server.id));
        Self {
            connection_id: connection.id.0,
            status: status_text(connection.status),
            server: server.map(ServerView::from),
            assigned_ip: connection.addresses.map(|addresses| addresses.v4),
            assigned_ipv6: connection.addresses.and_then(|addresses| addresses.v6),
            bytes_sent: usage.ledger.sent,
            bytes_received: usage.ledger.received,
            current_speed: rate(usage.speed),
            avg_speed: rate(average),
            peak_speed: rate(usage.peak_beside(average)),
            ping_ms: usage.ping,
            last_handshake: usage.last_handshake,
            started_at: connection.started_at,
            duration_seconds: seconds,
            expires_at: connection.expires_at,
            next_public_key: next_key.map(|next| next.public_key.to_base64()),
            key_changes_at: next_key.map(|next| next.at),
        }
    }
}

/// The word for it on the wire.
const fn status_text(status: Status) -> &'static str {
    match status {
        Status::Connecting => "connecting",
        Status::Connected => "active",
        Status::Disconnecting | Status::Disconnected => "ended",
    }
}

/// What one connection came to, so far while it lives.
#[derive(Serialize, ToSchema)]
#[schema(as = ConnectionTotals)]
pub(super) struct TotalsView {
    connection_id: Uuid,
    /// `connecting`, `active` or `ended`.
    #[schema(example = "ended")]
    status: &'static str,
    /// While there is such a server.
    server: Option<ServerView>,
    started_at: DateTime<Utc>,
    ended_at: Option<DateTime<Utc>>,
    #[schema(example = 5400)]
    duration_seconds: u64,
    /// What the client uploaded, as the node counted it.
    #[schema(example = 1_048_576)]
    bytes_sent: u64,
    #[schema(example = 20_971_520)]
    bytes_received: u64,
    #[schema(example = 22_020_096)]
    total_bytes: u64,
    /// Over the whole time, both directions together.
    #[schema(example = "0.8 MB/s")]
    avg_speed: String,
    /// In the fastest second.
    #[schema(example = "2.5 MB/s")]
    peak_speed: String,
    last_handshake: Option<DateTime<Utc>>,
}

impl TotalsView {
    pub(super) fn new(connection: &Connection, live: &Live, now: DateTime<Utc>) -> Self {
        let usage = Usage::of(connection, live);
        let ended_at = connection.ended_at;
        let seconds = seconds_between(connection.started_at, ended_at.unwrap_or(now));
        let average = usage.average(seconds);
        Self {
            connection_id: connection.id.0,
            status: status_text(connection.status),
            server: connection.server.as_ref().map(ServerView::from),
            started_at: connection.started_at,
            ended_at,
            duration_seconds: seconds,
            bytes_sent: usage.ledger.sent,
            bytes_received: usage.ledger.received,
            total_bytes: usage.total(),
            avg_speed: rate(average),
            peak_speed: rate(usage.peak_beside(average)),
            last_handshake: usage.last_handshake,
        }
    }
}

/// The row's figures with what the node reported since they were stored.
struct Usage {
    ledger: Ledger,
    speed: f64,
    peak: u64,
    last_handshake: Option<DateTime<Utc>>,
    /// Milliseconds.
    ping: Option<u32>,
}

impl Usage {
    fn of(connection: &Connection, live: &Live) -> Self {
        let stored = Self {
            ledger: connection.ledger,
            speed: 0.0,
            peak: connection.peak_bytes_per_second,
            last_handshake: connection.last_handshake,
            ping: connection.round_trip_us.map(milliseconds),
        };
        let Some(server) = &connection.server else {
            return stored;
        };
        let ping = live.ping(server.id, connection.peer).or(stored.ping);
        let Some(reading) = live.reading(server.id, connection.peer) else {
            return Self { ping, ..stored };
        };
        Self {
            ledger: reading.fold(stored.ledger),
            speed: reading.upload + reading.download,
            peak: reading.peak.max(stored.peak),
            last_handshake: reading.last_handshake().max(stored.last_handshake),
            ping,
        }
    }

    fn total(&self) -> u64 {
        self.ledger.sent.saturating_add(self.ledger.received)
    }

    /// Bytes a second over so many seconds.
    fn average(&self, seconds: u64) -> f64 {
        real(self.total()) / real(seconds.max(1))
    }

    /// The fastest second; no slower than the average, which short connections have from their last report.
    fn peak_beside(&self, average: f64) -> f64 {
        real(self.peak).max(average)
    }
}

fn seconds_between(start: DateTime<Utc>, end: DateTime<Utc>) -> u64 {
    u64::try_from((end - start).num_seconds()).unwrap_or(0)
}
