//! The queries about sessions.

use std::time::Duration;

use chrono::{DateTime, Utc};
use diesel::dsl::{self, exists, select};
use diesel::prelude::*;
use diesel::result::Error;
use diesel::sql_types::{
    Array, BigInt, Bool, Bytea, Double, Nullable, Text, Timestamptz, Uuid as SqlUuid,
};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use shared::ids::UserId;
use uuid::Uuid;

use super::{EndReason, NewSession, SessionId};
use crate::accounts::{Role, UnknownRole};
use crate::db::schema::{oauth_clients, refresh_tokens, sessions};
use crate::db::{self, statement};
use crate::secrets::TokenHash;

/// Sessions that a person may have at once. Logins at the same moment may exceed it; the next one
/// makes up for it.
pub(super) const MOST: i64 = 100;

pub(super) async fn is_live(
    connection: &mut AsyncPgConnection,
    session: SessionId,
) -> QueryResult<bool> {
    let live = sessions::table
        .find(session.0)
        .filter(sessions::revoked_at.is_null());
    select(exists(live)).get_result(connection).await
}

/// How many have not ended. Reads the whole table.
pub async fn count(connection: &mut AsyncPgConnection) -> QueryResult<u64> {
    let live = sessions::table
        .filter(sessions::revoked_at.is_null())
        .filter(sessions::expires_at.gt(dsl::now));
    let count: i64 = live.count().get_result(connection).await?;
    Ok(u64::try_from(count).unwrap_or_default())
}

/// A session just stored.
pub(super) struct Opened {
    /// The person's, at this moment.
    pub(super) role: Role,
    pub(super) displaced: Vec<SessionId>,
}

/// Stores a session with its first refresh token, and ends what is too many. None for whoever is
/// suspended or gone; the lock keeps it so until the commit, so that suspending them finds the session.
pub(super) async fn insert(
    connection: &mut AsyncPgConnection,
    id: SessionId,
    new: &NewSession<'_>,
    refresh: TokenHash,
    expires_at: DateTime<Utc>,
) -> QueryResult<Option<Opened>> {
    const SQL: &str = "
        WITH holder AS (
            SELECT id, role FROM users
             WHERE id = $2 AND is_active AND ($9::text IS NULL OR hashed_password = $9) FOR SHARE
        ), session AS (
            INSERT INTO sessions (id, user_id, client_id, name, expires_at)
            SELECT $1, id, $3, $4, $5 FROM holder RETURNING id
        ), token AS (
            INSERT INTO refresh_tokens (token_hash, session_id) SELECT $6, id FROM session
        ), displaced AS (
            UPDATE sessions SET revoked_at = now(), revoke_reason = $8
             WHERE revoked_at IS NULL AND id IN (
                SELECT id FROM sessions WHERE user_id = $2 AND revoked_at IS NULL
                 ORDER BY last_used_at DESC, id DESC OFFSET $7)
            RETURNING id
        )
        SELECT role, ARRAY(SELECT id FROM displaced) AS displaced FROM holder";

    #[derive(QueryableByName)]
    struct Row {
        #[diesel(sql_type = Text)]
        role: String,
        #[diesel(sql_type = Array<SqlUuid>)]
        displaced: Vec<Uuid>,
    }

    let row: Option<Row> = statement(SQL)
        .bind::<SqlUuid, _>(id.0)
        .bind::<SqlUuid, _>(new.user.0)
        .bind::<Nullable<Text>, _>(new.client)
        .bind::<Nullable<Text>, _>(new.name)
        .bind::<Timestamptz, _>(expires_at)
        .bind::<Bytea, _>(refresh.as_bytes().as_slice())
        .bind::<BigInt, _>(MOST - 1)
        .bind::<Text, _>(EndReason::Displaced.as_str())
        .bind::<Nullable<Text>, _>(new.proved)
        .get_result(connection)
        .await
        .optional()?;
    row.map(|row| {
        Ok(Opened {
            role: role(&row.role)?,
            displaced: row.displaced.into_iter().map(SessionId).collect(),
        })
    })
    .transpose()
}

