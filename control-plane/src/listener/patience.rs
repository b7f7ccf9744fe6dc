//! How long a stream that does not go on is waited for.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

/// What a receiver has to take within the time; less is as good as nothing.
const STEP: usize = 16 * 1024;

/// Wakes a task at a point in time that moves with every request. Moving a timer costs more than waking
/// once in a while for nothing, so it is moved only to an earlier time, and when it went off too early.
#[derive(Debug, Default)]
pub(super) struct Alarm(Option<Pin<Box<Sleep>>>);

impl Alarm {
    pub(super) fn poll(&mut self, at: Instant, context: &mut Context<'_>) -> Poll<()> {
        let sleep = self.0.get_or_insert_with(|| Box::pin(sleep_until(at)));
        if sleep.deadline() > at {
            sleep.as_mut().reset(at);
        }
        loop {
            ready!(sleep.as_mut().poll(context));
            if sleep.deadline() >= at {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(at);
        }
    }
}

/// A receiver that takes nothing, or next to nothing, since some time.
#[derive(Debug)]
pub(super) struct Stall {
    time: Duration,
    since: Option<Instant>,
    /// Bytes since then.
    taken: usize,
}

impl Stall {
    pub(super) const fn new(time: Duration) -> Self {
        Self {
            time,
            since: None,
            taken: 0,
        }
    }

    /// The receiver took this much of what was there.
    pub(super) fn took(&mut self, bytes: usize, of: usize) {
        if self.since.is_none() {
            return;
        }
        self.taken = self.taken.saturating_add(bytes);
        if bytes >= of || self.taken >= STEP {
            self.since = None;
        }
    }

    /// The receiver takes nothing more now. Gives the time at which it is given up.
    pub(super) fn deadline(&mut self, now: Instant) -> Instant {
        let since = *self.since.get_or_insert_with(|| {
            self.taken = 0;
            now
        });
        since + self.time
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: Duration = Duration::from_secs(30);

    #[tokio::test]
    async fn an_alarm_goes_off_at_the_latest_time_that_it_was_given() {
        let (start, mut alarm) = (Instant::now(), Alarm::default());
        let [early, late] = [20, 60].map(|it| start + Duration::from_millis(it));
        let mut asked = 0;
        std::future::poll_fn(|context| {
            asked += 1;
            alarm.poll(if asked == 1 { early } else { late }, context)
        })
        .await;
        assert!(Instant::now() >= late && asked > 1, "{asked}");
        // And at an earlier one, though it waits for a later.
        let [soon, never] = [20, 60_000].map(|it| Instant::now() + Duration::from_millis(it));
        let mut alarm = Alarm::default();
        std::future::poll_fn(|context| {
            let waits = alarm.poll(never, context).is_pending();
            assert!(waits);
            alarm.poll(soon, context)
        })
        .await;
        assert!(Instant::now() >= soon);
    }

    #[test]
    fn a_receiver_that_takes_nothing_is_given_up() {
        let (start, mut stall) = (Instant::now(), Stall::new(TIME));
        stall.took(100, 1000);
        assert_eq!(stall.deadline(start), start + TIME);
        assert_eq!(stall.deadline(start + TIME / 2), start + TIME);
    }

    #[test]
    fn drops_win_no_time_and_draughts_do() {
        let (start, mut stall) = (Instant::now(), Stall::new(TIME));
        let _ = stall.deadline(start);
        stall.took(1, 100_000);
        stall.took(STEP - 2, 100_000);
        assert_eq!(stall.deadline(start + TIME / 2), start + TIME);
        stall.took(1, 100_000);
        let later = start + TIME / 2;
        assert_eq!(stall.deadline(later), later + TIME);
    }

    #[test]
    fn whoever_took_everything_begins_anew() {
        let (start, mut stall) = (Instant::now(), Stall::new(TIME));
        let _ = stall.deadline(start);
        stall.took(10, 10);
        let later = start + 2 * TIME;
        assert_eq!(stall.deadline(later), later + TIME);
    }
}
