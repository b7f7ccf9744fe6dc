//! One change of one server.

use chrono::{DateTime, Utc};
use diesel_async::{AsyncConnection, AsyncPgConnection};
use serde_json::{Value, json};
use shared::ids::ServerId;

use super::rotation::planned;
use super::{By, Managed};
use crate::audit::{self, Action, Subject};
use crate::error::{ApiError, Code};
use crate::fleet::Fleet;
use crate::fleet::desired::Fence;
use crate::fleet::store::{self, Edit};
use crate::fleet::view::ServerStatus;

/// The first version of the protocol whose agents can be told to replace their key.
const ROTATION_SINCE: i16 = 2;

/// What shall be different.
#[derive(Debug, Clone)]
pub(in crate::fleet) enum Change {
    Edit(Box<Edit>),
    Status(ServerStatus),
    /// Whether to take no new clients.
    Drain(bool),
    /// At this time, or after the usual notice.
    PlanKeyRotation(Option<DateTime<Utc>>),
    CancelKeyRotation,
    /// The node's tokens end, and its session with them.
    Revoke,
}

/// What was, and what is.
struct Difference {
    before: Value,
    after: Value,
    /// Sessions before this one are over.
    fence: Option<Fence>,
}

impl Difference {
    const fn new(before: Value, after: Value) -> Self {
        Self {
            before,
            after,
            fence: None,
        }
    }
}

impl Change {
    const fn action(&self) -> Action {
        match self {
            Self::Edit(_) => Action::EditServer,
            Self::Status(_) => Action::ChangeServerStatus,
            Self::Drain(true) => Action::DrainServer,
            Self::Drain(false) => Action::UndrainServer,
            Self::PlanKeyRotation(_) => Action::PlanKeyRotation,
            Self::CancelKeyRotation => Action::CancelKeyRotation,
            Self::Revoke => Action::RevokeNode,
        }
    }

    const fn is_for_the_node(&self) -> bool {
        matches!(
            self,
            Self::Drain(_) | Self::PlanKeyRotation(_) | Self::CancelKeyRotation
        )
    }

    /// Writes the change; none when it is so already.
    async fn write(
        &self,
        conn: &mut AsyncPgConnection,
        server: &Managed,
        now: DateTime<Utc>,
    ) -> Result<Option<Difference>, ApiError> {
        let node = server.node.as_ref();
        let difference = match self {
            Self::Edit(edit) => {
                let difference = edit.difference(server);
                if difference.is_some() {
                    store::edit(conn, server, edit).await?;
                }
                return Ok(difference.map(|(before, after)| Difference::new(before, after)));
            }
            Self::Status(status) if *status == server.status => None,
            Self::Status(status) => {
                store::set_status(conn, server.id, *status).await?;
                let word = |status: ServerStatus| json!({ "status": status.as_str() });
                Some(Difference::new(word(server.status), word(*status)))
            }
            Self::Drain(wanted) => {
                let since = node.and_then(|node| node.drain_requested_at);
                if since.is_some() == *wanted {
                    return Ok(None);
                }
                let requested_at = wanted.then_some(now);
                store::set_drain(conn, server.id, requested_at).await?;
                let word = |at: Option<DateTime<Utc>>| json!({ "drain_requested_at": at });
                Some(Difference::new(word(since), word(requested_at)))
            }
            Self::PlanKeyRotation(wanted) => {
                let at = planned(*wanted, now)?;
                if node.and_then(|node| node.protocol) < Some(ROTATION_SINCE) {
                    let error = ApiError::new(Code::Conflict);
                    return Err(error.with_message(
                        "The server's agent cannot replace its key: it has to be a newer one",
                    ));
                }
                rotation(conn, server, Some(at)).await?
            }
            Self::CancelKeyRotation => rotation(conn, server, None).await?,
            Self::Revoke => {
                let revoked = store::revoke(conn, server.id).await?;
                let word = |epoch: i32| json!({ "token_epoch": epoch });
                Some(Difference {
                    fence: Some(revoked.fence),
                    ..Difference::new(word(revoked.epoch - 1), word(revoked.epoch))
                })
            }
        };
        Ok(difference)
    }
}

async fn rotation(
    conn: &mut AsyncPgConnection,
    server: &Managed,
    at: Option<DateTime<Utc>>,
) -> Result<Option<Difference>, ApiError> {
    let before = server.node.as_ref().and_then(|node| node.rotate_key_at);
    if before == at {
        return Ok(None);
    }
    store::set_rotation(conn, server.id, at).await?;
    let word = |at: Option<DateTime<Utc>>| json!({ "rotate_key_at": at });
    Ok(Some(Difference::new(word(before), word(at))))
}

impl Fleet {
    /// Makes the change, if it is one.
    pub(in crate::fleet) async fn change(
        &self,
        server: ServerId,
        change: Change,
        by: By<'_>,
    ) -> Result<(), ApiError> {
        let now = Utc::now();
        let event = by.event(change.action()).on(Subject::Server(server));
        let changed = {
            let mut conn = self.db.get().await?;
            conn.transaction(async |conn| {
                let managed = store::lock_server(conn, server).await?;
                let managed = managed.ok_or(Code::ServerNotFound)?;
                let Some(difference) = change.write(conn, &managed, now).await? else {
                    return Ok::<_, ApiError>(None);
                };
                let event = event.change(difference.before, difference.after);
                audit::record(conn, &event).await?;
                Ok(Some(difference.fence))
            })
            .await?
        };
        let Some(fence) = changed else {
            return Ok(());
        };
        tracing::info!(%server, action = change.action().as_str(), "fleet.server_changed");
        if let Some(fence) = fence {
            self.end_sessions(server, fence);
        }
        if change.is_for_the_node() {
            self.redirect(server);
        }
        self.catalogue_changed().await;
        Ok(())
    }
}
