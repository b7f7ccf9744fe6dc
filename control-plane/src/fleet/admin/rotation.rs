//! When a node may replace its key. Pure.

use chrono::{DateTime, Duration, Utc};

use crate::error::ApiError;

/// Time for clients to learn the next key.
const DEFAULT_NOTICE: Duration = Duration::hours(24);
const LONGEST_NOTICE: Duration = Duration::days(30);

/// The time of the change, in whole seconds, so that every side names the same one.
pub(super) fn planned(
    wanted: Option<DateTime<Utc>>,
    now: DateTime<Utc>,
) -> Result<DateTime<Utc>, ApiError> {
    let at = wanted.unwrap_or(now + DEFAULT_NOTICE);
    if at <= now || at > now + LONGEST_NOTICE {
        let days = LONGEST_NOTICE.num_days();
        let message = format!("Must be in the future, at most {days} days ahead");
        return Err(ApiError::invalid("at", message));
    }
    let seconds = at.timestamp() + i64::from(at.timestamp_subsec_nanos() > 0);
    Ok(DateTime::from_timestamp(seconds, 0).unwrap_or(at))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn now() -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000, 0).expect("a time")
    }

    #[rstest]
    #[case::a_day_by_default(None, Some(86_400))]
    #[case::soon(Some(1), Some(1))]
    #[case::now(Some(0), None)]
    #[case::past(Some(-1), None)]
    #[case::latest(Some(30 * 86_400), Some(30 * 86_400))]
    #[case::too_late(Some(30 * 86_400 + 1), None)]
    fn is_bounded(#[case] ahead: Option<i64>, #[case] planned_ahead: Option<i64>) {
        let wanted = ahead.map(|seconds| now() + Duration::seconds(seconds));
        let planned = planned(wanted, now()).ok();
        let expected = planned_ahead.map(|seconds| now() + Duration::seconds(seconds));
        assert_eq!(planned, expected);
    }

    #[test]
    fn a_part_of_a_second_is_rounded_up() {
        let wanted = now() + Duration::milliseconds(1_001);
        let planned = planned(Some(wanted), now()).expect("in the future");
        assert_eq!(planned, now() + Duration::seconds(2));
    }
}
