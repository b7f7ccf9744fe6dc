//! Which buckets of time are asked for. Pure.

use std::time::Duration;

use chrono::{DateTime, Datelike, Months, NaiveDate, NaiveTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::error::ApiError;

/// How long a bucket is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(example = "day")]
pub(crate) enum Interval {
    Hour,
    #[default]
    Day,
    Month,
}

impl Interval {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Month => "month",
        }
    }

    /// The most days that may be asked for at once.
    const fn most_days(self) -> i64 {
        match self {
            Self::Hour => 31,
            Self::Day => 731,
            Self::Month => 1830,
        }
    }

    /// The days that are shown where nobody says since when.
    const fn usual_days(self) -> i64 {
        match self {
            Self::Hour => 1,
            Self::Day => 30,
            Self::Month => 365,
        }
    }

    /// The beginning of the bucket that has this moment.
    fn floor(self, time: DateTime<Utc>) -> DateTime<Utc> {
        let day = time.date_naive();
        match self {
            Self::Hour => {
                let into = time.timestamp().rem_euclid(3600);
                DateTime::from_timestamp(time.timestamp() - into, 0).unwrap_or(time)
            }
            Self::Day => start_of(day),
            Self::Month => start_of(day.with_day(1).unwrap_or(day)),
        }
    }

    /// The beginning of the bucket after one.
    fn next(self, start: DateTime<Utc>) -> DateTime<Utc> {
        match self {
            Self::Hour => start + TimeDelta::hours(1),
            Self::Day => start + TimeDelta::days(1),
            Self::Month => start + Months::new(1),
        }
    }
}

fn start_of(day: NaiveDate) -> DateTime<Utc> {
    day.and_time(NaiveTime::MIN).and_utc()
}

/// Whole buckets, one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Period {
    pub(crate) interval: Interval,
    /// The beginning of the first bucket.
    pub(crate) from: DateTime<Utc>,
    /// The end of the last.
    pub(crate) to: DateTime<Utc>,
}

impl Period {
    /// The buckets that have a part of what is asked for. `hours_kept` is how long there are hours.
    pub(super) fn of(
        interval: Interval,
        from: Option<DateTime<Utc>>,
        to: Option<DateTime<Utc>>,
        now: DateTime<Utc>,
        hours_kept: Duration,
    ) -> Result<Self, ApiError> {
        let to = in_range("to", to.unwrap_or(now))?;
        let usual = to - TimeDelta::days(interval.usual_days());
        let from = in_range("from", from.unwrap_or(usual))?;
        if from >= to {
            return Err(ApiError::invalid("from", "Must be before `to`"));
        }
        let most = interval.most_days();
        if to - from > TimeDelta::days(most) {
            let interval = interval.as_str();
            let message = format!("At most {most} days before `to` for the interval {interval}");
            return Err(ApiError::invalid("from", message));
        }
        let kept = TimeDelta::from_std(hours_kept).unwrap_or(TimeDelta::MAX);
        if interval == Interval::Hour && now - from > kept {
            let message = format!("Hours are kept for {} days; ask for days", kept.num_days());
            return Err(ApiError::invalid("from", message));
        }
        let last = interval.floor(to);
        Ok(Self {
            interval,
            from: interval.floor(from),
            to: if last == to { to } else { interval.next(last) },
        })
    }

    /// The beginning of every bucket, in order.
    pub(super) fn starts(&self) -> impl Iterator<Item = DateTime<Utc>> {
        let (interval, to) = (self.interval, self.to);
        let starts =
            std::iter::successors(Some(self.from), move |start| Some(interval.next(*start)));
        starts.take_while(move |start| *start < to)
    }

    /// How many seconds of a bucket are over.
    pub(super) fn elapsed(&self, start: DateTime<Utc>, now: DateTime<Utc>) -> u64 {
        let end = self.interval.next(start).min(now);
        u64::try_from((end - start).num_seconds()).unwrap_or(0)
    }

    /// The first and the last day that it has a part of.
    pub(super) fn days(&self) -> (NaiveDate, NaiveDate) {
        let last = self.to - TimeDelta::seconds(1);
        (self.from.date_naive(), last.date_naive())
    }
}

