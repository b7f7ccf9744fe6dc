//! What a person's connections were, for whoever accounts for them.

use std::net::IpAddr;

use chrono::{DateTime, Utc};
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
