//! How a session begins.

use chrono::{DateTime, Utc};
use diesel_async::AsyncPgConnection;
use shared::ids::UserId;

use super::{Ended, SessionId, store};
use crate::accounts::Role;
use crate::accounts::tokens::AccessToken;
use crate::app::AppState;
use crate::error::{ApiError, Code};
use crate::secrets::SecretToken;

/// Who logs in, and with what.
#[derive(Debug, Clone, Copy)]
pub struct NewSession<'a> {
    pub user: UserId,
    /// The most that the access token may say.
    pub role: Role,
    /// The hash of the password that was proved; the session is opened only while it is still this.
    pub proved: Option<&'a str>,
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
    /// What had to make room. [`announce`](super::announce) it after the commit.
    pub displaced: Ended,
}

/// Opens a session. Call it in the transaction that checked the login. Of more than
/// [`MOST`](store::MOST) of a person the longest unused end.
///
/// Whoever was suspended or got another password since the check is refused; whoever lost a role gets the one they have.
pub async fn open(
    state: &AppState,
    connection: &mut AsyncPgConnection,
    new: NewSession<'_>,
    now: DateTime<Utc>,
) -> Result<Tokens, ApiError> {
    let session = SessionId::generate();
    let refresh = SecretToken::generate();
    let expires_at = now + state.config().tokens.refresh_token_life;
    let opened = store::insert(connection, session, &new, refresh.hash(), expires_at)
        .await?
        .ok_or(match new.proved {
            Some(_) => Code::InvalidCredentials,
            None => Code::AccountSuspended,
        })?;
    let role = new.role.min(opened.role);
    Ok(Tokens {
        session,
        access: state.tokens().issue(new.user, role, session, now)?,
        refresh,
        displaced: Ended(opened.displaced),
    })
}
