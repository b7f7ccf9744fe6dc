//! What was used in each bucket of a period.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use diesel::sql_types::{BigInt, Double, Integer, Nullable, Text, Timestamptz, Uuid as SqlUuid};
use diesel::{QueryResult, QueryableByName};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use uuid::Uuid;

use super::{of_servers, of_users, summed};
use crate::analytics::asked::Scope;
use crate::analytics::period::{Interval, Period};
use crate::db::statement;
use crate::usage::ledger::from_row;

/// What was used in a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sums {
    pub bytes_sent: u64,
    pub bytes_received: u64,
    /// The fastest second of one connection, both directions together.
    pub peak_bytes_per_second: u64,
    /// Connections that began.
    pub connects: u64,
    /// Connections that ended.
    pub ends: u64,
    /// Of those that ended, since their beginnings.
    pub connected_seconds: u64,
}

impl Sums {
    #[must_use]
    pub fn total_bytes(&self) -> u64 {
        self.bytes_sent.saturating_add(self.bytes_received)
    }

    /// Of both times together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            bytes_sent: self.bytes_sent.saturating_add(other.bytes_sent),
            bytes_received: self.bytes_received.saturating_add(other.bytes_received),
            peak_bytes_per_second: self.peak_bytes_per_second.max(other.peak_bytes_per_second),
            connects: self.connects.saturating_add(other.connects),
            ends: self.ends.saturating_add(other.ends),
            connected_seconds: self
                .connected_seconds
                .saturating_add(other.connected_seconds),
        }
    }
}

/// The columns of [`Sums`].
#[derive(QueryableByName)]
pub(super) struct SumsRow {
    #[diesel(sql_type = BigInt)]
    bytes_sent: i64,
    #[diesel(sql_type = BigInt)]
    bytes_received: i64,
    #[diesel(sql_type = BigInt)]
    peak_bytes_per_second: i64,
    #[diesel(sql_type = BigInt)]
    connects: i64,
    #[diesel(sql_type = BigInt)]
    ends: i64,
    #[diesel(sql_type = BigInt)]
    connected_seconds: i64,
}

impl From<SumsRow> for Sums {
    fn from(row: SumsRow) -> Self {
        Self {
            bytes_sent: from_row(row.bytes_sent),
            bytes_received: from_row(row.bytes_received),
            peak_bytes_per_second: from_row(row.peak_bytes_per_second),
            connects: from_row(row.connects),
            ends: from_row(row.ends),
            connected_seconds: from_row(row.connected_seconds),
        }
    }
}

#[derive(QueryableByName)]
struct Row {
    #[diesel(sql_type = Timestamptz)]
    start: DateTime<Utc>,
    #[diesel(embed)]
    sums: SumsRow,
}

macro_rules! bucket {
    () => {
        "SELECT date_trunc($3, day::timestamp) AT TIME ZONE 'UTC' AS start,"
    };
}

/// Every bucket of the period with its beginning, in order.
pub(in crate::analytics) async fn buckets(
    connection: &mut AsyncPgConnection,
    scope: &Scope,
    period: &Period,
) -> QueryResult<Vec<(DateTime<Utc>, Sums)>> {
    let known = sums(connection, scope, period).await?;
    let sums = |start| known.get(&start).copied().unwrap_or_default();
    Ok(period.starts().map(|start| (start, sums(start))).collect())
}

