//! How an account ends.
//!
//! At once nothing personal is left: the row becomes a tombstone, which frees the address. It stays
//! until its nodes have forgotten its peers and its access tokens have expired; then
//! [`sweep`] removes it.

mod store;

use std::time::Duration;

use diesel::QueryResult;
use diesel_async::{AsyncConnection, AsyncPgConnection};
use secrecy::SecretString;
use shared::ids::UserId;

use super::confirmation::{account, confirm};
use super::places;
use super::sessions::{self, EndReason};
use crate::analytics;
use crate::app::AppState;
use crate::audit::{self, Action, Event};
use crate::billing::customers;
use crate::error::{ApiError, Code};
use crate::http::RequestId;
use crate::mail::{self, Letter};
use crate::tunnels;

/// Deletes somebody's own account.
pub(super) async fn delete(
    state: &AppState,
    user: UserId,
    password: SecretString,
    request: &RequestId,
) -> Result<(), ApiError> {
    let account = account(state, user).await?;
    confirm(state, &account, password, Action::DeleteAccount, request).await?;
    let event = Event::own(Action::DeleteAccount, user).in_request(request);
    let ended = {
        let mut connection = state.db().get().await?;
        connection
            .transaction(async |connection| {
                if !store::erase(connection, &account).await? {
                    return Err(ApiError::new(Code::WrongPassword));
                }
                customers::close(state, connection, user).await?;
                places::forget_all(connection, user).await?;
                let ended = sessions::end_all(connection, user, None, EndReason::Deleted).await?;
                let letter = Letter::AccountDeleted;
                mail::post(connection, state.keys(), &account.email, &letter).await?;
                audit::record(connection, &event).await?;
                Ok(ended)
            })
            .await?
    };
    sessions::announce(state, &ended);
    tunnels::end_all_of(state, user, tunnels::EndReason::Deleted).await
}

/// Removes at most `limit` tombstones that nothing refers to any more, with what they used, and says how many
/// it were. Call it in a transaction.
pub async fn sweep(
    connection: &mut AsyncPgConnection,
    access_token_life: Duration,
    limit: i64,
) -> QueryResult<usize> {
    let gone = store::sweep(connection, access_token_life, limit).await?;
    analytics::forget_users(connection, &gone).await?;
    Ok(gone.len())
}
