//! The queries about sessions.

use chrono::{DateTime, Utc};
use diesel::dsl::{exists, now, select};
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Bytea, Nullable, Text, Timestamptz, Uuid as SqlUuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use shared::ids::UserId;
use uuid::Uuid;

use super::{EndReason, NewSession, SessionId};
use crate::db::schema::sessions;
use crate::db::statement;
use crate::secrets::TokenHash;

pub(super) async fn is_live(
    connection: &mut AsyncPgConnection,
    session: SessionId,
) -> QueryResult<bool> {
    let live = sessions::table
        .find(session.0)
        .filter(sessions::revoked_at.is_null());
    select(exists(live)).get_result(connection).await
}

/// Stores a session with its first refresh token.
pub(super) async fn insert(
    connection: &mut AsyncPgConnection,
    id: SessionId,
    new: &NewSession<'_>,
    refresh: TokenHash,
    expires_at: DateTime<Utc>,
) -> QueryResult<()> {
    const SQL: &str = "
        WITH session AS (
            INSERT INTO sessions (id, user_id, client_id, name, expires_at) VALUES ($1, $2, $3, $4, $5)
            RETURNING id
        )
        INSERT INTO refresh_tokens (token_hash, session_id) SELECT $6, id FROM session";
    statement(SQL)
        .bind::<SqlUuid, _>(id.0)
        .bind::<SqlUuid, _>(new.user.0)
        .bind::<Nullable<Text>, _>(new.client)
        .bind::<Nullable<Text>, _>(new.name)
        .bind::<Timestamptz, _>(expires_at)
        .bind::<Bytea, _>(refresh.as_bytes().as_slice())
        .execute(connection)
        .await
        .map(drop)
}

/// Ends the live sessions of a person and names them.
pub(super) async fn end_all(
    connection: &mut AsyncPgConnection,
    user: UserId,
    except: Option<SessionId>,
    reason: EndReason,
) -> QueryResult<Vec<SessionId>> {
    let spared = except.map_or(Uuid::nil(), |session| session.0);
    let ended: Vec<Uuid> = diesel::update(sessions::table)
        .filter(sessions::user_id.eq(user.0))
        .filter(sessions::revoked_at.is_null())
        .filter(sessions::id.ne(spared))
        .set((
            sessions::revoked_at.eq(now),
            sessions::revoke_reason.eq(reason.as_str()),
        ))
        .returning(sessions::id)
        .get_results(connection)
        .await?;
    Ok(ended.into_iter().map(SessionId).collect())
}

/// Deletes at most `limit` sessions that ended before this time, with their refresh tokens.
pub async fn forget_ended(
    connection: &mut AsyncPgConnection,
    before: DateTime<Utc>,
    limit: i64,
) -> QueryResult<usize> {
    const SQL: &str = "
        DELETE FROM sessions WHERE id IN (
            SELECT id FROM sessions WHERE expires_at < $1 OR revoked_at < $1 LIMIT $2
        )";
    statement(SQL)
        .bind::<Timestamptz, _>(before)
        .bind::<BigInt, _>(limit)
        .execute(connection)
        .await
}
