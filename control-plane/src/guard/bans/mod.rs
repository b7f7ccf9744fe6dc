//! Who is refused whatever they ask: rows of Postgres, kept in the memory of every replica.
//!
//! A request is checked against memory alone. Whoever makes or lifts a ban tells the other replicas over
//! Redis, where the bans are a set too; they read the rows again then, and twice a second anyway, or the
//! set while Postgres is away. A Redis that comes back empty is told all of them again.

mod known;
mod store;

use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError, RwLock, RwLockWriteGuard};
use std::time::Duration;

use chrono::{DateTime, Utc};
use diesel_async::AsyncPgConnection;
use ipnet::IpNet;
use redis::aio::MultiplexedConnection;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use self::known::Known;
use self::store::Change;
use super::{lock, wire};
use crate::db::Pool;
use crate::error::{ApiError, Code};

/// Bans kept in memory: some 50 MB.
const CAPACITY: usize = 200_000;
/// Bans of this process's own that wait for Postgres.
const OUTBOX: usize = 4_096;
const READ_EVERY: Duration = Duration::from_millis(500);
/// Longer than a transaction and several readings take.
const WINDOW: Duration = Duration::from_secs(60);
/// How often everything in force is read and told Redis again.
const REPAIR_EVERY: u32 = 20;
const REDIS_TIMEOUT: Duration = Duration::from_secs(2);

/// A sorted set: networks with the second in which their bans run out.
const SET: &str = "{guard}:bans";
const CHANNEL: &str = "guard:bans";

/// Why somebody is banned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Reason {
    /// Far more requests than anybody needs.
    Flood,
    /// Failure after failure.
    Suspicious,
    /// Somebody's decision.
    Manual,
}

impl Reason {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Flood => "flood",
            Self::Suspicious => "suspicious",
            Self::Manual => "manual",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        [Self::Flood, Self::Suspicious, Self::Manual]
            .into_iter()
            .find(|reason| reason.as_str() == text)
    }
}

#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Ban {
    pub(crate) id: Uuid,
    pub(crate) network: IpNet,
    pub(crate) reason: Reason,
    pub(crate) note: Option<String>,
    pub(crate) made_by: String,
    pub(crate) created_at: DateTime<Utc>,
    /// None until somebody lifts it.
    pub(crate) expires_at: Option<DateTime<Utc>>,
}

impl Ban {
    pub(crate) fn is_in_force(&self, now: DateTime<Utc>) -> bool {
        self.expires_at.is_none_or(|until| now < until)
    }
}

impl fmt::Debug for Ban {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Addresses are in no log.
        f.debug_struct("Ban")
            .field("id", &self.id)
            .field("reason", &self.reason)
            .finish_non_exhaustive()
    }
}

#[derive(Debug)]
pub(crate) struct Bans {
    known: RwLock<Known>,
    /// Made here and not in Postgres yet.
    unwritten: Mutex<VecDeque<Ban>>,
    db: Pool,
    client: redis::Client,
    /// Rung when there is something to read or to write.
    bell: Notify,
}

impl Bans {
    pub(crate) fn new(db: Pool, client: redis::Client) -> Self {
        Self {
            known: RwLock::default(),
            unwritten: Mutex::default(),
            db,
            client,
            bell: Notify::new(),
        }
    }

