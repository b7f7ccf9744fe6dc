//! Whether a request may pass: by Redis, which counts for all replicas, in one round trip; by this
//! process alone where Redis is away or slow.
//!
//! This process keeps the windows of what it let pass itself. What they refuse already costs no round
//! trip, and when Redis goes they are where the limits go on from.

mod lane;
mod local;

use std::time::{Duration, Instant};

use redis::Script;
use tokio::time::timeout;

use self::local::{Local, Overflow};
use super::window::{Standing, Window};
use super::wire;
use crate::config::Limit;

pub(crate) use self::lane::Lane;

/// What is asked for by an operator, not by a request.
const REDIS_TIMEOUT: Duration = Duration::from_secs(2);
const RESETS: &str = "guard:resets";

/// One window that a request counts in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) key: Key,
    pub(crate) limit: Limit,
}

/// What a window is kept for: a kind of window, and of whom. It holds no address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Key(pub(crate) [u8; 18]);

impl Key {
    /// Whether others count in it too, so that it is nobody's to know.
    pub(crate) const fn is_shared(&self) -> bool {
        self.0[0] == b's'
    }

    /// Whether it is kept for an account that somebody named, and not for who calls.
    const fn is_of_account(&self) -> bool {
        matches!(self.0[0], b't' | b'n')
    }

    /// The same in Redis. All windows of a request have to be on one node of a cluster.
    fn in_redis(&self) -> Vec<u8> {
        [b"{guard}:w:".as_slice(), &self.0].concat()
    }
}

/// How a request stands in each of its windows, in their order; it passed if none makes it wait.
pub(crate) type Standings = Vec<Standing>;

fn passes(standings: &[Standing]) -> bool {
    standings.iter().all(|it| it.wait_ms.is_none())
}

/// The limits of a process.
pub(crate) struct Limiter {
    client: redis::Client,
    script: Script,
    patience: Duration,
    callers: Local,
    /// Apart, because whoever names any number of accounts must not use up the room of callers.
    accounts: Local,
    started: Instant,
}

impl Limiter {
    pub(crate) fn new(client: redis::Client, patience: Duration) -> Self {
        Self {
            client,
            script: Script::new(include_str!("../window.lua")),
            patience,
            callers: Local::new(Overflow::OneWindow),
            accounts: Local::new(Overflow::Unkept),
            started: Instant::now(),
        }
    }

    /// Milliseconds of this process's clock.
    fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// The windows of this process that are meant: a request asks for those of one sort at a time.
    fn local(&self, asked: &[Asked]) -> &Local {
        match asked.first() {
            Some(first) if first.key.is_of_account() => &self.accounts,
            _ => &self.callers,
        }
    }

    /// How somebody stands, without counting anything.
    pub(crate) async fn look(&self, asked: &[Asked]) -> Standings {
        let now = self.now();
        let here = self.local(asked).look(asked, now);
        let Some(shared) = self.shared(asked).await else {
            return here;
        };
        here.into_iter()
            .zip(shared)
            .map(|(here, shared)| {
                if here.remaining < shared.remaining {
                    here
                } else {
                    shared
                }
            })
            .collect()
    }

    async fn shared(&self, asked: &[Asked]) -> Option<Standings> {
        let looking = async {
            let mut connection = self.client.get_multiplexed_async_connection().await?;
            let now: (u64, u64) = redis::cmd("TIME").query_async(&mut connection).await?;
            let now = now.0 * 1000 + now.1 / 1000;
            let mut pipe = redis::pipe();
            for asked in asked {
                pipe.cmd("LRANGE").arg(asked.key.in_redis()).arg(0).arg(-1);
            }
            let moments: Vec<Vec<u64>> = pipe.query_async(&mut connection).await?;
            let windows = moments.into_iter().map(Window::from_iter).zip(asked);
            let standings = windows.map(|(mut window, asked)| window.look(&asked.limit, now));
            redis::RedisResult::Ok(standings.collect())
        };
        timeout(REDIS_TIMEOUT, looking).await.ok()?.ok()
    }

    /// Forgets what counts, here, in Redis and in the other replicas; false where Redis did not take it.
    pub(crate) async fn reset(&self, keys: &[Key]) -> bool {
        self.forget_here(keys);
        let forgetting = async {
            let mut connection = self.client.get_multiplexed_async_connection().await?;
            forgetting(keys).query_async::<()>(&mut connection).await
        };
        matches!(timeout(REDIS_TIMEOUT, forgetting).await, Ok(Ok(())))
    }

    /// Takes note of what other replicas reset, for ever.
    pub(crate) async fn listen(&self) {
        let hear = |message: &[u8]| {
            let keys: Vec<_> = message
                .as_chunks::<18>()
                .0
                .iter()
                .map(|name| Key(*name))
                .collect();
            self.forget_here(&keys);
        };
        wire::listen(&self.client, RESETS, hear).await;
    }

    fn forget_here(&self, keys: &[Key]) {
        self.callers.forget(keys);
        self.accounts.forget(keys);
    }
}

/// Forgets windows in Redis, and tells the other replicas to.
fn forgetting(keys: &[Key]) -> redis::Pipeline {
    let names: Vec<_> = keys.iter().map(|key| key.0).collect();
    let mut pipe = redis::pipe();
    for key in keys {
        pipe.cmd("DEL").arg(key.in_redis()).ignore();
    }
    pipe.cmd("PUBLISH").arg(RESETS).arg(names.concat()).ignore();
    pipe
}

impl std::fmt::Debug for Limiter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Limiter").finish_non_exhaustive()
    }
}
