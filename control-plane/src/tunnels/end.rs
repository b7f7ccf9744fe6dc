//! Ending a connection: the row first, then whoever has to know.

use shared::ids::{ConnectionId, UserId};
use shared::wireguard::PublicKey;

use super::model::EndReason;
use super::store::{self, Ended};
use crate::app::AppState;
use crate::error::ApiError;

/// Ends a live connection; false when it was not live.
pub(super) async fn end(
    state: &AppState,
    connection: ConnectionId,
    reason: EndReason,
    claimed: Option<(u64, u64)>,
) -> Result<bool, ApiError> {
    let ended = {
        let mut conn = state.db().get().await?;
        store::end(&mut conn, connection, reason, claimed).await?
    };
    if let Some(ended) = &ended {
        announce(state, ended, Some(connection));
    }
    Ok(ended.is_some())
}

/// Ends all live connections of a person.
pub async fn end_all_of(state: &AppState, user: UserId, reason: EndReason) -> Result<(), ApiError> {
    end_some(state, user, None, reason).await
}

/// Ends a person's live connections with this key.
pub async fn end_of_key(
    state: &AppState,
    user: UserId,
    key: PublicKey,
    reason: EndReason,
) -> Result<(), ApiError> {
    end_some(state, user, Some(key), reason).await
}

async fn end_some(
    state: &AppState,
    user: UserId,
    key: Option<PublicKey>,
    reason: EndReason,
) -> Result<(), ApiError> {
    let ended = {
        let mut conn = state.db().get().await?;
        store::end_of(&mut conn, user, key, reason).await?
    };
    for connection in &ended {
        announce(state, connection, None);
    }
    Ok(())
}

/// Tells the node's session and the user's open sockets. `awaited` is the connection whose answer a
/// request in this process waits for.
pub(super) fn announce(state: &AppState, ended: &Ended, awaited: Option<ConnectionId>) {
    if let Some(server) = ended.server() {
        state.fleet().signal(server, awaited);
    }
    state.live().changed(ended.user());
    metrics::counter!("tunnels_ended_total", "reason" => ended.end_reason.clone()).increment(1);
}
