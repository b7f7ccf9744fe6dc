//! Proving that an address is the account's.

use chrono::{DateTime, Utc};
use diesel_async::AsyncConnection;

use super::{Purpose, store};
use crate::app::AppState;
use crate::audit::{self, Action, Event};
use crate::error::{ApiError, Code};
use crate::http::RequestId;
use crate::secrets::TokenHash;

/// Uses a token and marks the address as verified.
pub(super) async fn verify(
    state: &AppState,
    token: &str,
    request: &RequestId,
    now: DateTime<Utc>,
) -> Result<(), ApiError> {
    let token = TokenHash::of(token);
    let mut connection = state.db().get().await?;
    connection
        .transaction(async |connection| {
            let proven = store::redeem(connection, Purpose::VerifyEmail, token, now)
                .await?
                .ok_or(Code::LinkInvalid)?;
            store::mark_verified(connection, proven.user).await?;
            let event = Event::own(Action::VerifyEmail, proven.user).in_request(request);
            audit::record(connection, &event).await?;
            Ok(())
        })
        .await
}

/// Whether a link would work at this moment.
pub(super) async fn check(
    state: &AppState,
    purpose: Purpose,
    token: &str,
    now: DateTime<Utc>,
) -> Result<(), ApiError> {
    let mut connection = state.db().get().await?;
    let proven = store::peek(&mut connection, purpose, TokenHash::of(token), now).await?;
    proven.map(drop).ok_or(Code::LinkInvalid.into())
}
