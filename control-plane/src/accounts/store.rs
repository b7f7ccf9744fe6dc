//! The queries about people.

pub(super) mod own;
mod profile;

pub(super) use profile::{Credentials, credentials, profile};

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel::result::{DatabaseErrorKind, Error};
use diesel::sql_types::{Bool, Nullable, SmallInt, Timestamptz, Uuid as SqlUuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use secrecy::{ExposeSecret, SecretString};
use shared::ids::UserId;
use uuid::Uuid;

use super::profile::{Device, Subscription};
use super::{Email, Role, Tier};
use crate::db::schema::{devices, plans, subscriptions, users};
use crate::db::statement;

diesel::define_sql_function! {
    /// What the unique index of the addresses is over.
    fn lower(text: diesel::sql_types::Text) -> diesel::sql_types::Text;
}

#[derive(Debug, thiserror::Error)]
pub(super) enum CreateError {
    #[error("an account with this address exists")]
    EmailTaken,
    #[error("there is no such plan")]
    UnknownPlan,
    #[error(transparent)]
    Database(#[from] Error),
}

/// An account to be.
#[derive(Debug)]
pub(super) struct NewAccount {
    pub(super) id: UserId,
    pub(super) email: Email,
    pub(super) password_hash: SecretString,
    pub(super) full_name: Option<String>,
    pub(super) role: Role,
    pub(super) is_verified: bool,
    pub(super) plan: String,
    pub(super) starts: DateTime<Utc>,
    /// Null where nothing expires.
    pub(super) ends: Option<DateTime<Utc>>,
}

/// Stores the account with its subscription. Call it in a transaction: both or neither.
pub(super) async fn create(
    connection: &mut AsyncPgConnection,
    account: &NewAccount,
) -> Result<(), CreateError> {
    insert_user(connection, account).await?;
    insert_subscription(connection, account).await
}

async fn insert_user(
    connection: &mut AsyncPgConnection,
    account: &NewAccount,
) -> Result<(), CreateError> {
    let result = diesel::insert_into(users::table)
        .values((
            users::id.eq(Uuid::from(account.id)),
            users::email.eq(account.email.as_str()),
            users::hashed_password.eq(account.password_hash.expose_secret()),
            users::full_name.eq(account.full_name.as_deref()),
            users::role.eq(account.role.as_str()),
            users::is_verified.eq(account.is_verified),
        ))
        .execute(connection)
        .await;
    match result {
        Err(Error::DatabaseError(DatabaseErrorKind::UniqueViolation, _)) => {
            Err(CreateError::EmailTaken)
        }
        other => other.map(drop).map_err(Into::into),
    }
}

async fn insert_subscription(
    connection: &mut AsyncPgConnection,
    account: &NewAccount,
) -> Result<(), CreateError> {
    let plan_type: String = plans::table
        .find(&account.plan)
        .select(plans::plan_type)
        .first(connection)
        .await
        .optional()?
        .ok_or(CreateError::UnknownPlan)?;
    diesel::insert_into(subscriptions::table)
        .values((
            subscriptions::id.eq(Uuid::now_v7()),
            subscriptions::user_id.eq(Uuid::from(account.id)),
            subscriptions::plan_id.eq(&account.plan),
            subscriptions::plan_type.eq(plan_type),
            subscriptions::start_date.eq(account.starts),
            subscriptions::end_date.eq(account.ends),
            subscriptions::access_until.eq(account.ends),
        ))
        .execute(connection)
        .await?;
    Ok(())
}

/// Whether the account is active, and the tier that its owner may use.
pub(super) async fn tier(
    connection: &mut AsyncPgConnection,
    user: UserId,
) -> QueryResult<Option<(bool, Tier)>> {
    const SQL: &str = "SELECT is_active, tier, ends_at FROM entitlements WHERE user_id = $1";

    #[derive(QueryableByName)]
    struct Row {
        #[diesel(sql_type = Bool)]
        is_active: bool,
        #[diesel(sql_type = SmallInt)]
        tier: i16,
        #[diesel(sql_type = Nullable<Timestamptz>)]
        ends_at: Option<DateTime<Utc>>,
    }

    let row: Option<Row> = statement(SQL)
        .bind::<SqlUuid, _>(user.0)
        .get_result(connection)
        .await
        .optional()?;
    Ok(row.map(|row| {
        let (tier, ends_at) = (row.tier, row.ends_at);
        (row.is_active, Tier { tier, ends_at })
    }))
}

/// Holds the person's row until the transaction ends: the address, of somebody who is still there.
pub(super) async fn hold(
    connection: &mut AsyncPgConnection,
    user: UserId,
) -> QueryResult<Option<Email>> {
    let address: Option<String> = users::table
        .find(user.0)
        .filter(users::deleted_at.is_null())
        .select(users::email)
        .for_no_key_update()
        .first(connection)
        .await
        .optional()?;
    let email = address.map(|address| Email::parse(&address)).transpose();
    email.map_err(|error| Error::DeserializationError(error.into()))
}

#[derive(Queryable, Selectable)]
#[diesel(table_name = subscriptions, check_for_backend(diesel::pg::Pg))]
pub(super) struct SubscriptionRow {
    plan_id: String,
    plan_type: String,
    status: String,
    start_date: DateTime<Utc>,
    end_date: Option<DateTime<Utc>>,
    auto_renew: bool,
}

#[derive(Queryable, Selectable)]
#[diesel(table_name = devices, check_for_backend(diesel::pg::Pg))]
pub(super) struct DeviceRow {
    id: Uuid,
    name: String,
    public_key: String,
    last_connected_at: Option<DateTime<Utc>>,
    created_at: DateTime<Utc>,
}

impl From<SubscriptionRow> for Subscription {
    fn from(row: SubscriptionRow) -> Self {
        Self {
            plan: row.plan_id,
            plan_type: row.plan_type,
            status: row.status,
            start_date: row.start_date,
            end_date: row.end_date,
            auto_renew: row.auto_renew,
        }
    }
}

impl From<DeviceRow> for Device {
    fn from(row: DeviceRow) -> Self {
        Self {
            id: row.id.into(),
            name: row.name,
            public_key: row.public_key,
            last_connected_at: row.last_connected_at,
            created_at: row.created_at,
        }
    }
}
