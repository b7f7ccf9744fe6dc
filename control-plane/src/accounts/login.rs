//! From address and password to a session.

use chrono::{DateTime, Utc};
use secrecy::SecretString;

use super::profile::Profile;
use super::sessions::{self, NewSession, Tokens};
use super::{Email, mfa, store};
use crate::app::AppState;
use crate::error::{ApiError, Code};
use crate::http::RequestId;

#[derive(Debug)]
pub(super) struct LoggedIn {
    pub(super) profile: Profile,
    pub(super) tokens: Tokens,
}

/// Opens a session for whoever knows the password and has a code of the second factor.
pub(super) async fn log_in(
    state: &AppState,
    email: &str,
    password: SecretString,
    otp: Option<&str>,
    now: DateTime<Utc>,
    request: &RequestId,
) -> Result<LoggedIn, ApiError> {
    let profile = authenticate(state, email, password, otp, now, request).await?;
    let new = NewSession {
        user: profile.id,
        role: profile.role,
        client: None,
        name: None,
    };
    let mut connection = state.db().get().await?;
    let tokens = sessions::open(state, &mut connection, new, now).await?;
    Ok(LoggedIn { profile, tokens })
}

/// An address that nobody has costs the same work as a wrong password. Only who knows the password
/// learns that the account is suspended, or has a second factor.
pub(crate) async fn authenticate(
    state: &AppState,
    email: &str,
    password: SecretString,
    otp: Option<&str>,
    now: DateTime<Utc>,
    _request: &RequestId,
) -> Result<Profile, ApiError> {
    let found = match Email::parse(email) {
        Ok(email) => {
            let mut connection = state.db().get().await?;
            store::credentials(&mut connection, &email).await?
        }
        Err(_) => None,
    };
    let (id, hash) = found.map(|found| (found.id, found.password_hash)).unzip();
    let matches = state.passwords().verify(password, hash).await?;
    let id = id.filter(|_| matches).ok_or(Code::InvalidCredentials)?;
    let mut connection = state.db().get().await?;
    let profile = store::profile(&mut connection, id)
        .await?
        .ok_or(Code::InvalidCredentials)?
        .active()?;
    mfa::verify(&mut connection, state.keys(), profile.id, otp, now).await?;
    Ok(profile)
}
