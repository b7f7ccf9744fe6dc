//! The channel of Redis on which replicas tell each other of ended sessions.

use std::sync::PoisonError;
use std::time::{Duration, Instant};

use futures_util::{FutureExt, StreamExt};
use rand::Rng;
use redis::Msg;
use redis::aio::{MultiplexedConnection, PubSubStream};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, error::Elapsed, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::Revocations;
use super::known::LEASE;
use crate::accounts::SessionId;
use crate::db::Pool;
use crate::error::ApiError;

const CHANNEL: &str = "sessions:ended";
/// Three in a lease, so that a slow one costs nothing.
const PING_EVERY: Duration = Duration::from_millis(250);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(2);
const FIRST_RETRY: Duration = Duration::from_millis(50);
const LAST_RETRY: Duration = Duration::from_secs(1);
/// Sessions in one message.
const BATCH: usize = 1_000;

#[derive(Debug, thiserror::Error)]
enum WireError {
    #[error(transparent)]
    Redis(#[from] redis::RedisError),
    #[error("Redis does not answer")]
    Slow(#[from] Elapsed),
    #[error("the subscription ended")]
    Lost,
    #[error("the message cannot be written: {0}")]
    Encoding(#[from] serde_json::Error),
    #[error("what ended before could not be read: {0}")]
    Postgres(#[from] ApiError),
}

impl Revocations {
    /// Takes note of what the others tell, and comes back after every loss of the connection.
    pub(super) async fn listen(&self, db: &Pool) {
        let mut retry = FIRST_RETRY;
        loop {
            let Err(error) = self.subscribed(db, &mut retry).await;
            self.known().is_deaf();
            tracing::warn!(%error, "sessions.deaf");
            sleep(jittered(retry)).await;
            retry = (retry * 2).min(LAST_RETRY);
        }
    }

    /// Subscribes first and reads then, so that nothing falls between the two.
    async fn subscribed(
        &self,
        db: &Pool,
        retry: &mut Duration,
    ) -> Result<std::convert::Infallible, WireError> {
        let opening = self.client.get_async_pubsub();
        let (mut sink, mut messages) = timeout(CONNECT_TIMEOUT, opening).await??.split();
        timeout(CONNECT_TIMEOUT, sink.subscribe(CHANNEL)).await??;
        self.read(db, self.memory).await?;
        *retry = FIRST_RETRY;
        let mut beat = interval(PING_EVERY);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                message = messages.next() => self.hear(&message.ok_or(WireError::Lost)?),
                _ = beat.tick() => {
                    let asked = Instant::now();
                    timeout(LEASE, sink.ping::<()>()).await??;
                    self.hear_all(&mut messages)?;
                    self.known().was_whole(asked);
                }
            }
        }
    }

    /// Everything that came before the answer to a ping.
    fn hear_all(&self, messages: &mut PubSubStream) -> Result<(), WireError> {
        while let Some(message) = messages.next().now_or_never() {
            self.hear(&message.ok_or(WireError::Lost)?);
        }
        Ok(())
    }

    fn hear(&self, message: &Msg) {
        match serde_json::from_slice::<Vec<SessionId>>(message.get_payload_bytes()) {
            Ok(sessions) => self.remember(&sessions),
            Err(error) => tracing::warn!(%error, "sessions.bad_message"),
        }
    }

    /// Tells the others, again and again until Redis takes it; after `shutdown` what is left, once.
    pub(super) async fn publish(&self, shutdown: &CancellationToken) {
        let taken = self
            .queue
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let Some(mut queue) = taken else {
            return;
        };
        let mut connection = None;
        let mut retry = FIRST_RETRY;
        while let Some(mut batch) = next(&mut queue, shutdown).await {
            while let Err(error) = self.send(&mut connection, &batch).await {
                connection = None;
                tracing::warn!(%error, "sessions.announcement_failed");
                if shutdown.is_cancelled() {
                    return;
                }
                shutdown.run_until_cancelled(sleep(jittered(retry))).await;
                retry = (retry * 2).min(LAST_RETRY);
                fill(&mut batch, &mut queue);
            }
            retry = FIRST_RETRY;
        }
    }

    async fn send(
        &self,
        connection: &mut Option<MultiplexedConnection>,
        sessions: &[SessionId],
    ) -> Result<(), WireError> {
        let payload = serde_json::to_string(sessions)?;
        let sending = async {
            let connection = match connection {
                Some(connection) => connection,
                None => connection.insert(self.client.get_multiplexed_async_connection().await?),
            };
            redis::cmd("PUBLISH")
                .arg(CHANNEL)
                .arg(payload)
                .query_async::<()>(connection)
                .await
        };
        Ok(timeout(PUBLISH_TIMEOUT, sending).await??)
    }
}

/// What waits; after `shutdown` what is left, then nothing.
async fn next(
    queue: &mut mpsc::Receiver<Vec<SessionId>>,
    shutdown: &CancellationToken,
) -> Option<Vec<SessionId>> {
    let mut batch = tokio::select! {
        biased;
        sessions = queue.recv() => sessions?,
        () = shutdown.cancelled() => return None,
    };
    fill(&mut batch, queue);
    Some(batch)
}

fn fill(batch: &mut Vec<SessionId>, queue: &mut mpsc::Receiver<Vec<SessionId>>) {
    while batch.len() < BATCH {
        match queue.try_recv() {
            Ok(sessions) => batch.extend(sessions),
            Err(_) => return,
        }
    }
}

fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(rand::rng().random_range(0.5..1.0))
}