/// By the beginnings of the buckets; those without anything are not in it.
async fn sums(
    connection: &mut AsyncPgConnection,
    scope: &Scope,
    period: &Period,
) -> QueryResult<HashMap<DateTime<Utc>, Sums>> {
    const USER_HOURS: &str = concat!(
        "SELECT hour AS start,",
        summed!(),
        "FROM usage_hours WHERE hour >= $1 AND hour < $2 AND user_id = $4
            AND ($5::uuid IS NULL OR server_id = $5) AND $3 = 'hour' GROUP BY hour"
    );
    const USER: &str = concat!(
        bucket!(),
        summed!(),
        "FROM",
        of_users!("user_id = $4 AND ($5::uuid IS NULL OR server_id = $5)"),
        "GROUP BY 1"
    );
    const FLEET_HOURS: &str = concat!(
        "SELECT hour AS start,",
        summed!(),
        "FROM server_hours WHERE hour >= $1 AND hour < $2
            AND ($4::uuid IS NULL OR server_id = $4) AND $3 = 'hour' GROUP BY hour"
    );
    const FLEET: &str = concat!(
        bucket!(),
        summed!(),
        "FROM",
        of_servers!("($4::uuid IS NULL OR server_id = $4)"),
        "GROUP BY 1"
    );
    let is_hourly = period.interval == Interval::Hour;
    let sql = match (scope.user, is_hourly) {
        (Some(_), true) => USER_HOURS,
        (Some(_), false) => USER,
        (None, true) => FLEET_HOURS,
        (None, false) => FLEET,
    };
    let query = in_period(sql, period);
    let query = match scope.user {
        Some(user) => query.bind::<SqlUuid, _>(user.0),
        None => query,
    };
    let rows: Vec<Row> = query
        .bind::<Nullable<SqlUuid>, _>(scope.server.map(|server| server.0))
        .load(connection)
        .await?;
    let rows = rows.into_iter().map(|row| (row.start, row.sums.into()));
    Ok(rows.collect())
}

fn in_period<'a>(sql: &'static str, period: &Period) -> crate::db::Statement<'a> {
    statement(sql)
        .bind::<Timestamptz, _>(period.from)
        .bind::<Timestamptz, _>(period.to)
        .bind::<Text, _>(period.interval.as_str())
}

/// How much servers had to do, as it was looked at once a minute.
#[derive(Debug, Clone, Copy, PartialEq, QueryableByName)]
pub(in crate::analytics) struct Load {
    #[diesel(sql_type = Timestamptz)]
    pub(in crate::analytics) start: DateTime<Utc>,
    /// 0–100.
    #[diesel(sql_type = Double)]
    pub(in crate::analytics) load: f64,
    #[diesel(sql_type = Double)]
    pub(in crate::analytics) load_peak: f64,
    /// Over all servers.
    #[diesel(sql_type = Double)]
    pub(in crate::analytics) peers: f64,
    /// Of one server.
    #[diesel(sql_type = Integer)]
    pub(in crate::analytics) peers_peak: i32,
}

/// The buckets in which somebody looked.
pub(in crate::analytics) async fn loads(
    connection: &mut AsyncPgConnection,
    server: Option<Uuid>,
    period: &Period,
) -> QueryResult<Vec<Load>> {
    macro_rules! over_servers {
        ($buckets:expr) => {
            concat!(
                "SELECT start, sum(load_sum) / sum(samples) AS load, max(load_peak) AS load_peak,
                        sum(peers_sum::float8 / samples) AS peers, max(peers_peak) AS peers_peak
                   FROM (",
                $buckets,
                " server_id, sum(samples)::bigint AS samples, sum(load_sum) AS load_sum,
                  max(load_peak) AS load_peak, sum(peers_sum)::bigint AS peers_sum, max(peers_peak) AS peers_peak"
            )
        };
    }
    const HOURS: &str = concat!(
        over_servers!("SELECT hour AS start,"),
        " FROM server_hours WHERE hour >= $1 AND hour < $2
             AND ($4::uuid IS NULL OR server_id = $4) AND $3 = 'hour' GROUP BY 1, 2) buckets
         WHERE samples > 0 GROUP BY start"
    );
    const DAYS: &str = concat!(
        over_servers!("SELECT date_trunc($3, day::timestamp) AT TIME ZONE 'UTC' AS start,"),
        " FROM",
        of_servers!("($4::uuid IS NULL OR server_id = $4)"),
        "GROUP BY 1, 2) buckets WHERE samples > 0 GROUP BY start"
    );
    let sql = match period.interval {
        Interval::Hour => HOURS,
        Interval::Day | Interval::Month => DAYS,
    };
    in_period(sql, period)
        .bind::<Nullable<SqlUuid>, _>(server)
        .load(connection)
        .await
}
