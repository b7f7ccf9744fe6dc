//! Connections as their owner sees them.

use std::collections::HashMap;
use std::ops::Range;

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel::sql_types::{Array, BigInt, Uuid as SqlUuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use ipnet::IpNet;
use shared::ids::{ConnectionId, Generation, PeerId, ServerId, UserId};
use uuid::Uuid;

use super::{addresses_from_row, corrupt, key_from_row};
use crate::db::schema::{connections, vpn_servers};
use crate::db::statement;
use crate::tunnels::history::PastConnection;
use crate::tunnels::model::{Connection, ServerSummary, Status};
use crate::usage::ledger::{Ledger, from_row};

#[derive(Queryable, Selectable)]
#[diesel(table_name = connections, check_for_backend(diesel::pg::Pg))]
struct Row {
    id: Uuid,
    user_id: Uuid,
    status: String,
    end_reason: Option<String>,
    client_public_key: String,
    client_ip: Option<IpNet>,
    client_ipv6: Option<IpNet>,
    peer_id: i64,
    bytes_sent: i64,
    bytes_received: i64,
    counter_generation: i64,
    generation_sent: i64,
    generation_received: i64,
    peak_bytes_per_second: i64,
    last_handshake_at: Option<DateTime<Utc>>,
    round_trip_us: Option<i32>,
    expires_at: Option<DateTime<Utc>>,
    started_at: DateTime<Utc>,
    ended_at: Option<DateTime<Utc>>,
    sealed_psk: Option<Vec<u8>>,
}

#[derive(Queryable, Selectable)]
#[diesel(table_name = vpn_servers, check_for_backend(diesel::pg::Pg))]
// A server that connections are on has enrolled, and so has all of these.
struct ServerRow {
    id: Uuid,
    hostname: String,
    #[diesel(select_expression = vpn_servers::ip_address.assume_not_null())]
    ip_address: IpNet,
    location: String,
    #[diesel(select_expression = vpn_servers::endpoint.assume_not_null())]
    endpoint: String,
    #[diesel(select_expression = vpn_servers::public_key.assume_not_null())]
    public_key: String,
}

/// The connection, if it is this user's.
pub(in crate::tunnels) async fn by_id(
    conn: &mut AsyncPgConnection,
    user: UserId,
    connection: ConnectionId,
) -> QueryResult<Option<Connection>> {
    connections::table
        .left_join(vpn_servers::table)
        .filter(connections::id.eq(connection.0))
        .filter(connections::user_id.eq(user.0))
        .select((Row::as_select(), Option::<ServerRow>::as_select()))
        .first(conn)
        .await
        .optional()?
        .map(from_rows)
        .transpose()
}

/// The user's live connections, newest first. What is only offered in place of one of them is left out.
pub(in crate::tunnels) async fn live_of(
    conn: &mut AsyncPgConnection,
    user: UserId,
) -> QueryResult<Vec<Connection>> {
    connections::table
        .left_join(vpn_servers::table)
        .filter(connections::user_id.eq(user.0))
        // As the partial index says it, so that it is used.
        .filter(diesel::dsl::sql::<diesel::sql_types::Bool>(
            "connections.status IN ('connecting', 'connected')",
        ))
        .filter(
            connections::offered_until
                .is_null()
                .or(connections::user_slot.is_not_null()),
        )
        .order(connections::started_at.desc())
        .select((Row::as_select(), Option::<ServerRow>::as_select()))
        .load(conn)
        .await?
        .into_iter()
        .map(from_rows)
        .collect()
}

/// One page of the user's connections that were there at some moment of these times, the newest first, and
/// how many they are. One that no client could use is none.
pub(in crate::tunnels) async fn used_in(
    conn: &mut AsyncPgConnection,
    user: UserId,
    times: Range<DateTime<Utc>>,
    (offset, limit): (i64, i64),
) -> QueryResult<(Vec<Connection>, u64)> {
    let used = || {
        connections::table
            .left_join(vpn_servers::table)
            .filter(connections::user_id.eq(user.0))
            .filter(connections::connected_at.is_not_null())
            .filter(connections::offered_until.is_null())
            .filter(connections::started_at.lt(times.end))
            .filter(
                connections::ended_at
                    .is_null()
                    .or(connections::ended_at.ge(times.start)),
            )
    };
    let total: i64 = used().count().get_result(conn).await?;
    let page: QueryResult<Vec<_>> = used()
        .order((connections::started_at.desc(), connections::id.desc()))
        .offset(offset)
        .limit(limit)
        .select((Row::as_select(), Option::<ServerRow>::as_select()))
        .load(conn)
        .await?
        .into_iter()
        .map(from_rows)
        .collect();
    Ok((page?, from_row(total)))
}

/// The user's connections, live and ended, the newest first.
pub(in crate::tunnels) async fn history(
    conn: &mut AsyncPgConnection,
    user: UserId,
    limit: i64,
) -> QueryResult<Vec<PastConnection>> {
    let rows: Vec<(Row, Option<String>)> = connections::table
        .left_join(vpn_servers::table)
        .filter(connections::user_id.eq(user.0))
        .order(connections::started_at.desc())
        .limit(limit)
        .select((Row::as_select(), vpn_servers::hostname.nullable()))
        .load(conn)
        .await?;
    Ok(rows
        .into_iter()
        .map(|(row, server)| PastConnection {
            id: ConnectionId(row.id),
            server,
            status: row.status,
            end_reason: row.end_reason,
            public_key: row.client_public_key,
            address: row.client_ip.map(|net| net.addr()),
            address_v6: row.client_ipv6.map(|net| net.addr()),
            bytes_sent: from_row(row.bytes_sent),
            bytes_received: from_row(row.bytes_received),
            last_handshake: row.last_handshake_at,
            started_at: row.started_at,
            ended_at: row.ended_at,
        })
        .collect())
}

/// What a person used of the month's quota.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MonthUsed {
    pub quota: u64,
    /// As far as nodes reported it.
    pub used: u64,
}

