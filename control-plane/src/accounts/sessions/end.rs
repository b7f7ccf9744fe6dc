//! How sessions end: the rows first, then whoever has to know.

use diesel::QueryResult;
use diesel_async::AsyncPgConnection;
use shared::ids::UserId;

use super::{SessionId, store};
use crate::app::AppState;

/// Why a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndReason {
    LoggedOut,
    /// By its owner, from another session.
    Ended,
    /// A refresh token or an authorization code came a second time.
    Reused,
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

/// Ends the person's sessions, all or all but one. [`announce`] them after the commit.
pub async fn end_all(
    connection: &mut AsyncPgConnection,
    user: UserId,
    except: Option<SessionId>,
    reason: EndReason,
) -> QueryResult<Ended> {
    store::end_all(connection, user, except, reason)
        .await
        .map(Ended)
}

/// Tells every replica.
pub fn announce(state: &AppState, ended: &Ended) {
    state.revocations().announce(&ended.0);
}
