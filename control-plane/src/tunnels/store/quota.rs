//! Plans' limits and shares of quotas, as the rows have them.
//!
//! Sharing is optimistic: whoever shares a person's quota out read `quota_shares.version` and writes the
//! next. A statement takes that row first, then nodes, then connections, each in the order of their ids,
//! and `quota_usage` last of these.

use std::collections::BTreeMap;

use chrono::{DateTime, NaiveDate, Utc};
use diesel::QueryableByName;
use diesel::sql_types::{
    Array, BigInt, Bool, Date, Integer, Nullable, SmallInt, Text, Timestamptz, Uuid as SqlUuid,
};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use shared::ids::{ConnectionId, ServerId, UserId};
use uuid::Uuid;

use crate::db::statement;
use crate::tunnels::bounds::{Bounds, Spot};
use crate::tunnels::quota::shares::{Lease, Quota};
use crate::usage::ledger::{from_row, to_row};

/// Live connections with what their people may use, and the tier of their servers.
macro_rules! live_sql {
    () => {
        " FROM connections c JOIN entitlements p ON p.user_id = c.user_id
          LEFT JOIN vpn_servers v ON v.id = c.server_id "
    };
}

/// Of the month that is now: its name, the quota, what is used of it, what those that end may still
/// use, and how it was shared last. A connection whose client never got an answer cannot be used: it
/// has no key.
macro_rules! quota_columns {
    ($user:literal) => {
        concat!(
            " p.download_mbps, p.upload_mbps, p.quota_bytes,
              date_trunc('month', now() AT TIME ZONE 'UTC')::date AS month,
              CASE WHEN p.quota_bytes IS NOT NULL THEN coalesce((SELECT consumed FROM quota_usage q
                    WHERE q.user_id = ", $user, " AND q.month = date_trunc('month', now() AT TIME ZONE 'UTC')::date), 0)
                   ELSE 0 END AS used,
              CASE WHEN p.quota_bytes IS NOT NULL THEN coalesce((
                    SELECT sum(greatest(d.allowance_held - d.consumed, 0)) FROM connections d
                     WHERE d.user_id = ", $user, " AND d.status = 'disconnecting' AND d.connected_at IS NOT NULL
                       AND d.allowance_held < 9223372036854775807), 0)::bigint
                   ELSE 0 END AS pinned,
              coalesce((SELECT version FROM quota_shares z WHERE z.user_id = ", $user, "), 0) AS version "
        )
    };
}
pub(super) use quota_columns;

/// What a plan allows on a node, in bits a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in crate::tunnels) struct Rates {
    pub(in crate::tunnels) download: Option<u64>,
    pub(in crate::tunnels) upload: Option<u64>,
}

impl Rates {
    /// From the megabits a second of a plan.
    pub(super) fn of_plan(download: Option<i32>, upload: Option<i32>) -> Self {
        let bits = |mbps: Option<i32>| mbps.map(|it| u64::from(it.unsigned_abs()) * 1_000_000);
        Self {
            download: bits(download),
            upload: bits(upload),
        }
    }
}

/// Somebody's plan and what is live under it.
#[derive(Debug, Clone)]
pub(in crate::tunnels) struct Account {
    pub(in crate::tunnels) user: UserId,
    pub(in crate::tunnels) rates: Rates,
    pub(in crate::tunnels) quota: Option<Quota>,
    /// What connections that end may still use.
    pub(in crate::tunnels) pinned: u64,
    pub(in crate::tunnels) stamp: Stamp,
    pub(in crate::tunnels) bounds: Bounds,
    pub(in crate::tunnels) live: Vec<Limited>,
}

/// How it was when it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::tunnels) struct Stamp {
    pub(in crate::tunnels) version: i64,
    pub(in crate::tunnels) month: NaiveDate,
    /// Zero where there is no quota.
    pub(in crate::tunnels) quota: u64,
}

/// A live connection and its limits as they stand.
#[derive(Debug, Clone, Copy)]
pub(in crate::tunnels) struct Limited {
    pub(in crate::tunnels) connection: ConnectionId,
    pub(in crate::tunnels) rates: Rates,
    pub(in crate::tunnels) lease: Option<Lease>,
    pub(in crate::tunnels) consumed: u64,
    pub(in crate::tunnels) expires_at: Option<DateTime<Utc>>,
    pub(in crate::tunnels) spot: Spot,
}

