//! Postgres and Redis: whether they answer, and waiting until they do.

use std::fmt::Display;
use std::future::Future;
use std::time::Duration;

use bb8_redis::redis::cmd;
use diesel_async::SimpleAsyncConnection;
use secrecy::ExposeSecret;
use tokio::time::{Instant, sleep, timeout};

use super::AppState;
use crate::config::Config;
use crate::db;

/// How long a dependency may take to answer a pooled connection before it counts as down.
const PING_DEADLINE: Duration = Duration::from_secs(1);
/// How long a dependency may take to accept a connection: it may be starting, on a busy host.
const REACH_DEADLINE: Duration = Duration::from_secs(10);
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{dependency} does not answer: {reason}")]
pub struct DependencyError {
    dependency: &'static str,
    reason: String,
}

/// Whether Postgres answers a request's connection.
pub async fn ping_postgres(state: &AppState) -> Result<Duration, DependencyError> {
    timed("Postgres", PING_DEADLINE, async {
        let mut connection = state.db().get().await.map_err(|error| error.to_string())?;
        connection
            .batch_execute("SELECT 1")
            .await
            .map_err(|error| error.to_string())
    })
    .await
}

/// Whether Redis answers a request's connection.
pub async fn ping_redis(state: &AppState) -> Result<Duration, DependencyError> {
    timed("Redis", PING_DEADLINE, async {
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

/// Whether Postgres takes connections as the configuration says, or why not.
pub async fn reach_postgres(config: &Config) -> Result<Duration, DependencyError> {
    let url = config.database.url.expose_secret();
    timed("Postgres", REACH_DEADLINE, db::reach(url)).await
}

/// Whether Redis takes connections as the configuration says, or why not.
pub async fn reach_redis(config: &Config) -> Result<Duration, DependencyError> {
    let url = config.redis.url.expose_secret();
    timed("Redis", REACH_DEADLINE, db::reach_redis(url)).await
}

/// Waits until both answer, at most as long as the configuration allows.
pub(super) async fn wait(config: &Config) -> Result<(), DependencyError> {
    let until = Instant::now() + config.app.start_timeout;
    wait_for(until, || reach_postgres(config)).await?;
    wait_for(until, || reach_redis(config)).await
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
    deadline: Duration,
    ping: impl Future<Output = Result<(), E>>,
) -> Result<Duration, DependencyError> {
    let start = Instant::now();
    let failed = |reason| DependencyError { dependency, reason };
    match timeout(deadline, ping).await {
        Ok(Ok(())) => Ok(start.elapsed()),
        Ok(Err(error)) => Err(failed(error.to_string())),
        Err(_) => Err(failed(format!("no answer within {deadline:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::future::pending;

    use super::*;

    fn down() -> DependencyError {
        DependencyError {
            dependency: "Postgres",
            reason: "connection refused".to_owned(),
        }
    }

    #[tokio::test]
    async fn a_dependency_that_comes_up_in_time_is_waited_for() {
        let tries = Cell::new(0);
        let ping = || {
            tries.set(tries.get() + 1);
            std::future::ready(if tries.get() < 3 {
                Err(down())
            } else {
                Ok(Duration::ZERO)
            })
        };
        let until = Instant::now() + Duration::from_secs(60);
        assert_eq!(wait_for(until, ping).await, Ok(()));
        assert_eq!(tries.get(), 3);
    }

    #[tokio::test]
    async fn a_dependency_that_stays_away_is_given_up() {
        let until = Instant::now() + FIRST_PAUSE / 2;
        let result = wait_for(until, || std::future::ready(Err(down()))).await;
        assert_eq!(result, Err(down()));
    }

    #[tokio::test]
    async fn an_answer_that_never_comes_counts_as_down() {
        let result = timed(
            "Redis",
            Duration::from_millis(5),
            pending::<Result<(), String>>(),
        )
        .await;
        assert_eq!(
            result.unwrap_err().to_string(),
            "Redis does not answer: no answer within 5ms"
        );
    }
}
