//! What the plane's database says of the connections.

use chrono::{DateTime, Utc};
use diesel::QueryableByName;
use diesel::sql_types::{BigInt, Nullable, Text, Timestamptz, Uuid as SqlUuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use shared::ids::{ConnectionId, ServerId};
use uuid::Uuid;

use super::audit::{Booked, Bytes};

/// A connection.
#[derive(Debug, Clone, QueryableByName)]
pub(super) struct Row {
    #[diesel(sql_type = SqlUuid)]
    id: Uuid,
    #[diesel(sql_type = SqlUuid)]
    server_id: Uuid,
    #[diesel(sql_type = Text)]
    pub(super) status: String,
    #[diesel(sql_type = Nullable<Text>)]
    pub(super) end_reason: Option<String>,
    #[diesel(sql_type = Text)]
    client_public_key: String,
    /// With its prefix length.
    #[diesel(sql_type = Nullable<Text>)]
    address: Option<String>,
    #[diesel(sql_type = BigInt)]
    bytes_sent: i64,
    #[diesel(sql_type = BigInt)]
    bytes_received: i64,
    #[diesel(sql_type = Timestamptz)]
    started_at: DateTime<Utc>,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    connected_at: Option<DateTime<Utc>>,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    ended_at: Option<DateTime<Utc>>,
}

impl Row {
    pub(super) fn id(&self) -> ConnectionId {
        ConnectionId(self.id)
    }

    pub(super) fn is_live(&self) -> bool {
        self.ended_at.is_none()
    }

    /// None for one that a node never had. `known` is the address that its client was given.
    pub(super) fn booked(&self, servers: &[ServerId], known: Option<&str>) -> Option<Booked> {
        let node = servers.iter().position(|it| it.0 == self.server_id)?;
        let key = self.client_public_key.parse().expect("a key");
        let address = self.address.as_deref().or(known)?;
        let bytes = |count: i64| u64::try_from(count).unwrap_or(0);
        Some(Booked {
            name: format!("{} ({})", self.id, self.status),
            tunnel: (node, address.to_owned(), key),
            started_at: self.started_at,
            connected_at: self.connected_at,
            ended_at: self.ended_at,
            bytes: Bytes {
                sent: bytes(self.bytes_sent),
                received: bytes(self.bytes_received),
            },
        })
    }
}

/// All of them.
pub(super) async fn read(database: &mut AsyncPgConnection) -> diesel::QueryResult<Vec<Row>> {
    diesel::sql_query(
        "SELECT id, server_id, status, end_reason, client_public_key,
                host(client_ip) || '/32' AS address, bytes_sent, bytes_received, started_at,
                connected_at, ended_at
           FROM connections ORDER BY started_at",
    )
    .load(database)
    .await
}

#[derive(QueryableByName)]
struct Shared {
    #[diesel(sql_type = Text)]
    address: String,
}

/// Addresses that several live connections of a node have at this moment.
pub(super) async fn shared(database: &mut AsyncPgConnection) -> diesel::QueryResult<Vec<String>> {
    let rows: Vec<Shared> = diesel::sql_query(
        "SELECT host(address) AS address FROM (
            SELECT server_id, client_ip AS address FROM connections WHERE status IN ('connecting', 'connected')
            UNION ALL
            SELECT server_id, client_ipv6 FROM connections WHERE status IN ('connecting', 'connected')
         ) live WHERE address IS NOT NULL GROUP BY server_id, address HAVING count(*) > 1",
    )
    .load(database)
    .await?;
    Ok(rows.into_iter().map(|row| row.address).collect())
}

#[derive(QueryableByName)]
struct Server {
    #[diesel(sql_type = SqlUuid)]
    id: Uuid,
}

/// The servers in the order of their host names.
pub(super) async fn servers(database: &mut AsyncPgConnection) -> Vec<ServerId> {
    let rows: Vec<Server> = diesel::sql_query("SELECT id FROM vpn_servers ORDER BY hostname")
        .load(database)
        .await
        .expect("the servers");
    rows.into_iter().map(|row| ServerId(row.id)).collect()
}