/// A refresh token as it came, with the OAuth client that it came from.
pub(super) struct Presented<'a> {
    pub(super) token: TokenHash,
    pub(super) client: Option<&'a str>,
}

/// What a presented token turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// In force until now; the next one is in its place.
    Rotated,
    /// Used before.
    Reused,
    Suspended,
    /// Its session has ended or expired.
    Ended,
}

pub(super) struct Rotation {
    pub(super) session: SessionId,
    pub(super) user: UserId,
    pub(super) role: Role,
    pub(super) standing: Standing,
}

/// Puts `next` in the place of the presented token, if that is in force. None for an unknown token.
///
/// The session is locked before its token, in the order in which deleting one takes them. Of several
/// that present the same token at once, all but the first find it used.
pub(super) async fn rotate(
    connection: &mut AsyncPgConnection,
    presented: &Presented<'_>,
    next: TokenHash,
    now: DateTime<Utc>,
    life: Duration,
) -> QueryResult<Option<Rotation>> {
    const SQL: &str = "
        WITH session AS (
            SELECT id, user_id, revoked_at IS NULL AND expires_at > $4 AS is_live
              FROM sessions
             WHERE id = (SELECT session_id FROM refresh_tokens WHERE token_hash = $1)
               AND client_id IS NOT DISTINCT FROM $2
               FOR UPDATE
        ), presented AS (
            SELECT session.*, t.used_at IS NOT NULL AS is_used
              FROM session JOIN refresh_tokens t ON t.session_id = session.id AND t.token_hash = $1
               FOR UPDATE OF t
        ), judged AS (
            SELECT p.*, u.role, NOT u.is_active AND u.deleted_at IS NULL AS is_suspended,
                   p.is_live AND NOT p.is_used AND u.is_active AS is_good
              FROM presented p JOIN users u ON u.id = p.user_id
        ), used AS (
            UPDATE refresh_tokens t SET used_at = now() FROM judged
             WHERE t.token_hash = $1 AND judged.is_good
            RETURNING t.session_id
        ), next AS (
            INSERT INTO refresh_tokens (token_hash, session_id) SELECT $3, session_id FROM used
        ), kept AS (
            UPDATE sessions s SET last_used_at = now(), expires_at = $5 FROM used
             WHERE s.id = used.session_id
        ), forgotten AS (
            DELETE FROM refresh_tokens t USING used
             WHERE t.session_id = used.session_id AND t.used_at < $6
        )
        SELECT id, user_id, role, is_good, is_used, is_suspended FROM judged";

    let row: Option<RotationRow> = statement(SQL)
        .bind::<Bytea, _>(presented.token.as_bytes().as_slice())
        .bind::<Nullable<Text>, _>(presented.client)
        .bind::<Bytea, _>(next.as_bytes().as_slice())
        .bind::<Timestamptz, _>(now)
        .bind::<Timestamptz, _>(now + life)
        .bind::<Timestamptz, _>(now - life)
        .get_result(connection)
        .await
        .optional()?;
    row.map(RotationRow::into_rotation).transpose()
}

#[derive(QueryableByName)]
struct RotationRow {
    #[diesel(sql_type = SqlUuid)]
    id: Uuid,
    #[diesel(sql_type = SqlUuid)]
    user_id: Uuid,
    #[diesel(sql_type = Text)]
    role: String,
    #[diesel(sql_type = Bool)]
    is_good: bool,
    #[diesel(sql_type = Bool)]
    is_used: bool,
    #[diesel(sql_type = Bool)]
    is_suspended: bool,
}

impl RotationRow {
    fn into_rotation(self) -> QueryResult<Rotation> {
        let standing = match (self.is_good, self.is_used, self.is_suspended) {
            (true, ..) => Standing::Rotated,
            (_, true, _) => Standing::Reused,
            (_, _, true) => Standing::Suspended,
            _ => Standing::Ended,
        };
        Ok(Rotation {
            session: SessionId(self.id),
            user: self.user_id.into(),
            role: role(&self.role)?,
            standing,
        })
    }
}

