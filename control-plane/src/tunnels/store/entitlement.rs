//! What a person may do at this moment: account, plan, device and live connections in one read.

use chrono::{DateTime, Utc};
use diesel::QueryableByName;
use diesel::sql_types::{Bool, Int2, Int4, Nullable, Text, Timestamptz, Uuid as SqlUuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use shared::ids::{ConnectionId, DeviceId, ServerId, UserId};
use shared::wireguard::PublicKey;
use uuid::Uuid;

use super::{corrupt, key_from_row};
use crate::db::statement;
use crate::tunnels::model::Status;

/// A person's rights and what they use of them.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::tunnels) struct Entitlement {
    pub(in crate::tunnels) is_active: bool,
    pub(in crate::tunnels) max_connections: i32,
    /// Servers up to this tier.
    pub(in crate::tunnels) tier: i16,
    /// When what was paid for ends.
    pub(in crate::tunnels) ends_at: Option<DateTime<Utc>>,
    /// The key of the device that was asked for, if it is theirs.
    pub(in crate::tunnels) device_key: Option<PublicKey>,
    pub(in crate::tunnels) live: Vec<LiveConnection>,
}

/// A connection that occupies one of the plan's places.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::tunnels) struct LiveConnection {
    pub(in crate::tunnels) id: ConnectionId,
    pub(in crate::tunnels) server: Option<ServerId>,
    pub(in crate::tunnels) status: Status,
    pub(in crate::tunnels) public_key: PublicKey,
    pub(in crate::tunnels) idempotency_key: Option<String>,
    /// False once another connection is about to take over.
    pub(in crate::tunnels) holds_place: bool,
    /// It stands ready in place of the one that it supersedes; its client has not used it.
    pub(in crate::tunnels) is_offer: bool,
    pub(in crate::tunnels) supersedes: Option<ConnectionId>,
}

#[derive(QueryableByName)]
struct Row {
    #[diesel(sql_type = Bool)]
    is_active: bool,
    #[diesel(sql_type = Int4)]
    max_connections: i32,
    #[diesel(sql_type = Int2)]
    tier: i16,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    ends_at: Option<DateTime<Utc>>,
    #[diesel(sql_type = Nullable<Text>)]
    device_key: Option<String>,
    #[diesel(sql_type = Nullable<SqlUuid>)]
    connection: Option<Uuid>,
    #[diesel(sql_type = Nullable<SqlUuid>)]
    server: Option<Uuid>,
    #[diesel(sql_type = Nullable<Text>)]
    status: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    public_key: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    idempotency_key: Option<String>,
    #[diesel(sql_type = Bool)]
    holds_place: bool,
    #[diesel(sql_type = Bool)]
    is_offer: bool,
    #[diesel(sql_type = Nullable<SqlUuid>)]
    supersedes: Option<Uuid>,
}

/// None for somebody who no longer exists. Whose paid time is over has the free plan's rights.
pub(in crate::tunnels) async fn entitlement(
    conn: &mut AsyncPgConnection,
    user: UserId,
    device: Option<DeviceId>,
) -> diesel::QueryResult<Option<Entitlement>> {
    const SQL: &str = "
        SELECT u.is_active, p.max_connections, p.tier, s.end_date AS ends_at, d.public_key AS device_key,
               c.id AS connection, c.server_id AS server, c.status, c.client_public_key AS public_key,
               c.idempotency_key, c.user_slot IS NOT NULL AS holds_place,
               c.offered_until IS NOT NULL AS is_offer, c.supersedes
          FROM users u
          LEFT JOIN subscriptions s ON s.user_id = u.id AND s.status <> 'canceled'
                AND (s.end_date IS NULL OR s.end_date > now())
          JOIN plans p ON p.id = coalesce(s.plan_id, 'free')
          LEFT JOIN devices d ON d.id = $2 AND d.user_id = u.id
          LEFT JOIN connections c ON c.user_id = u.id AND c.status IN ('connecting', 'connected')
         WHERE u.id = $1";
    let rows: Vec<Row> = statement(SQL)
        .bind::<SqlUuid, _>(user.0)
        .bind::<Nullable<SqlUuid>, _>(device.map(|device| device.0))
        .load(conn)
        .await?;
    let [first, ..] = rows.as_slice() else {
        return Ok(None);
    };
    Ok(Some(Entitlement {
        is_active: first.is_active,
        max_connections: first.max_connections,
        tier: first.tier,
        ends_at: first.ends_at,
        device_key: first.device_key.as_deref().map(key_from_row).transpose()?,
        live: rows
            .iter()
            .filter_map(|row| live_connection(row).transpose())
            .collect::<Result<_, _>>()?,
    }))
}

fn live_connection(row: &Row) -> diesel::QueryResult<Option<LiveConnection>> {
    let (Some(id), Some(status), Some(public_key)) = (row.connection, &row.status, &row.public_key)
    else {
        return Ok(None);
    };
    Ok(Some(LiveConnection {
        id: ConnectionId(id),
        server: row.server.map(ServerId),
        status: Status::parse(status).ok_or_else(|| corrupt("an unknown connection status"))?,
        public_key: key_from_row(public_key)?,
        idempotency_key: row.idempotency_key.clone(),
        holds_place: row.holds_place,
        is_offer: row.is_offer,
        supersedes: row.supersedes.map(ConnectionId),
    }))
}
