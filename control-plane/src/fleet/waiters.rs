//! Who waits for a node's answer about a connection: requests in this process, and other replicas
//! whose client's node has its session here.
//!
//! A waiter is registered before the connection is committed, so that no answer can be missed. An
//! answer that nobody here waits for is kept for a moment: the replica that asks may be later than
//! the node.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use shared::ids::ConnectionId;
use shared::protocol::Timings;
use shared::wireguard::PublicKey;
use tokio::sync::oneshot;
use uuid::Uuid;

use super::desired::NodeAnswer;
use super::lock;
use crate::error::{ApiError, Code};

/// Requests that may wait at once in one process.
const MAX_WAITERS: usize = 16_384;
/// Answers kept for a replica that has not asked yet, and questions kept for answers to come.
const MAX_REMEMBERED: usize = 4_096;

/// What a node said, and how long it took.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answered {
    pub answer: NodeAnswer,
    /// The key of the interface that has the peer. Another replica's catalogue may have an older one yet.
    pub public_key: PublicKey,
    pub timings: AnswerTimings,
}

/// Where the time of an answer went, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct AnswerTimings {
    /// From the signal to the push: waiting for the session and reading the change.
    pub queue_us: u64,
    /// From the push to the node's acknowledgement; the agent's own time is part of it.
    pub round_trip_us: u64,
    /// Storing the acknowledgement.
    pub store_us: u64,
    pub agent: Timings,
}

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unanswered {
    #[error("the node did not answer in time")]
    TimedOut,
    #[error("the service is shutting down")]
    Stopped,
}

/// More requests wait for nodes than this process keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many requests wait for nodes")]
pub struct TooManyWaiting;

impl From<TooManyWaiting> for ApiError {
    fn from(error: TooManyWaiting) -> Self {
        Self::new(Code::Unavailable).with_source(error)
    }
}

/// Waits for one answer about one connection. Dropping it ends the waiting.
#[derive(Debug)]
pub struct AckWaiter {
    waiters: Arc<Waiters>,
    connection: ConnectionId,
    ticket: u64,
    answer: oneshot::Receiver<Answered>,
}

impl AckWaiter {
    /// The node's answer, if it comes within `patience`.
    pub async fn answer(mut self, patience: Duration) -> Result<Answered, Unanswered> {
        match tokio::time::timeout(patience, &mut self.answer).await {
            Ok(Ok(answered)) => Ok(answered),
            Ok(Err(_)) => Err(Unanswered::Stopped),
            Err(_) => Err(Unanswered::TimedOut),
        }
    }
}

impl Drop for AckWaiter {
    fn drop(&mut self) {
        lock(&self.waiters.state).forget(self.connection, self.ticket);
    }
}

/// The registry of a process.
#[derive(Debug, Default)]
pub(super) struct Waiters {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    next_ticket: u64,
    waiting: HashMap<ConnectionId, Vec<(u64, oneshot::Sender<Answered>)>>,
    count: usize,
    asked: Remembered<Uuid>,
    unclaimed: Remembered<Answered>,
}

impl Waiters {
    pub(super) fn expect(
        self: &Arc<Self>,
        connection: ConnectionId,
    ) -> Result<AckWaiter, TooManyWaiting> {
        let (sender, answer) = oneshot::channel();
        let mut state = lock(&self.state);
        if state.count >= MAX_WAITERS {
            return Err(TooManyWaiting);
        }
        state.count += 1;
        let ticket = state.next_ticket;
        state.next_ticket = ticket.wrapping_add(1);
        state
            .waiting
            .entry(connection)
            .or_default()
            .push((ticket, sender));
        Ok(AckWaiter {
            waiters: Arc::clone(self),
            connection,
            ticket,
            answer,
        })
    }

    pub(super) fn count(&self) -> usize {
        lock(&self.state).count
    }

    /// Another replica waits for this connection. Gives the answer if the node was faster.
    pub(super) fn ask(&self, connection: ConnectionId, replica: Uuid) -> Option<Answered> {
        let mut state = lock(&self.state);
        let early = state.unclaimed.take(connection);
        if early.is_none() {
            state.asked.put(connection, replica);
        }
        early
    }

