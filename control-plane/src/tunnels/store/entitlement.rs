//! What a person may do at this moment: account, plan, device and live connections in one read.

use chrono::{DateTime, NaiveDate, Utc};
use diesel::QueryableByName;
use diesel::sql_types::{
    BigInt, Bool, Date, Int2, Int4, Nullable, Text, Timestamptz, Uuid as SqlUuid,
};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use shared::ids::{ConnectionId, DeviceId, ServerId, UserId};
use shared::wireguard::PublicKey;
use uuid::Uuid;

use super::quota::{Rates, Stamp, quota_columns};
use super::{corrupt, key_from_row};
use crate::db::statement;
use crate::tunnels::bounds::Bounds;
use crate::tunnels::model::Status;
use crate::tunnels::quota::shares::{Quota, UNLIMITED};
use crate::usage::ledger::from_row;

/// A person's rights and what they use of them.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::tunnels) struct Entitlement {
    pub(in crate::tunnels) is_active: bool,
    pub(in crate::tunnels) bounds: Bounds,
    /// The key of the device that was asked for, if it is theirs.
    pub(in crate::tunnels) device_key: Option<PublicKey>,
    pub(in crate::tunnels) rates: Rates,
    pub(in crate::tunnels) quota: Option<MonthlyQuota>,
    pub(in crate::tunnels) live: Vec<LiveConnection>,
}

/// A quota in this month.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::tunnels) struct MonthlyQuota {
    pub(in crate::tunnels) quota: Quota,
    /// What connections that are there may still use of it.
    pub(in crate::tunnels) outstanding: u64,
    pub(in crate::tunnels) stamp: Stamp,
}

impl Entitlement {
    /// Whether a node has to limit this person's connections.
    pub(in crate::tunnels) fn is_limited(&self) -> bool {
        self.rates != Rates::default() || self.quota.is_some()
    }
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

impl LiveConnection {
    /// Whether it is the old half of a move.
    pub(in crate::tunnels) const fn is_leaving(&self) -> bool {
        !self.holds_place && !self.is_offer
    }
}

#[derive(QueryableByName)]
struct Row {
    #[diesel(sql_type = Bool)]
    is_active: bool,
    #[diesel(sql_type = Int4)]
    max_connections: i32,
    #[diesel(sql_type = Int2)]
    tier: i16,
    #[diesel(sql_type = Int2)]
    lasting_tier: i16,
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
    #[diesel(sql_type = Nullable<Int4>)]
    download_mbps: Option<i32>,
    #[diesel(sql_type = Nullable<Int4>)]
    upload_mbps: Option<i32>,
    #[diesel(sql_type = Nullable<BigInt>)]
    quota_bytes: Option<i64>,
    #[diesel(sql_type = Date)]
    month: NaiveDate,
    #[diesel(sql_type = BigInt)]
    used: i64,
    #[diesel(sql_type = BigInt)]
    pinned: i64,
    #[diesel(sql_type = BigInt)]
    version: i64,
    #[diesel(sql_type = Nullable<BigInt>)]
    consumed: Option<i64>,
    #[diesel(sql_type = Nullable<BigInt>)]
    allowance_held: Option<i64>,
}

/// None for somebody who no longer exists. Whose paid time is over has the free plan's rights.
pub(in crate::tunnels) async fn entitlement(
    conn: &mut AsyncPgConnection,
    user: UserId,
    device: Option<DeviceId>,
) -> diesel::QueryResult<Option<Entitlement>> {
    const SQL: &str = concat!(
        "SELECT p.is_active, p.max_connections, p.tier, p.lasting_tier, p.ends_at, d.public_key AS device_key,
               c.id AS connection, c.server_id AS server, c.status, c.client_public_key AS public_key,
               c.idempotency_key, c.user_slot IS NOT NULL AS holds_place,
               c.offered_until IS NOT NULL AS is_offer, c.supersedes, c.consumed, c.allowance_held,",
        quota_columns!("p.user_id"),
        "FROM entitlements p
          LEFT JOIN devices d ON d.id = $2 AND d.user_id = p.user_id
          LEFT JOIN connections c ON c.user_id = p.user_id AND c.status IN ('connecting', 'connected')
         WHERE p.user_id = $1"
    );
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
        bounds: Bounds {
            tier: first.tier,
            lasting_tier: first.lasting_tier,
            max_connections: first.max_connections,
            ends_at: first.ends_at,
        },
        device_key: first.device_key.as_deref().map(key_from_row).transpose()?,
        rates: Rates::of_plan(first.download_mbps, first.upload_mbps),
        quota: first.quota_bytes.map(|bytes| monthly(first, bytes, &rows)),
        live: rows
            .iter()
            .filter_map(|row| live_connection(row).transpose())
            .collect::<Result<_, _>>()?,
    }))
}

fn monthly(first: &Row, bytes: i64, rows: &[Row]) -> MonthlyQuota {
    let held = rows.iter().filter_map(|row| {
        let held = from_row(row.allowance_held?);
        // Given without a quota, and so not out of it.
        (held != UNLIMITED).then(|| held.saturating_sub(row.consumed.map_or(0, from_row)))
    });
    MonthlyQuota {
        quota: Quota {
            bytes: from_row(bytes),
            used: from_row(first.used),
        },
        outstanding: held.fold(from_row(first.pinned), u64::saturating_add),
        stamp: Stamp {
            version: first.version,
            month: first.month,
            quota: from_row(bytes),
        },
    }
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