/// What a connection's limits shall be.
#[derive(Debug, Clone, Copy)]
pub(in crate::tunnels) struct Desired {
    pub(in crate::tunnels) connection: ConnectionId,
    pub(in crate::tunnels) user: UserId,
    pub(in crate::tunnels) rates: Rates,
    pub(in crate::tunnels) lease: Option<Lease>,
    pub(in crate::tunnels) expires_at: Option<DateTime<Utc>>,
    /// Whether the node has to know. What it holds already is not sent again.
    pub(in crate::tunnels) is_news: bool,
}

#[derive(QueryableByName)]
struct Row {
    #[diesel(sql_type = SqlUuid)]
    user_id: Uuid,
    #[diesel(sql_type = Nullable<Integer>)]
    download_mbps: Option<i32>,
    #[diesel(sql_type = Nullable<Integer>)]
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
    #[diesel(sql_type = SqlUuid)]
    id: Uuid,
    #[diesel(sql_type = Nullable<BigInt>)]
    download_bps: Option<i64>,
    #[diesel(sql_type = Nullable<BigInt>)]
    upload_bps: Option<i64>,
    #[diesel(sql_type = Nullable<BigInt>)]
    allowance: Option<i64>,
    #[diesel(sql_type = Nullable<BigInt>)]
    allowance_held: Option<i64>,
    #[diesel(sql_type = Nullable<BigInt>)]
    share_at: Option<i64>,
    #[diesel(sql_type = BigInt)]
    consumed: i64,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    expires_at: Option<DateTime<Utc>>,
    #[diesel(sql_type = SmallInt)]
    tier: i16,
    #[diesel(sql_type = SmallInt)]
    lasting_tier: i16,
    #[diesel(sql_type = Integer)]
    max_connections: i32,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    ends_at: Option<DateTime<Utc>>,
    #[diesel(sql_type = Nullable<SmallInt>)]
    server_tier: Option<i16>,
    #[diesel(sql_type = Nullable<SmallInt>)]
    user_slot: Option<i16>,
    #[diesel(sql_type = Nullable<SqlUuid>)]
    offered_for: Option<Uuid>,
}

impl Row {
    fn account(&self) -> Account {
        Account {
            user: UserId(self.user_id),
            rates: Rates::of_plan(self.download_mbps, self.upload_mbps),
            quota: self.quota_bytes.map(|bytes| Quota {
                bytes: from_row(bytes),
                used: from_row(self.used),
            }),
            pinned: from_row(self.pinned),
            stamp: Stamp {
                version: self.version,
                month: self.month,
                quota: self.quota_bytes.map_or(0, from_row),
            },
            bounds: Bounds {
                tier: self.tier,
                lasting_tier: self.lasting_tier,
                max_connections: self.max_connections,
                ends_at: self.ends_at,
            },
            live: Vec::new(),
        }
    }

    fn limited(&self) -> Limited {
        let consumed = from_row(self.consumed);
        let leased = self.allowance.zip(self.allowance_held).zip(self.share_at);
        Limited {
            connection: ConnectionId(self.id),
            rates: Rates {
                download: self.download_bps.map(from_row),
                upload: self.upload_bps.map(from_row),
            },
            lease: leased.map(|((allowance, held), share_at)| Lease {
                consumed,
                allowance: from_row(allowance),
                held: from_row(held),
                share_at: from_row(share_at),
            }),
            consumed,
            expires_at: self.expires_at,
            spot: Spot {
                connection: ConnectionId(self.id),
                tier: self.server_tier,
                place: self.user_slot,
                offered_for: self.offered_for.map(ConnectionId),
            },
        }
    }
}

/// These people's plans and live connections; who has none is not in it.
pub(in crate::tunnels) async fn accounts(
    conn: &mut AsyncPgConnection,
    users: &[UserId],
) -> diesel::QueryResult<Vec<Account>> {
    const SQL: &str = concat!(
        "SELECT c.user_id, c.id, c.download_bps, c.upload_bps, c.allowance, c.allowance_held, c.share_at, c.consumed,
                c.expires_at, p.tier, p.lasting_tier, p.max_connections, p.ends_at, v.tier AS server_tier, c.user_slot,
                CASE WHEN c.offered_until IS NOT NULL THEN c.supersedes END AS offered_for,",
        quota_columns!("c.user_id"),
        live_sql!(),
        "WHERE c.user_id = ANY ($1) AND c.status IN ('connecting', 'connected') ORDER BY c.id"
    );
    let users: Vec<Uuid> = users.iter().map(|user| user.0).collect();
    let rows: Vec<Row> = statement(SQL)
        .bind::<Array<SqlUuid>, _>(users)
        .load(conn)
        .await?;
    let mut accounts = BTreeMap::new();
    for row in rows {
        let account = accounts.entry(row.user_id).or_insert_with(|| row.account());
        account.live.push(row.limited());
    }
    Ok(accounts.into_values().collect())
}

