//! The wire between replicas: Redis pub/sub. It carries hints and answers, never facts; whatever is
//! lost on it is found again in Postgres.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use rand::Rng;
use redis::aio::MultiplexedConnection;
use serde::{Deserialize, Serialize};
use shared::ids::{ConnectionId, PeerId, ServerId, UserId};
use shared::protocol::RoundTrips;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::desired::Fence;
use super::lock;
use super::waiters::Answered;

/// Notices that may wait for Redis.
const OUTBOX: usize = 4_096;
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(2);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const FIRST_RETRY: Duration = Duration::from_millis(200);
const LAST_RETRY: Duration = Duration::from_secs(5);

/// What one replica tells another.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum Notice {
    /// The desired state of `server` changed. `asker` waits for the node's answer.
    Wake {
        server: ServerId,
        asker: Option<(ConnectionId, Uuid)>,
    },
    /// A node answered about a connection that the receiver asked for.
    Answer {
        connection: ConnectionId,
        answered: Answered,
    },
    /// Sessions of `server` older than `fence` are over.
    TakenOver { server: ServerId, fence: Fence },
    /// Sessions of `server` older than `fence` are over, and none may follow with their tokens.
    Revoked { server: ServerId, fence: Fence },
    /// The operator wants something else of `server`'s node.
    Redirected { server: ServerId },
    /// The catalogue changed.
    FleetChanged,
    /// The plan of this person changed, or everybody's may have.
    TierChanged { user: Option<UserId> },
    /// Sockets of `replica` look at the round trips of these peers, and of no others of `server`.
    LookedAt {
        server: ServerId,
        replica: Uuid,
        peers: Vec<PeerId>,
    },
    /// What the receiver looks at.
    RoundTrips { server: ServerId, trips: RoundTrips },
    #[serde(other)]
    Unknown,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Channel {
    Everyone,
    Replica(Uuid),
}

impl Channel {
    fn name(self) -> String {
        match self {
            Self::Everyone => "fleet".to_owned(),
            Self::Replica(replica) => format!("replica:{replica}"),
        }
    }
}

#[derive(Debug)]
pub(super) struct Bus {
    client: redis::Client,
    outbox: mpsc::Sender<(Channel, Notice)>,
    /// Taken by the publisher when it starts.
    queue: Mutex<Option<mpsc::Receiver<(Channel, Notice)>>>,
    listening: AtomicBool,
    publishing: AtomicBool,
}

impl Bus {
    pub(super) fn new(client: redis::Client) -> Self {
        let (outbox, queue) = mpsc::channel(OUTBOX);
        Self {
            client,
            outbox,
            queue: Mutex::new(Some(queue)),
            listening: AtomicBool::new(false),
            publishing: AtomicBool::new(true),
        }
    }

    /// Queues a notice. When the queue is full it is dropped: Postgres has the fact.
    pub(super) fn publish(&self, channel: Channel, notice: Notice) {
        if self.outbox.try_send((channel, notice)).is_err() {
            metrics::counter!("fleet_bus_dropped_total").increment(1);
        }
    }

    /// Whether notices arrive and leave at present.
    pub(super) fn is_up(&self) -> bool {
        self.listening.load(Ordering::Relaxed) && self.publishing.load(Ordering::Relaxed)
    }

    /// Sends what is queued until `shutdown`.
    pub(super) async fn run_publisher(&self, shutdown: CancellationToken) {
        let Some(mut queue) = lock(&self.queue).take() else {
            return;
        };
        let mut connection = None;
        while let Some(Some((channel, notice))) = shutdown.run_until_cancelled(queue.recv()).await {
            let was_open = connection.is_some();
            let mut sent = self.send(&mut connection, channel, &notice).await;
            if sent.is_err() && was_open {
                // Redis may have been away and be back: an idle connection shows that only here.
                connection = None;
                sent = self.send(&mut connection, channel, &notice).await;
            }
            self.publishing.store(sent.is_ok(), Ordering::Relaxed);
            if let Err(error) = sent {
                connection = None;
                metrics::counter!("fleet_bus_dropped_total").increment(1);
                tracing::warn!(%error, "fleet.bus.publish_failed");
            }
        }
    }

    /// Sends what is queued, in a process that runs no publisher. False when some of it was lost.
    pub(super) async fn flush(&self) -> bool {
        let Some(mut queue) = lock(&self.queue).take() else {
            return true;
        };
        let (mut connection, mut delivered) = (None, true);
        while let Ok((channel, notice)) = queue.try_recv() {
            delivered &= self.send(&mut connection, channel, &notice).await.is_ok();
        }
        *lock(&self.queue) = Some(queue);
        delivered
    }

    async fn send(
        &self,
        connection: &mut Option<MultiplexedConnection>,
        channel: Channel,
        notice: &Notice,
    ) -> Result<(), BusError> {
        let payload = serde_json::to_string(notice)?;
        let sending = async {
            let connection = match connection {
                Some(connection) => connection,
                None => connection.insert(self.client.get_multiplexed_async_connection().await?),
            };
            redis::cmd("PUBLISH")
                .arg(channel.name())
                .arg(payload)
                .query_async::<()>(connection)
                .await?;
            Ok(())
        };
        tokio::time::timeout(PUBLISH_TIMEOUT, sending).await?
    }

    /// Hands every notice for `replica` to `receive` until `shutdown`; comes back after every loss
    /// of the connection, and then says that the catalogue may have changed meanwhile.
    pub(super) async fn run_listener(
        &self,
        replica: Uuid,
        shutdown: CancellationToken,
        receive: impl Fn(Notice),
    ) {
        let mut retry = FIRST_RETRY;
        while !shutdown.is_cancelled() {
            let listening = self.listen(replica, &receive, &mut retry);
            let Some(ended) = shutdown.run_until_cancelled(listening).await else {
                return;
            };
            self.listening.store(false, Ordering::Relaxed);
            if let Err(error) = ended {
                tracing::warn!(%error, "fleet.bus.listener_lost");
            }
            let pause = retry.mul_f64(rand::rng().random_range(0.5..1.0));
            shutdown
                .run_until_cancelled(tokio::time::sleep(pause))
                .await;
            retry = (retry * 2).min(LAST_RETRY);
        }
    }

    async fn listen(
        &self,
        replica: Uuid,
        receive: &impl Fn(Notice),
        retry: &mut Duration,
    ) -> Result<(), BusError> {
        let opening = self.client.get_async_pubsub();
        let mut pubsub = tokio::time::timeout(CONNECT_TIMEOUT, opening).await??;
        let channels = [Channel::Everyone.name(), Channel::Replica(replica).name()];
        pubsub.subscribe(&channels[..]).await?;
        self.listening.store(true, Ordering::Relaxed);
        *retry = FIRST_RETRY;
        receive(Notice::FleetChanged);
        let mut messages = pubsub.on_message();
        while let Some(message) = messages.next().await {
            match serde_json::from_slice(message.get_payload_bytes()) {
                Ok(notice) => receive(notice),
                Err(error) => tracing::warn!(%error, "fleet.bus.bad_notice"),
            }
        }
        Ok(())
    }
}

#[derive(Debug, thiserror::Error)]
enum BusError {
    #[error(transparent)]
    Redis(#[from] redis::RedisError),
    #[error("Redis does not answer")]
    Slow(#[from] tokio::time::error::Elapsed),
    #[error("the notice cannot be written: {0}")]
    Encoding(#[from] serde_json::Error),
}
