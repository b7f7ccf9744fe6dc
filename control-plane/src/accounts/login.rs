//! From address and password to a session.

use chrono::{DateTime, Utc};
use diesel_async::AsyncConnection;
use secrecy::{ExposeSecret, SecretString};

use super::email::normalised;
use super::passwords::Verdict;
use super::profile::Profile;
use super::sessions::{self, NewSession, Tokens};
use super::store::Credentials;
use super::{Email, guessing, mfa, password_change, places, store};
use crate::app::AppState;
use crate::audit::{self, Action, Actor, Event, Subject};
use crate::error::{ApiError, Code};
use crate::guard::{Caller, LoginPlace};
use crate::http::RequestId;

/// What somebody proves themself with.
#[derive(Debug)]
pub(crate) struct Proof {
    pub(crate) email: String,
    pub(crate) password: SecretString,
    /// The second factor's, where one is enabled.
    pub(crate) otp: Option<SecretString>,
}

/// Somebody who proved who they are.
pub(crate) struct Authenticated {
    pub(crate) profile: Profile,
    /// Of the password that was proved. What the login opens is opened only while it is still this,
    /// so that a login on its way does not outlive a change of the password.
    pub(crate) password_hash: String,
    /// Where they are. What the login opens makes it a known one.
    pub(crate) place: Option<LoginPlace>,
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
    caller: &Caller,
    now: DateTime<Utc>,
    request: &RequestId,
) -> Result<LoggedIn, ApiError> {
    let Authenticated {
        profile,
        password_hash,
        place,
    } = authenticate(state, proof, caller, now, request).await?;
    let new = NewSession {
        user: profile.id,
        role: profile.role,
        proved: Some(&password_hash),
        client: None,
        name: device_name,
    };
    let mut connection = state.db().get().await?;
    let tokens = connection
        .transaction(async |connection| {
            let tokens = sessions::open(state, connection, new, now).await?;
            places::remember(connection, profile.id, place, now).await?;
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
/// of the log. Only who knows the password learns anything of the account. Who tries too often is
/// turned away before the hash, and leaves no row.
pub(crate) async fn authenticate(
    state: &AppState,
    proof: Proof,
    caller: &Caller,
    now: DateTime<Utc>,
    request: &RequestId,
) -> Result<Authenticated, ApiError> {
    let found = find(state, &proof.email).await?;
    let account = state.guard().account(&normalised(&proof.email));
    guessing::admit(
        state,
        found.as_ref(),
        &proof.email,
        account,
        caller,
        now,
        request,
    )
    .await?;
    let user = found.as_ref().map(|found| found.profile.id);
    let checked = check(state, found, proof, caller, now).await;
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
    if checked.is_ok() {
        state.guard().proved(caller, account).await;
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
            | Code::RateLimited
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
    caller: &Caller,
    now: DateTime<Utc>,
) -> Result<Authenticated, ApiError> {
    let hash = found.as_ref().map(|found| found.password_hash.clone());
    let verdict = state
        .passwords()
        .verify(proof.password.clone(), hash)
        .await?;
    let Credentials {
        profile,
        mut password_hash,
        has_second_factor,
        ..
    } = found
        .filter(|_| verdict.matches())
        .ok_or(Code::InvalidCredentials)?;
    let profile = profile.active()?;
    if state.config().accounts.require_verified_email && !profile.is_verified {
        return Err(Code::EmailNotVerified.into());
    }
    if verdict == Verdict::Outdated {
        password_hash =
            password_change::renew(state, profile.id, proof.password, password_hash).await?;
    }
    if has_second_factor {
        let otp = proof.otp.as_ref().map(ExposeSecret::expose_secret);
        let mut connection = state.db().get().await?;
        mfa::verify(&mut connection, state.keys(), profile.id, otp, now).await?;
    }
    Ok(Authenticated {
        place: state.guard().place(caller, profile.id),
        profile,
        password_hash,
    })
}
