//! The queries about operator tokens.

use chrono::{DateTime, Utc};
use diesel::dsl::now;
use diesel::prelude::*;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use uuid::Uuid;

use super::token::Grant;
use crate::db::schema::operator_tokens;

/// A token as it was minted. What its holder took away from it is not known here.
#[derive(Debug, Clone, Queryable, Selectable)]
#[diesel(table_name = operator_tokens, check_for_backend(diesel::pg::Pg))]
pub struct Minted {
    pub id: Uuid,
    pub name: String,
    pub rights: Vec<String>,
    pub expires_at: DateTime<Utc>,
    pub revoked_at: Option<DateTime<Utc>>,
    pub created_at: DateTime<Utc>,
}

pub async fn insert(connection: &mut AsyncPgConnection, grant: &Grant) -> QueryResult<()> {
    let rights: Vec<&str> = grant.rights.iter().map(String::as_str).collect();
    diesel::insert_into(operator_tokens::table)
        .values((
            operator_tokens::id.eq(grant.id),
            operator_tokens::name.eq(&grant.name),
            operator_tokens::rights.eq(rights),
            operator_tokens::expires_at.eq(grant.expires_at),
        ))
        .execute(connection)
        .await
        .map(drop)
}

/// The name of a token that is in force.
pub async fn find(connection: &mut AsyncPgConnection, token: Uuid) -> QueryResult<Option<String>> {
    operator_tokens::table
        .find(token)
        .filter(operator_tokens::revoked_at.is_null())
        .filter(operator_tokens::expires_at.gt(now))
        .select(operator_tokens::name)
        .first(connection)
        .await
        .optional()
}

/// Whether it was in force until now.
pub async fn revoke(connection: &mut AsyncPgConnection, token: Uuid) -> QueryResult<bool> {
    diesel::update(operator_tokens::table.find(token))
        .filter(operator_tokens::revoked_at.is_null())
        .set(operator_tokens::revoked_at.eq(now))
        .execute(connection)
        .await
        .map(|revoked| revoked == 1)
}

/// All tokens, the newest first.
pub async fn list(connection: &mut AsyncPgConnection) -> QueryResult<Vec<Minted>> {
    operator_tokens::table
        .order(operator_tokens::created_at.desc())
        .select(Minted::as_select())
        .load(connection)
        .await
}
