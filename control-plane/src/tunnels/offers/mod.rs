//! Make before break: whoever watches a connection whose server is drained, closed or silent is
//! offered another one, ready to be used.
//!
//! - An offer is a connection like any other, made and acknowledged by the same path as connect. It
//!   supersedes the old one, takes no place of the plan and ends nothing.
//! - It becomes *the* connection, with the old one's place, at its first handshake or when its client
//!   connects to it; with that the old one ends. Nobody ever has two places for one.
//! - An offer that nobody uses ends by itself.
//! - All replicas together make one offer a connection: who finds the row as it was read may try, and
//!   an index allows no second.

mod accept;
mod making;
mod plan;
mod show;

use std::time::Duration;

use super::end::announce;
use super::store;
use crate::app::AppState;
use crate::error::ApiError;

pub(super) use accept::accept;
pub(super) use making::Candidate;
pub use show::offered;

const INTERVAL: Duration = Duration::from_secs(1);
/// Connections that move by one statement.
const BATCH: i32 = 500;

/// Makes offers and finishes the moves of those that are used, until the service stops.
pub async fn run(state: &AppState) {
    // A node that does not answer delays offers; it must not delay the end of a move.
    tokio::join!(make(state), finish(state));
}

async fn make(state: &AppState) {
    let mut rota = plan::Rota::default();
    while waited(state).await {
        if let Err(error) = making::round(state, &mut rota).await {
            tracing::warn!(%error, "tunnels.offers_failed");
        }
    }
}

async fn finish(state: &AppState) {
    while waited(state).await {
        if let Err(error) = finish_moves(state).await {
            tracing::warn!(%error, "tunnels.moves_unfinished");
        }
    }
}

async fn waited(state: &AppState) -> bool {
    let pause = tokio::time::sleep(INTERVAL);
    state.shutdown().run_until_cancelled(pause).await.is_some()
}

/// Ends the connections whose clients shook hands with what was offered to them.
async fn finish_moves(state: &AppState) -> Result<(), ApiError> {
    let (ended, kept) = {
        let mut conn = state.db().get().await?;
        if !store::offers_are_used(&mut conn).await? {
            return Ok(());
        }
        let ended = store::end_moved(&mut conn, BATCH).await?;
        (ended, store::keep_used(&mut conn).await?)
    };
    for connection in &ended {
        announce(state, connection, None);
    }
    for user in kept {
        state.live().changed(user);
    }
    Ok(())
}
