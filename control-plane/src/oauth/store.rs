//! The queries about apps and authorization codes.

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel::result::{DatabaseErrorKind, Error};
use diesel::sql_types::{Bytea, Text, Timestamptz, Uuid as SqlUuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use shared::ids::UserId;
use uuid::Uuid;

use super::client::Client;
use super::code::Code;
use super::pkce::Challenge;
use super::redirect_uri::RedirectUri;
use crate::accounts::SessionId;
use crate::db::schema::{oauth_clients, oauth_codes};
use crate::db::{self, statement};
use crate::secrets::TokenHash;

#[derive(Queryable, Selectable)]
#[diesel(table_name = oauth_clients, check_for_backend(diesel::pg::Pg))]
struct ClientRow {
    id: String,
    name: String,
    redirect_uris: Vec<String>,
}

impl From<ClientRow> for Client {
    fn from(row: ClientRow) -> Self {
        let uris = row.redirect_uris.iter();
        Self {
            id: row.id,
            name: row.name,
            redirect_uris: uris.flat_map(|uri| RedirectUri::parse(uri)).collect(),
        }
    }
}

/// False where the id is taken.
pub(super) async fn insert_client(
    connection: &mut AsyncPgConnection,
    client: &Client,
) -> QueryResult<bool> {
    let uris: Vec<_> = client
        .redirect_uris
        .iter()
        .map(RedirectUri::as_str)
        .collect();
    let inserted = diesel::insert_into(oauth_clients::table)
        .values((
            oauth_clients::id.eq(&client.id),
            oauth_clients::name.eq(&client.name),
            oauth_clients::redirect_uris.eq(uris),
        ))
        .execute(connection)
        .await;
    match inserted {
        Err(Error::DatabaseError(DatabaseErrorKind::UniqueViolation, _)) => Ok(false),
        other => other.map(|_| true),
    }
}

pub(super) async fn clients(connection: &mut AsyncPgConnection) -> QueryResult<Vec<Client>> {
    let rows: Vec<ClientRow> = oauth_clients::table
        .order(oauth_clients::id)
        .select(ClientRow::as_select())
        .load(connection)
        .await?;
    Ok(rows.into_iter().map(Client::from).collect())
}

pub(super) async fn client(
    connection: &mut AsyncPgConnection,
    id: &str,
) -> QueryResult<Option<Client>> {
    let row: Option<ClientRow> = oauth_clients::table
        .find(id)
        .select(ClientRow::as_select())
        .first(connection)
        .await
        .optional()?;
    Ok(row.map(Client::from))
}

/// Stores a code for a person who is not suspended and whose password is still the one that was
/// proved; says whether it did. The lock keeps it so until the commit.
pub(super) async fn insert_code(
    connection: &mut AsyncPgConnection,
    hash: TokenHash,
    code: &Code,
    proved: &str,
) -> QueryResult<bool> {
    const SQL: &str = "
        WITH holder AS (
            SELECT id FROM users WHERE id = $3 AND is_active AND hashed_password = $7 FOR SHARE
        )
        INSERT INTO oauth_codes (code_hash, client_id, user_id, redirect_uri, code_challenge, expires_at)
        SELECT $1, $2, id, $4, $5, $6 FROM holder";
    statement(SQL)
        .bind::<Bytea, _>(hash.as_bytes().as_slice())
        .bind::<Text, _>(&code.client)
        .bind::<SqlUuid, _>(code.user.0)
        .bind::<Text, _>(&code.redirect_uri)
        .bind::<Text, _>(code.challenge.as_str())
        .bind::<Timestamptz, _>(code.expires_at)
        .bind::<Text, _>(proved)
        .execute(connection)
        .await
        .map(|rows| rows == 1)
}

#[derive(QueryableByName)]
#[diesel(table_name = oauth_codes, check_for_backend(diesel::pg::Pg))]
struct CodeRow {
    client_id: String,
    user_id: Uuid,
    redirect_uri: String,
    code_challenge: String,
    expires_at: DateTime<Utc>,
    used_at: Option<DateTime<Utc>>,
    session_id: Option<Uuid>,
}

/// The code, which nobody else gets until the transaction ends. Its person is locked before it, in
/// the order in which a change of their password takes the two.
pub(super) async fn lock_code(
    connection: &mut AsyncPgConnection,
    hash: TokenHash,
) -> QueryResult<Option<Code>> {
    const SQL: &str = "
        WITH holder AS MATERIALIZED (
            SELECT id FROM users
             WHERE id = (SELECT user_id FROM oauth_codes WHERE code_hash = $1) FOR SHARE
        )
        SELECT c.client_id, c.user_id, c.redirect_uri, c.code_challenge, c.expires_at, c.used_at,
               c.session_id
          FROM holder JOIN oauth_codes c ON c.user_id = holder.id AND c.code_hash = $1
           FOR UPDATE OF c";
    let row: Option<CodeRow> = statement(SQL)
        .bind::<Bytea, _>(hash.as_bytes().as_slice())
        .get_result(connection)
        .await
        .optional()?;
    Ok(row.and_then(|row| {
        Some(Code {
            client: row.client_id,
            user: row.user_id.into(),
            redirect_uri: row.redirect_uri,
            challenge: Challenge::parse(&row.code_challenge)?,
            expires_at: row.expires_at,
            is_used: row.used_at.is_some(),
            session: row.session_id.map(SessionId),
        })
    }))
}

/// Notes what the code was exchanged for.
pub(super) async fn use_code(
    connection: &mut AsyncPgConnection,
    hash: TokenHash,
    session: SessionId,
    now: DateTime<Utc>,
) -> QueryResult<()> {
    diesel::update(oauth_codes::table.find(hash.as_bytes().as_slice()))
        .set((
            oauth_codes::used_at.eq(now),
            oauth_codes::session_id.eq(session.0),
        ))
        .execute(connection)
        .await
        .map(drop)
}

/// Makes the codes that a person's apps have not exchanged yet worthless.
pub async fn void_codes(connection: &mut AsyncPgConnection, user: UserId) -> QueryResult<()> {
    diesel::delete(oauth_codes::table)
        .filter(oauth_codes::user_id.eq(user.0))
        .filter(oauth_codes::used_at.is_null())
        .execute(connection)
        .await
        .map(drop)
}

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
    db::forget(connection, SQL, before, limit).await
}
