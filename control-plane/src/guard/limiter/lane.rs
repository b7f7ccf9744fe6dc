//! A worker's way to Redis: a connection that its own thread serves, so that a request waits for no other
//! thread, and what is asked at one time crosses together.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use tokio::sync::Notify;
use tokio::time::timeout;

use super::{Asked, Key, Limiter, Standings, forgetting, passes};
use crate::guard::window::Standing;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Answers in a row that came too late or not at all, after which Redis is left alone for a while.
const MAX_FAILURES: u32 = 3;
const PAUSE: Duration = Duration::from_secs(1);

/// One a worker.
#[derive(Debug)]
pub(crate) struct Lane {
    limiter: Arc<Limiter>,
    connection: RefCell<Option<MultiplexedConnection>>,
    opening: Cell<bool>,
    opened: Notify,
    failures: Cell<u32>,
    /// Until then this process decides alone.
    closed_until: Cell<Option<Instant>>,
}

impl Lane {
    pub(crate) fn new(limiter: Arc<Limiter>) -> Self {
        Self {
            limiter,
            connection: RefCell::default(),
            opening: Cell::default(),
            opened: Notify::new(),
            failures: Cell::default(),
            closed_until: Cell::default(),
        }
    }

    async fn open(&self) {
        let opening = self.limiter.client.get_multiplexed_async_connection();
        match timeout(CONNECT_TIMEOUT, opening).await {
            Ok(Ok(connection)) => {
                *self.connection.borrow_mut() = Some(connection);
                self.failures.set(0);
                self.closed_until.set(None);
            }
            Ok(Err(_)) | Err(_) => self.closed_until.set(Some(Instant::now() + PAUSE)),
        }
        self.opening.set(false);
        self.opened.notify_waiters();
    }

    /// The connection. Where there is none yet, one is opened, and waited for with a request's patience.
    async fn connection(self: &Rc<Self>) -> Option<MultiplexedConnection> {
        if let Some(connection) = self.connection.borrow().as_ref() {
            return Some(connection.clone());
        }
        let opened = self.opened.notified();
        if !self.opening.replace(true) {
            let lane = Rc::clone(self);
            actix_web::rt::spawn(async move { lane.open().await });
        }
        if timeout(self.limiter.patience, opened).await.is_err() {
            self.failed();
        }
        self.connection.borrow().clone()
    }

    /// Counts a request in all of its windows if each has room.
    pub(crate) async fn take(self: &Rc<Self>, asked: &[Asked]) -> Standings {
        let (local, now) = (self.limiter.local(asked), self.limiter.now());
        let here = local.look(asked, now);
        if !passes(&here) {
            return here;
        }
        match self.take_shared(asked).await {
            Some(standings) => {
                if passes(&standings) {
                    local.count(asked, now);
                }
                standings
            }
            None => {
                metrics::counter!("guard_fallback_total").increment(1);
                local.take(asked, now)
            }
        }
    }

    /// Forgets what counts in a window, here, in the other replicas, and in Redis if it answers in time.
    pub(crate) async fn forget(self: &Rc<Self>, key: Key) {
        self.limiter.forget_here(&[key]);
        if let Some(mut connection) = self.open_connection().await {
            let pipe = forgetting(&[key]);
            self.answer(pipe.query_async::<()>(&mut connection)).await;
        }
    }

    async fn take_shared(self: &Rc<Self>, asked: &[Asked]) -> Option<Standings> {
        let mut connection = self.open_connection().await?;
        let mut call = self.limiter.script.prepare_invoke();
        for Asked { key, limit } in asked {
            call.key(key.in_redis());
            call.arg(limit.capacity()).arg(limit.window_ms());
        }
        let answer = call.invoke_async::<Vec<i64>>(&mut connection);
        let numbers = self.answer(answer).await?;
        Some(standings(&numbers))
    }

    /// The connection, unless Redis is left alone at the moment.
    async fn open_connection(self: &Rc<Self>) -> Option<MultiplexedConnection> {
        let until = self.closed_until.get();
        if until.is_some_and(|until| Instant::now() < until) {
            return None;
        }
        self.connection().await
    }

    /// What Redis answers within a request's patience.
    async fn answer<T>(&self, answer: impl Future<Output = redis::RedisResult<T>>) -> Option<T> {
        match timeout(self.limiter.patience, answer).await {
            Ok(Ok(answer)) => {
                self.failures.set(0);
                Some(answer)
            }
            Ok(Err(error)) => {
                tracing::debug!(%error, "guard.redis_failed");
                // It opens anew: a connection that broke stays broken.
                *self.connection.borrow_mut() = None;
                self.failed();
                None
            }
            Err(_) => {
                self.failed();
                None
            }
        }
    }

    fn failed(&self) {
        let failures = self.failures.get() + 1;
        self.failures.set(failures);
        if failures >= MAX_FAILURES || self.connection.borrow().is_none() {
            self.failures.set(0);
            self.closed_until.set(Some(Instant::now() + PAUSE));
        }
    }
}

/// The script's answer: three numbers a window.
fn standings(numbers: &[i64]) -> Standings {
    let natural = |number: i64| u64::try_from(number).unwrap_or(0);
    numbers
        .as_chunks::<3>()
        .0
        .iter()
        .map(|[remaining, reset, wait]| Standing {
            remaining: u32::try_from(*remaining).unwrap_or(0),
            reset_ms: natural(*reset),
            wait_ms: (*wait >= 0).then(|| natural(*wait)),
        })
        .collect()
}
