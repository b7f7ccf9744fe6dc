//! What a person's connections were, for whoever accounts for them.

use std::net::IpAddr;

use chrono::{DateTime, NaiveDate, Utc};
use diesel::QueryResult;
use diesel_async::AsyncPgConnection;
use shared::ids::{ConnectionId, UserId};

use super::store;

/// A connection, live or ended. Its addresses are those inside the tunnel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PastConnection {
    pub id: ConnectionId,
    /// The server's hostname, while there is such a server.
    pub server: Option<String>,
    pub status: String,
    pub end_reason: Option<String>,
    pub public_key: String,
    pub address: Option<IpAddr>,
    pub address_v6: Option<IpAddr>,
    /// What the client uploaded.
    pub bytes_sent: u64,
    pub bytes_received: u64,
    pub last_handshake: Option<DateTime<Utc>>,
    pub started_at: DateTime<Utc>,
    pub ended_at: Option<DateTime<Utc>>,
}

/// The person's connections, the newest first.
pub async fn history(
    connection: &mut AsyncPgConnection,
    user: UserId,
    limit: i64,
) -> QueryResult<Vec<PastConnection>> {
    store::history(connection, user, limit).await
}

/// What a person used of a quota in a month of UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuotaMonth {
    /// Its first day.
    pub month: NaiveDate,
    /// What counted, while the plan had a quota.
    pub used: u64,
    /// Of the plan, in the month that is now.
    pub quota: Option<u64>,
}

/// The months that have one of the days from the first to the last.
pub async fn quota_months(
    connection: &mut AsyncPgConnection,
    user: UserId,
    days: (NaiveDate, NaiveDate),
) -> QueryResult<Vec<QuotaMonth>> {
    store::months(connection, user, days).await
}
