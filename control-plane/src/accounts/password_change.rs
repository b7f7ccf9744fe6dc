//! How one password hash follows another.

use diesel_async::AsyncConnection;
use secrecy::SecretString;
use shared::ids::UserId;

use super::confirmation::{account, confirm};
use super::passwords::{PasswordError, check_new};
use super::sessions::{self, EndReason, SessionId};
use super::store::own;
use crate::app::AppState;
use crate::audit::{self, Action, Event};
use crate::error::{ApiError, Code};
use crate::http::RequestId;
use crate::mail::{self, Letter};

/// Sets another password and ends every session but this one.
pub(super) async fn change(
    state: &AppState,
    (user, session): (UserId, SessionId),
    current: SecretString,
    new: SecretString,
    request: &RequestId,
) -> Result<(), ApiError> {
    let account = account(state, user).await?;
    check_new(&new, account.email.as_str())
        .map_err(|weak| ApiError::invalid("new_password", weak.to_string()))?;
    confirm(state, &account, current, Action::ChangePassword, request).await?;
    let hash = state.passwords().hash(new).await?;
    let event = Event::own(Action::ChangePassword, user).in_request(request);
    let ended = {
        let mut connection = state.db().get().await?;
        connection
            .transaction(async |connection| {
                if !own::replace_hash(connection, user, &account.password_hash, &hash).await? {
                    return Err(ApiError::new(Code::WrongPassword));
                }
                own::forget_resets(connection, user).await?;
                let reason = EndReason::PasswordChanged;
                let ended = sessions::end_all(connection, user, Some(session), reason).await?;
                let letter = Letter::PasswordChanged;
                mail::post(connection, state.keys(), &account.email, &letter).await?;
                audit::record(connection, &event).await?;
                Ok(ended)
            })
            .await?
    };
    sessions::announce(state, &ended);
    Ok(())
}

/// Replaces an outdated hash of a password that was just proved, and gives the one that proves it
/// from now on. Where the password was changed meanwhile, the change stands.
pub(super) async fn renew(
    state: &AppState,
    user: UserId,
    password: SecretString,
    outdated: String,
) -> Result<String, ApiError> {
    let hash = match state.passwords().hash(password).await {
        Ok(hash) => hash,
        // The login is good; the next one tries again.
        Err(PasswordError::Busy) => return Ok(outdated),
        Err(error) => return Err(error.into()),
    };
    let mut connection = state.db().get().await?;
    let replaced = own::replace_hash(&mut connection, user, &outdated, &hash).await?;
    Ok(if replaced { hash } else { outdated })
}
