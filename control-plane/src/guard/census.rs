//! What protection did in the last day, over all replicas: what passed and what was refused by group of
//! endpoints, who was refused most, and what it all cost the requests.
//!
//! Counted in memory, added to Redis once a second, an hour a key. While Redis is away nothing is added and
//! what was counted waits.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use chrono::Utc;
use foldhash::HashMap;
use metrics::Histogram;
use redis::aio::MultiplexedConnection;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use super::address::Subject;
use super::group::Group;
use super::lock;

const SHARE_EVERY: Duration = Duration::from_secs(1);
const REDIS_TIMEOUT: Duration = Duration::from_secs(2);
const HOUR_SECONDS: i64 = 3600;
const HOURS: i64 = 24;
/// A key lives an hour longer than it is read.
const LIFE_SECONDS: i64 = (HOURS + 1) * HOUR_SECONDS;
/// Refused callers told apart between two sharings, and kept an hour.
const OFFENDERS: usize = 1_000;
/// Powers of two of a microsecond.
const BUCKETS: usize = 24;

/// This process's counts that are not in Redis yet.
#[derive(Debug)]
pub(super) struct Census {
    groups: Vec<Counts>,
    overhead: Vec<AtomicU64>,
    /// The same for Prometheus. Found once: by its name it would cost every request a look-up.
    seconds: Histogram,
    offenders: Mutex<HashMap<Subject, u64>>,
}

#[derive(Debug, Default)]
struct Counts {
    passed: AtomicU64,
    refused: AtomicU64,
}

/// The last day.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Report {
    pub(super) groups: Vec<(Group, u64, u64)>,
    /// The address or network and how often it was refused, the most first.
    pub(super) offenders: Vec<(String, u64)>,
    pub(super) overhead: Overhead,
}

/// How many requests took up to each power of two of a microsecond.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Overhead(Vec<u64>);

impl Overhead {
    /// The microseconds that a share of all requests did not exceed, rounded up to a power of two.
    pub(super) fn quantile_us(&self, per_mille: u64) -> Option<u64> {
        let total: u64 = self.0.iter().sum();
        let mut left = (total * per_mille).div_ceil(1000).max(1);
        self.0.iter().zip(0..).find_map(|(count, power)| {
            let found = *count >= left;
            left = left.saturating_sub(*count);
            found.then(|| 1_u64 << power)
        })
    }
}

impl Default for Census {
    fn default() -> Self {
        Self {
            groups: Group::ALL.iter().map(|_| Counts::default()).collect(),
            overhead: (0..BUCKETS).map(|_| AtomicU64::default()).collect(),
            seconds: metrics::histogram!("guard_seconds"),
            offenders: Mutex::default(),
        }
    }
}

impl Census {
    /// Counts a request that had room, and how long finding it out took.
    pub(super) fn passed(&self, group: Group, took: Duration) {
        self.count(group, |counts| &counts.passed);
        let bucket = bucket(took);
        if let Some(count) = self.overhead.get(bucket) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        self.seconds.record(took);
    }

    pub(super) fn refused(&self, group: Group, subject: Subject) {
        self.count(group, |counts| &counts.refused);
        let mut offenders = lock(&self.offenders);
        if offenders.len() < OFFENDERS || offenders.contains_key(&subject) {
            *offenders.entry(subject).or_default() += 1;
        }
    }

    /// Counts a request that was refused for where it came from. Its sender did nothing, so they are not listed.
    pub(super) fn turned_away(&self, group: Group) {
        self.count(group, |counts| &counts.refused);
    }

