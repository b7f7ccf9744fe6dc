//! What is going on between the requests of a connection, which its stream cannot see and its requests
//! cannot either: each tells the other here.
//!
//! While no request is answered, a deadline runs: for the head that has begun, or for the next one to begin.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use tokio::time::Instant;

/// Beyond what the HTTP server allows itself, which answers in its own words when its time is over.
const GRACE: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Exchange {
    head_time: Duration,
    idle_time: Duration,
    /// Requests whose answer has not gone out whole.
    open: Cell<usize>,
    /// Whether something came that is no request yet.
    begun: Cell<bool>,
    /// When that began, or when nothing was left to do.
    since: Cell<Instant>,
}

/// A request until its answer has gone out.
#[derive(Debug)]
pub(super) struct Open(Rc<Exchange>);

impl Exchange {
    /// A connection whose first request is due.
    pub(super) fn new(head_time: Duration, idle_time: Duration, now: Instant) -> Rc<Self> {
        Rc::new(Self {
            head_time,
            idle_time,
            open: Cell::new(0),
            begun: Cell::new(true),
            since: Cell::new(now),
        })
    }

    /// The time of the first head begins only now: the handshake had its own.
    pub(super) fn restart(&self, now: Instant) {
        self.since.set(now);
    }

    /// Bytes came.
    pub(super) fn heard(&self, now: Instant) {
        if self.open.get() == 0 && !self.begun.get() {
            self.begun.set(true);
            self.since.set(now);
        }
    }

    /// A request came whole but for its body.
    pub(super) fn begin(self: &Rc<Self>) -> Open {
        self.open.set(self.open.get().saturating_add(1));
        Open(Rc::clone(self))
    }

    fn end(&self, now: Instant) {
        self.open.set(self.open.get().saturating_sub(1));
        if self.open.get() == 0 {
            self.begun.set(false);
            self.since.set(now);
        }
    }

    /// When the client's time is over, if it is its turn.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let time = if self.begun.get() {
            self.head_time
        } else {
            self.idle_time
        };
        (self.open.get() == 0).then(|| self.since.get() + time + GRACE)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.end(Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: Duration = Duration::from_secs(10);
    const IDLE: Duration = Duration::from_secs(75);

    fn second(number: u64, start: Instant) -> Instant {
        start + Duration::from_secs(number)
    }

    #[test]
    fn a_head_is_due_from_its_first_byte_on() {
        let start = Instant::now();
        let exchange = Exchange::new(HEAD, IDLE, start);
        assert_eq!(exchange.deadline(), Some(start + HEAD + GRACE));
        // Further bytes win no time.
        exchange.heard(second(5, start));
        assert_eq!(exchange.deadline(), Some(start + HEAD + GRACE));
        exchange.restart(second(7, start));
        assert_eq!(exchange.deadline(), Some(second(7, start) + HEAD + GRACE));
    }

    #[test]
    fn nothing_is_due_while_an_answer_is() {
        let start = Instant::now();
        let exchange = Exchange::new(HEAD, IDLE, start);
        let (first, second_one) = (exchange.begin(), exchange.begin());
        assert_eq!(exchange.deadline(), None);
        // Its body, or the next request.
        exchange.heard(second(5, start));
        drop(first);
        assert_eq!(exchange.deadline(), None);
        drop(second_one);
        assert!(exchange.deadline() >= Some(start + IDLE + GRACE));
    }

    #[test]
    fn the_second_head_is_due_as_the_first_was() {
        let start = Instant::now();
        let exchange = Exchange::new(HEAD, IDLE, start);
        let open = exchange.begin();
        exchange.end(second(1, start));
        assert_eq!(exchange.deadline(), Some(second(1, start) + IDLE + GRACE));
        exchange.heard(second(30, start));
        exchange.heard(second(35, start));
        assert_eq!(exchange.deadline(), Some(second(30, start) + HEAD + GRACE));
        drop(open);
    }
}
