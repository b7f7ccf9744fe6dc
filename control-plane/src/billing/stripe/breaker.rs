//! Leaves Stripe alone while it fails, so that nobody waits for what will not come. Pure.

use std::time::{Duration, Instant};

/// Attempts that failed in a row.
const ENOUGH: u32 = 5;
/// How long Stripe is then left alone, and how long its next probe may take until another one is made.
const PAUSE: Duration = Duration::from_secs(15);

#[derive(Debug, Default)]
pub(super) struct Breaker {
    failures: u32,
    /// Until when nobody tries. Past this, one does.
    suspended_until: Option<Instant>,
}

impl Breaker {
    /// Whether to try now.
    pub(super) fn admits(&mut self, now: Instant) -> bool {
        match self.suspended_until {
            None => true,
            Some(until) if now < until => false,
            Some(_) => {
                // This is the probe; the others go on waiting for what becomes of it.
                self.suspended_until = now.checked_add(PAUSE);
                true
            }
        }
    }

    /// Stripe answered, whatever it said.
    pub(super) fn answered(&mut self) {
        *self = Self::default();
    }

    /// Stripe did not answer, or only that it cannot.
    pub(super) fn failed(&mut self, now: Instant) {
        self.failures = self.failures.saturating_add(1);
        if self.failures >= ENOUGH {
            self.suspended_until = now.checked_add(PAUSE);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broken(now: Instant) -> Breaker {
        let mut breaker = Breaker::default();
        for _ in 0..ENOUGH {
            assert!(breaker.admits(now));
            breaker.failed(now);
        }
        breaker
    }

    #[test]
    fn failures_in_a_row_close_the_way_and_an_answer_between_them_does_not() {
        let now = Instant::now();
        let mut breaker = broken(now);
        assert!(!breaker.admits(now));
        let mut breaker = Breaker::default();
        for _ in 0..ENOUGH * 3 {
            breaker.failed(now);
            breaker.answered();
        }
        assert!(breaker.admits(now));
    }

    #[test]
    fn one_probe_at_a_time_finds_out() {
        let now = Instant::now();
        let mut breaker = broken(now);
        let later = now + PAUSE;
        assert!(breaker.admits(later));
        assert!(!breaker.admits(later), "the probe is on its way");
        breaker.failed(later);
        assert!(!breaker.admits(later + PAUSE / 2));
        assert!(breaker.admits(later + PAUSE));
        breaker.answered();
        assert!(breaker.admits(later + PAUSE));
    }

    #[test]
    fn a_probe_that_got_lost_is_followed_by_another() {
        let now = Instant::now();
        let mut breaker = broken(now);
        assert!(breaker.admits(now + PAUSE));
        assert!(breaker.admits(now + PAUSE * 2));
    }
}
