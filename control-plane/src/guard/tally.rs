//! Counts what each caller does, to find floods and guessing: requests, whatever became of them, and failures.
//!
//! Counting costs a request nothing but a lock. A task takes the counts over to Redis, which adds those of
//! all replicas up; while it is away each replica finds what it alone sees.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use foldhash::HashMap;
use redis::aio::MultiplexedConnection;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use super::address::Subject;
use super::bans::Reason;
use super::lock;
use crate::config::Threshold;

/// Callers counted at once.
const CAPACITY: usize = 65_536;
const SWEEP_EVERY: Duration = Duration::from_secs(1);
const SHARE_EVERY: Duration = Duration::from_millis(250);
const REDIS_TIMEOUT: Duration = Duration::from_secs(2);

/// What is counted, with what is too much of it.
#[derive(Debug)]
pub(super) struct Tally {
    reason: Reason,
    /// Names the counts in Redis.
    name: &'static str,
    threshold: Threshold,
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    by_subject: HashMap<Subject, Count>,
    /// When room was last looked for.
    swept: Option<Instant>,
}

impl Counts {
    /// Whoever is counted has room. For somebody new those make it of whom there was `little` to count; they
    /// are looked for once a second, because looking takes longer than counting.
    fn has_room_for(&mut self, subject: Subject, little: u32, now: Instant) -> bool {
        if self.by_subject.len() < CAPACITY || self.by_subject.contains_key(&subject) {
            return true;
        }
        let is_due = |swept| now.saturating_duration_since(swept) >= SWEEP_EVERY;
        if self.swept.is_none_or(is_due) {
            self.swept = Some(now);
            self.by_subject
                .retain(|_, count| count.here > little.max(1));
        }
        self.by_subject.len() < CAPACITY
    }
}

#[derive(Debug, Clone, Copy)]
struct Count {
    /// When the first of these was counted.
    since: Instant,
    here: u32,
    /// Not in Redis yet.
    unshared: u32,
}

impl Tally {
    pub(super) fn new(reason: Reason, name: &'static str, threshold: Threshold) -> Self {
        Self {
            reason,
            name,
            threshold,
            counts: Mutex::default(),
        }
    }

    pub(super) const fn reason(&self) -> Reason {
        self.reason
    }

    pub(super) const fn ban(&self) -> Duration {
        self.threshold.ban
    }

    /// Counts one; true when it is the one too many.
    pub(super) fn count(&self, subject: Subject, now: Instant) -> bool {
        let mut counts = lock(&self.counts);
        if !counts.has_room_for(subject, self.threshold.count / 10, now) {
            return false;
        }
        let count = counts.by_subject.entry(subject).or_insert(Count {
            since: now,
            here: 0,
            unshared: 0,
        });
        if now.saturating_duration_since(count.since) >= self.threshold.within {
            (count.since, count.here) = (now, 0);
        }
        count.here = count.here.saturating_add(1);
        count.unshared = count.unshared.saturating_add(1);
        count.here == self.threshold.count.saturating_add(1)
    }

    pub(super) fn forget(&self, subject: Subject) {
        lock(&self.counts).by_subject.remove(&subject);
    }

    /// What has to be shared, and forgets what is over.
    fn unshared(&self, now: Instant) -> Vec<(Subject, u32)> {
        let mut counts = lock(&self.counts);
        let news = counts
            .by_subject
            .iter_mut()
            .filter(|(_, count)| count.unshared > 0)
            .map(|(subject, count)| (*subject, std::mem::take(&mut count.unshared)))
            .collect();
        let within = self.threshold.within;
        counts
            .by_subject
            .retain(|_, count| now.saturating_duration_since(count.since) < within);
        news
    }

