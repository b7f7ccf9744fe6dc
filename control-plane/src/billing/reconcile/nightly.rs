//! When a comparison is due, and that one replica makes it.

use std::time::Duration;

use chrono::{DateTime, Days, NaiveTime, TimeDelta, Utc};
use tokio::time::{MissedTickBehavior, interval};

use super::alone::Alone;
use super::run::compare;
use super::store;
use crate::app::AppState;
use crate::billing::sync::Mode;
use crate::error::ApiError;

/// How often to look whether one is due.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// How long one that could not read everything is left alone.
const PAUSE: TimeDelta = TimeDelta::minutes(15);

/// Compares once a day, at `RECONCILE_AT`, until the service stops.
pub async fn nightly(state: &AppState) {
    let began = Utc::now();
    let mut not_before = began;
    let mut tick = interval(LOOK_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while state
        .shutdown()
        .run_until_cancelled(tick.tick())
        .await
        .is_some()
    {
        if Utc::now() < not_before {
            continue;
        }
        let comparing = Box::pin(once(state, began));
        match state.shutdown().run_until_cancelled(comparing).await {
            Some(Ok(true)) | None => {}
            Some(Ok(false)) => not_before = Utc::now() + PAUSE,
            Some(Err(error)) => {
                not_before = Utc::now() + PAUSE;
                tracing::warn!(%error, "billing.reconcile_failed");
            }
        }
    }
}

/// Compares if it is due. False where not everything could be read.
async fn once(state: &AppState, began: DateTime<Utc>) -> Result<bool, ApiError> {
    if !is_due_now(state, began).await? {
        return Ok(true);
    }
    let Some(alone) = Alone::take(state).await? else {
        return Ok(true);
    };
    // Another replica may just have ended it.
    if !is_due_now(state, began).await? {
        return Ok(true);
    }
    let report = compare(state, Mode::Write, &alone).await?;
    Ok(report.is_complete)
}

async fn is_due_now(state: &AppState, began: DateTime<Utc>) -> Result<bool, ApiError> {
    let last = {
        let mut connection = state.db().get().await?;
        store::last_complete(&mut connection).await?
    };
    let at = state.config().billing.reconcile_at;
    Ok(is_due(Utc::now(), at, last.unwrap_or(began)))
}

/// Whether this time of the day has come since then.
fn is_due(now: DateTime<Utc>, at: NaiveTime, since: DateTime<Utc>) -> bool {
    let today = now.date_naive().and_time(at).and_utc();
    let latest = if today <= now {
        Some(today)
    } else {
        today.checked_sub_days(Days::new(1))
    };
    latest.is_some_and(|latest| latest > since)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("2026-03-01T02:59:59Z", "2026-02-28T03:00:01Z", false)]
    #[case("2026-03-01T03:00:00Z", "2026-02-28T03:00:01Z", true)]
    #[case("2026-03-01T03:00:00Z", "2026-03-01T03:00:00Z", false)]
    #[case("2026-03-01T23:59:59Z", "2026-03-01T03:00:01Z", false)]
    #[case("2026-03-01T12:00:00Z", "2026-03-01T02:00:00Z", true)]
    #[case("2026-03-01T02:00:00Z", "2026-02-28T02:00:00Z", true)]
    #[case("2026-03-01T02:00:00Z", "2026-03-01T01:00:00Z", false)]
    fn it_is_due_once_a_day(#[case] now: &str, #[case] since: &str, #[case] due: bool) {
        let at = NaiveTime::from_hms_opt(3, 0, 0).unwrap();
        let moment = |text: &str| text.parse::<DateTime<Utc>>().unwrap();
        assert_eq!(is_due(moment(now), at, moment(since)), due);
    }
}