fn role(text: &str) -> QueryResult<Role> {
    text.parse()
        .map_err(|error: UnknownRole| Error::DeserializationError(error.into()))
}

/// Ends one live session of this person; says whether there was one.
pub(super) async fn end(
    connection: &mut AsyncPgConnection,
    user: UserId,
    session: SessionId,
    reason: EndReason,
) -> QueryResult<bool> {
    let ended = diesel::update(sessions::table.find(session.0))
        .filter(sessions::user_id.eq(user.0))
        .filter(sessions::revoked_at.is_null())
        .set((
            sessions::revoked_at.eq(dsl::now),
            sessions::revoke_reason.eq(reason.as_str()),
        ))
        .execute(connection)
        .await?;
    Ok(ended > 0)
}

/// Ends the live session of a refresh token and names it with its owner.
pub(super) async fn end_presented(
    connection: &mut AsyncPgConnection,
    presented: &Presented<'_>,
    reason: EndReason,
) -> QueryResult<Option<(SessionId, UserId)>> {
    let session = refresh_tokens::table
        .find(presented.token.as_bytes().as_slice())
        .select(refresh_tokens::session_id);
    let ended: Option<(Uuid, Uuid)> = diesel::update(sessions::table)
        .filter(sessions::id.eq_any(session))
        .filter(sessions::client_id.is_not_distinct_from(presented.client))
        .filter(sessions::revoked_at.is_null())
        .set((
            sessions::revoked_at.eq(dsl::now),
            sessions::revoke_reason.eq(reason.as_str()),
        ))
        .returning((sessions::id, sessions::user_id))
        .get_result(connection)
        .await
        .optional()?;
    Ok(ended.map(|(session, user)| (SessionId(session), user.into())))
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
            sessions::revoked_at.eq(dsl::now),
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
    db::forget(connection, SQL, before, limit).await
}

/// The sessions that ended within this time before now, at most so many.
pub(super) async fn ended_within(
    connection: &mut AsyncPgConnection,
    window: Duration,
    limit: usize,
) -> QueryResult<Vec<SessionId>> {
    const SQL: &str = "
        SELECT id FROM sessions WHERE revoked_at > now() - make_interval(secs => $1) LIMIT $2";

    #[derive(QueryableByName)]
    struct Row {
        #[diesel(sql_type = SqlUuid)]
        id: Uuid,
    }

    let rows: Vec<Row> = statement(SQL)
        .bind::<Double, _>(window.as_secs_f64())
        .bind::<BigInt, _>(i64::try_from(limit).unwrap_or(i64::MAX))
        .load(connection)
        .await?;
    Ok(rows.into_iter().map(|row| SessionId(row.id)).collect())
}

/// A session as its owner sees it.
#[derive(Debug, Queryable)]
pub(super) struct Listed {
    pub(super) id: Uuid,
    pub(super) name: Option<String>,
    pub(super) client: Option<String>,
    pub(super) created_at: DateTime<Utc>,
    pub(super) last_used_at: DateTime<Utc>,
    pub(super) expires_at: DateTime<Utc>,
}

/// The person's live sessions, the last used first. [`MOST`] bounds them.
pub(super) async fn live_of(
    connection: &mut AsyncPgConnection,
    user: UserId,
    at: DateTime<Utc>,
) -> QueryResult<Vec<Listed>> {
    sessions::table
        .left_join(oauth_clients::table)
        .filter(sessions::user_id.eq(user.0))
        .filter(sessions::revoked_at.is_null())
        .filter(sessions::expires_at.gt(at))
        .order((sessions::last_used_at.desc(), sessions::id.desc()))
        .select((
            sessions::id,
            sessions::name,
            oauth_clients::name.nullable(),
            sessions::created_at,
            sessions::last_used_at,
            sessions::expires_at,
        ))
        .load(connection)
        .await
}
