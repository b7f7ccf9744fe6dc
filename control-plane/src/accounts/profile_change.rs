//! What people change about themselves.

use chrono::{DateTime, Utc};
use diesel_async::{AsyncConnection, AsyncPgConnection};
use secrecy::SecretString;
use shared::ids::UserId;

use super::confirmation::{account, confirm};
use super::profile::Profile;
use super::store::own::{Account, EmailError};
use super::store::{self, own};
use super::{Email, recovery};
use crate::app::AppState;
use crate::audit::{self, Action, Event};
use crate::error::{ApiError, Code};
use crate::http::RequestId;
use crate::mail::{self, Letter};

/// What shall be different.
#[derive(Debug)]
pub(super) struct Wanted {
    /// Another name, or none.
    pub(super) full_name: Option<Option<String>>,
    pub(super) email: Option<Email>,
    pub(super) password: Option<SecretString>,
}

impl From<EmailError> for ApiError {
    fn from(error: EmailError) -> Self {
        match error {
            EmailError::Taken => Code::EmailTaken.into(),
            EmailError::Database(error) => error.into(),
        }
    }
}

/// Changes what is wanted, all or nothing. Another address needs the password.
pub(super) async fn change(
    state: &AppState,
    user: UserId,
    wanted: Wanted,
    request: &RequestId,
    now: DateTime<Utc>,
) -> Result<Profile, ApiError> {
    let account = account(state, user).await?;
    let email = wanted.email.filter(|email| *email != account.email);
    if email.is_some() {
        let needed = || ApiError::invalid("current_password", "Is required for another address");
        let password = wanted.password.ok_or_else(needed)?;
        confirm(state, &account, password, Action::ChangeEmail, request).await?;
    }
    let mut connection = state.db().get().await?;
    connection
        .transaction(async |connection| {
            if let Some(name) = &wanted.full_name {
                own::set_full_name(connection, user, name.as_deref()).await?;
            }
            if let Some(email) = &email {
                move_to(state, connection, &account, email, now).await?;
                let event = Event::own(Action::ChangeEmail, user).in_request(request);
                audit::record(connection, &event).await?;
            }
            let profile = store::profile(connection, user).await?;
            profile.ok_or_else(|| ApiError::new(Code::Unauthorized))
        })
        .await
}

/// Gives the account its new address, and writes to both.
async fn move_to(
    state: &AppState,
    connection: &mut AsyncPgConnection,
    account: &Account,
    email: &Email,
    now: DateTime<Utc>,
) -> Result<(), ApiError> {
    if !own::set_email(connection, account, email).await? {
        return Err(Code::WrongPassword.into());
    }
    let (keys, ttl) = (state.keys(), state.config().accounts.verification_ttl);
    recovery::send_verification(connection, keys, account.id, email, now, ttl).await?;
    mail::post(connection, keys, &account.email, &Letter::EmailChanged).await?;
    Ok(())
}
