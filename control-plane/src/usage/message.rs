//! The messages of the metrics socket.

use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::tunnels::ConnectView;

/// A message of the metrics socket.
#[derive(Debug, Serialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum Message {
    /// One a second for each connection.
    Metrics(Metrics),
    /// Also for each connection that is there when the socket opens.
    Connected(Event),
    Disconnected(Event),
    /// The server is being emptied: go on with the replacement.
    ServerDraining(ServerTrouble),
    /// The server has fallen silent: go on with the replacement.
    ServerUnreachable(ServerTrouble),
    /// The server will have another key. Until then nothing changes.
    ServerKeyChanging(ServerKeyChanging),
    /// The server has another key. The tunnel goes on with it and with nothing else changed.
    ServerKeyChanged(ServerKeyChanged),
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Metrics {
    pub(super) timestamp: DateTime<Utc>,
    pub(super) connection_id: Uuid,
    /// What the client uploaded.
    pub(super) bytes_sent: u64,
    pub(super) bytes_received: u64,
    pub(super) upload_speed_mbps: f64,
    pub(super) download_speed_mbps: f64,
    /// The round trip between server and client through the tunnel; null while the client does not
    /// answer.
    #[schema(example = 25)]
    pub(super) ping_ms: Option<u32>,
    pub(super) server_load_pct: Option<f64>,
    pub(super) data: MetricsData,
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct MetricsData {
    pub(super) bytes_sent: u64,
    pub(super) bytes_received: u64,
    /// Both directions together.
    #[schema(example = "1.2 MB/s")]
    pub(super) current_speed: String,
    /// The same as `ping_ms`.
    #[schema(example = 25)]
    pub(super) latency: Option<u32>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Event {
    pub(super) timestamp: DateTime<Utc>,
    pub(super) connection_id: Uuid,
    pub(super) bytes_sent: u64,
    pub(super) bytes_received: u64,
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ServerTrouble {
    pub(super) timestamp: DateTime<Utc>,
    pub(super) connection_id: Uuid,
    /// A connection on another server that accepts the client's handshake with its present key. The
    /// first handshake there ends this connection; nothing ends before. Null where no other server
    /// has room, and for anybody but the client.
    pub(super) replacement: Option<Box<ConnectView>>,
    /// A replacement that is not used ends at this time.
    pub(super) replacement_expires_at: Option<DateTime<Utc>>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ServerKeyChanging {
    pub(super) timestamp: DateTime<Utc>,
    pub(super) connection_id: Uuid,
    #[schema(example = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=")]
    pub(super) next_public_key: String,
    pub(super) key_changes_at: DateTime<Utc>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ServerKeyChanged {
    pub(super) timestamp: DateTime<Utc>,
    pub(super) connection_id: Uuid,
    #[schema(example = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=")]
    pub(super) server_public_key: String,
    /// The whole configuration with the new key, without the private key. Null for anybody but the
    /// client.
    #[schema(example = "[Interface]\n# PrivateKey = …\nAddress = 10.8.0.2/32\n")]
    pub(super) wg_config: Option<String>,
}
