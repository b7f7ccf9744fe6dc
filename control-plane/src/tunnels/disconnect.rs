//! Disconnecting: the connection is over at once; its counters become final when the node says that
//! the peer is gone, which is waited for a moment.

use std::time::Duration;

use chrono::Utc;
use shared::ids::{ConnectionId, UserId};

use super::end::end;
use super::model::{Connection, EndReason, Status};
use super::store;
use crate::app::AppState;
use crate::error::{ApiError, Code};

/// How long an answer waits for the final counters.
const FINAL_COUNTERS_TIMEOUT: Duration = Duration::from_secs(2);

/// Ends the user's connection and returns it as it ended. An ended one is returned as it is. Without
/// an id the only live one is meant.
pub(super) async fn disconnect(
    state: &AppState,
    user: UserId,
    connection: Option<ConnectionId>,
    claimed: Option<(u64, u64)>,
) -> Result<Connection, ApiError> {
    let row = find(state, user, connection).await?;
    if row.status == Status::Disconnected {
        return Ok(row);
    }
    let waiter = state.fleet().expect(row.id)?;
    let ended = end(state, row.id, EndReason::Disconnected, claimed).await?;
    if !ended && row.status.is_live() {
        // Somebody else ended it meanwhile; the node's word may be here already.
        let row = find(state, user, Some(row.id)).await?;
        if row.status == Status::Disconnected {
            return Ok(row);
        }
    }
    if answers(state, &row) {
        // Where the node stays silent the answer has what is known, and the node removes the peer
        // when it is back.
        let _ = waiter.answer(FINAL_COUNTERS_TIMEOUT).await;
    }
    find(state, user, Some(row.id)).await
}

async fn find(
    state: &AppState,
    user: UserId,
    connection: Option<ConnectionId>,
) -> Result<Connection, ApiError> {
    let mut conn = state.db().get().await?;
    let Some(connection) = connection else {
        let mut live = store::live_of(&mut conn, user).await?;
        return match (live.pop(), live.is_empty()) {
            (Some(only), true) => Ok(only),
            (None, _) => Err(Code::ConnectionNotFound.into()),
            (Some(_), false) => {
                let error = ApiError::new(Code::Conflict);
                Err(error.with_detail("connection_id", "Several are live; say which one"))
            }
        };
    };
    let row = store::by_id(&mut conn, user, connection).await?;
    row.ok_or_else(|| Code::ConnectionNotFound.into())
}

/// Whether the connection's node can be expected to answer.
fn answers(state: &AppState, row: &Connection) -> bool {
    let view = state.fleet().view();
    row.server
        .as_ref()
        .and_then(|server| view.get(server.id))
        .is_some_and(|server| server.live().is_online(Utc::now()))
}
