//! What time alone makes due: rows that nobody needs any more are deleted.
//!
//! Every room hands in how it deletes its own. One replica sweeps at a time: a batch is a
//! transaction that holds an advisory lock, short enough to be in nobody's way.

use std::time::Duration;

use diesel_async::{AsyncConnection, AsyncPgConnection};
use futures_util::future::BoxFuture;
use tokio::time::{MissedTickBehavior, interval};

use super::store;
use crate::app::AppState;
use crate::error::ApiError;

const EVERY: Duration = Duration::from_secs(15 * 60);
/// Rows deleted by one transaction.
const BATCH: i64 = 1000;

/// Deletes at most so many rows and says how many there were.
pub type Sweep = for<'a> fn(
    &'a AppState,
    &'a mut AsyncPgConnection,
    i64,
) -> BoxFuture<'a, Result<usize, ApiError>>;

/// What is swept, by the name under which it is logged.
pub type Chore = (&'static str, Sweep);

/// Sweeps at the start and then regularly, until the service stops.
pub async fn run(state: &AppState, chores: &[Chore]) {
    let mut tick = interval(EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while state
        .shutdown()
        .run_until_cancelled(tick.tick())
        .await
        .is_some()
    {
        for (name, sweep) in chores {
            match sweep_all(state, *sweep).await {
                Ok(0) => {}
                Ok(rows) => tracing::info!(chore = name, rows, "periodic.swept"),
                Err(error) => tracing::warn!(chore = name, %error, "periodic.failed"),
            }
        }
    }
}

/// Batch after batch, until one finds less than it could take, another replica is at it, or the
/// service stops.
async fn sweep_all(state: &AppState, sweep: Sweep) -> Result<usize, ApiError> {
    let mut all = 0;
    while !state.shutdown().is_cancelled() {
        let rows = sweep_batch(state, sweep).await?;
        all += rows;
        if i64::try_from(rows).is_ok_and(|rows| rows < BATCH) {
            break;
        }
    }
    Ok(all)
}

async fn sweep_batch(state: &AppState, sweep: Sweep) -> Result<usize, ApiError> {
    let mut connection = state.db().get().await?;
    connection
        .transaction(async |connection| {
            if !store::lock_upkeep(connection).await? {
                return Ok(0);
            }
            sweep(state, connection, BATCH).await
        })
        .await
}
