//! What somebody does to their account only with its password, whoever holds their token.

use secrecy::SecretString;
use shared::ids::UserId;

use super::store::own::{self, Account};
use crate::app::AppState;
use crate::audit::{self, Action, Event};
use crate::error::{ApiError, Code};
use crate::http::RequestId;

/// The account of somebody whose token is good.
pub(super) async fn account(state: &AppState, user: UserId) -> Result<Account, ApiError> {
    let account = {
        let mut connection = state.db().get().await?;
        own::account(&mut connection, user).await?
    };
    let account = account.ok_or(Code::Unauthorized)?;
    if !account.is_active {
        return Err(Code::AccountSuspended.into());
    }
    Ok(account)
}

/// Insists on the account's password. A wrong one is on record as `action` refused.
pub(super) async fn confirm(
    state: &AppState,
    account: &Account,
    password: SecretString,
    action: Action,
    request: &RequestId,
) -> Result<(), ApiError> {
    let stored = Some(account.password_hash.clone());
    if state.passwords().verify(password, stored).await?.matches() {
        return Ok(());
    }
    let event = Event::own(action, account.id).refused().in_request(request);
    let mut connection = state.db().get().await?;
    audit::record(&mut connection, &event).await?;
    Err(Code::WrongPassword.into())
}
