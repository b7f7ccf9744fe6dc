//! How long to wait before dialling again. Pure: randomness is passed in.

use std::time::Duration;

use rand::Rng;

/// Full jitter: a random time between zero and a bound that doubles with every failure, so that a
/// thousand nodes do not come back to a restarted plane in step.
#[derive(Debug, Clone)]
pub struct Backoff {
    base: Duration,
    cap: Duration,
    failures: u32,
}

/// Why the agent dials again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// The plane is restarting and said so: another replica is there already.
    Restarting,
    /// The connection failed or was lost.
    Lost,
    /// Only an operator can mend it, or another agent uses this identity: do not hurry.
    Refused,
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            base: Duration::from_millis(200),
            cap: Duration::from_secs(15),
            failures: 0,
        }
    }
}

impl Backoff {
    /// A session that lasted: the next failure is the first.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// The longest wait.
    #[must_use]
    pub fn cap(&self) -> Duration {
        self.cap
    }

    /// How long to wait this time.
    pub fn next(&mut self, retry: Retry, rng: &mut impl Rng) -> Duration {
        let (least, most) = match retry {
            Retry::Restarting => (Duration::ZERO, self.base),
            Retry::Refused => (self.cap / 2, self.cap),
            Retry::Lost => {
                let factor = 2_u32.saturating_pow(self.failures);
                self.failures = self.failures.saturating_add(1);
                (
                    Duration::ZERO,
                    self.base.saturating_mul(factor).min(self.cap),
                )
            }
        };
        rng.random_range(least..=most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    #[test]
    fn the_bound_doubles_up_to_the_cap() {
        let mut rng = StdRng::seed_from_u64(1);
        let mut longest = [Duration::ZERO; 12];
        for _ in 0..200 {
            let mut backoff = Backoff::default();
            for most in &mut longest {
                *most = backoff.next(Retry::Lost, &mut rng).max(*most);
            }
        }
        for (most, bound) in longest.iter().zip([200, 400, 800, 1600, 3200, 6400, 12800]) {
            let bound = Duration::from_millis(bound);
            assert!(*most <= bound && *most > bound / 2, "{most:?} of {bound:?}");
        }
        assert!(
            longest[7..]
                .iter()
                .all(|most| *most <= Duration::from_secs(15))
        );
        assert!(longest[11] > Duration::from_secs(12));
    }

    #[test]
    fn no_number_of_failures_overflows() {
        let mut backoff = Backoff {
            failures: u32::MAX - 1,
            ..Backoff::default()
        };
        let mut rng = StdRng::seed_from_u64(1);
        for _ in 0..4 {
            assert!(backoff.next(Retry::Lost, &mut rng) <= backoff.cap());
        }
    }

    #[test]
    fn the_reason_sets_the_pace() {
        let mut backoff = Backoff::default();
        let mut rng = StdRng::seed_from_u64(1);
        for _ in 0..100 {
            assert!(backoff.next(Retry::Restarting, &mut rng) <= backoff.base);
            assert!(backoff.next(Retry::Refused, &mut rng) >= backoff.cap / 2);
        }
        backoff.next(Retry::Lost, &mut rng);
        backoff.reset();
        assert!(backoff.next(Retry::Lost, &mut rng) <= backoff.base);
    }
}