/// There is nothing before, and arithmetic needs room after.
fn in_range(field: &str, time: DateTime<Utc>) -> Result<DateTime<Utc>, ApiError> {
    if (2000..3000).contains(&time.year()) {
        return Ok(time);
    }
    Err(ApiError::invalid(
        field,
        "Must be a time of the years 2000 to 2999",
    ))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;
    use Interval::{Day, Hour, Month};

    const KEPT: Duration = Duration::from_secs(90 * 86_400);

    fn time(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    fn of(interval: Interval, from: &str, to: &str) -> Result<Period, String> {
        let given = |text: &str| (!text.is_empty()).then(|| time(text));
        let now = time("2026-11-29T10:30:00Z");
        Period::of(interval, given(from), given(to), now, KEPT)
            .map_err(|error| error.envelope("").error.details[0].field.clone())
    }

    #[rstest]
    #[case::usual_hours(Hour, "", "", "2026-11-28T10:00:00Z", "2026-11-29T11:00:00Z", 25)]
    #[case::usual_days(Day, "", "", "2026-10-30T00:00:00Z", "2026-11-30T00:00:00Z", 31)]
    #[case::usual_months(Month, "", "", "2025-11-01T00:00:00Z", "2026-12-01T00:00:00Z", 13)]
    #[case::whole(
        Day,
        "2026-02-01T00:00:00Z",
        "2026-03-01T00:00:00Z",
        "2026-02-01T00:00:00Z",
        "2026-03-01T00:00:00Z",
        28
    )]
    #[case::parts(
        Month,
        "2026-01-31T23:00:00Z",
        "2026-02-01T00:00:01Z",
        "2026-01-01T00:00:00Z",
        "2026-03-01T00:00:00Z",
        2
    )]
    #[case::moment(
        Hour,
        "2026-11-29T10:00:00Z",
        "2026-11-29T10:00:01Z",
        "2026-11-29T10:00:00Z",
        "2026-11-29T11:00:00Z",
        1
    )]
    fn buckets_are_whole(
        #[case] interval: Interval,
        #[case] asked_from: &str,
        #[case] asked_to: &str,
        #[case] from: &str,
        #[case] to: &str,
        #[case] number: usize,
    ) {
        let period = of(interval, asked_from, asked_to).unwrap();
        assert_eq!((period.from, period.to), (time(from), time(to)));
        assert_eq!(period.starts().count(), number);
    }

    #[rstest]
    #[case::backwards(Day, "2026-11-02T00:00:00Z", "2026-11-01T00:00:00Z", "from")]
    #[case::nothing(Day, "2026-11-01T00:00:00Z", "2026-11-01T00:00:00Z", "from")]
    #[case::many_hours(Hour, "2026-10-01T00:00:00Z", "2026-11-01T00:00:01Z", "from")]
    #[case::old_hours(Hour, "2026-08-01T00:00:00Z", "2026-08-02T00:00:00Z", "from")]
    #[case::many_days(Day, "2024-01-01T00:00:00Z", "2026-11-01T00:00:00Z", "from")]
    #[case::many_months(Month, "2020-01-01T00:00:00Z", "2026-11-01T00:00:00Z", "from")]
    #[case::ancient(Day, "1999-12-31T23:59:59Z", "2000-01-01T00:00:00Z", "from")]
    #[case::far(Day, "2026-11-01T00:00:00Z", "3000-01-01T00:00:00Z", "to")]
    fn what_cannot_be_answered_is_named(
        #[case] interval: Interval,
        #[case] from: &str,
        #[case] to: &str,
        #[case] field: &str,
    ) {
        assert_eq!(of(interval, from, to), Err(field.to_owned()));
    }

    #[rstest]
    #[case::over(Day, "2026-11-28T00:00:00Z", 86_400)]
    #[case::now(Day, "2026-11-29T00:00:00Z", 37_800)]
    #[case::ahead(Day, "2026-11-30T00:00:00Z", 0)]
    #[case::month(Month, "2026-02-01T00:00:00Z", 28 * 86_400)]
    fn a_bucket_that_runs_counts_so_far(
        #[case] interval: Interval,
        #[case] start: &str,
        #[case] seconds: u64,
    ) {
        let period = of(interval, "", "").unwrap();
        let elapsed = period.elapsed(time(start), time("2026-11-29T10:30:00Z"));
        assert_eq!(elapsed, seconds);
    }

    proptest! {
        #[test]
        fn buckets_tile_what_is_asked_for(
            interval in prop_oneof![Just(Hour), Just(Day), Just(Month)],
            from in 946_684_800_i64..32_000_000_000,
            length in 1_i64..31 * 86_400,
        ) {
            let at = |seconds| DateTime::from_timestamp(seconds, 0).unwrap();
            let (from, to) = (at(from), at(from + length));
            let period = Period::of(interval, Some(from), Some(to), from, KEPT).unwrap();
            let starts: Vec<_> = period.starts().collect();
            prop_assert!(starts.len() <= 745);
            prop_assert!(period.from <= from && to <= period.to);
            prop_assert!(interval.next(period.from) > from);
            prop_assert_eq!(starts[0], period.from);
            let ends = starts.iter().map(|start| interval.next(*start));
            let mut following = starts[1..].to_vec();
            following.push(period.to);
            prop_assert_eq!(ends.collect::<Vec<_>>(), following);
            for start in starts {
                prop_assert_eq!(interval.floor(start), start);
            }
        }
    }
}
