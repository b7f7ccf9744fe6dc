//! The export on the wire.

use std::net::IpAddr;

use chrono::{DateTime, NaiveDate, Utc};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::accounts::routes::views::{SubscriptionView, UserView};
use crate::analytics::{DayUse, Figures};
use crate::audit::Entry;
use crate::fleet::FleetView;
use crate::tunnels::PastConnection;

/// Everything that is stored about a person.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AccountExport)]
pub(in crate::accounts) struct ExportView {
    pub(super) exported_at: DateTime<Utc>,
    pub(super) account: UserView,
    /// Whether a login asks for a code.
    pub(super) second_factor: bool,
    /// The oldest first.
    pub(super) subscriptions: Vec<SubscriptionView>,
    /// The newest first.
    #[schema(max_items = 10_000)]
    pub(super) sessions: Vec<SessionView>,
    /// The newest first.
    #[schema(max_items = 10_000)]
    pub(super) connections: Vec<ConnectionView>,
    /// Day by day of UTC, over each server; the newest first.
    #[schema(max_items = 10_000)]
    pub(super) usage: Vec<UsageView>,
    /// What was done to the account or by its owner, the newest first.
    #[schema(max_items = 10_000)]
    pub(super) activity: Vec<ActivityView>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ExportedSession)]
pub(super) struct SessionView {
    pub(super) id: Uuid,
    /// The app that it was opened for; null for a login with a password.
    #[schema(example = "mobile")]
    pub(super) app: Option<String>,
    #[schema(example = "Anna's phone")]
    pub(super) name: Option<String>,
    pub(super) created_at: DateTime<Utc>,
    pub(super) last_used_at: DateTime<Utc>,
    pub(super) expires_at: DateTime<Utc>,
    pub(super) ended_at: Option<DateTime<Utc>>,
    #[schema(example = "logged_out")]
    pub(super) end_reason: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ExportedConnection)]
pub(super) struct ConnectionView {
    id: Uuid,
    /// While there is such a server.
    #[schema(example = "fra1.example.net")]
    server: Option<String>,
    #[schema(example = "disconnected")]
    status: String,
    #[schema(example = "idle")]
    end_reason: Option<String>,
    #[schema(example = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=")]
    public_key: String,
    /// Inside the tunnel.
    #[schema(value_type = Option<String>, example = "10.8.0.2")]
    assigned_ip: Option<IpAddr>,
    #[schema(value_type = Option<String>, example = "fd00:8::2")]
    assigned_ipv6: Option<IpAddr>,
    bytes_sent: u64,
    bytes_received: u64,
    last_handshake: Option<DateTime<Utc>>,
    started_at: DateTime<Utc>,
    ended_at: Option<DateTime<Utc>>,
}

/// What was used in a day. Bytes are in the day in which they were stored.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ExportedUsage)]
pub(super) struct UsageView {
    day: NaiveDate,
    server_id: Uuid,
    /// While there is such a server.
    #[schema(example = "fra1.example.net")]
    server: Option<String>,
    #[serde(flatten)]
    figures: Figures,
    /// In the fastest second of one connection, both directions together.
    #[schema(example = 2_097_152)]
    peak_bytes_per_second: u64,
}

impl UsageView {
    pub(super) fn new(used: &DayUse, fleet: &FleetView) -> Self {
        let DayUse { day, server, sums } = used;
        Self {
            day: *day,
            server_id: server.0,
            server: fleet.get(*server).map(|it| it.hostname.clone()),
            figures: sums.into(),
            peak_bytes_per_second: sums.peak_bytes_per_second,
        }
    }
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ExportedActivity)]
pub(super) struct ActivityView {
    at: DateTime<Utc>,
    #[schema(example = "account.change_password")]
    action: String,
    /// `done` or `refused`.
    #[schema(example = "done")]
    outcome: String,
    /// Who acted: `user`, `operator`, `cli`, `system` or `anonymous`.
    #[schema(example = "user")]
    by: String,
    #[schema(value_type = Option<Object>)]
    before: Option<Value>,
    #[schema(value_type = Option<Object>)]
    after: Option<Value>,
}

impl From<PastConnection> for ConnectionView {
    fn from(connection: PastConnection) -> Self {
        Self {
            id: connection.id.into(),
            server: connection.server,
            status: connection.status,
            end_reason: connection.end_reason,
            public_key: connection.public_key,
            assigned_ip: connection.address,
            assigned_ipv6: connection.address_v6,
            bytes_sent: connection.bytes_sent,
            bytes_received: connection.bytes_received,
            last_handshake: connection.last_handshake,
            started_at: connection.started_at,
            ended_at: connection.ended_at,
        }
    }
}

impl From<Entry> for ActivityView {
    fn from(entry: Entry) -> Self {
        Self {
            at: entry.at,
            action: entry.action,
            outcome: entry.outcome,
            by: entry.actor_kind,
            before: entry.before,
            after: entry.after,
        }
    }
}
