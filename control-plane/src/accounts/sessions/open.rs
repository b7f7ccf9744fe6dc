//! How a session begins.

use chrono::{DateTime, Utc};
use diesel_async::AsyncPgConnection;
use shared::ids::UserId;

use super::{SessionId, store};
use crate::accounts::Role;
use crate::accounts::tokens::AccessToken;
use crate::app::AppState;
use crate::error::ApiError;
use crate::secrets::SecretToken;

/// Who logs in, and with what.
#[derive(Debug, Clone, Copy)]
pub struct NewSession<'a> {
    pub user: UserId,
    /// What the access token says.
    pub role: Role,
    /// The OAuth client; none for a login with a password.
    pub client: Option<&'a str>,
    /// What the client calls itself.
    pub name: Option<&'a str>,
}

/// What the client is given.
#[derive(Debug)]
pub struct Tokens {
    pub session: SessionId,
    pub access: AccessToken,
    pub refresh: SecretToken,
}

/// Opens a session. Call it in the transaction that checked the login.
pub async fn open(
    state: &AppState,
    connection: &mut AsyncPgConnection,
    new: NewSession<'_>,
    now: DateTime<Utc>,
) -> Result<Tokens, ApiError> {
    let session = SessionId::generate();
    let refresh = SecretToken::generate();
    let expires_at = now + state.config().tokens.refresh_token_life;
    store::insert(connection, session, &new, refresh.hash(), expires_at).await?;
    let access = state.tokens().issue(new.user, new.role, session, now)?;
    Ok(Tokens {
        session,
        access,
        refresh,
    })
}
