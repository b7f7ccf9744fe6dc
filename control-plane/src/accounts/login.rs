//! From address and password to a session.

use chrono::{DateTime, Utc};
use secrecy::SecretString;

use super::passwords::Verdict;
use super::profile::Profile;
use super::sessions::{self, NewSession, Tokens};
use super::{Email, password_change, store};
use crate::app::AppState;
use crate::error::{ApiError, Code};

#[derive(Debug)]
pub(super) struct LoggedIn {
    pub(super) profile: Profile,
    pub(super) tokens: Tokens,
}

/// An address that nobody has costs the same work as a wrong password. Only who knows the password
/// learns that the account is suspended.
pub(super) async fn log_in(
    state: &AppState,
    email: &str,
    password: SecretString,
    now: DateTime<Utc>,
) -> Result<LoggedIn, ApiError> {
    let found = match Email::parse(email) {
        Ok(email) => {
            let mut connection = state.db().get().await?;
            store::credentials(&mut connection, &email).await?
        }
        Err(_) => None,
    };
    let (id, hash) = found.map(|found| (found.id, found.password_hash)).unzip();
    let verdict = state
        .passwords()
        .verify(password.clone(), hash.clone())
        .await?;
    let id = id
        .filter(|_| verdict.matches())
        .ok_or(Code::InvalidCredentials)?;
    if verdict == Verdict::Outdated
        && let Some(outdated) = hash
    {
        password_change::renew(state, id, password, outdated).await?;
    }
    let mut connection = state.db().get().await?;
    let profile = store::profile(&mut connection, id)
        .await?
        .ok_or(Code::InvalidCredentials)?
        .active()?;
    let new = NewSession {
        user: profile.id,
        role: profile.role,
        client: None,
        name: None,
    };
    let tokens = sessions::open(state, &mut connection, new, now).await?;
    Ok(LoggedIn { profile, tokens })
}
