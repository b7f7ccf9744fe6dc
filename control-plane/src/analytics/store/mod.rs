//! The queries about rollups. What adds to them is in [`super::rollup`].

mod closing;
mod lists;
mod partitions;
mod series;

use diesel::QueryResult;
use diesel::sql_types::{Array, Uuid as SqlUuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use uuid::Uuid;

use crate::db::statement;

pub(super) use closing::{close_day, closed_until, lock, sample};
pub use lists::DayUse;
pub(super) use lists::{by_plan, by_server, days_of, lately, top_users};
pub(super) use partitions::{TABLES, Table, drop, make, months};
pub use series::Sums;
pub(super) use series::{Load, buckets, loads};

/// Deletes what there is of these users. A day that is just being closed waits, or is waited for.
pub(super) async fn forget_users(
    connection: &mut AsyncPgConnection,
    users: &[Uuid],
) -> QueryResult<()> {
    const WAIT: &str = "SELECT FROM rollup_state FOR SHARE";
    const HOURS: &str = "DELETE FROM usage_hours WHERE user_id = ANY ($1)";
    const DAYS: &str = "DELETE FROM usage_days WHERE user_id = ANY ($1)";
    if users.is_empty() {
        return Ok(());
    }
    statement(WAIT).execute(connection).await?;
    for sql in [HOURS, DAYS] {
        statement(sql)
            .bind::<Array<SqlUuid>, _>(users)
            .execute(connection)
            .await?;
    }
    Ok(())
}

/// What is added up of every rollup.
macro_rules! summed {
    () => {
        " sum(bytes_sent)::bigint AS bytes_sent, sum(bytes_received)::bigint AS bytes_received,
          max(peak_bytes_per_second) AS peak_bytes_per_second, sum(connects)::bigint AS connects,
          sum(ends)::bigint AS ends, sum(connected_seconds)::bigint AS connected_seconds "
    };
}
use summed;

/// The rows from `$1` until `$2`, each with its `day`: of closed days from their sums, of others from hours.
/// `$which` picks among them.
macro_rules! parts {
    ($days:literal, $hours:literal, $columns:literal, $which:literal) => {
        concat!(
            " (SELECT day, ", $columns, " FROM ", $days,
            " WHERE day >= ($1::timestamptz AT TIME ZONE 'UTC')::date
                AND day < ($2::timestamptz AT TIME ZONE 'UTC')::date AND ", $which,
            " UNION ALL
               SELECT (hour AT TIME ZONE 'UTC')::date, ", $columns, " FROM ", $hours,
            " WHERE hour >= greatest($1, (SELECT closed_until::timestamp AT TIME ZONE 'UTC' FROM rollup_state))
                AND hour < $2 AND ", $which, ") parts "
        )
    };
}
use parts;

/// Those of users.
macro_rules! of_users {
    ($which:literal) => {
        $crate::analytics::store::parts!(
            "usage_days",
            "usage_hours",
            "user_id, server_id, bytes_sent, bytes_received, peak_bytes_per_second, connects, ends,
             connected_seconds",
            $which
        )
    };
}
use of_users;

/// Those of servers.
macro_rules! of_servers {
    ($which:literal) => {
        $crate::analytics::store::parts!(
            "server_days",
            "server_hours",
            "server_id, bytes_sent, bytes_received, peak_bytes_per_second, connects, ends,
             connected_seconds, samples, load_sum, load_peak, peers_sum, peers_peak",
            $which
        )
    };
}
use of_servers;