/// People whose live connections have other limits or another end than their plans, or no place there any
/// more, or whose quota is to be shared anew. Nobody while another replica asks.
pub(in crate::tunnels) async fn out_of_step(
    conn: &mut AsyncPgConnection,
    limit: i32,
) -> diesel::QueryResult<Vec<UserId>> {
    const SQL: &str = concat!(
        "SELECT DISTINCT c.user_id",
        live_sql!(),
        "LEFT JOIN quota_shares z ON z.user_id = c.user_id
         WHERE c.status IN ('connecting', 'connected') AND (
               c.download_bps IS DISTINCT FROM p.download_mbps * 1000000::bigint
            OR c.upload_bps IS DISTINCT FROM p.upload_mbps * 1000000::bigint
            OR v.tier > p.tier OR c.user_slot > p.max_connections
            OR (c.expires_at > now()) IS NOT FALSE
               AND c.expires_at IS DISTINCT FROM CASE WHEN v.tier > p.lasting_tier THEN p.ends_at END
            OR CASE WHEN p.quota_bytes IS NULL THEN c.allowance < 9223372036854775807
                    ELSE c.allowance IS NULL OR c.allowance = 9223372036854775807 OR c.consumed >= c.share_at
                      OR z.month IS DISTINCT FROM date_trunc('month', now() AT TIME ZONE 'UTC')::date
                      OR z.quota_bytes IS DISTINCT FROM p.quota_bytes END)
           AND (SELECT pg_try_advisory_xact_lock(4152033207188651107)) LIMIT $1"
    );
    let rows: Vec<UserRow> = statement(SQL).bind::<Integer, _>(limit).load(conn).await?;
    Ok(rows.into_iter().map(|row| UserId(row.user_id)).collect())
}

/// People past `after`, by id, who have this plan and a live connection.
pub(in crate::tunnels) async fn live_under(
    conn: &mut AsyncPgConnection,
    plan: &str,
    after: Uuid,
    limit: i32,
) -> diesel::QueryResult<Vec<UserId>> {
    const SQL: &str = concat!(
        "SELECT DISTINCT c.user_id",
        live_sql!(),
        "WHERE c.status IN ('connecting', 'connected') AND p.plan_id = $1 AND c.user_id > $2
         ORDER BY c.user_id LIMIT $3"
    );
    let rows: Vec<UserRow> = statement(SQL)
        .bind::<Text, _>(plan)
        .bind::<SqlUuid, _>(after)
        .bind::<Integer, _>(limit)
        .load(conn)
        .await?;
    Ok(rows.into_iter().map(|row| UserId(row.user_id)).collect())
}

#[derive(QueryableByName)]
struct UserRow {
    #[diesel(sql_type = SqlUuid)]
    user_id: Uuid,
}

