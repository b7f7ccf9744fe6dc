//! The windows of this process.

use std::sync::Mutex;

use foldhash::HashMap;

use super::{Asked, Key, Standings, passes};
use crate::guard::lock;
use crate::guard::window::Window;

/// Windows kept at once: some 40 MB if all are full.
const CAPACITY: usize = 65_536;
/// Windows that are over are looked for at most so often, in milliseconds.
const SWEEP_EVERY: u64 = 1_000;

/// What becomes of those for whom there is no room left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Overflow {
    /// All of a kind share one window: nobody is without a limit.
    OneWindow,
    /// Redis alone counts them: sharing would let whoever names many shut everybody out.
    Unkept,
}

#[derive(Debug)]
pub(super) struct Local(Mutex<State>);

#[derive(Debug)]
struct State {
    windows: HashMap<Key, Kept>,
    overflow: Overflow,
    swept: u64,
}

#[derive(Debug, Default)]
struct Kept {
    window: Window,
    length: u64,
}

impl Local {
    pub(super) fn new(overflow: Overflow) -> Self {
        Self(Mutex::new(State {
            windows: HashMap::default(),
            overflow,
            swept: 0,
        }))
    }

    pub(super) fn look(&self, asked: &[Asked], now: u64) -> Standings {
        lock(&self.0).look(asked, now)
    }

    /// Counts the request in every window, or in none where one is full.
    pub(super) fn take(&self, asked: &[Asked], now: u64) -> Standings {
        let mut state = lock(&self.0);
        let mut standings = state.look(asked, now);
        if passes(&standings) {
            state.count(asked, now);
            for (standing, asked) in standings.iter_mut().zip(asked) {
                standing.remaining = standing.remaining.saturating_sub(1);
                standing.reset_ms = asked.limit.window_ms();
            }
        }
        standings
    }

    /// Counts what Redis let pass.
    pub(super) fn count(&self, asked: &[Asked], now: u64) {
        lock(&self.0).count(asked, now);
    }

    pub(super) fn forget(&self, keys: &[Key]) {
        let mut state = lock(&self.0);
        for key in keys {
            state.windows.remove(key);
        }
    }
}

impl State {
    fn look(&mut self, asked: &[Asked], now: u64) -> Standings {
        asked
            .iter()
            .map(|Asked { key, limit }| {
                let kept = self.place_of(*key).and_then(|it| self.windows.get_mut(&it));
                match kept {
                    Some(kept) => kept.window.look(limit, now),
                    None => Window::default().look(limit, now),
                }
            })
            .collect()
    }

    fn count(&mut self, asked: &[Asked], now: u64) {
        for Asked { key, limit } in asked {
            self.make_room(now);
            let Some(key) = self.place_of(*key) else {
                continue;
            };
            let kept = self.windows.entry(key).or_default();
            // What left the window goes here too, where nobody looked in between.
            kept.length = limit.window_ms();
            kept.window.look(limit, now);
            kept.window.count(now);
        }
    }

    fn place_of(&self, key: Key) -> Option<Key> {
        if self.windows.len() < CAPACITY || self.windows.contains_key(&key) {
            return Some(key);
        }
        if self.overflow == Overflow::Unkept {
            return None;
        }
        let mut shared = [0xff; 18];
        shared[..2].copy_from_slice(&key.0[..2]);
        Some(Key(shared))
    }

    fn make_room(&mut self, now: u64) {
        if self.windows.len() < CAPACITY || now < self.swept + SWEEP_EVERY {
            return;
        }
        self.swept = now;
        self.windows
            .retain(|_, kept| !kept.window.is_over(kept.length, now));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::Limit;

    fn asked(number: usize, limit: Limit) -> Asked {
        let mut key = [0; 18];
        key[2..10].copy_from_slice(&number.to_be_bytes());
        Asked {
            key: Key(key),
            limit,
        }
    }

    const LIMIT: Limit = Limit::new(2, Duration::from_secs(1), 1);

    #[test]
    fn it_counts_in_all_windows_or_in_none() {
        let local = Local::new(Overflow::OneWindow);
        let (wide, narrow) = (asked(1, LIMIT), asked(2, Limit { burst: 0, ..LIMIT }));
        for _ in 0..2 {
            assert!(passes(&local.take(&[wide, narrow], 0)));
        }
        let refused = local.take(&[wide, narrow], 1);
        assert_eq!(refused[1].wait_ms, Some(999));
        assert_eq!(local.look(&[wide], 1)[0].remaining, 1);
        assert!(passes(&local.take(&[wide, narrow], 1000)));
    }

    #[test]
    fn any_number_of_callers_takes_bounded_room_and_has_a_limit() {
        let local = Local::new(Overflow::OneWindow);
        let mut passed = 0;
        for number in 0..CAPACITY + 100 {
            passed += usize::from(passes(&local.take(&[asked(number, LIMIT)], 0)));
        }
        // The last hundred share one window.
        assert_eq!(passed, CAPACITY + 3);
        assert_eq!(lock(&local.0).windows.len(), CAPACITY + 1);
        // When the windows are over there is room again.
        assert!(passes(&local.take(&[asked(CAPACITY + 200, LIMIT)], 5000)));
        assert!(lock(&local.0).windows.len() < 3);
    }

    #[test]
    fn who_is_not_kept_shuts_nobody_out() {
        let local = Local::new(Overflow::Unkept);
        for number in 0..CAPACITY + 100 {
            assert!(passes(&local.take(&[asked(number, LIMIT)], 0)));
        }
        assert_eq!(lock(&local.0).windows.len(), CAPACITY);
        // Who has a window keeps it.
        for passed in [true, true, false] {
            assert_eq!(passes(&local.take(&[asked(7, LIMIT)], 1)), passed);
        }
    }

    #[test]
    fn what_is_forgotten_counts_no_more() {
        let local = Local::new(Overflow::OneWindow);
        let one = asked(1, Limit { burst: 0, ..LIMIT });
        local.count(&[one, one], 0);
        assert!(!passes(&local.take(&[one], 0)));
        local.forget(&[one.key]);
        assert!(passes(&local.take(&[one], 0)));
    }
}
