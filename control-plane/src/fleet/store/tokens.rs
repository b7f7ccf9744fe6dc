//! Enrolment tokens as their operator sees them. The token itself is stored nowhere.

use chrono::{DateTime, Utc};
use diesel::dsl::now;
use diesel::prelude::*;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use uuid::Uuid;

use super::enrolment::Place;
use crate::db::schema::enrolment_tokens;

/// What became of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::fleet) enum TokenState {
    Unused,
    Used,
    Expired,
}

#[derive(Debug, Clone, Queryable, Selectable)]
#[diesel(table_name = enrolment_tokens)]
pub(in crate::fleet) struct TokenRow {
    pub(in crate::fleet) id: Uuid,
    #[diesel(embed)]
    pub(in crate::fleet) place: Place,
    pub(in crate::fleet) created_at: DateTime<Utc>,
    pub(in crate::fleet) expires_at: DateTime<Utc>,
    pub(in crate::fleet) used_at: Option<DateTime<Utc>>,
    /// The server that enrolled with it.
    pub(in crate::fleet) server_id: Option<Uuid>,
}

impl TokenRow {
    pub(in crate::fleet) fn state(&self, at: DateTime<Utc>) -> TokenState {
        match self.used_at {
            Some(_) => TokenState::Used,
            None if self.expires_at <= at => TokenState::Expired,
            None => TokenState::Unused,
        }
    }
}

fn matching(state: Option<TokenState>) -> enrolment_tokens::BoxedQuery<'static, diesel::pg::Pg> {
    let query = enrolment_tokens::table.into_boxed();
    let unused = enrolment_tokens::used_at.is_null();
    match state {
        None => query,
        Some(TokenState::Used) => query.filter(enrolment_tokens::used_at.is_not_null()),
        Some(TokenState::Expired) => query
            .filter(unused)
            .filter(enrolment_tokens::expires_at.le(now)),
        Some(TokenState::Unused) => query
            .filter(unused)
            .filter(enrolment_tokens::expires_at.gt(now)),
    }
}

pub(in crate::fleet) async fn tokens(
    conn: &mut AsyncPgConnection,
    state: Option<TokenState>,
    (offset, limit): (i64, i64),
) -> QueryResult<(Vec<TokenRow>, u64)> {
    let total: i64 = matching(state).count().get_result(conn).await?;
    let rows = matching(state)
        .order((
            enrolment_tokens::created_at.desc(),
            enrolment_tokens::id.desc(),
        ))
        .offset(offset)
        .limit(limit)
        .select(TokenRow::as_select())
        .load(conn)
        .await?;
    Ok((rows, u64::try_from(total).unwrap_or_default()))
}

/// The token, held until the transaction ends.
pub(in crate::fleet) async fn lock_token(
    conn: &mut AsyncPgConnection,
    id: Uuid,
) -> QueryResult<Option<TokenRow>> {
    enrolment_tokens::table
        .find(id)
        .select(TokenRow::as_select())
        .for_update()
        .first(conn)
        .await
        .optional()
}

pub(in crate::fleet) async fn delete_token(
    conn: &mut AsyncPgConnection,
    id: Uuid,
) -> QueryResult<()> {
    diesel::delete(enrolment_tokens::table.find(id))
        .execute(conn)
        .await
        .map(drop)
}
