//! Postgres and Redis: whether they answer, and waiting until they do.

use std::fmt::Display;
use std::future::Future;
use std::time::Duration;

use bb8_redis::redis::cmd;
use diesel_async::SimpleAsyncConnection;
use tokio::time::{Instant, sleep, timeout};

use super::AppState;

/// How long a dependency may take to answer before it counts as down.
const DEADLINE: Duration = Duration::from_secs(1);
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{dependency} does not answer: {reason}")]
pub struct DependencyError {
    dependency: &'static str,
    reason: String,
}

pub async fn ping_postgres(state: &AppState) -> Result<Duration, DependencyError> {
    timed("Postgres", async {
        let mut connection = state.db().get().await.map_err(|error| error.to_string())?;
        connection
            .batch_execute("SELECT 1")
            .await
            .map_err(|error| error.to_string())
    })
    .await
}

pub async fn ping_redis(state: &AppState) -> Result<Duration, DependencyError> {
    timed("Redis", async {
        let mut connection = state
            .redis()
            .get()
            .await
            .map_err(|error| error.to_string())?;
        cmd("PING")
            .query_async(&mut *connection)
            .await
            .map_err(|error| error.to_string())
    })
    .await
}

/// Waits until both answer, at most as long as the configuration allows.
pub(super) async fn wait(state: &AppState) -> Result<(), DependencyError> {
    let until = Instant::now() + state.config().app.start_timeout;
    wait_for(until, || ping_postgres(state)).await?;
    wait_for(until, || ping_redis(state)).await
}

async fn wait_for<F>(until: Instant, ping: impl Fn() -> F) -> Result<(), DependencyError>
where
    F: Future<Output = Result<Duration, DependencyError>>,
{
    let mut pause = FIRST_PAUSE;
    loop {
        let Err(error) = ping().await else {
            return Ok(());
        };
        if Instant::now() + pause > until {
            return Err(error);
        }
        tracing::warn!(%error, retry_in = ?pause, "waiting for a dependency");
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

async fn timed<E: Display>(
    dependency: &'static str,
    ping: impl Future<Output = Result<(), E>>,
) -> Result<Duration, DependencyError> {
    let start = Instant::now();
    let failed = |reason| DependencyError { dependency, reason };
    match timeout(DEADLINE, ping).await {
        Ok(Ok(())) => Ok(start.elapsed()),
        Ok(Err(error)) => Err(failed(error.to_string())),
        Err(_) => Err(failed(format!("no answer within {DEADLINE:?}"))),
    }
}
