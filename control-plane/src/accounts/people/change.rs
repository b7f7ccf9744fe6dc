//! Changing somebody else's account.

use diesel_async::AsyncConnection;
use serde_json::{Value, json};
use shared::ids::UserId;

use super::decision::Changer;
use super::store::{self, Standing};
use crate::accounts::Role;
use crate::accounts::sessions::{self, EndReason};
use crate::app::AppState;
use crate::audit::{self, Action, Event, Subject};
use crate::error::{ApiError, Code};
use crate::http::RequestId;
use crate::tunnels;

/// What shall be different.
#[derive(Debug, Clone)]
pub(super) enum Change {
    /// With the reason, for the record.
    Status(bool, Option<String>),
    Role(Role),
}

impl Change {
    const fn action(&self) -> Action {
        match self {
            Self::Status(..) => Action::ChangeStatus,
            Self::Role(_) => Action::ChangeRole,
        }
    }

    fn is_allowed(&self, changer: Changer<'_>, user: UserId, before: Standing) -> bool {
        changer.may_change(user, before.role)
            && match self {
                Self::Status(..) => true,
                Self::Role(role) => changer.may_grant(*role),
            }
    }

    const fn applied_to(&self, before: Standing) -> Standing {
        match *self {
            Self::Status(is_active, _) => Standing {
                is_active,
                ..before
            },
            Self::Role(role) => Standing { role, ..before },
        }
    }

    const fn ends_sessions(&self) -> Option<EndReason> {
        match self {
            Self::Status(true, _) => None,
            Self::Status(false, _) => Some(EndReason::Suspended),
            Self::Role(_) => Some(EndReason::RoleChanged),
        }
    }

    fn event(&self, changer: Changer<'_>, user: UserId, before: Standing) -> Event {
        let (before, after): (Value, Value) = match self {
            Self::Status(is_active, reason) => (
                json!({ "is_active": before.is_active }),
                json!({ "is_active": is_active, "reason": reason }),
            ),
            Self::Role(role) => (json!({ "role": before.role }), json!({ "role": role })),
        };
        Event::new(self.action(), changer.actor.clone())
            .on(Subject::User(user))
            .change(before, after)
    }
}

/// Makes the change, if it is one. Whoever is suspended or gets another role is logged out
/// everywhere; a suspended person's tunnels end.
pub(super) async fn apply(
    state: &AppState,
    changer: Changer<'_>,
    user: UserId,
    change: Change,
    request: &RequestId,
) -> Result<(), ApiError> {
    let outcome = {
        let mut connection = state.db().get().await?;
        connection
            .transaction(async |connection| {
                let before = store::lock(connection, user).await?;
                let before = before.ok_or(Code::UserNotFound)?;
                let event = change.event(changer, user, before).in_request(request);
                if !change.is_allowed(changer, user, before) {
                    audit::record(connection, &event.refused()).await?;
                    return Ok::<_, ApiError>(Err(Code::Forbidden));
                }
                let after = change.applied_to(before);
                if after == before {
                    return Ok(Ok(None));
                }
                store::set(connection, user, after).await?;
                audit::record(connection, &event).await?;
                let Some(reason) = change.ends_sessions() else {
                    return Ok(Ok(None));
                };
                let ended = sessions::end_all(connection, user, None, reason).await?;
                Ok(Ok(Some(ended)))
            })
            .await?
    };
    if let Some(ended) = outcome? {
        sessions::announce(state, &ended);
    }
    if matches!(change, Change::Status(false, _)) {
        tunnels::end_all_of(state, user, tunnels::EndReason::Suspended).await?;
    }
    Ok(())
}
