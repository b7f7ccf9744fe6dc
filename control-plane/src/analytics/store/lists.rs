//! What was used in a whole period, by servers, plans and users.

use chrono::{DateTime, NaiveDate, Utc};
use diesel::sql_types::{Array, BigInt, Date, Nullable, Text, Timestamptz, Uuid as SqlUuid};
use diesel::{QueryResult, QueryableByName};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use shared::ids::{ServerId, UserId};
use uuid::Uuid;

use super::series::{Sums, SumsRow};
use super::{of_servers, of_users, summed};
use crate::analytics::period::Period;
use crate::db::statement;
use crate::usage::ledger::from_row;

#[derive(Debug, Clone, Copy)]
pub(in crate::analytics) struct ServerUse {
    pub(in crate::analytics) server: ServerId,
    pub(in crate::analytics) sums: Sums,
}

#[derive(Debug, Clone, Copy)]
pub(in crate::analytics) struct UserUse {
    pub(in crate::analytics) user: UserId,
    pub(in crate::analytics) sums: Sums,
}

/// What a person used in a day of UTC on a server.
#[derive(Debug, Clone, Copy)]
pub struct DayUse {
    pub day: NaiveDate,
    /// There may be no such server any more.
    pub server: ServerId,
    pub sums: Sums,
}

#[derive(Debug, Clone)]
pub(in crate::analytics) struct PlanUse {
    /// The plan that the users have now.
    pub(in crate::analytics) plan: String,
    pub(in crate::analytics) users: u64,
    pub(in crate::analytics) sums: Sums,
}

#[derive(QueryableByName)]
struct ServerRow {
    #[diesel(sql_type = SqlUuid)]
    server_id: Uuid,
    #[diesel(sql_type = BigInt)]
    total: i64,
    #[diesel(embed)]
    sums: SumsRow,
}

impl From<ServerRow> for ServerUse {
    fn from(row: ServerRow) -> Self {
        Self {
            server: ServerId(row.server_id),
            sums: row.sums.into(),
        }
    }
}

/// One page of the servers that were used, the busiest first, and how many they are.
pub(in crate::analytics) async fn by_server(
    connection: &mut AsyncPgConnection,
    period: &Period,
    (offset, limit): (i64, i64),
) -> QueryResult<(Vec<ServerUse>, u64)> {
    const SQL: &str = concat!(
        "SELECT server_id, count(*) OVER () AS total,",
        summed!(),
        "FROM",
        of_servers!("true"),
        "GROUP BY server_id ORDER BY sum(bytes_sent) + sum(bytes_received) DESC, server_id OFFSET $3 LIMIT $4"
    );
    let rows: Vec<ServerRow> = statement(SQL)
        .bind::<Timestamptz, _>(period.from)
        .bind::<Timestamptz, _>(period.to)
        .bind::<BigInt, _>(offset)
        .bind::<BigInt, _>(limit)
        .load(connection)
        .await?;
    let total = rows.as_slice().first().map_or(0, |row| from_row(row.total));
    Ok((rows.into_iter().map(Into::into).collect(), total))
}

/// What these servers did since this time.
pub(in crate::analytics) async fn lately(
    connection: &mut AsyncPgConnection,
    servers: &[Uuid],
    since: DateTime<Utc>,
) -> QueryResult<Vec<ServerUse>> {
    const SQL: &str = concat!(
        "SELECT server_id, count(*) OVER () AS total,",
        summed!(),
        "FROM server_hours WHERE server_id = ANY ($1) AND hour >= $2 GROUP BY server_id"
    );
    let rows: Vec<ServerRow> = statement(SQL)
        .bind::<Array<SqlUuid>, _>(servers)
        .bind::<Timestamptz, _>(since)
        .load(connection)
        .await?;
    Ok(rows.into_iter().map(Into::into).collect())
}