    /// Hands an answer to whoever waits here; says which replica else wants it.
    pub(super) fn resolve(&self, connection: ConnectionId, answered: &Answered) -> Option<Uuid> {
        let mut state = lock(&self.state);
        let here = state.waiting.remove(&connection).unwrap_or_default();
        state.count = state.count.saturating_sub(here.len());
        let elsewhere = state.asked.take(connection);
        if here.is_empty() && elsewhere.is_none() {
            state.unclaimed.put(connection, answered.clone());
        }
        for (_, waiter) in here {
            // A waiter that gave up in this moment reads the row instead.
            let _ = waiter.send(answered.clone());
        }
        elsewhere
    }
}

impl State {
    fn forget(&mut self, connection: ConnectionId, ticket: u64) {
        let Some(waiting) = self.waiting.get_mut(&connection) else {
            return;
        };
        let before = waiting.len();
        waiting.retain(|(other, _)| *other != ticket);
        self.count = self.count.saturating_sub(before - waiting.len());
        if waiting.is_empty() {
            self.waiting.remove(&connection);
        }
    }
}

/// The newest entries by connection; the oldest make room.
#[derive(Debug)]
struct Remembered<T> {
    entries: HashMap<ConnectionId, T>,
    order: VecDeque<ConnectionId>,
}

impl<T> Default for Remembered<T> {
    fn default() -> Self {
        Self {
            entries: HashMap::new(),
            order: VecDeque::new(),
        }
    }
}

impl<T> Remembered<T> {
    fn put(&mut self, connection: ConnectionId, value: T) {
        if self.entries.insert(connection, value).is_none() {
            self.order.push_back(connection);
        }
        while self.order.len() > MAX_REMEMBERED {
            if let Some(oldest) = self.order.pop_front() {
                self.entries.remove(&oldest);
            }
        }
    }

    fn take(&mut self, connection: ConnectionId) -> Option<T> {
        let value = self.entries.remove(&connection)?;
        self.order.retain(|other| *other != connection);
        Some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn removed() -> Answered {
        Answered {
            answer: NodeAnswer::Removed,
            public_key: PublicKey::from_bytes([1; 32]),
            timings: AnswerTimings::default(),
        }
    }

    #[tokio::test]
    async fn every_waiter_of_a_connection_gets_the_answer() {
        let waiters = Arc::new(Waiters::default());
        let connection = ConnectionId::generate();
        let first = waiters.expect(connection).expect("room");
        let second = waiters.expect(connection).expect("room");
        assert_eq!(waiters.resolve(connection, &removed()), None);
        assert_eq!(first.answer(Duration::ZERO).await, Ok(removed()));
        assert_eq!(second.answer(Duration::ZERO).await, Ok(removed()));
        assert_eq!(lock(&waiters.state).count, 0);
    }

    #[tokio::test]
    async fn a_waiter_that_gives_up_leaves_nothing_behind() {
        let waiters = Arc::new(Waiters::default());
        let waiter = waiters.expect(ConnectionId::generate()).expect("room");
        assert_eq!(
            waiter.answer(Duration::ZERO).await,
            Err(Unanswered::TimedOut)
        );
        let state = lock(&waiters.state);
        assert_eq!((state.count, state.waiting.len()), (0, 0));
    }

    #[test]
    fn is_bounded() {
        let waiters = Arc::new(Waiters::default());
        let full: Vec<_> = (0..MAX_WAITERS)
            .map(|_| waiters.expect(ConnectionId::generate()).expect("room"))
            .collect();
        assert_eq!(
            waiters.expect(ConnectionId::generate()).err(),
            Some(TooManyWaiting)
        );
        drop(full);
        assert!(waiters.expect(ConnectionId::generate()).is_ok());
        for _ in 0..=MAX_REMEMBERED {
            waiters.resolve(ConnectionId::generate(), &removed());
        }
        assert_eq!(lock(&waiters.state).unclaimed.entries.len(), MAX_REMEMBERED);
    }

    #[test]
    fn another_replica_gets_the_answer_whether_it_asks_early_or_late() {
        let waiters = Arc::new(Waiters::default());
        let replica = Uuid::from_u128(5);
        let (early, late) = (ConnectionId::generate(), ConnectionId::generate());

        assert_eq!(waiters.ask(early, replica), None);
        assert_eq!(waiters.resolve(early, &removed()), Some(replica));

        assert_eq!(waiters.resolve(late, &removed()), None);
        assert_eq!(waiters.ask(late, replica), Some(removed()));
        assert_eq!(waiters.resolve(late, &removed()), None);
    }
}
