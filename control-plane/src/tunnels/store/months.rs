//! Quotas month by month, for whoever accounts for them.

use chrono::NaiveDate;
use diesel::QueryableByName;
use diesel::sql_types::{BigInt, Date, Nullable, Uuid as SqlUuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use shared::ids::UserId;

use crate::db::statement;
use crate::tunnels::history::QuotaMonth;
use crate::usage::ledger::from_row;

/// A row for each month that has one of these days.
pub(in crate::tunnels) async fn months(
    conn: &mut AsyncPgConnection,
    user: UserId,
    (first, last): (NaiveDate, NaiveDate),
) -> diesel::QueryResult<Vec<QuotaMonth>> {
    const SQL: &str = "
        SELECT m.month::date AS month, coalesce(q.consumed, 0) AS used,
               CASE WHEN m.month = date_trunc('month', now() AT TIME ZONE 'UTC') THEN p.quota_bytes END AS quota
          FROM generate_series(date_trunc('month', $2::date::timestamp), $3::date::timestamp, '1 month') AS m (month)
          JOIN entitlements p ON p.user_id = $1
          LEFT JOIN quota_usage q ON q.user_id = $1 AND q.month = m.month::date
         ORDER BY m.month";

    #[derive(QueryableByName)]
    struct Row {
        #[diesel(sql_type = Date)]
        month: NaiveDate,
        #[diesel(sql_type = BigInt)]
        used: i64,
        #[diesel(sql_type = Nullable<BigInt>)]
        quota: Option<i64>,
    }

    let rows: Vec<Row> = statement(SQL)
        .bind::<SqlUuid, _>(user.0)
        .bind::<Date, _>(first)
        .bind::<Date, _>(last)
        .load(conn)
        .await?;
    let rows = rows.into_iter().map(|row| QuotaMonth {
        month: row.month,
        used: from_row(row.used),
        quota: row.quota.map(from_row),
    });
    Ok(rows.collect())
}
