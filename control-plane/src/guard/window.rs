//! The sliding window: of any stretch of time as long as the window, no more than the limit passes.
//!
//! A window remembers the moment of each request that it let pass, to the millisecond; a request counts
//! until the moment has been left by a whole window. What is refused is not remembered, so whoever waits
//! as long as they were told passes. `window.lua` says the same to Redis.

use std::collections::VecDeque;

use crate::config::Limit;

/// What a window says of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Standing {
    /// How many more would pass at this moment.
    pub(crate) remaining: u32,
    /// Milliseconds until everything that counts now has left the window.
    pub(crate) reset_ms: u64,
    /// Milliseconds until one more passes; none where one passes now.
    pub(crate) wait_ms: Option<u64>,
}

/// The moments that count, oldest first, in milliseconds of one clock.
#[derive(Debug, Clone, Default)]
pub(crate) struct Window(VecDeque<u64>);

impl FromIterator<u64> for Window {
    fn from_iter<T: IntoIterator<Item = u64>>(moments: T) -> Self {
        Self(moments.into_iter().collect())
    }
}

impl Window {
    /// How things stand at `now`.
    pub(crate) fn look(&mut self, limit: &Limit, now: u64) -> Standing {
        let window = limit.window_ms();
        while self.0.front().is_some_and(|at| at + window <= now) {
            self.0.pop_front();
        }
        let used = self.0.len();
        let capacity = usize::try_from(limit.capacity()).unwrap_or(usize::MAX);
        let left_at = |index: usize| self.0.get(index).map(|at| at + window - now);
        Standing {
            remaining: u32::try_from(capacity.saturating_sub(used)).unwrap_or(u32::MAX),
            reset_ms: used.checked_sub(1).and_then(left_at).unwrap_or(0),
            wait_ms: used
                .checked_sub(capacity)
                .map(|over| left_at(over).unwrap_or(window)),
        }
    }

    /// Counts a request that passed at `now`.
    pub(crate) fn count(&mut self, now: u64) {
        self.0.push_back(now);
    }

    /// Whether nothing of it counts any more.
    pub(crate) fn is_over(&self, window_ms: u64, now: u64) -> bool {
        self.0.back().is_none_or(|at| at + window_ms <= now)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    /// By the words: of the requests that passed, those within the last window count.
    #[derive(Default)]
    struct Model(Vec<u64>);

    impl Model {
        fn passes(&mut self, limit: &Limit, now: u64) -> bool {
            let counting = self.0.iter().filter(|at| now - **at < limit.window_ms());
            let passes = u32::try_from(counting.count()).is_ok_and(|it| it < limit.capacity());
            if passes {
                self.0.push(now);
            }
            passes
        }
    }

    fn passes(window: &mut Window, limit: &Limit, now: u64) -> bool {
        let passes = window.look(limit, now).wait_ms.is_none();
        if passes {
            window.count(now);
        }
        passes
    }

    fn limits() -> impl Strategy<Value = Limit> {
        (1..6u32, 0..4u32, 1..2000u64).prop_map(|(requests, burst, ms)| {
            Limit::new(requests, Duration::from_millis(ms), burst)
        })
    }

    proptest! {
        #[test]
        fn it_slides_to_the_millisecond(
            limit in limits(),
            steps in prop::collection::vec(0..700u64, 1..120),
        ) {
            let (mut window, mut model, mut now) = (Window::default(), Model::default(), 1_000_000);
            for step in steps {
                now += step;
                prop_assert_eq!(passes(&mut window, &limit, now), model.passes(&limit, now));
            }
        }

        /// Whoever waits as long as they were told passes, and a millisecond less is too early.
        #[test]
        fn waiting_is_exact(limit in limits(), steps in prop::collection::vec(0..300u64, 1..60)) {
            let (mut window, mut now) = (Window::default(), 1_000_000);
            for step in steps {
                now += step;
                if let Some(wait) = window.look(&limit, now).wait_ms {
                    prop_assert!(wait > 0);
                    prop_assert!(window.clone().look(&limit, now + wait - 1).wait_ms.is_some());
                    prop_assert!(window.clone().look(&limit, now + wait).wait_ms.is_none());
                } else {
                    window.count(now);
                }
            }
            let reset = window.look(&limit, now).reset_ms;
            prop_assert_eq!(window.look(&limit, now + reset).remaining, limit.capacity());
        }

        /// A limit that was lowered meanwhile still tells the right moment.
        #[test]
        fn a_lowered_limit_waits_for_enough_to_leave(steps in prop::collection::vec(1..50u64, 1..20), share in 50..1000u32) {
            let limit = Limit::new(20, Duration::from_secs(1), 0);
            let (mut window, mut now) = (Window::default(), 1_000_000);
            for step in steps {
                now += step;
                passes(&mut window, &limit, now);
            }
            let lowered = limit.scaled(share);
            if let Some(wait) = window.look(&lowered, now).wait_ms {
                prop_assert!(window.clone().look(&lowered, now + wait).wait_ms.is_none());
                prop_assert!(window.look(&lowered, now + wait - 1).wait_ms.is_some());
            }
        }
    }
}
