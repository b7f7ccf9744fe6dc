//! The messages of the metrics socket and the event stream.

use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::http::sse::Ended;
use crate::tunnels::ConnectView;

/// A message of the metrics socket or the event stream.
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
    /// The month's quota is used up but for a fifth, or for a twentieth.
    QuotaWarning(QuotaWarning),
    /// The last event of a stream. A socket says it by its close code instead.
    Ended(Ended),
}

impl Message {
    /// Its `type`, which is also the name of its event.
    pub(super) const fn kind(&self) -> &'static str {
        match self {
            Self::Metrics(_) => "metrics",
            Self::Connected(_) => "connected",
            Self::Disconnected(_) => "disconnected",
            Self::ServerDraining(_) => "server_draining",
            Self::ServerUnreachable(_) => "server_unreachable",
            Self::ServerKeyChanging(_) => "server_key_changing",
            Self::ServerKeyChanged(_) => "server_key_changed",
            Self::QuotaWarning(_) => "quota_warning",
            Self::Ended(_) => Ended::EVENT,
        }
    }
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

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct QuotaWarning {
    pub(super) timestamp: DateTime<Utc>,
    /// How much of the quota is used at the least: 80 or 95.
    #[schema(example = 80)]
    pub(super) percent: u64,
    /// Of this month, in both directions together.
    #[schema(example = 10_737_418_240_u64)]
    pub(super) quota_bytes: u64,
    #[schema(example = 8_589_934_592_u64)]
    pub(super) used_bytes: u64,
}