/// What these people used of this month's quota; of those whose plan has one.
pub(in crate::tunnels) async fn months_used(
    conn: &mut AsyncPgConnection,
    users: &[UserId],
) -> QueryResult<HashMap<UserId, MonthUsed>> {
    const SQL: &str = "
        SELECT e.user_id, e.quota_bytes AS quota, coalesce(q.consumed, 0) AS used
          FROM entitlements e
          LEFT JOIN quota_usage q ON q.user_id = e.user_id
                AND q.month = date_trunc('month', now() AT TIME ZONE 'UTC')::date
         WHERE e.user_id = ANY ($1) AND e.quota_bytes IS NOT NULL";

    #[derive(QueryableByName)]
    struct Month {
        #[diesel(sql_type = SqlUuid)]
        user_id: Uuid,
        #[diesel(sql_type = BigInt)]
        quota: i64,
        #[diesel(sql_type = BigInt)]
        used: i64,
    }

    let ids: Vec<Uuid> = users.iter().map(|user| user.0).collect();
    let read = statement(SQL).bind::<Array<SqlUuid>, _>(ids);
    let months: Vec<Month> = read.load(conn).await?;
    let months = months.into_iter().map(|month| {
        let used = MonthUsed {
            quota: from_row(month.quota),
            used: from_row(month.used),
        };
        (UserId(month.user_id), used)
    });
    Ok(months.collect())
}

/// How many connections there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LiveCount {
    pub connecting: u64,
    pub connected: u64,
}

/// How many are live, by the partial index of their addresses and keys.
pub async fn count_live(conn: &mut AsyncPgConnection) -> QueryResult<LiveCount> {
    const SQL: &str = "
        SELECT count(*) FILTER (WHERE status = 'connecting') AS connecting,
               count(*) FILTER (WHERE status = 'connected') AS connected
          FROM connections WHERE status IN ('connecting', 'connected')";

    #[derive(QueryableByName)]
    struct Counts {
        #[diesel(sql_type = BigInt)]
        connecting: i64,
        #[diesel(sql_type = BigInt)]
        connected: i64,
    }

    let counts: Counts = statement(SQL).get_result(conn).await?;
    Ok(LiveCount {
        connecting: from_row(counts.connecting),
        connected: from_row(counts.connected),
    })
}

fn from_rows((row, server): (Row, Option<ServerRow>)) -> QueryResult<Connection> {
    let generation =
        u32::try_from(row.counter_generation).map_err(|_| corrupt("a counter generation"))?;
    Ok(Connection {
        id: ConnectionId(row.id),
        user: UserId(row.user_id),
        server: server.map(server_from_row).transpose()?,
        peer: PeerId(from_row(row.peer_id)),
        status: Status::parse(&row.status).ok_or_else(|| corrupt("a connection status"))?,
        end_reason: row.end_reason,
        public_key: key_from_row(&row.client_public_key)?,
        sealed_psk: row.sealed_psk,
        addresses: addresses_from_row(row.client_ip, row.client_ipv6),
        ledger: Ledger {
            sent: from_row(row.bytes_sent),
            received: from_row(row.bytes_received),
            generation: Generation(generation),
            generation_sent: from_row(row.generation_sent),
            generation_received: from_row(row.generation_received),
        },
        peak_bytes_per_second: from_row(row.peak_bytes_per_second),
        last_handshake: row.last_handshake_at,
        round_trip_us: row.round_trip_us.and_then(|it| u32::try_from(it).ok()),
        expires_at: row.expires_at,
        started_at: row.started_at,
        ended_at: row.ended_at,
    })
}

fn server_from_row(row: ServerRow) -> QueryResult<ServerSummary> {
    Ok(ServerSummary {
        id: ServerId(row.id),
        hostname: row.hostname,
        ip_address: row.ip_address.addr(),
        location: row.location,
        endpoint: row.endpoint,
        public_key: key_from_row(&row.public_key)?,
    })
}