#[derive(QueryableByName)]
struct UserRow {
    #[diesel(sql_type = SqlUuid)]
    user_id: Uuid,
    #[diesel(embed)]
    sums: SumsRow,
}

/// The users who moved most bytes, on this server or on all.
pub(in crate::analytics) async fn top_users(
    connection: &mut AsyncPgConnection,
    period: &Period,
    server: Option<Uuid>,
    limit: i64,
) -> QueryResult<Vec<UserUse>> {
    const SQL: &str = concat!(
        "SELECT user_id,",
        summed!(),
        "FROM",
        of_users!("($3::uuid IS NULL OR server_id = $3)"),
        "GROUP BY user_id HAVING sum(bytes_sent) + sum(bytes_received) > 0
         ORDER BY sum(bytes_sent) + sum(bytes_received) DESC, user_id LIMIT $4"
    );
    let rows: Vec<UserRow> = statement(SQL)
        .bind::<Timestamptz, _>(period.from)
        .bind::<Timestamptz, _>(period.to)
        .bind::<Nullable<SqlUuid>, _>(server)
        .bind::<BigInt, _>(limit)
        .load(connection)
        .await?;
    let rows = rows.into_iter().map(|row| UserUse {
        user: UserId(row.user_id),
        sums: row.sums.into(),
    });
    Ok(rows.collect())
}

#[derive(QueryableByName)]
struct DayRow {
    #[diesel(sql_type = Date)]
    day: NaiveDate,
    #[diesel(sql_type = SqlUuid)]
    server_id: Uuid,
    #[diesel(embed)]
    sums: SumsRow,
}

/// The newest of a user's days before this moment, each on each server.
pub(in crate::analytics) async fn days_of(
    connection: &mut AsyncPgConnection,
    user: UserId,
    until: DateTime<Utc>,
    limit: i64,
) -> QueryResult<Vec<DayUse>> {
    const SQL: &str = concat!(
        "SELECT day, server_id,",
        summed!(),
        "FROM",
        of_users!("user_id = $3"),
        "GROUP BY day, server_id ORDER BY day DESC, server_id LIMIT $4"
    );
    let rows: Vec<DayRow> = statement(SQL)
        .bind::<Timestamptz, _>(DateTime::UNIX_EPOCH)
        .bind::<Timestamptz, _>(until)
        .bind::<SqlUuid, _>(user.0)
        .bind::<BigInt, _>(limit)
        .load(connection)
        .await?;
    let rows = rows.into_iter().map(|row| DayUse {
        day: row.day,
        server: ServerId(row.server_id),
        sums: row.sums.into(),
    });
    Ok(rows.collect())
}

#[derive(QueryableByName)]
struct PlanRow {
    #[diesel(sql_type = Text)]
    plan_id: String,
    #[diesel(sql_type = BigInt)]
    users: i64,
    #[diesel(embed)]
    sums: SumsRow,
}

/// What the people of each plan used, the busiest first.
pub(in crate::analytics) async fn by_plan(
    connection: &mut AsyncPgConnection,
    period: &Period,
) -> QueryResult<Vec<PlanUse>> {
    const SQL: &str = concat!(
        "SELECT p.plan_id::text AS plan_id, count(*) AS users,",
        summed!(),
        "FROM (SELECT user_id,",
        summed!(),
        "FROM",
        of_users!("true"),
        "GROUP BY user_id) used JOIN entitlements p USING (user_id)
         GROUP BY p.plan_id ORDER BY sum(bytes_sent) + sum(bytes_received) DESC, p.plan_id"
    );
    let rows: Vec<PlanRow> = statement(SQL)
        .bind::<Timestamptz, _>(period.from)
        .bind::<Timestamptz, _>(period.to)
        .load(connection)
        .await?;
    let rows = rows.into_iter().map(|row| PlanUse {
        plan: row.plan_id,
        users: from_row(row.users),
        sums: row.sums.into(),
    });
    Ok(rows.collect())
}
