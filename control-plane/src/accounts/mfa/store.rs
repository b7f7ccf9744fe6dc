//! The queries about second factors.
//!
//! Every change of a factor is one statement over its row, so that guesses made at once are judged one
//! after the other: after the last that is allowed, neither a right nor a wrong one is told apart.

use chrono::{DateTime, TimeDelta, Utc};
use diesel::prelude::*;
use diesel::sql_types::{Bytea, Int4, Timestamptz, Uuid as SqlUuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use shared::ids::UserId;

use super::SECRET_COLUMN;
use super::otp::RecoveryCode;
use crate::db::schema::{recovery_codes, totp_factors};
use crate::db::statement;
use crate::secrets::{SealedColumn, TokenHash};

diesel::define_sql_function! {
    fn coalesce(
        at: diesel::sql_types::Nullable<Timestamptz>,
        otherwise: Timestamptz,
    ) -> Timestamptz;
}

/// Wrong codes in a row.
const MAX_FAILURES: i32 = 10;
const LOCK: TimeDelta = TimeDelta::minutes(15);

/// A factor as it is stored.
pub(super) struct Factor {
    pub(super) sealed_secret: Vec<u8>,
    pub(super) is_enabled: bool,
}

pub(super) async fn factor(
    connection: &mut AsyncPgConnection,
    user: UserId,
) -> QueryResult<Option<Factor>> {
    let row: Option<(Vec<u8>, Option<DateTime<Utc>>)> = totp_factors::table
        .find(user.0)
        .select((totp_factors::sealed_secret, totp_factors::enabled_at))
        .first(connection)
        .await
        .optional()?;
    Ok(row.map(|(sealed_secret, enabled_at)| Factor {
        sealed_secret,
        is_enabled: enabled_at.is_some(),
    }))
}

/// Keeps a new secret unless one is in force already.
pub(super) async fn set_up(
    connection: &mut AsyncPgConnection,
    user: UserId,
    sealed_secret: &[u8],
) -> QueryResult<bool> {
    const SQL: &str = "
        INSERT INTO totp_factors (user_id, sealed_secret) VALUES ($1, $2)
        ON CONFLICT (user_id) DO UPDATE
        SET sealed_secret = EXCLUDED.sealed_secret, created_at = now()
        WHERE totp_factors.enabled_at IS NULL";
    let changed = statement(SQL)
        .bind::<SqlUuid, _>(user.0)
        .bind::<Bytea, _>(sealed_secret)
        .execute(connection)
        .await?;
    Ok(changed == 1)
}

/// Puts the secret in force whose code was right. Not if another took its place meanwhile.
pub(super) async fn enable(
    connection: &mut AsyncPgConnection,
    user: UserId,
    sealed_secret: &[u8],
    step: i64,
    now: DateTime<Utc>,
) -> QueryResult<bool> {
    let changed = diesel::update(totp_factors::table.find(user.0))
        .filter(totp_factors::enabled_at.is_null())
        .filter(totp_factors::sealed_secret.eq(sealed_secret))
        .filter(coalesce(totp_factors::locked_until, now).le(now))
        .set((
            totp_factors::enabled_at.eq(now),
            totp_factors::last_step.eq(step),
            totp_factors::failures.eq(0),
            totp_factors::locked_until.eq(None::<DateTime<Utc>>),
        ))
        .execute(connection)
        .await?;
    Ok(changed == 1)
}

/// Accepts a right code: once, and not while the factor is locked.
pub(super) async fn accept_step(
    connection: &mut AsyncPgConnection,
    user: UserId,
    step: i64,
    now: DateTime<Utc>,
) -> QueryResult<bool> {
    let changed = diesel::update(totp_factors::table.find(user.0))
        .filter(totp_factors::enabled_at.is_not_null())
        .filter(totp_factors::last_step.lt(step))
        .filter(coalesce(totp_factors::locked_until, now).le(now))
        .set((
            totp_factors::last_step.eq(step),
            totp_factors::failures.eq(0),
            totp_factors::locked_until.eq(None::<DateTime<Utc>>),
        ))
        .execute(connection)
        .await?;
    Ok(changed == 1)
}

/// Accepts a recovery code: once, and not while the factor is locked.
pub(super) async fn accept_recovery_code(
    connection: &mut AsyncPgConnection,
    user: UserId,
    code: TokenHash,
    now: DateTime<Utc>,
) -> QueryResult<bool> {
    const SQL: &str = "
        WITH factor AS MATERIALIZED (
            SELECT user_id FROM totp_factors
            WHERE user_id = $1 AND enabled_at IS NOT NULL AND coalesce(locked_until, $3) <= $3
            FOR UPDATE
        ), code AS (
            UPDATE recovery_codes SET used_at = $3 FROM factor
            WHERE recovery_codes.user_id = factor.user_id AND code_hash = $2 AND used_at IS NULL
            RETURNING recovery_codes.user_id
        )
        UPDATE totp_factors SET failures = 0, locked_until = NULL FROM code
        WHERE totp_factors.user_id = code.user_id";
    let changed = statement(SQL)
        .bind::<SqlUuid, _>(user.0)
        .bind::<Bytea, _>(code.as_bytes().as_slice())
        .bind::<Timestamptz, _>(now)
        .execute(connection)
        .await?;
    Ok(changed == 1)
}

/// Counts a wrong code, and locks the factor after too many in a row. False where it is locked.
pub(super) async fn count_failure(
    connection: &mut AsyncPgConnection,
    user: UserId,
    now: DateTime<Utc>,
) -> QueryResult<bool> {
    const SQL: &str = "
        UPDATE totp_factors
        SET failures = CASE WHEN locked_until IS NULL THEN failures + 1 ELSE 1 END,
            locked_until = CASE WHEN locked_until IS NULL AND failures + 1 >= $4 THEN $3 END
        WHERE user_id = $1 AND coalesce(locked_until, $2) <= $2";
    let changed = statement(SQL)
        .bind::<SqlUuid, _>(user.0)
        .bind::<Timestamptz, _>(now)
        .bind::<Timestamptz, _>(now + LOCK)
        .bind::<Int4, _>(MAX_FAILURES)
        .execute(connection)
        .await?;
    Ok(changed == 1)
}

/// Puts these recovery codes in the place of any others.
pub(super) async fn replace_recovery_codes(
    connection: &mut AsyncPgConnection,
    user: UserId,
    codes: &[RecoveryCode],
) -> QueryResult<()> {
    remove_recovery_codes(connection, user).await?;
    let rows: Vec<_> = codes
        .iter()
        .map(|code| {
            (
                recovery_codes::code_hash.eq(code.hash().as_bytes().to_vec()),
                recovery_codes::user_id.eq(user.0),
            )
        })
        .collect();
    diesel::insert_into(recovery_codes::table)
        .values(rows)
        .execute(connection)
        .await
        .map(drop)
}

/// Removes the factor in force with its recovery codes; false where none is.
pub(super) async fn remove(connection: &mut AsyncPgConnection, user: UserId) -> QueryResult<bool> {
    let removed = diesel::delete(totp_factors::table.find(user.0))
        .filter(totp_factors::enabled_at.is_not_null())
        .execute(connection)
        .await?;
    remove_recovery_codes(connection, user).await?;
    Ok(removed == 1)
}

async fn remove_recovery_codes(
    connection: &mut AsyncPgConnection,
    user: UserId,
) -> QueryResult<()> {
    diesel::delete(recovery_codes::table)
        .filter(recovery_codes::user_id.eq(user.0))
        .execute(connection)
        .await
        .map(drop)
}

/// The secrets, for whoever changes the key.
pub const SEALED_SECRETS: SealedColumn = SealedColumn::new(SECRET_COLUMN).bound_to("user_id");
