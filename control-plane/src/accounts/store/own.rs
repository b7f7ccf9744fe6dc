//! The queries about what people change in their own accounts.

use diesel::dsl::now;
use diesel::prelude::*;
use diesel::result::{DatabaseErrorKind, Error};
use diesel::sql_types::{Text, Uuid as SqlUuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use shared::ids::UserId;

use crate::accounts::Email;
use crate::db::schema::users;
use crate::db::statement;

/// What a change of an account is checked against.
pub(in crate::accounts) struct Account {
    pub(in crate::accounts) id: UserId,
    pub(in crate::accounts) email: Email,
    /// Names the password that was proved: a change holds only while it is still this.
    pub(in crate::accounts) password_hash: String,
    pub(in crate::accounts) is_active: bool,
}

pub(in crate::accounts) async fn account(
    connection: &mut AsyncPgConnection,
    user: UserId,
) -> QueryResult<Option<Account>> {
    let row: Option<(String, String, bool)> = users::table
        .find(user.0)
        .filter(users::deleted_at.is_null())
        .select((users::email, users::hashed_password, users::is_active))
        .first(connection)
        .await
        .optional()?;
    row.map(|(email, password_hash, is_active)| {
        Ok(Account {
            id: user,
            email: Email::parse(&email)
                .map_err(|error| Error::DeserializationError(error.into()))?,
            password_hash,
            is_active,
        })
    })
    .transpose()
}

/// Gives the person another name, or none.
pub(in crate::accounts) async fn set_full_name(
    connection: &mut AsyncPgConnection,
    user: UserId,
    name: Option<&str>,
) -> QueryResult<()> {
    diesel::update(users::table.find(user.0))
        .set((users::full_name.eq(name), users::updated_at.eq(now)))
        .execute(connection)
        .await
        .map(drop)
}

#[derive(Debug, thiserror::Error)]
pub(in crate::accounts) enum EmailError {
    #[error("an account with this address exists")]
    Taken,
    #[error(transparent)]
    Database(#[from] Error),
}

/// Gives the account another address, which nobody has proved yet. False when the password is no
/// longer the one that was proved.
pub(in crate::accounts) async fn set_email(
    connection: &mut AsyncPgConnection,
    account: &Account,
    email: &Email,
) -> Result<bool, EmailError> {
    let changed = diesel::update(users::table.find(account.id.0))
        .filter(users::hashed_password.eq(&account.password_hash))
        .set((
            users::email.eq(email.as_str()),
            users::is_verified.eq(false),
            users::updated_at.eq(now),
        ))
        .execute(connection)
        .await;
    match changed {
        Err(Error::DatabaseError(DatabaseErrorKind::UniqueViolation, _)) => Err(EmailError::Taken),
        changed => Ok(changed? == 1),
    }
}

/// Replaces the hash if it is still this one.
pub(in crate::accounts) async fn replace_hash(
    connection: &mut AsyncPgConnection,
    user: UserId,
    old: &str,
    new: &str,
) -> QueryResult<bool> {
    diesel::update(users::table.find(user.0))
        .filter(users::hashed_password.eq(old))
        .set((users::hashed_password.eq(new), users::updated_at.eq(now)))
        .execute(connection)
        .await
        .map(|changed| changed == 1)
}

/// Makes links that would set another password worth nothing.
pub(in crate::accounts) async fn forget_resets(
    connection: &mut AsyncPgConnection,
    user: UserId,
) -> QueryResult<()> {
    const SQL: &str = "DELETE FROM one_time_tokens WHERE user_id = $1 AND purpose = $2";
    statement(SQL)
        .bind::<SqlUuid, _>(user.0)
        .bind::<Text, _>("reset_password")
        .execute(connection)
        .await
        .map(drop)
}
