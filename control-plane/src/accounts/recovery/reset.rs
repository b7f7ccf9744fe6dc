//! A new password for whoever gets the account's mail.

use chrono::{DateTime, Utc};
use diesel_async::{AsyncConnection, AsyncPgConnection};
use secrecy::SecretString;

use super::Purpose;
use super::store::{self, Proven};
use crate::accounts::email::normalised;
use crate::accounts::passwords::check_new;
use crate::accounts::sessions::{self, EndReason, Ended};
use crate::accounts::{Email, places};
use crate::app::AppState;
use crate::audit::{self, Action, Event};
use crate::error::{ApiError, Code};
use crate::guard::Caller;
use crate::http::RequestId;
use crate::mail::{self, Letter};
use crate::secrets::TokenHash;

/// Sets the password, ends every session and tells the owner, who is known at this place from now on. A
/// password that is too weak does not use the token up, and only a token that works makes us hash one.
pub(super) async fn reset(
    state: &AppState,
    token: &str,
    password: SecretString,
    caller: &Caller,
    request: &RequestId,
    now: DateTime<Utc>,
) -> Result<(), ApiError> {
    let token = TokenHash::of(token);
    let promised = peek(state, token, now).await?;
    check_new(&password, &promised.email)
        .map_err(|weak| ApiError::invalid("password", weak.to_string()))?;
    let hash = state.passwords().hash(password).await?.into();
    let (guard, account) = (state.guard(), normalised(&promised.email));
    let place = guard.place(caller, promised.user);
    let mut connection = state.db().get().await?;
    let ended = connection
        .transaction(async |connection| {
            let proven = store::redeem(connection, Purpose::ResetPassword, token, now)
                .await?
                .ok_or(Code::LinkInvalid)?;
            places::remember(connection, proven.user, place, now).await?;
            apply(state, connection, &proven, &hash, request, now).await
        })
        .await?;
    sessions::announce(state, &ended);
    state.jobs().ring();
    guard.proved(caller, guard.account(&account)).await;
    Ok(())
}

/// Gives its connection back before the password is hashed.
async fn peek(state: &AppState, token: TokenHash, now: DateTime<Utc>) -> Result<Proven, ApiError> {
    let mut connection = state.db().get().await?;
    let proven = store::peek(&mut connection, Purpose::ResetPassword, token, now).await?;
    proven.ok_or(Code::LinkInvalid.into())
}

async fn apply(
    state: &AppState,
    connection: &mut AsyncPgConnection,
    proven: &Proven,
    hash: &SecretString,
    request: &RequestId,
    now: DateTime<Utc>,
) -> Result<Ended, ApiError> {
    let email = Email::parse(&proven.email).map_err(ApiError::internal)?;
    store::set_password(connection, proven.user, hash).await?;
    store::void_links(connection, proven.user, now).await?;
    let ended =
        sessions::end_all(connection, proven.user, None, EndReason::PasswordChanged).await?;
    mail::post(connection, state.keys(), &email, &Letter::PasswordChanged).await?;
    let event = Event::own(Action::ResetPassword, proven.user).in_request(request);
    audit::record(connection, &event).await?;
    Ok(ended)
}
