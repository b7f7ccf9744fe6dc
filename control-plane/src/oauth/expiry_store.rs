//! The query that forgets authorization codes.

use chrono::{DateTime, Utc};
use diesel::QueryResult;
use diesel::sql_types::{BigInt, Timestamptz};
use diesel_async::{AsyncPgConnection, RunQueryDsl};

use crate::db::statement;

/// Deletes at most `limit` codes that expired before this time.
pub async fn forget_expired(
    connection: &mut AsyncPgConnection,
    before: DateTime<Utc>,
    limit: i64,
) -> QueryResult<usize> {
    const SQL: &str = "
        DELETE FROM oauth_codes WHERE code_hash IN (
            SELECT code_hash FROM oauth_codes WHERE expires_at < $1 LIMIT $2
        )";
    statement(SQL)
        .bind::<Timestamptz, _>(before)
        .bind::<BigInt, _>(limit)
        .execute(connection)
        .await
}
