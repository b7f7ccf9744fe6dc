//! From address and password to a session.

use chrono::{DateTime, Utc};
use diesel_async::AsyncConnection;
use secrecy::{ExposeSecret, SecretString};

use super::profile::Profile;
use super::sessions::{self, NewSession, Tokens};
use super::store::Credentials;
use super::{Email, mfa, store};
use crate::app::AppState;
use crate::audit::{self, Action, Actor, Event, Subject};
use crate::error::{ApiError, Code};
use crate::http::RequestId;

/// What somebody proves themself with.
#[derive(Debug)]
pub(crate) struct Proof {
    pub(crate) email: String,
    pub(crate) password: SecretString,
    /// The second factor's, where one is enabled.
    pub(crate) otp: Option<SecretString>,
}

#[derive(Debug)]
pub(super) struct LoggedIn {
    pub(super) profile: Profile,
    pub(super) tokens: Tokens,
}

/// Opens a session for whoever proves to be somebody.
pub(super) async fn log_in(
    state: &AppState,
    proof: Proof,
    device_name: Option<&str>,
    now: DateTime<Utc>,
    request: &RequestId,
) -> Result<LoggedIn, ApiError> {
    let profile = authenticate(state, proof, now, request).await?;
    let new = NewSession {
        user: profile.id,
        role: profile.role,
        client: None,
        name: device_name,
    };
    let mut connection = state.db().get().await?;
    let tokens = connection
        .transaction(async |connection| {
            let tokens = sessions::open(state, connection, new, now).await?;
            let event = Event::new(Action::Login, Actor::User(profile.id))
                .on(Subject::Session(tokens.session.0))
                .in_request(request);
            audit::record(connection, &event).await?;
            Ok::<_, ApiError>(tokens)
        })
        .await?;
    sessions::announce(state, &tokens.displaced);
    Ok(LoggedIn { profile, tokens })
}

/// Who this is. A failure is written down.
///
/// An address that nobody has costs the same work as a wrong password: one query, one hash, one row
/// of the log. Only who knows the password learns anything of the account.
pub(crate) async fn authenticate(
    state: &AppState,
    proof: Proof,
    now: DateTime<Utc>,
    request: &RequestId,
) -> Result<Profile, ApiError> {
    let found = find(state, &proof.email).await?;
    let user = found.as_ref().map(|found| found.profile.id);
    let checked = check(state, found, proof, now).await;
    if let Err(error) = &checked
        && is_refusal(error.code())
    {
        let mut event = Event::new(Action::Login, Actor::Anonymous)
            .in_request(request)
            .refused();
        if let Some(user) = user {
            event = event.on(Subject::User(user));
        }
        let mut connection = state.db().get().await?;
        audit::record(&mut connection, &event).await?;
    }
    checked
}

/// A missing code is the first half of every login with a second factor, and a busy service refuses
/// nobody in particular.
const fn is_refusal(code: Code) -> bool {
    matches!(
        code,
        Code::InvalidCredentials
            | Code::AccountSuspended
            | Code::EmailNotVerified
            | Code::OtpInvalid
    )
}

async fn find(state: &AppState, email: &str) -> Result<Option<Credentials>, ApiError> {
    let Ok(email) = Email::parse(email) else {
        return Ok(None);
    };
    let mut connection = state.db().get().await?;
    Ok(store::credentials(&mut connection, &email).await?)
}

async fn check(
    state: &AppState,
    found: Option<Credentials>,
    proof: Proof,
    now: DateTime<Utc>,
) -> Result<Profile, ApiError> {
    let (profile, has_second_factor, hash) = match found {
        Some(found) => (
            Some(found.profile),
            found.has_second_factor,
            Some(found.password_hash),
        ),
        None => (None, false, None),
    };
    let matches = state.passwords().verify(proof.password, hash).await?;
    let profile = profile
        .filter(|_| matches)
        .ok_or(Code::InvalidCredentials)?
        .active()?;
    if state.config().accounts.require_verified_email && !profile.is_verified {
        return Err(Code::EmailNotVerified.into());
    }
    if has_second_factor {
        let otp = proof.otp.as_ref().map(ExposeSecret::expose_secret);
        let mut connection = state.db().get().await?;
        mfa::verify(&mut connection, state.keys(), profile.id, otp, now).await?;
    }
    Ok(profile)
}
