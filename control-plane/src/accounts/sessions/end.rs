//! How sessions end: the rows first, then whoever has to know.

use diesel::QueryResult;
use diesel_async::{AsyncConnection, AsyncPgConnection};
use shared::ids::UserId;

use super::SessionId;
use super::store::{self, Presented};
use crate::app::AppState;
use crate::audit::{self, Action, Event, Subject};
use crate::error::ApiError;
use crate::http::RequestId;
use crate::oauth;
use crate::secrets::TokenHash;

/// Why a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndReason {
    LoggedOut,
    /// By its owner, from another session.
    Ended,
    /// A refresh token or an authorization code came a second time.
    Reused,
    /// By newer ones, of which there were too many.
    Displaced,
    PasswordChanged,
    Suspended,
    RoleChanged,
    Deleted,
}

impl EndReason {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::LoggedOut => "logged_out",
            Self::Ended => "ended",
            Self::Reused => "reused",
            Self::Displaced => "displaced",
            Self::PasswordChanged => "password_changed",
            Self::Suspended => "suspended",
            Self::RoleChanged => "role_changed",
            Self::Deleted => "deleted",
        }
    }
}

/// Sessions that ended. Worth nothing until they are announced.
#[derive(Debug)]
#[must_use = "announce them after the commit"]
pub struct Ended(pub(super) Vec<SessionId>);

impl Ended {
    /// Nothing ended.
    pub const fn none() -> Self {
        Self(Vec::new())
    }
}

/// Ends one live session of this person, writes it down and tells every replica; says whether there
/// was one.
pub async fn end(
    state: &AppState,
    user: UserId,
    session: SessionId,
    reason: EndReason,
    request: &RequestId,
) -> Result<bool, ApiError> {
    let action = match reason {
        EndReason::LoggedOut => Action::Logout,
        _ => Action::EndSession,
    };
    let event = Event::own(action, user)
        .on(Subject::Session(session.0))
        .in_request(request);
    let mut connection = state.db().get().await?;
    let ended = connection
        .transaction(async |connection| {
            let ended = store::end(connection, user, session, reason).await?;
            if ended {
                audit::record(connection, &event).await?;
            }
            Ok::<_, ApiError>(ended)
        })
        .await?;
    if ended {
        announce(state, &Ended(vec![session]));
    }
    Ok(ended)
}

/// Ends all of the person's sessions at their own wish.
pub async fn log_out_everywhere(
    state: &AppState,
    user: UserId,
    request: &RequestId,
) -> Result<(), ApiError> {
    let event = Event::own(Action::LogoutAll, user).in_request(request);
    let mut connection = state.db().get().await?;
    let ended = connection
        .transaction(async |connection| {
            audit::record(connection, &event).await?;
            end_all(connection, user, None, EndReason::LoggedOut).await
        })
        .await?;
    announce(state, &ended);
    Ok(())
}

/// Ends the session of a refresh token, used or not, if it is this client's. An unknown token ends
/// nothing.
pub async fn end_by_refresh_token(
    state: &AppState,
    presented: &str,
    client: Option<&str>,
    request: &RequestId,
) -> Result<(), ApiError> {
    let presented = Presented {
        token: TokenHash::of(presented),
        client,
    };
    let mut connection = state.db().get().await?;
    let ended = connection
        .transaction(async |connection| {
            let reason = EndReason::LoggedOut;
            let ended = store::end_presented(connection, &presented, reason).await?;
            if let Some((session, user)) = ended {
                let event = Event::own(Action::Logout, user)
                    .on(Subject::Session(session.0))
                    .in_request(request);
                audit::record(connection, &event).await?;
            }
            Ok::<_, ApiError>(ended)
        })
        .await?;
    if let Some((session, _)) = ended {
        announce(state, &Ended(vec![session]));
    }
    Ok(())
}

/// Ends one session of this person. [`announce`] it after the commit.
pub async fn end_one(
    connection: &mut AsyncPgConnection,
    user: UserId,
    session: SessionId,
    reason: EndReason,
) -> QueryResult<Ended> {
    let ended = store::end(connection, user, session, reason).await?;
    Ok(Ended(ended.then_some(session).into_iter().collect()))
}

/// Ends the person's sessions, all or all but one, and what an app could still open one with.
/// [`announce`] them after the commit.
pub async fn end_all(
    connection: &mut AsyncPgConnection,
    user: UserId,
    except: Option<SessionId>,
    reason: EndReason,
) -> QueryResult<Ended> {
    oauth::void_codes(connection, user).await?;
    store::end_all(connection, user, except, reason)
        .await
        .map(Ended)
}

/// Tells every replica.
pub fn announce(state: &AppState, ended: &Ended) {
    state.revocations().announce(&ended.0);
}
