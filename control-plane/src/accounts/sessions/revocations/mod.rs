//! The ended sessions whose access tokens may not have expired yet, as this replica knows them.
//!
//! What must hold: a second after a session ended, no replica takes its access token. Whoever ends
//! one says so on a channel of Redis after the commit. Every replica listens, reads from Postgres what
//! was said before it began to, and relies on what it knows while the channel proves that it works;
//! otherwise each request asks Postgres.

mod known;
mod wire;

use std::sync::{Mutex, PoisonError, RwLock, RwLockWriteGuard};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use self::known::Known;
use super::{SessionId, store};
use crate::db::Pool;
use crate::error::ApiError;

/// Sessions of which a replica remembers the end: some 50 MB.
const CAPACITY: usize = 1_000_000;
/// Announcements that may wait for Redis.
const OUTBOX: usize = 4_096;
/// What the clocks of two replicas may differ.
const CLOCK_SKEW: Duration = Duration::from_secs(60);
/// How often the latest ends are read again: whoever ended a session may have no Redis where the
/// others have it.
const REPAIR_EVERY: Duration = Duration::from_millis(500);
/// Longer than a transaction and several repairs take.
const REPAIR_WINDOW: Duration = Duration::from_secs(60);

/// What every request is checked against.
#[derive(Debug)]
pub struct Revocations {
    client: redis::Client,
    /// How long an ended session may have a living token.
    memory: Duration,
    known: RwLock<Known>,
    outbox: mpsc::Sender<Vec<SessionId>>,
    /// Taken by the publisher when it starts.
    queue: Mutex<Option<mpsc::Receiver<Vec<SessionId>>>>,
}

impl Revocations {
    #[must_use]
    pub fn new(client: redis::Client, access_token_life: Duration) -> Self {
        let (outbox, queue) = mpsc::channel(OUTBOX);
        Self {
            client,
            memory: access_token_life + CLOCK_SKEW,
            known: RwLock::new(Known::new(CAPACITY)),
            outbox,
            queue: Mutex::new(Some(queue)),
        }
    }

    /// Whether the session has ended. None where this replica cannot be sure and Postgres has to be
    /// asked.
    #[must_use]
    pub fn is_revoked(&self, session: SessionId) -> Option<bool> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.answer(session, Instant::now())
    }

    /// Takes note of ended sessions here and tells the other replicas. Where there is no room for the
    /// word, their repair finds the fact.
    pub(super) fn announce(&self, sessions: &[SessionId]) {
        if sessions.is_empty() {
            return;
        }
        self.remember(sessions);
        if self.outbox.try_send(sessions.to_vec()).is_err() {
            metrics::counter!("sessions_announcements_dropped_total").increment(1);
        }
    }

    /// Listens, tells and repairs until `shutdown`.
    pub async fn run(&self, db: &Pool, shutdown: &CancellationToken) {
        tokio::join!(
            self.publish(shutdown),
            shutdown.run_until_cancelled(self.listen(db)),
            shutdown.run_until_cancelled(self.repair(db)),
        );
    }

    async fn repair(&self, db: &Pool) {
        loop {
            tokio::time::sleep(REPAIR_EVERY).await;
            self.known().forget(Instant::now());
            if let Err(error) = self.read(db, REPAIR_WINDOW).await {
                tracing::debug!(%error, "sessions.repair_failed");
            }
        }
    }

    /// Takes note of what Postgres says ended lately.
    async fn read(&self, db: &Pool, window: Duration) -> Result<(), ApiError> {
        let mut connection = db.get().await?;
        // One more than there is room for shows that there are more.
        let ended = store::ended_within(&mut connection, window, CAPACITY + 1).await?;
        self.remember(&ended);
        Ok(())
    }

    fn remember(&self, sessions: &[SessionId]) {
        let until = Instant::now() + self.memory;
        let mut known = self.known();
        for session in sessions {
            known.remember(*session, until);
        }
    }

    fn known(&self) -> RwLockWriteGuard<'_, Known> {
        self.known.write().unwrap_or_else(PoisonError::into_inner)
    }
}