/// Writes the limits of those whose version still stands, and bumps the nodes' revisions where a node
/// has to know. Says for whom it was done, with the nodes to be told.
pub(in crate::tunnels) async fn write_limits(
    conn: &mut AsyncPgConnection,
    stamps: &[(UserId, Stamp)],
    desired: &[Desired],
) -> diesel::QueryResult<Vec<(UserId, Option<ServerId>)>> {
    const SQL: &str = "
        WITH won AS (
            INSERT INTO quota_shares AS z (user_id, version, month, quota_bytes)
            SELECT d.user_id, d.version + 1, d.month, d.quota
              FROM unnest($1, $2, $3, $4) AS d (user_id, version, month, quota) ORDER BY d.user_id
                ON CONFLICT (user_id) DO UPDATE
               SET version = excluded.version, month = excluded.month, quota_bytes = excluded.quota_bytes
             WHERE z.version = excluded.version - 1
         RETURNING z.user_id
        ), desired AS (
            SELECT d.* FROM unnest($5, $6, $7, $8, $9, $10, $11, $12)
                AS d (id, user_id, download, upload, allowance, share_at, is_news, expires_at) JOIN won USING (user_id)
        ), locked AS (
            SELECT server_id FROM nodes
             WHERE server_id IN (SELECT c.server_id FROM connections c JOIN desired d ON d.id = c.id WHERE d.is_news)
             ORDER BY server_id FOR NO KEY UPDATE
        ), mine AS (
            SELECT c.id, c.server_id, d.user_id, d.download, d.upload, d.allowance, d.share_at, d.is_news, d.expires_at
              FROM connections c JOIN desired d ON d.id = c.id
             WHERE c.status IN ('connecting', 'connected') AND (SELECT count(*) FROM locked) >= 0
             ORDER BY c.id FOR NO KEY UPDATE OF c
        ), numbered AS (
            SELECT mine.*, row_number() OVER (PARTITION BY server_id, is_news ORDER BY id) AS n FROM mine
        ), rev AS (
            UPDATE nodes SET desired_revision = desired_revision + k.n
              FROM (SELECT server_id, max(n) AS n FROM numbered WHERE is_news GROUP BY server_id) k
             WHERE nodes.server_id = k.server_id
         RETURNING nodes.server_id, nodes.desired_revision - k.n AS before
        ), written AS (
            UPDATE connections c
               SET download_bps = m.download, upload_bps = m.upload, allowance = m.allowance, share_at = m.share_at,
                   expires_at = m.expires_at,
                   allowance_held = CASE
                       WHEN m.allowance IS NULL THEN NULL
                       WHEN c.allowance IS NOT DISTINCT FROM m.allowance THEN c.allowance_held
                       WHEN c.allowance_held IS NULL OR c.allowance_held = 9223372036854775807 THEN m.allowance
                       ELSE greatest(c.allowance_held, m.allowance) END,
                   revision = CASE WHEN m.is_news THEN rev.before + m.n ELSE c.revision END
              FROM numbered m LEFT JOIN rev ON rev.server_id = m.server_id
             WHERE c.id = m.id AND (rev.server_id IS NOT NULL OR NOT m.is_news)
         RETURNING m.user_id, c.server_id, m.is_news
        )
        SELECT DISTINCT won.user_id, w.server_id
          FROM won LEFT JOIN written w ON w.user_id = won.user_id AND w.is_news";

    #[derive(QueryableByName)]
    struct Row {
        #[diesel(sql_type = SqlUuid)]
        user_id: Uuid,
        #[diesel(sql_type = Nullable<SqlUuid>)]
        server_id: Option<Uuid>,
    }

    fn column<S, T>(rows: &[S], value: impl Fn(&S) -> T) -> Vec<T> {
        rows.iter().map(value).collect()
    }
    let bits = |rate: Option<u64>| rate.map(to_row);
    let rows: Vec<Row> = statement(SQL)
        .bind::<Array<SqlUuid>, _>(column(stamps, |(user, _)| user.0))
        .bind::<Array<BigInt>, _>(column(stamps, |(_, stamp)| stamp.version))
        .bind::<Array<Date>, _>(column(stamps, |(_, stamp)| stamp.month))
        .bind::<Array<BigInt>, _>(column(stamps, |(_, stamp)| to_row(stamp.quota)))
        .bind::<Array<SqlUuid>, _>(column(desired, |it| it.connection.0))
        .bind::<Array<SqlUuid>, _>(column(desired, |it| it.user.0))
        .bind::<Array<Nullable<BigInt>>, _>(column(desired, |it| bits(it.rates.download)))
        .bind::<Array<Nullable<BigInt>>, _>(column(desired, |it| bits(it.rates.upload)))
        .bind::<Array<Nullable<BigInt>>, _>(column(desired, |it| {
            it.lease.map(|lease| to_row(lease.allowance))
        }))
        .bind::<Array<Nullable<BigInt>>, _>(column(desired, |it| {
            it.lease.map(|lease| to_row(lease.share_at))
        }))
        .bind::<Array<Bool>, _>(column(desired, |it| it.is_news))
        .bind::<Array<Nullable<Timestamptz>>, _>(column(desired, |it| it.expires_at))
        .load(conn)
        .await?;
    Ok(rows
        .into_iter()
        .map(|row| (UserId(row.user_id), row.server_id.map(ServerId)))
        .collect())
}