    /// Why an address is refused, and until when.
    pub(crate) fn find(&self, address: IpAddr) -> Option<(Reason, Option<DateTime<Utc>>)> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let ban = known.find(address, Utc::now())?;
        Some((ban.reason, ban.expires_at))
    }

    pub(super) fn count(&self) -> usize {
        self.known.read().map_or(0, |known| known.len())
    }

    /// Bans at once, here, and everywhere as soon as Postgres or Redis takes it.
    pub(crate) fn impose(&self, ban: Ban) {
        self.keep(ban.clone());
        let mut unwritten = lock(&self.unwritten);
        if unwritten.len() < OUTBOX {
            unwritten.push_back(ban);
        } else {
            metrics::counter!("guard_bans_unwritten_total").increment(1);
        }
        drop(unwritten);
        self.bell.notify_one();
    }

    /// The row of an operator's ban, in their transaction. [`Bans::tell`] follows the commit.
    pub(super) async fn put(
        &self,
        conn: &mut AsyncPgConnection,
        ban: &Ban,
    ) -> Result<Ban, ApiError> {
        let stored = store::put(conn, std::slice::from_ref(ban)).await?;
        let stored = stored.into_iter().next();
        stored.ok_or_else(|| ApiError::internal("a ban was not stored"))
    }

    pub(super) async fn lift(
        &self,
        conn: &mut AsyncPgConnection,
        network: IpNet,
    ) -> Result<Ban, ApiError> {
        let lifted = store::lift(conn, network).await?;
        lifted.ok_or_else(|| Code::BanNotFound.into())
    }

    /// Makes what was committed known, here and elsewhere.
    pub(super) async fn tell(&self, network: IpNet, ban: Option<Ban>) {
        match &ban {
            Some(ban) => self.keep(ban.clone()),
            None => self.write().remove(&network),
        }
        let telling = async {
            let mut connection = self.client.get_multiplexed_async_connection().await?;
            let mut pipe = redis::pipe();
            match &ban {
                Some(ban) => add(&mut pipe, ban),
                None => pipe.cmd("ZREM").arg(SET).arg(network.to_string()).ignore(),
            };
            pipe.cmd("PUBLISH").arg(CHANNEL).arg("").ignore();
            pipe.query_async::<()>(&mut connection).await
        };
        if !matches!(timeout(REDIS_TIMEOUT, telling).await, Ok(Ok(()))) {
            tracing::debug!("guard.ban_not_told");
        }
    }

    pub(super) async fn page(&self, page: (i64, i64)) -> Result<(Vec<Ban>, u64), ApiError> {
        Ok(store::page(&mut *self.db.get().await?, page).await?)
    }

    /// Reads, writes and listens until `shutdown`.
    pub(super) async fn run(&self, shutdown: &CancellationToken) {
        tokio::join!(
            shutdown.run_until_cancelled(self.keep_up()),
            shutdown.run_until_cancelled(wire::listen(&self.client, CHANNEL, |_| {
                self.bell.notify_one();
            })),
        );
    }

    async fn keep_up(&self) {
        let (mut connection, mut round, mut was_away) = (None, 0_u32, true);
        loop {
            let full = round.is_multiple_of(REPAIR_EVERY) || was_away;
            round = round.wrapping_add(1);
            let written = self.write_out().await;
            let window = (!full).then_some(WINDOW);
            was_away = match self.read(window).await {
                Ok(()) => false,
                Err(error) => {
                    tracing::debug!(%error, "guard.bans_not_read");
                    true
                }
            };
            let shared = self.share(&mut connection, full && !was_away, was_away, written);
            if !matches!(timeout(REDIS_TIMEOUT, shared).await, Ok(Ok(()))) {
                connection = None;
            }
            let now = Utc::now();
            self.write().retain(|ban| ban.is_in_force(now));
            tokio::select! {
                () = sleep(READ_EVERY) => {}
                () = self.bell.notified() => {}
            }
        }
    }

    /// Takes what Postgres says.
    async fn read(&self, window: Option<Duration>) -> Result<(), ApiError> {
        let changes = store::changes(&mut *self.db.get().await?, window).await?;
        if window.is_none() {
            self.forget_all_but(&changes);
        }
        for change in changes {
            match change {
                Change::InForce(ban) => self.keep(ban),
                Change::Lifted(network) => {
                    let here = lock(&self.unwritten);
                    if !here.iter().any(|ban| ban.network == network) {
                        self.write().remove(&network);
                    }
                }
            }
        }
        Ok(())
    }

    /// Forgets what is no row: it was lifted while nobody here could know. What is not written yet stays, and
    /// what is younger than the reading may be.
    fn forget_all_but(&self, changes: &[Change]) {
        let rows = changes.iter().filter_map(|change| match change {
            Change::InForce(ban) => Some(ban.network),
            Change::Lifted(_) => None,
        });
        let unwritten: Vec<_> = lock(&self.unwritten)
            .iter()
            .map(|ban| ban.network)
            .collect();
        let known: HashSet<_> = rows.chain(unwritten).collect();
        let young = Utc::now() - WINDOW;
        self.write()
            .retain(|ban| known.contains(&ban.network) || ban.created_at > young);
    }

    /// Writes what was imposed here; gives what the others may not know yet.
    async fn write_out(&self) -> Vec<Ban> {
        let taken: Vec<Ban> = lock(&self.unwritten).iter().cloned().collect();
        if taken.is_empty() {
            return Vec::new();
        }
        let ids: HashSet<_> = taken.iter().map(|ban| ban.id).collect();
        // The latest of each network.
        let by_network: HashMap<_, _> = taken.into_iter().map(|ban| (ban.network, ban)).collect();
        let waiting: Vec<_> = by_network.into_values().collect();
        let written =
            async { Ok::<_, ApiError>(store::put(&mut *self.db.get().await?, &waiting).await?) };
        match written.await {
            Ok(stored) => {
                lock(&self.unwritten).retain(|ban| !ids.contains(&ban.id));
                stored
            }
            Err(error) => {
                tracing::warn!(%error, "guard.bans_not_written");
                waiting
            }
        }
    }

    /// Keeps the set of Redis, and learns from it while Postgres is away.
    async fn share(
        &self,
        connection: &mut Option<MultiplexedConnection>,
        tell_all: bool,
        learn: bool,
        news: Vec<Ban>,
    ) -> redis::RedisResult<()> {
        let connection = match connection {
            Some(connection) => connection,
            None => connection.insert(self.client.get_multiplexed_async_connection().await?),
        };
        let mut pipe = redis::pipe();
        if tell_all {
            let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
            // At once, and without what is over or was lifted while nobody could say so.
            pipe.atomic().cmd("DEL").arg(SET).ignore();
            for ban in known.all() {
                add(&mut pipe, ban);
            }
        }
        for ban in &news {
            add(&mut pipe, ban);
        }
        if !news.is_empty() {
            pipe.cmd("PUBLISH").arg(CHANNEL).arg("").ignore();
        }
        if !pipe.is_empty() {
            pipe.query_async::<()>(connection).await?;
        }
        if learn {
            let entries: Vec<(String, String)> = redis::cmd("ZRANGE")
                .arg(SET)
                .arg(0)
                .arg(-1)
                .arg("WITHSCORES")
                .query_async(connection)
                .await?;
            for (network, until) in entries {
                self.learn(&network, &until);
            }
        }
        Ok(())
    }

    /// What the set says of a ban that is not known here. One that is no number stands until it is lifted.
    fn learn(&self, network: &str, until: &str) {
        let Ok(network) = network.parse::<IpNet>() else {
            return;
        };
        if self.write().get(&network).is_some() {
            return;
        }
        let until = until.parse().ok();
        self.keep(Ban {
            id: Uuid::nil(),
            network,
            reason: Reason::Manual,
            note: None,
            made_by: "redis".to_owned(),
            created_at: Utc::now(),
            expires_at: until.and_then(|until| DateTime::from_timestamp(until, 0)),
        });
    }

    fn keep(&self, ban: Ban) {
        let mut known = self.write();
        if known.len() < CAPACITY || known.get(&ban.network).is_some() {
            known.put(ban);
        } else {
            metrics::counter!("guard_bans_dropped_total").increment(1);
        }
    }

    fn write(&self) -> RwLockWriteGuard<'_, Known> {
        self.known.write().unwrap_or_else(PoisonError::into_inner)
    }
}

fn add<'a>(pipe: &'a mut redis::Pipeline, ban: &Ban) -> &'a mut redis::Pipeline {
    let score = ban
        .expires_at
        .map_or_else(|| "+inf".to_owned(), |until| until.timestamp().to_string());
    pipe.cmd("ZADD")
        .arg(SET)
        .arg(score)
        .arg(ban.network.to_string())
        .ignore()
}

/// Deletes the rows of bans that were over before a time.
pub(crate) async fn forget(
    conn: &mut AsyncPgConnection,
    before: DateTime<Utc>,
    limit: i64,
) -> diesel::QueryResult<usize> {
    store::forget(conn, before, limit).await
}
