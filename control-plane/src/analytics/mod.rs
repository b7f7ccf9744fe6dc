//! What was used: by whom, over which server, in which hour, day and month of UTC.
//!
//! - The statements that move a connection's bytes, or begin or end one, add the same to hours in the same
//!   commit ([`rollup`]): hours add up to the connections to the byte, whatever is repeated or killed.
//! - An hour is that in which the bytes were stored. Nobody writes an hour that is over, so a day is closed
//!   an hour after its end: it is summed up once, and read from its sum from then on.
//! - Answers are read from rollups alone, never from connections.
//! - A user's rows go with the user; what the servers did stays, and names no user.

pub(crate) mod rollup;

mod answer;
mod asked;
mod period;
mod routes;
mod store;
mod upkeep;

use chrono::{DateTime, Utc};
use diesel::QueryResult;
use diesel_async::AsyncPgConnection;
use shared::ids::UserId;

use self::asked::Scope;

pub(crate) use asked::PeriodQuery;
pub(crate) use period::{Interval, Period};
pub(crate) use rollup::{gone_columns, roll_up};
pub(crate) use routes::Figures;
pub use routes::routes;
pub use store::{DayUse, Sums};
pub use upkeep::{keep, run};

/// What a person used over all servers in every bucket of the period, each with its beginning, in order.
pub(crate) async fn used_by(
    connection: &mut AsyncPgConnection,
    user: UserId,
    period: &Period,
) -> QueryResult<Vec<(DateTime<Utc>, Sums)>> {
    let scope = Scope {
        user: Some(user),
        server: None,
    };
    store::buckets(connection, &scope, period).await
}

/// The newest days in which a person used a server, each on each server.
pub async fn history(
    connection: &mut AsyncPgConnection,
    user: UserId,
    now: DateTime<Utc>,
    limit: i64,
) -> QueryResult<Vec<DayUse>> {
    store::days_of(connection, user, now, limit).await
}

/// Deletes what rollups have of these users, who are deleted in the same transaction.
pub async fn forget_users(
    connection: &mut AsyncPgConnection,
    users: &[uuid::Uuid],
) -> QueryResult<()> {
    store::forget_users(connection, users).await
}
