//! The queries about links and what they prove.

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel::sql_types::{Bool, Bytea, Text, Timestamptz, Uuid as SqlUuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use secrecy::{ExposeSecret, SecretString};
use shared::ids::UserId;
use uuid::Uuid;

use super::Purpose;
use crate::accounts::Email;
use crate::db::schema::{one_time_tokens, users};
use crate::db::{self, statement};
use crate::secrets::TokenHash;

/// The person who may be sent a link of this kind, locked: whoever asks at the same time waits. An
/// address that is verified already needs no verification.
pub(super) async fn lock_recipient(
    connection: &mut AsyncPgConnection,
    email: &Email,
    purpose: Purpose,
) -> QueryResult<Option<UserId>> {
    const SQL: &str = "
        SELECT id FROM users
        WHERE lower(email) = $1 AND is_active AND deleted_at IS NULL AND NOT (is_verified AND $2)
        FOR NO KEY UPDATE";
    let row: Option<Id> = statement(SQL)
        .bind::<Text, _>(email.as_str())
        .bind::<Bool, _>(purpose == Purpose::VerifyEmail)
        .get_result(connection)
        .await
        .optional()?;
    Ok(row.map(|row| row.id.into()))
}

/// A link to be.
#[derive(Debug)]
pub(super) struct NewLink<'a> {
    pub(super) token: TokenHash,
    pub(super) purpose: Purpose,
    pub(super) email: &'a Email,
    pub(super) now: DateTime<Utc>,
    pub(super) expires_at: DateTime<Utc>,
    /// None is stored if one was since then.
    pub(super) none_since: DateTime<Utc>,
}

/// Stores a link and voids the earlier ones of its purpose. Whether it did: not for nobody, and not
/// too soon after another.
pub(super) async fn issue(
    connection: &mut AsyncPgConnection,
    user: Option<UserId>,
    link: &NewLink<'_>,
) -> QueryResult<bool> {
    const SQL: &str = "
        WITH recipient AS (
            SELECT id FROM users WHERE id = $2 AND NOT EXISTS (
                SELECT FROM one_time_tokens
                WHERE user_id = $2 AND purpose = $3 AND created_at > $7
            )
        ), voided AS (
            UPDATE one_time_tokens SET used_at = $5 FROM recipient
            WHERE user_id = recipient.id AND purpose = $3 AND used_at IS NULL
        )
        INSERT INTO one_time_tokens (token_hash, user_id, purpose, email, created_at, expires_at)
        SELECT $1, id, $3, $4, $5, $6 FROM recipient";
    let stored = statement(SQL)
        .bind::<Bytea, _>(link.token.as_bytes().as_slice())
        .bind::<SqlUuid, _>(user.map_or(Uuid::nil(), Uuid::from))
        .bind::<Text, _>(link.purpose.as_str())
        .bind::<Text, _>(link.email.as_str())
        .bind::<Timestamptz, _>(link.now)
        .bind::<Timestamptz, _>(link.expires_at)
        .bind::<Timestamptz, _>(link.none_since)
        .execute(connection)
        .await?;
    Ok(stored == 1)
}

/// Whose address a token proves.
#[derive(Debug)]
pub(super) struct Proven {
    pub(super) user: UserId,
    pub(super) email: String,
}

/// What the token would prove, without using it.
pub(super) async fn peek(
    connection: &mut AsyncPgConnection,
    purpose: Purpose,
    token: TokenHash,
    now: DateTime<Utc>,
) -> QueryResult<Option<Proven>> {
    const SQL: &str = "
        SELECT users.id, users.email
        FROM one_time_tokens AS link JOIN users ON users.id = link.user_id
        WHERE link.token_hash = $1 AND link.purpose = $2
          AND link.used_at IS NULL AND link.expires_at > $3
          AND lower(users.email) = link.email AND users.deleted_at IS NULL";
    proven(connection, SQL, purpose, token, now).await
}

/// Uses the token: one caller gets the answer. The person is locked before the link, as whoever
/// issues links does.
pub(super) async fn redeem(
    connection: &mut AsyncPgConnection,
    purpose: Purpose,
    token: TokenHash,
    now: DateTime<Utc>,
) -> QueryResult<Option<Proven>> {
    const SQL: &str = "
        WITH person AS (
            SELECT users.id, users.email
            FROM one_time_tokens AS link JOIN users ON users.id = link.user_id
            WHERE link.token_hash = $1 AND link.purpose = $2
              AND lower(users.email) = link.email AND users.deleted_at IS NULL
            FOR NO KEY UPDATE OF users
        )
        UPDATE one_time_tokens AS link SET used_at = $3 FROM person
        WHERE link.token_hash = $1 AND link.used_at IS NULL AND link.expires_at > $3
        RETURNING person.id, person.email";
    proven(connection, SQL, purpose, token, now).await
}

async fn proven(
    connection: &mut AsyncPgConnection,
    sql: &'static str,
    purpose: Purpose,
    token: TokenHash,
    now: DateTime<Utc>,
) -> QueryResult<Option<Proven>> {
    let row: Option<ProvenRow> = statement(sql)
        .bind::<Bytea, _>(token.as_bytes().as_slice())
        .bind::<Text, _>(purpose.as_str())
        .bind::<Timestamptz, _>(now)
        .get_result(connection)
        .await
        .optional()?;
    Ok(row.map(|row| Proven {
        user: row.id.into(),
        email: row.email,
    }))
}

pub(super) async fn mark_verified(
    connection: &mut AsyncPgConnection,
    user: UserId,
) -> QueryResult<()> {
    diesel::update(users::table.find(Uuid::from(user)))
        .set((
            users::is_verified.eq(true),
            users::updated_at.eq(diesel::dsl::now),
        ))
        .execute(connection)
        .await
        .map(drop)
}

/// Stores the new password; the address was proven by the way to it.
pub(super) async fn set_password(
    connection: &mut AsyncPgConnection,
    user: UserId,
    hash: &SecretString,
) -> QueryResult<()> {
    diesel::update(users::table.find(Uuid::from(user)))
        .set((
            users::hashed_password.eq(hash.expose_secret()),
            users::is_verified.eq(true),
            users::updated_at.eq(diesel::dsl::now),
        ))
        .execute(connection)
        .await
        .map(drop)
}

/// Makes every unused link of the person worthless.
pub(super) async fn void_links(
    connection: &mut AsyncPgConnection,
    user: UserId,
    now: DateTime<Utc>,
) -> QueryResult<()> {
    diesel::update(one_time_tokens::table)
        .filter(one_time_tokens::user_id.eq(Uuid::from(user)))
        .filter(one_time_tokens::used_at.is_null())
        .set(one_time_tokens::used_at.eq(now))
        .execute(connection)
        .await
        .map(drop)
}

/// Deletes at most `limit` links that expired before this time.
pub async fn forget_expired(
    connection: &mut AsyncPgConnection,
    before: DateTime<Utc>,
    limit: i64,
) -> QueryResult<usize> {
    const SQL: &str = "
        DELETE FROM one_time_tokens WHERE token_hash IN (
            SELECT token_hash FROM one_time_tokens WHERE expires_at < $1 LIMIT $2
        )";
    db::forget(connection, SQL, before, limit).await
}

#[derive(QueryableByName)]
struct Id {
    #[diesel(sql_type = SqlUuid)]
    id: Uuid,
}

#[derive(QueryableByName)]
struct ProvenRow {
    #[diesel(sql_type = SqlUuid)]
    id: Uuid,
    #[diesel(sql_type = Text)]
    email: String,
}