    /// Adds the counts of all replicas up until `shutdown`; `found` learns who did too much. `name` hides a
    /// caller's address.
    pub(super) async fn run(
        &self,
        client: &redis::Client,
        shutdown: &CancellationToken,
        name: impl Fn(Subject) -> [u8; 16],
        found: impl Fn(Subject),
    ) {
        let mut connection = None;
        let mut tick = interval(SHARE_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while shutdown.run_until_cancelled(tick.tick()).await.is_some() {
            let news = self.unshared(Instant::now());
            if news.is_empty() {
                continue;
            }
            let sharing = self.share(client, &mut connection, &news, &name);
            match timeout(REDIS_TIMEOUT, sharing).await {
                Ok(Ok(totals)) => {
                    for ((subject, added), total) in news.into_iter().zip(totals) {
                        let limit = u64::from(self.threshold.count);
                        // Only who brings it over the threshold says so.
                        if total > limit && total - u64::from(added) <= limit {
                            found(subject);
                        }
                    }
                }
                Ok(Err(_)) | Err(_) => connection = None,
            }
        }
    }

    async fn share(
        &self,
        client: &redis::Client,
        connection: &mut Option<MultiplexedConnection>,
        news: &[(Subject, u32)],
        name: &impl Fn(Subject) -> [u8; 16],
    ) -> redis::RedisResult<Vec<u64>> {
        let connection = match connection {
            Some(connection) => connection,
            None => connection.insert(client.get_multiplexed_async_connection().await?),
        };
        let mut pipe = redis::pipe();
        for (subject, count) in news {
            let key = [
                b"{guard}:".as_slice(),
                self.name.as_bytes(),
                b":",
                &name(*subject),
            ]
            .concat();
            let within = u64::try_from(self.threshold.within.as_millis()).unwrap_or(u64::MAX);
            pipe.cmd("SET")
                .arg(&key)
                .arg(0)
                .arg("PX")
                .arg(within)
                .arg("NX")
                .ignore();
            pipe.cmd("INCRBY").arg(&key).arg(*count);
        }
        pipe.query_async(connection).await
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;

    const THRESHOLD: Threshold = Threshold {
        count: 3,
        within: Duration::from_secs(60),
        ban: Duration::from_secs(3600),
    };

    fn subject(number: u32) -> Subject {
        Subject::of(IpAddr::from(Ipv4Addr::from(number)))
    }

    #[test]
    fn the_one_too_many_is_told_once() {
        let (tally, now) = (Tally::new(Reason::Flood, "f", THRESHOLD), Instant::now());
        let told: Vec<_> = (0..6).map(|_| tally.count(subject(1), now)).collect();
        assert_eq!(told, [false, false, false, true, false, false]);
        assert!(!tally.count(subject(2), now));
        // The next window begins anew.
        let later = now + THRESHOLD.within;
        assert!(!tally.count(subject(1), later));
    }

    #[test]
    fn what_was_shared_is_not_shared_again() {
        let (tally, now) = (Tally::new(Reason::Flood, "f", THRESHOLD), Instant::now());
        for _ in 0..2 {
            tally.count(subject(1), now);
        }
        assert_eq!(tally.unshared(now), [(subject(1), 2)]);
        assert!(tally.unshared(now).is_empty());
        tally.count(subject(1), now);
        assert_eq!(tally.unshared(now + THRESHOLD.within), [(subject(1), 1)]);
        assert!(lock(&tally.counts).by_subject.is_empty());
    }

    #[test]
    fn any_number_of_callers_takes_bounded_room() {
        let (tally, now) = (Tally::new(Reason::Flood, "f", THRESHOLD), Instant::now());
        let capacity = u32::try_from(CAPACITY).unwrap();
        let kept = || lock(&tally.counts).by_subject.len();
        // One of them does much.
        for _ in 0..3 {
            tally.count(subject(7), now);
        }
        for number in 0..capacity + 1 {
            tally.count(subject(number), now);
        }
        assert_eq!(kept(), 2, "the others made room for the last");
        assert!(
            !tally.count(subject(7), now),
            "it was told when it was one too many"
        );
        // Where nobody can make room, nobody looks for it with every request.
        for number in 0..3 * capacity {
            tally.count(subject(number), now);
        }
        assert_eq!(kept(), CAPACITY);
    }
}
