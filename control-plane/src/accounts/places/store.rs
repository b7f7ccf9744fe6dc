//! The queries about places, and about whose owner was told that somebody guesses.

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Bytea, Timestamptz, Uuid as SqlUuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use shared::ids::UserId;

use super::MOST;
use crate::db::schema::login_places;
use crate::db::{self, statement};
use crate::guard::LoginPlace;

/// Takes note of where somebody proved who they are. Call it in the transaction of what they proved it for.
///
/// What is too much goes, the longest unused first; what another login renews at this moment stays.
pub(crate) async fn remember(
    connection: &mut AsyncPgConnection,
    user: UserId,
    place: Option<LoginPlace>,
    now: DateTime<Utc>,
) -> QueryResult<()> {
    const SQL: &str = "
        WITH kept AS (
            INSERT INTO login_places (user_id, place, seen_at) VALUES ($1, $2, $3)
            ON CONFLICT (user_id, place) DO UPDATE SET seen_at = excluded.seen_at
        ), too_many AS (
            SELECT place FROM login_places WHERE user_id = $1 AND place <> $2
             ORDER BY seen_at DESC OFFSET $4
        )
        DELETE FROM login_places WHERE user_id = $1 AND place IN (
            SELECT place FROM login_places
             WHERE user_id = $1 AND place IN (SELECT place FROM too_many) FOR UPDATE SKIP LOCKED)";
    let Some(place) = place else {
        return Ok(());
    };
    statement(SQL)
        .bind::<SqlUuid, _>(user.0)
        .bind::<Bytea, _>(place.as_bytes())
        .bind::<Timestamptz, _>(now)
        .bind::<BigInt, _>(MOST - 1)
        .execute(connection)
        .await
        .map(drop)
}

/// Forgets where somebody was.
pub(in crate::accounts) async fn forget_all(
    connection: &mut AsyncPgConnection,
    user: UserId,
) -> QueryResult<()> {
    diesel::delete(login_places::table)
        .filter(login_places::user_id.eq(user.0))
        .execute(connection)
        .await
        .map(drop)
}

/// Deletes at most `limit` places where nobody logged in since this time.
pub async fn forget_unused(
    connection: &mut AsyncPgConnection,
    before: DateTime<Utc>,
    limit: i64,
) -> QueryResult<usize> {
    const SQL: &str = "
        DELETE FROM login_places WHERE (user_id, place) IN (
            SELECT user_id, place FROM login_places WHERE seen_at < $1 LIMIT $2)";
    db::forget(connection, SQL, before, limit).await
}

/// Whether the owner of an account is to be told now that somebody guesses its password: not if they were
/// since a time. Whoever is told so tells them, in this transaction.
pub(in crate::accounts) async fn claim_warning(
    connection: &mut AsyncPgConnection,
    user: UserId,
    now: DateTime<Utc>,
    none_since: DateTime<Utc>,
) -> QueryResult<bool> {
    const SQL: &str = "
        UPDATE users SET warned_at = $2
         WHERE id = $1 AND is_active AND deleted_at IS NULL AND (warned_at IS NULL OR warned_at <= $3)";
    statement(SQL)
        .bind::<SqlUuid, _>(user.0)
        .bind::<Timestamptz, _>(now)
        .bind::<Timestamptz, _>(none_since)
        .execute(connection)
        .await
        .map(|changed| changed == 1)
}
