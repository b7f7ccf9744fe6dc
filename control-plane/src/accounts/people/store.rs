//! The queries about other people.

use chrono::{DateTime, Utc};
use diesel::dsl::now;
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::result::Error;
use diesel::sql_types::BigInt;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use shared::ids::UserId;
use uuid::Uuid;

use crate::accounts::store::lower;
use crate::accounts::{Role, UnknownRole};
use crate::db::schema::users;
use crate::db::statement;

/// Who is asked for: all that is given has to hold.
#[derive(Debug, Clone, Default)]
pub(super) struct Filter {
    /// A part of the address, in any case.
    pub(super) email: Option<String>,
    pub(super) role: Option<Role>,
    pub(super) is_active: Option<bool>,
}

/// A line of the list.
#[derive(Debug)]
pub(super) struct Summary {
    pub(super) id: UserId,
    pub(super) email: String,
    pub(super) full_name: Option<String>,
    pub(super) role: Role,
    pub(super) is_active: bool,
    pub(super) is_verified: bool,
    pub(super) created_at: DateTime<Utc>,
}

#[derive(Queryable, Selectable)]
#[diesel(table_name = users, check_for_backend(Pg))]
struct Row {
    id: Uuid,
    email: String,
    full_name: Option<String>,
    role: String,
    is_active: bool,
    is_verified: bool,
    created_at: DateTime<Utc>,
}

fn matching(filter: &Filter) -> users::BoxedQuery<'_, Pg> {
    let mut query = users::table
        .filter(users::deleted_at.is_null())
        .into_boxed();
    if let Some(email) = &filter.email {
        query = query.filter(lower(users::email).like(containing(&email.to_lowercase())));
    }
    if let Some(role) = filter.role {
        query = query.filter(users::role.eq(role.as_str()));
    }
    if let Some(is_active) = filter.is_active {
        query = query.filter(users::is_active.eq(is_active));
    }
    query
}

/// The pattern of `LIKE` for texts that have this one in them, whatever it is made of.
fn containing(text: &str) -> String {
    let mut pattern = String::with_capacity(text.len() + 2);
    pattern.push('%');
    for letter in text.chars() {
        if matches!(letter, '%' | '_' | '\\') {
            pattern.push('\\');
        }
        pattern.push(letter);
    }
    pattern.push('%');
    pattern
}

/// One page, the newest first, and how many there are over all pages.
pub(super) async fn list(
    connection: &mut AsyncPgConnection,
    filter: &Filter,
    (offset, limit): (i64, i64),
) -> QueryResult<(Vec<Summary>, u64)> {
    let total: i64 = matching(filter).count().get_result(connection).await?;
    let rows: Vec<Row> = matching(filter)
        .order((users::created_at.desc(), users::id.desc()))
        .offset(offset)
        .limit(limit)
        .select(Row::as_select())
        .load(connection)
        .await?;
    let people = rows.into_iter().map(Row::into_summary);
    let total = u64::try_from(total).unwrap_or_default();
    Ok((people.collect::<QueryResult<_>>()?, total))
}

/// How many people there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeopleCount {
    pub total: u64,
    /// Not suspended.
    pub active: u64,
    /// With a verified address.
    pub verified: u64,
}

/// How many people there are. Reads the whole table.
pub async fn count(connection: &mut AsyncPgConnection) -> QueryResult<PeopleCount> {
    const SQL: &str = "
        SELECT count(*) AS total, count(*) FILTER (WHERE is_active) AS active,
               count(*) FILTER (WHERE is_verified) AS verified
          FROM users WHERE deleted_at IS NULL";

    #[derive(QueryableByName)]
    struct Counts {
        #[diesel(sql_type = BigInt)]
        total: i64,
        #[diesel(sql_type = BigInt)]
        active: i64,
        #[diesel(sql_type = BigInt)]
        verified: i64,
    }

    let counts: Counts = statement(SQL).get_result(connection).await?;
    let count = |number| u64::try_from(number).unwrap_or_default();
    Ok(PeopleCount {
        total: count(counts.total),
        active: count(counts.active),
        verified: count(counts.verified),
    })
}

/// What a change of somebody's account is decided by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Standing {
    pub(super) role: Role,
    pub(super) is_active: bool,
}

/// Holds the person's row until the transaction ends.
pub(super) async fn lock(
    connection: &mut AsyncPgConnection,
    user: UserId,
) -> QueryResult<Option<Standing>> {
    let row: Option<(String, bool)> = users::table
        .find(user.0)
        .filter(users::deleted_at.is_null())
        .select((users::role, users::is_active))
        .for_no_key_update()
        .first(connection)
        .await
        .optional()?;
    row.map(|(role, is_active)| {
        Ok(Standing {
            role: parse(&role)?,
            is_active,
        })
    })
    .transpose()
}

pub(super) async fn set(
    connection: &mut AsyncPgConnection,
    user: UserId,
    standing: Standing,
) -> QueryResult<()> {
    diesel::update(users::table.find(user.0))
        .set((
            users::role.eq(standing.role.as_str()),
            users::is_active.eq(standing.is_active),
            users::updated_at.eq(now),
        ))
        .execute(connection)
        .await
        .map(drop)
}

fn parse(role: &str) -> QueryResult<Role> {
    role.parse()
        .map_err(|error: UnknownRole| Error::DeserializationError(error.into()))
}

impl Row {
    fn into_summary(self) -> QueryResult<Summary> {
        Ok(Summary {
            id: self.id.into(),
            email: self.email,
            full_name: self.full_name,
            role: parse(&self.role)?,
            is_active: self.is_active,
            is_verified: self.is_verified,
            created_at: self.created_at,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_are_letters() {
        assert_eq!(containing("a_b%c\\d"), "%a\\_b\\%c\\\\d%");
    }
}
