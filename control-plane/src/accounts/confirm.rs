//! Asking once more for the password, before an act that a stolen access token must not reach.

use diesel_async::AsyncPgConnection;
use secrecy::SecretString;
use shared::ids::UserId;

use super::Email;
use super::store::{self, Owner};
use crate::app::AppState;
use crate::error::{ApiError, Code};

/// The address of the account, if this is its password.
pub(super) async fn password(
    state: &AppState,
    user: UserId,
    password: SecretString,
) -> Result<Email, ApiError> {
    let owner = {
        let mut connection = state.db().get().await?;
        owner(&mut connection, user).await?
    };
    let stored = Some(owner.password_hash);
    if state.passwords().verify(password, stored).await? {
        Email::parse(&owner.email).map_err(ApiError::internal)
    } else {
        Err(Code::WrongPassword.into())
    }
}

/// The address of an account that is not suspended.
pub(super) async fn address(
    connection: &mut AsyncPgConnection,
    user: UserId,
) -> Result<Email, ApiError> {
    let owner = owner(connection, user).await?;
    Email::parse(&owner.email).map_err(ApiError::internal)
}

async fn owner(connection: &mut AsyncPgConnection, user: UserId) -> Result<Owner, ApiError> {
    let owner = store::owner(connection, user).await?;
    let owner = owner.ok_or(Code::Unauthorized)?;
    if owner.is_active {
        Ok(owner)
    } else {
        Err(Code::AccountSuspended.into())
    }
}
