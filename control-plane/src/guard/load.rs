//! Limits that tighten while the host is loaded, step by step, and widen again more slowly.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

const SAMPLE_EVERY: Duration = Duration::from_secs(1);
/// Shares of the limits in a thousand, each for a host that the one before did not relieve.
const STEPS: [u32; 4] = [1000, 750, 500, 250];
/// In percent of all processors.
const LOADED: f64 = 90.0;
const RELIEVED: f64 = 70.0;
/// How long it has to be so. Between the two nothing changes.
const TIGHTEN_AFTER: Duration = Duration::from_secs(10);
const WIDEN_AFTER: Duration = Duration::from_secs(30);

/// The share of the limits that holds at present.
#[derive(Debug)]
pub(super) struct Throttle(AtomicU32);

impl Default for Throttle {
    fn default() -> Self {
        Self(AtomicU32::new(STEPS[0]))
    }
}

impl Throttle {
    /// In a thousand.
    pub(super) fn share(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }

    /// Follows the host's load until `shutdown`.
    pub(super) async fn run(&self, shutdown: &CancellationToken) {
        let mut ladder = Ladder::default();
        let mut before = processors();
        let mut tick = interval(SAMPLE_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while shutdown.run_until_cancelled(tick.tick()).await.is_some() {
            let now = processors();
            if let (Some(before), Some(now)) = (before, now)
                && let Some(busy) = now.busy_since(before)
            {
                let share = ladder.observe(busy, Instant::now());
                if self.0.swap(share, Ordering::Relaxed) != share {
                    tracing::warn!(share_per_mille = share, busy, "guard.limits_changed");
                }
                metrics::gauge!("guard_limits_share").set(f64::from(share) / 1000.0);
            }
            before = now;
        }
    }
}

/// Where on the steps the limits are, and since when the host is how it is.
#[derive(Debug, Default)]
struct Ladder {
    step: usize,
    loaded_since: Option<Instant>,
    relieved_since: Option<Instant>,
}

impl Ladder {
    fn observe(&mut self, busy: f64, now: Instant) -> u32 {
        let since = |is: bool, since: Option<Instant>| is.then(|| since.unwrap_or(now));
        self.loaded_since = since(busy >= LOADED, self.loaded_since);
        self.relieved_since = since(busy <= RELIEVED, self.relieved_since);
        let for_as_long = |since: Option<Instant>, long| {
            since.is_some_and(|since| now.saturating_duration_since(since) >= long)
        };
        if for_as_long(self.loaded_since, TIGHTEN_AFTER) {
            self.step = (self.step + 1).min(STEPS.len() - 1);
            self.loaded_since = Some(now);
        } else if for_as_long(self.relieved_since, WIDEN_AFTER) {
            self.step = self.step.saturating_sub(1);
            self.relieved_since = Some(now);
        }
        STEPS.get(self.step).copied().unwrap_or(STEPS[0])
    }
}

/// What the processors have done since the start of the host, in ticks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ticks {
    idle: u32,
    total: u32,
}

impl Ticks {
    /// In percent; none where no time has passed.
    fn busy_since(self, before: Self) -> Option<f64> {
        // They may run over.
        let total = self.total.wrapping_sub(before.total);
        let idle = self.idle.wrapping_sub(before.idle).min(total);
        (total > 0).then(|| f64::from(total - idle) / f64::from(total) * 100.0)
    }
}

fn processors() -> Option<Ticks> {
    parse(&std::fs::read_to_string("/proc/stat").ok()?)
}

/// The line of all processors: user, nice, system, idle, waiting for disks, and more.
fn parse(stat: &str) -> Option<Ticks> {
    let mut fields = stat.lines().next()?.split_whitespace();
    (fields.next()? == "cpu").then_some(())?;
    let ticks: Vec<u64> = fields.take(8).map_while(|it| it.parse().ok()).collect();
    let idle = ticks.get(3)?.wrapping_add(*ticks.get(4)?);
    let low = |number: u64| u32::try_from(number & u64::from(u32::MAX)).unwrap_or_default();
    Some(Ticks {
        idle: low(idle),
        total: low(ticks.iter().fold(0, |sum, it| sum.wrapping_add(*it))),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What holds after so many seconds of so much load.
    fn after(ladder: &mut Ladder, start: &mut Instant, busy: f64, seconds: u64) -> u32 {
        let mut share = 0;
        for _ in 0..=seconds {
            share = ladder.observe(busy, *start);
            *start += Duration::from_secs(1);
        }
        share
    }

    #[test]
    fn limits_tighten_in_steps_and_widen_more_slowly() {
        let (mut ladder, mut now) = (Ladder::default(), Instant::now());
        let mut after = |busy, seconds| after(&mut ladder, &mut now, busy, seconds);
        assert_eq!(after(95.0, 9), 1000, "a short peak changes nothing");
        assert_eq!(after(80.0, 60), 1000, "in between everything stays");
        assert_eq!(after(95.0, 10), 750);
        assert_eq!(after(95.0, 60), 250, "it has an end");
        assert_eq!(after(80.0, 60), 250);
        assert_eq!(after(50.0, 29), 250);
        assert_eq!(after(50.0, 1), 500);
        assert_eq!(after(50.0, 120), 1000);
    }

    #[test]
    fn processors_are_read() {
        let stat = "cpu  100 0 50 800 50 0 0 0 0 0\ncpu0 1 2 3 4\n";
        let before = parse(stat).expect("ticks");
        assert_eq!((before.idle, before.total), (850, 1000));
        let after = parse("cpu  190 0 50 805 55 0 0 0 0 0\n").expect("ticks");
        assert_eq!(after.busy_since(before), Some(90.0));
        assert_eq!(before.busy_since(before), None);
        assert_eq!(parse("intr 1 2 3"), None);
        assert!(processors().is_some(), "this host has some");
    }
}
