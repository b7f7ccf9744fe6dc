//! What this replica carries, said every two seconds.

use std::iter::Sum;
use std::time::{Duration, Instant};

use tokio::time::{MissedTickBehavior, interval, timeout};

use super::store;
use crate::app::AppState;
use crate::error::ApiError;
use crate::usage::format::bits;

const EVERY: Duration = Duration::from_secs(2);
/// How long a stop waits for the last word.
const FAREWELL: Duration = Duration::from_secs(1);

/// What one replica carries, or several.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Pulse {
    pub(super) node_sessions: u64,
    /// Sockets and streams that show live metrics.
    pub(super) viewers: u64,
    /// Peers whose counters moved in their node's last report.
    pub(super) moving_peers: u64,
    /// Bits a second.
    pub(super) upload_bps: u64,
    pub(super) download_bps: u64,
}

impl Pulse {
    fn of(state: &AppState) -> Self {
        let live = state.live();
        let flow = live.flow(Instant::now());
        Self {
            node_sessions: count(state.fleet().sessions_held()),
            viewers: count(live.audience().len()),
            moving_peers: count(flow.moving),
            upload_bps: bits(flow.upload),
            download_bps: bits(flow.download),
        }
    }
}

impl Sum for Pulse {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |sum, one| Self {
            node_sessions: sum.node_sessions.saturating_add(one.node_sessions),
            viewers: sum.viewers.saturating_add(one.viewers),
            moving_peers: sum.moving_peers.saturating_add(one.moving_peers),
            upload_bps: sum.upload_bps.saturating_add(one.upload_bps),
            download_bps: sum.download_bps.saturating_add(one.download_bps),
        })
    }
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

/// Reports until the service stops, and takes the last word back then.
pub async fn run(state: &AppState) {
    let mut tick = interval(EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while state
        .shutdown()
        .run_until_cancelled(tick.tick())
        .await
        .is_some()
    {
        if let Err(error) = report(state).await {
            tracing::debug!(%error, "overview.report_failed");
        }
    }
    // Where it is not taken back it is old in ten seconds.
    let _ = timeout(FAREWELL, withdraw(state)).await;
}

async fn report(state: &AppState) -> Result<(), ApiError> {
    let mut connection = state.db().get().await?;
    store::put(&mut connection, state.replica(), &Pulse::of(state)).await?;
    Ok(())
}

async fn withdraw(state: &AppState) -> Result<(), ApiError> {
    let mut connection = state.db().get().await?;
    store::remove(&mut connection, state.replica()).await?;
    Ok(())
}