    fn count(&self, group: Group, which: impl FnOnce(&Counts) -> &AtomicU64) {
        let mut groups = Group::ALL.iter().zip(&self.groups);
        if let Some((_, counts)) = groups.find(|(other, _)| **other == group) {
            which(counts).fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Adds to Redis until `shutdown`.
    pub(super) async fn run(&self, client: &redis::Client, shutdown: &CancellationToken) {
        let mut connection = None;
        let mut tick = interval(SHARE_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while shutdown.run_until_cancelled(tick.tick()).await.is_some() {
            let taken = self.take();
            if taken.is_empty() {
                continue;
            }
            if !matches!(
                timeout(REDIS_TIMEOUT, share(client, &mut connection, &taken)).await,
                Ok(Ok(()))
            ) {
                connection = None;
                self.give_back(taken);
            }
        }
    }

    fn take(&self) -> Taken {
        let take = |count: &AtomicU64| count.swap(0, Ordering::Relaxed);
        let groups = Group::ALL.iter().zip(&self.groups);
        Taken {
            groups: groups
                .map(|(group, counts)| (*group, take(&counts.passed), take(&counts.refused)))
                .collect(),
            overhead: self.overhead.iter().map(take).collect(),
            offenders: std::mem::take(&mut *lock(&self.offenders)),
        }
    }

    fn give_back(&self, taken: Taken) {
        for ((_, passed, refused), counts) in taken.groups.into_iter().zip(&self.groups) {
            counts.passed.fetch_add(passed, Ordering::Relaxed);
            counts.refused.fetch_add(refused, Ordering::Relaxed);
        }
        for (number, count) in taken.overhead.into_iter().zip(&self.overhead) {
            count.fetch_add(number, Ordering::Relaxed);
        }
        let mut offenders = lock(&self.offenders);
        for (subject, count) in taken.offenders {
            if offenders.len() < OFFENDERS {
                *offenders.entry(subject).or_default() += count;
            }
        }
    }
}

#[derive(Debug)]
struct Taken {
    groups: Vec<(Group, u64, u64)>,
    overhead: Vec<u64>,
    offenders: HashMap<Subject, u64>,
}

impl Taken {
    fn is_empty(&self) -> bool {
        self.groups
            .iter()
            .all(|(_, passed, refused)| passed + refused == 0)
    }
}

/// The bucket whose power of two is no less than the time.
fn bucket(took: Duration) -> usize {
    let microseconds = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1);
    let power = u64::BITS - (microseconds - 1).leading_zeros();
    usize::try_from(power).unwrap_or(BUCKETS).min(BUCKETS - 1)
}

fn hour() -> i64 {
    Utc::now().timestamp().div_euclid(HOUR_SECONDS)
}

fn counts_key(hour: i64) -> String {
    format!("{{guard}}:counts:{hour}")
}

fn offenders_key(hour: i64) -> String {
    format!("{{guard}}:offenders:{hour}")
}

async fn share(
    client: &redis::Client,
    connection: &mut Option<MultiplexedConnection>,
    taken: &Taken,
) -> redis::RedisResult<()> {
    let connection = match connection {
        Some(connection) => connection,
        None => connection.insert(client.get_multiplexed_async_connection().await?),
    };
    let (counts, offenders) = (counts_key(hour()), offenders_key(hour()));
    let mut pipe = redis::pipe();
    pipe.atomic();
    let mut add = |field: String, count: u64| {
        if count > 0 {
            pipe.hincr(&counts, field, count).ignore();
        }
    };
    for (group, passed, refused) in &taken.groups {
        add(format!("passed:{group}"), *passed);
        add(format!("refused:{group}"), *refused);
    }
    for (power, count) in taken.overhead.iter().enumerate() {
        add(format!("overhead:{power}"), *count);
    }
    pipe.expire(&counts, LIFE_SECONDS).ignore();
    if !taken.offenders.is_empty() {
        for (subject, count) in &taken.offenders {
            pipe.zincr(&offenders, subject.to_string(), *count).ignore();
        }
        let kept = isize::try_from(OFFENDERS).unwrap_or(isize::MAX);
        pipe.zremrangebyrank(&offenders, 0, -kept - 1).ignore();
        pipe.expire(&offenders, LIFE_SECONDS).ignore();
    }
    pipe.query_async(connection).await
}

/// The last day, with at most so many offenders; none where Redis does not answer.
pub(super) async fn report(client: &redis::Client, offenders: usize) -> Option<Report> {
    timeout(REDIS_TIMEOUT, read(client, offenders))
        .await
        .ok()?
        .ok()
}

async fn read(client: &redis::Client, offenders: usize) -> redis::RedisResult<Report> {
    let mut connection = client.get_multiplexed_async_connection().await?;
    let hours = (0..HOURS).map(|ago| hour() - ago);
    let (mut counts, mut refused) = (redis::pipe(), redis::pipe());
    for hour in hours {
        counts.hgetall(counts_key(hour));
        refused.zrevrange_withscores(offenders_key(hour), 0, -1);
    }
    let counts: Vec<HashMap<String, u64>> = counts.query_async(&mut connection).await?;
    let refused: Vec<Vec<(String, u64)>> = refused.query_async(&mut connection).await?;
    Ok(Report::new(
        &counts,
        refused.into_iter().flatten(),
        offenders,
    ))
}

impl Report {
    fn new(
        counts: &[HashMap<String, u64>],
        refused: impl Iterator<Item = (String, u64)>,
        offenders: usize,
    ) -> Self {
        let sum = |field: &str| counts.iter().filter_map(|hour| hour.get(field)).sum();
        let groups = Group::ALL.iter().map(|group| {
            let (passed, refused) = (format!("passed:{group}"), format!("refused:{group}"));
            (*group, sum(&passed), sum(&refused))
        });
        let mut by_offender: HashMap<String, u64> = HashMap::default();
        for (offender, count) in refused {
            *by_offender.entry(offender).or_default() += count;
        }
        let mut all: Vec<_> = by_offender.into_iter().collect();
        all.sort_by(|(one, fewer), (other, more)| more.cmp(fewer).then_with(|| one.cmp(other)));
        all.truncate(offenders);
        Self {
            groups: groups.collect(),
            offenders: all,
            overhead: Overhead(
                (0..BUCKETS)
                    .map(|power| sum(&format!("overhead:{power}")))
                    .collect(),
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(0, 0)]
    #[case(1, 0)]
    #[case(2, 1)]
    #[case(3, 2)]
    #[case(4, 2)]
    #[case(5, 3)]
    #[case(1024, 10)]
    #[case(1025, 11)]
    #[case(u64::MAX, BUCKETS - 1)]
    fn a_bucket_is_a_power_of_two(#[case] microseconds: u64, #[case] expected: usize) {
        assert_eq!(bucket(Duration::from_micros(microseconds)), expected);
    }

    #[test]
    fn quantiles_are_read_off_the_buckets() {
        let overhead = Overhead(vec![0, 98, 1, 0, 1]);
        assert_eq!(overhead.quantile_us(500), Some(2));
        assert_eq!(overhead.quantile_us(980), Some(2));
        assert_eq!(overhead.quantile_us(990), Some(4));
        assert_eq!(overhead.quantile_us(1000), Some(16));
        assert_eq!(Overhead::default().quantile_us(500), None);
        assert_eq!(Overhead(vec![0; 4]).quantile_us(500), None);
    }

    #[test]
    fn hours_add_up_and_the_worst_come_first() {
        let hour = |field: &str, count| HashMap::from_iter([(field.to_owned(), count)]);
        let counts = [hour("refused:auth_login", 2), hour("refused:auth_login", 3)];
        let refused = [("a", 2), ("b", 4), ("a", 3), ("c", 1)];
        let refused = refused.map(|(name, count)| (name.to_owned(), count));
        let report = Report::new(&counts, refused.into_iter(), 2);
        assert_eq!(report.groups.first(), Some(&(Group::Login, 0, 5)));
        let expected = [("a".to_owned(), 5), ("b".to_owned(), 4)];
        assert_eq!(report.offenders, expected);
    }

    #[test]
    fn what_redis_did_not_take_waits() {
        let census = Census::default();
        let subject = Subject::of([203, 0, 113, 9].into());
        census.passed(Group::Login, Duration::from_micros(3));
        census.refused(Group::Login, subject);
        let taken = census.take();
        assert!(census.take().is_empty());
        census.give_back(taken);
        let again = census.take();
        assert_eq!(again.groups.first(), Some(&(Group::Login, 1, 1)));
        assert_eq!(again.offenders.get(&subject), Some(&1));
    }
}
