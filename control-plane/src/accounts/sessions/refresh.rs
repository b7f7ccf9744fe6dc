//! How a session goes on: its refresh token for the next one.

use chrono::{DateTime, Utc};
use diesel_async::{AsyncConnection, AsyncPgConnection};
use shared::ids::UserId;

use super::store::{self, Presented, Standing};
use super::{EndReason, Ended, SessionId, Tokens, announce};
use crate::accounts::Role;
use crate::app::AppState;
use crate::audit::{self, Action, Actor, Event, Subject};
use crate::error::{ApiError, Code};
use crate::http::RequestId;
use crate::secrets::{SecretToken, TokenHash};

/// Why there is no next token.
#[derive(Debug, thiserror::Error)]
pub enum RefreshError {
    #[error("the token is unknown or expired, is another client's, or its session has ended")]
    Invalid,
    #[error("the token was used before")]
    Reused,
    #[error("the account is suspended")]
    Suspended,
    #[error(transparent)]
    Other(#[from] ApiError),
}

impl From<RefreshError> for ApiError {
    fn from(error: RefreshError) -> Self {
        match error {
            RefreshError::Invalid => Code::RefreshTokenInvalid.into(),
            RefreshError::Reused => Code::RefreshTokenReused.into(),
            RefreshError::Suspended => Code::AccountSuspended.into(),
            RefreshError::Other(error) => error,
        }
    }
}

/// Exchanges a refresh token. `client` is the OAuth client that presents it; a session belongs to the
/// client that opened it, and one of a password to none.
///
/// A token works once. One that comes again was copied, by whom nobody can tell: the session ends for
/// both.
pub async fn refresh(
    state: &AppState,
    presented: &str,
    client: Option<&str>,
    now: DateTime<Utc>,
    request: &RequestId,
) -> Result<Tokens, RefreshError> {
    let next = SecretToken::generate();
    let presented = Presented {
        token: TokenHash::of(presented),
        client,
    };
    let life = state.config().tokens.refresh_token_life;
    let mut connection = state.db().get().await.map_err(ApiError::from)?;
    let found = store::rotate(&mut connection, &presented, next.hash(), now, life).await;
    let found = found
        .map_err(ApiError::from)?
        .ok_or(RefreshError::Invalid)?;
    match found.standing {
        Standing::Rotated => {}
        Standing::Suspended => return Err(RefreshError::Suspended),
        Standing::Ended => return Err(RefreshError::Invalid),
        Standing::Reused => {
            end_copied(&mut connection, state, found.session, found.user, request).await?;
            return Err(RefreshError::Reused);
        }
    }
    let role = match client {
        Some(_) => Role::User,
        None => found.role,
    };
    let access = state.tokens().issue(found.user, role, found.session, now);
    Ok(Tokens {
        session: found.session,
        access: access.map_err(ApiError::from)?,
        refresh: next,
        displaced: Ended::none(),
    })
}

async fn end_copied(
    connection: &mut AsyncPgConnection,
    state: &AppState,
    session: SessionId,
    user: UserId,
    request: &RequestId,
) -> Result<(), ApiError> {
    let event = Event::new(Action::RefreshReuse, Actor::Anonymous)
        .on(Subject::Session(session.0))
        .in_request(request)
        .refused();
    let ended = connection
        .transaction(async |connection| {
            let ended = store::end(connection, user, session, EndReason::Reused).await?;
            if ended {
                audit::record(connection, &event).await?;
            }
            Ok::<_, ApiError>(ended)
        })
        .await?;
    if ended {
        announce(state, &Ended(vec![session]));
    }
    Ok(())
}
