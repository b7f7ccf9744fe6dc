//! What ends by itself: connects without an answer, idle and expired connections, those of suspended
//! users, and the old halves of finished moves.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use chrono::Utc;
use shared::ids::ServerId;

use super::end::announce;
use super::store::{self, Due, Ended};
use crate::app::AppState;
use crate::error::ApiError;
use crate::fleet::FRESHNESS;

const INTERVAL: Duration = Duration::from_secs(2);
/// Connections ended by one statement.
const BATCH: i32 = 500;
/// A node that was away reports first what happened meanwhile; before that, silence about a peer
/// does not mean that the peer is idle.
const REPORTING_FOR: Duration = Duration::from_secs(60);

/// Runs until the service stops.
pub async fn run(state: &AppState) {
    let mut reporting = Reporting::default();
    let tick = || tokio::time::sleep(INTERVAL);
    while state.shutdown().run_until_cancelled(tick()).await.is_some() {
        let now = Instant::now();
        reporting.observe(online(state), now);
        loop {
            match end_due(state, &reporting, now).await {
                Ok(ended) if ended.len() == usize::try_from(BATCH).unwrap_or(0) => {}
                Ok(_) => break,
                Err(error) => {
                    tracing::warn!(%error, "tunnels.cleanup_failed");
                    break;
                }
            }
        }
    }
}

async fn end_due(
    state: &AppState,
    reporting: &Reporting,
    now: Instant,
) -> Result<Vec<Ended>, ApiError> {
    let vpn = &state.config().vpn;
    let unanswered = vpn.connect_ack_timeout * 3 / 2;
    // A node counts as online for a while after it was last heard, and is then asked once more.
    let refused = FRESHNESS + unanswered;
    let due = Due {
        unanswered,
        refused,
        answering: reporting.since(refused, now),
        idle: vpn.connection_idle_timeout,
        reporting: reporting.since(REPORTING_FOR, now),
        limit: BATCH,
    };
    let (asked, ended) = {
        let mut conn = state.db().get().await?;
        let asked = store::ask_again(&mut conn, &due).await?;
        (asked, store::end_due(&mut conn, &due).await?)
    };
    for server in asked {
        state.fleet().signal(server, None);
    }
    for connection in &ended {
        announce(state, connection, None);
    }
    if !ended.is_empty() {
        tracing::info!(count = ended.len(), "tunnels.cleaned_up");
    }
    Ok(ended)
}

fn online(state: &AppState) -> Vec<ServerId> {
    let now = Utc::now();
    let view = state.fleet().view();
    let servers = view.servers().iter();
    servers
        .filter(|server| server.live().is_online(now))
        .map(|server| server.id)
        .collect()
}

/// Since when each node has been seen online without a break.
#[derive(Debug, Default)]
struct Reporting(HashMap<ServerId, Instant>);

impl Reporting {
    fn observe(&mut self, online: Vec<ServerId>, now: Instant) {
        let before = std::mem::take(&mut self.0);
        self.0 = online
            .into_iter()
            .map(|server| (server, before.get(&server).copied().unwrap_or(now)))
            .collect();
    }

    /// The nodes that have stayed for `long`.
    fn since(&self, long: Duration, now: Instant) -> Vec<ServerId> {
        self.0
            .iter()
            .filter(|(_, since)| now.saturating_duration_since(**since) >= long)
            .map(|(server, _)| *server)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_nodes_that_stayed_are_taken_at_their_silence() {
        let (steady, restless) = (ServerId::generate(), ServerId::generate());
        let start = Instant::now();
        let mut reporting = Reporting::default();
        reporting.observe(vec![steady, restless], start);
        assert!(reporting.since(REPORTING_FOR, start).is_empty());
        reporting.observe(vec![steady], start + REPORTING_FOR / 2);
        reporting.observe(vec![steady, restless], start + REPORTING_FOR);
        assert_eq!(
            reporting.since(REPORTING_FOR, start + REPORTING_FOR),
            [steady]
        );
    }
}
