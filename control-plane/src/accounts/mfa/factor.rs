//! The rules of the second factor.

use chrono::{DateTime, Utc};
use diesel_async::{AsyncConnection, AsyncPgConnection};
use secrecy::{ExposeSecret, SecretString};
use shared::ids::UserId;

use super::code::Authenticator;
use super::otp::{Otp, RecoveryCode};
use super::{SECRET_COLUMN, store};
use crate::accounts::confirmation::{account, confirm};
use crate::app::AppState;
use crate::audit::{self, Action, Event};
use crate::error::{ApiError, Code};
use crate::http::RequestId;
use crate::mail::{self, Letter};
use crate::secrets::{KeyRing, Place};

const RECOVERY_CODES: usize = 10;

/// What an authenticator app needs, shown once.
#[derive(Debug)]
pub(super) struct Setup {
    pub(super) secret: SecretString,
    pub(super) url: SecretString,
}

/// Makes a secret, which is worth nothing until a code of it comes. The password is asked for: an
/// access token alone must not lock its owner out.
pub(super) async fn set_up(
    state: &AppState,
    user: UserId,
    password: SecretString,
    request: &RequestId,
) -> Result<Setup, ApiError> {
    let account = account(state, user).await?;
    confirm(state, &account, password, Action::EnableMfa, request).await?;
    let made = Authenticator::generate().map_err(ApiError::internal)?;
    let sealed = state.keys().seal(place(user), made.secret())?;
    let mut connection = state.db().get().await?;
    if !store::set_up(&mut connection, user, &sealed).await? {
        return Err(already_enabled());
    }
    let issuer = &state.config().app.name;
    Ok(Setup {
        secret: made.as_base32(),
        url: made
            .as_url(issuer, account.email.as_str())
            .map_err(ApiError::internal)?,
    })
}

/// Puts the factor in force once its owner's app shows a right code.
pub(super) async fn enable(
    state: &AppState,
    user: UserId,
    code: &str,
    now: DateTime<Utc>,
    request: &RequestId,
) -> Result<Vec<RecoveryCode>, ApiError> {
    let to = account(state, user).await?.email;
    let mut connection = state.db().get().await?;
    let factor = store::factor(&mut connection, user).await?;
    let factor = factor.ok_or_else(|| {
        ApiError::new(Code::Conflict).with_message("Set up an authenticator first")
    })?;
    if factor.is_enabled {
        return Err(already_enabled());
    }
    let step = match Otp::parse(code) {
        Some(Otp::Code(code)) => {
            open(state.keys(), user, &factor.sealed_secret)?.step_of(code.expose_secret(), now)
        }
        Some(Otp::Recovery(_)) | None => None,
    };
    let Some(step) = step else {
        return Err(refuse(&mut connection, user, now).await?);
    };
    let enabled = connection
        .transaction(async move |connection| {
            if !store::enable(connection, user, &factor.sealed_secret, step, now).await? {
                return Ok(None);
            }
            let codes: Vec<_> = (0..RECOVERY_CODES)
                .map(|_| RecoveryCode::generate())
                .collect();
            store::replace_recovery_codes(connection, user, &codes).await?;
            let event = Event::own(Action::EnableMfa, user).in_request(request);
            audit::record(connection, &event).await?;
            mail::post(connection, state.keys(), &to, &Letter::MfaEnabled).await?;
            Ok::<_, ApiError>(Some(codes))
        })
        .await?;
    match enabled {
        Some(codes) => Ok(codes),
        // Locked, or set up anew meanwhile.
        None => Err(refuse(&mut connection, user, now).await?),
    }
}

/// Removes the factor for who knows the password and has a code of either kind.
pub(super) async fn disable(
    state: &AppState,
    user: UserId,
    password: SecretString,
    code: &str,
    now: DateTime<Utc>,
    request: &RequestId,
) -> Result<(), ApiError> {
    let account = account(state, user).await?;
    confirm(state, &account, password, Action::DisableMfa, request).await?;
    let to = account.email;
    let mut connection = state.db().get().await?;
    verify(&mut connection, state.keys(), user, Some(code), now).await?;
    connection
        .transaction(async move |connection| {
            if !store::remove(connection, user).await? {
                let error = ApiError::new(Code::Conflict);
                return Err(error.with_message("No second factor is enabled"));
            }
            let event = Event::own(Action::DisableMfa, user).in_request(request);
            audit::record(connection, &event).await?;
            mail::post(connection, state.keys(), &to, &Letter::MfaDisabled).await?;
            Ok(())
        })
        .await
}

/// Whether the person may pass: there is no factor in force, or `otp` is right. Counts failures, so
/// that it must not run in a transaction of the caller's: a rolled back failure would be a free guess.
pub async fn verify(
    connection: &mut AsyncPgConnection,
    keys: &KeyRing,
    user: UserId,
    otp: Option<&str>,
    now: DateTime<Utc>,
) -> Result<(), ApiError> {
    let factor = store::factor(connection, user).await?;
    let Some(factor) = factor.filter(|factor| factor.is_enabled) else {
        return Ok(());
    };
    let otp = otp.filter(|otp| !otp.trim().is_empty());
    let accepted = match Otp::parse(otp.ok_or(Code::OtpRequired)?) {
        Some(Otp::Code(code)) => {
            let authenticator = open(keys, user, &factor.sealed_secret)?;
            match authenticator.step_of(code.expose_secret(), now) {
                Some(step) => store::accept_step(connection, user, step, now).await?,
                None => false,
            }
        }
        Some(Otp::Recovery(hash)) => {
            connection
                .transaction(async move |connection| {
                    let accepted = store::accept_recovery_code(connection, user, hash, now).await?;
                    if accepted {
                        let event = Event::own(Action::UseRecoveryCode, user);
                        audit::record(connection, &event).await?;
                    }
                    Ok::<_, diesel::result::Error>(accepted)
                })
                .await?
        }
        None => false,
    };
    if accepted {
        Ok(())
    } else {
        Err(refuse(connection, user, now).await?)
    }
}

/// Counts a failure and says what the caller is told.
async fn refuse(
    connection: &mut AsyncPgConnection,
    user: UserId,
    now: DateTime<Utc>,
) -> Result<ApiError, ApiError> {
    let counted = store::count_failure(connection, user, now).await?;
    Ok(if counted {
        Code::OtpInvalid.into()
    } else {
        ApiError::new(Code::RateLimited).with_message("Too many wrong codes; try again later")
    })
}

fn already_enabled() -> ApiError {
    ApiError::new(Code::Conflict).with_message("A second factor is enabled; disable it first")
}

fn open(keys: &KeyRing, user: UserId, sealed: &[u8]) -> Result<Authenticator, ApiError> {
    let secret = keys.open(place(user), sealed)?;
    Authenticator::from_bytes(&secret).map_err(ApiError::internal)
}

const fn place(user: UserId) -> Place {
    Place {
        column: SECRET_COLUMN,
        row: user.0,
    }
}
