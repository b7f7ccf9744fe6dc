//! Pings, round trips and silence. Pure.

use std::time::{Duration, Instant};

/// How often the plane pings a node.
pub(super) const PING_EVERY: Duration = Duration::from_secs(5);
/// How long a node may be silent before the session is over.
pub(super) const SILENCE: Duration = Duration::from_secs(15);

#[derive(Debug)]
pub(super) struct Liveness {
    last_heard: Instant,
    next_ping: Instant,
    nonce: u64,
    /// When the newest ping left, until it is answered.
    sent: Option<Instant>,
}

impl Liveness {
    pub(super) const fn new(now: Instant) -> Self {
        Self {
            last_heard: now,
            next_ping: now,
            nonce: 0,
            sent: None,
        }
    }

    pub(super) fn heard(&mut self, now: Instant) {
        self.last_heard = now;
    }

    /// The round trip, when this answers the newest ping.
    pub(super) fn pong(&mut self, payload: &[u8], now: Instant) -> Option<Duration> {
        self.heard(now);
        if payload != self.nonce.to_be_bytes() {
            return None;
        }
        self.sent.take().map(|sent| now - sent)
    }

    /// A ping to send, when it is time for one.
    pub(super) fn ping(&mut self, now: Instant) -> Option<[u8; 8]> {
        if now < self.next_ping {
            return None;
        }
        self.next_ping = now + PING_EVERY;
        self.nonce = self.nonce.wrapping_add(1);
        self.sent = Some(now);
        Some(self.nonce.to_be_bytes())
    }

    pub(super) fn is_silent(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.last_heard) >= SILENCE
    }

    /// When something is to be done next.
    pub(super) fn next(&self) -> Instant {
        self.next_ping.min(self.last_heard + SILENCE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pings_every_five_seconds_and_measures() {
        let start = Instant::now();
        let mut liveness = Liveness::new(start);
        let payload = liveness.ping(start).expect("one at once");
        assert_eq!(liveness.ping(start + PING_EVERY / 2), None);
        let later = start + Duration::from_millis(7);
        assert_eq!(
            liveness.pong(&payload, later),
            Some(Duration::from_millis(7))
        );
        assert_eq!(liveness.pong(&payload, later), None, "answered already");
        assert_eq!(liveness.next(), start + PING_EVERY);
        assert!(liveness.ping(start + PING_EVERY).is_some());
    }

    #[test]
    fn a_late_or_made_up_pong_is_a_sign_of_life_and_no_measure() {
        let start = Instant::now();
        let mut liveness = Liveness::new(start);
        let first = liveness.ping(start).expect("due");
        liveness.ping(start + PING_EVERY).expect("due");
        let now = start + PING_EVERY * 2;
        assert_eq!(liveness.pong(&first, now), None);
        assert_eq!(liveness.pong(b"anything", now), None);
        assert!(!liveness.is_silent(start + SILENCE));
        assert!(liveness.is_silent(now + SILENCE));
    }
}
