//! How an account comes to be: by its owner's registration or by an operator.

use std::time::Duration;

use chrono::{DateTime, Months, Utc};
use diesel_async::{AsyncConnection, AsyncPgConnection};
use secrecy::SecretString;
use shared::ids::UserId;

use super::passwords::{PasswordError, PasswordHasher};
use super::profile::Profile;
use super::store::{self, CreateError, NewAccount};
use super::{Email, Role, recovery};
use crate::audit::{self, Action, Actor, Event, Subject};
use crate::db::{Pool, PoolError};
use crate::error::{ApiError, Code};
use crate::http::RequestId;
use crate::jobs::JobError;
use crate::secrets::KeyRing;

/// The plan of whoever registers.
pub const FREE_PLAN: &str = "free";

/// Who the account is for.
#[derive(Debug)]
pub struct Registration<'a> {
    pub email: Email,
    pub password: SecretString,
    pub full_name: Option<String>,
    pub role: Role,
    pub plan: String,
    pub by: Registrar<'a>,
}

/// Who opens the account.
#[derive(Debug, Clone, Copy)]
pub enum Registrar<'a> {
    /// Whoever will have it: a mail has to prove the address.
    Owner {
        keys: &'a KeyRing,
        verification_ttl: Duration,
        request: &'a RequestId,
    },
    /// Who runs our commands, and vouches for the address.
    Operator,
}

#[derive(Debug, thiserror::Error)]
pub enum RegistrationError {
    #[error("an account with this address exists already")]
    EmailTaken,
    #[error("there is no such plan; the plans are in the table `plans`")]
    UnknownPlan,
    #[error(transparent)]
    Password(#[from] PasswordError),
    #[error("no connection to Postgres")]
    Pool(#[from] PoolError),
    #[error(transparent)]
    Mail(#[from] JobError),
    #[error(transparent)]
    Database(#[from] diesel::result::Error),
}

impl From<CreateError> for RegistrationError {
    fn from(error: CreateError) -> Self {
        match error {
            CreateError::EmailTaken => Self::EmailTaken,
            CreateError::UnknownPlan => Self::UnknownPlan,
            CreateError::Database(error) => Self::Database(error),
        }
    }
}

impl From<RegistrationError> for ApiError {
    fn from(error: RegistrationError) -> Self {
        match error {
            RegistrationError::EmailTaken => Self::new(Code::EmailTaken),
            RegistrationError::UnknownPlan => Self::internal(error),
            RegistrationError::Password(error) => error.into(),
            RegistrationError::Pool(error) => error.into(),
            RegistrationError::Mail(error) => error.into(),
            RegistrationError::Database(error) => error.into(),
        }
    }
}

/// Creates the account with a running subscription to its plan, the mail that verifies its address
/// and its first audit row, all or nothing.
pub async fn register(
    db: &Pool,
    passwords: &PasswordHasher,
    registration: Registration<'_>,
    now: DateTime<Utc>,
) -> Result<Profile, RegistrationError> {
    let id = UserId::generate();
    // Hashed first: a connection is not kept waiting for it.
    let password_hash = passwords.hash(registration.password).await?.into();
    let account = NewAccount {
        id,
        email: registration.email,
        password_hash,
        full_name: registration.full_name,
        role: registration.role,
        is_verified: matches!(registration.by, Registrar::Operator),
        ends: end_of_first_period(&registration.plan, now),
        plan: registration.plan,
        starts: now,
    };
    let mut connection = db.get().await?;
    connection
        .transaction(async |connection| {
            store::create(connection, &account).await?;
            welcome(connection, &account, registration.by).await
        })
        .await?;
    store::profile(&mut connection, id)
        .await?
        .ok_or(RegistrationError::Database(diesel::result::Error::NotFound))
}

async fn welcome(
    connection: &mut AsyncPgConnection,
    account: &NewAccount,
    by: Registrar<'_>,
) -> Result<(), RegistrationError> {
    let event = match by {
        Registrar::Owner {
            keys,
            verification_ttl,
            request,
        } => {
            let (id, email, now) = (account.id, &account.email, account.starts);
            recovery::send_verification(connection, keys, id, email, now, verification_ttl).await?;
            Event::own(Action::Register, id).in_request(request)
        }
        Registrar::Operator => {
            Event::new(Action::Register, Actor::Cli).on(Subject::User(account.id))
        }
    };
    audit::record(connection, &event).await?;
    Ok(())
}

/// The free plan does not end; the names of the others say how long they run.
fn end_of_first_period(plan: &str, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
    match plan {
        plan if plan.ends_with("_monthly") => now.checked_add_months(Months::new(1)),
        plan if plan.ends_with("_yearly") => now.checked_add_months(Months::new(12)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("free", None)]
    #[case("premium_monthly", Some("2026-02-28T10:00:00Z"))]
    #[case("premium_yearly", Some("2027-01-31T10:00:00Z"))]
    fn a_plan_runs_for_its_period(#[case] plan: &str, #[case] ends: Option<&str>) {
        let now = "2026-01-31T10:00:00Z".parse().unwrap();
        let ends = ends.map(|text| text.parse::<DateTime<Utc>>().unwrap());
        assert_eq!(end_of_first_period(plan, now), ends);
    }
}
