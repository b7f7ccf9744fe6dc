//! The queries about accounts that end.

use std::time::Duration;

use diesel::sql_types::{BigInt, Double, Text, Uuid as SqlUuid};
use diesel::{QueryResult, QueryableByName};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use uuid::Uuid;

use crate::accounts::passwords::NO_PASSWORD;
use crate::accounts::store::own::Account;
use crate::db::statement;

/// Leaves a tombstone of the account; what stands for its address is none that anybody could have. False when the password is no longer the one that was proved.
pub(super) async fn erase(
    connection: &mut AsyncPgConnection,
    account: &Account,
) -> QueryResult<bool> {
    const SQL: &str = "
        WITH person AS (
            UPDATE users
               SET email = 'deleted ' || id, full_name = NULL, hashed_password = $3,
                   role = 'user', is_active = false, is_verified = false, warned_at = NULL,
                   deleted_at = now(),
                   updated_at = now()
             WHERE id = $1 AND hashed_password = $2 AND deleted_at IS NULL
         RETURNING id
        ), own_devices AS (
            DELETE FROM devices USING person WHERE user_id = person.id
        ), factors AS (
            DELETE FROM totp_factors USING person WHERE user_id = person.id
        ), codes AS (
            DELETE FROM recovery_codes USING person WHERE user_id = person.id
        ), links AS (
            DELETE FROM one_time_tokens USING person WHERE user_id = person.id
        ), names AS (
            UPDATE sessions SET name = NULL FROM person WHERE user_id = person.id AND name IS NOT NULL
        )
        SELECT id FROM person";
    statement(SQL)
        .bind::<SqlUuid, _>(account.id.0)
        .bind::<Text, _>(&account.password_hash)
        .bind::<Text, _>(NO_PASSWORD)
        .execute(connection)
        .await
        .map(|rows| rows == 1)
}

/// Removes tombstones, and says whose.
pub(super) async fn sweep(
    connection: &mut AsyncPgConnection,
    access_token_life: Duration,
    limit: i64,
) -> QueryResult<Vec<Uuid>> {
    const SQL: &str = "
        DELETE FROM users WHERE id IN (
            SELECT id FROM users gone
             WHERE deleted_at < now() - make_interval(secs => $1)
               AND NOT EXISTS (SELECT FROM connections
                                WHERE user_id = gone.id AND status <> 'disconnected')
             ORDER BY deleted_at LIMIT $2 FOR UPDATE SKIP LOCKED
        ) RETURNING id";

    #[derive(QueryableByName)]
    struct Row {
        #[diesel(sql_type = SqlUuid)]
        id: Uuid,
    }

    let rows: Vec<Row> = statement(SQL)
        .bind::<Double, _>(access_token_life.as_secs_f64())
        .bind::<BigInt, _>(limit)
        .load(connection)
        .await?;
    Ok(rows.into_iter().map(|row| row.id).collect())
}
