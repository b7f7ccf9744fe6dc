//! What time makes due: days are closed, months are made ahead and dropped, loads are looked at.

use std::time::Duration;

use chrono::{DateTime, Datelike, Months, NaiveDate, NaiveTime, TimeDelta, Utc};
use diesel_async::{AsyncConnection, AsyncPgConnection};
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use super::store::{self, TABLES, Table};
use crate::app::AppState;
use crate::config::AnalyticsConfig;
use crate::error::ApiError;

const EVERY: Duration = Duration::from_secs(60);
/// The default partitions take what comes before.
const FIRST: Duration = Duration::from_secs(10);
/// A statement that began in a day may come to its end so long after.
const MARGIN: TimeDelta = TimeDelta::hours(1);
/// Months that are there before they begin.
const AHEAD: Months = Months::new(2);

/// Keeps the rollups until the service stops.
pub async fn run(state: &AppState) {
    let mut tick = interval_at(Instant::now() + FIRST, EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while state
        .shutdown()
        .run_until_cancelled(tick.tick())
        .await
        .is_some()
    {
        let now = Utc::now();
        if let Err(error) = sample(state, now).await {
            tracing::warn!(%error, "analytics.sample_failed");
        }
        if let Err(error) = keep(state, now).await {
            tracing::warn!(%error, "analytics.upkeep_failed");
        }
    }
}

/// Takes down how much the nodes that answer have to do.
async fn sample(state: &AppState, now: DateTime<Utc>) -> Result<(), ApiError> {
    let view = state.fleet().view();
    let online = view.servers().iter().filter_map(|server| {
        let live = server.live();
        live.is_online(now)
            .then_some((server.id.0, live.load, live.peers))
    });
    let servers: Vec<_> = online.collect();
    if servers.is_empty() {
        return Ok(());
    }
    Ok(store::sample(&mut *state.db().get().await?, &servers).await?)
}

/// Makes what is needed ahead of `now`, closes the days that are over, and drops what is older than it is
/// kept. Leaves to another replica what that one is at.
pub async fn keep(state: &AppState, now: DateTime<Utc>) -> Result<(), ApiError> {
    let mut connection = state.db().get().await?;
    make_ahead(&mut connection, now).await?;
    while connection
        .transaction(async |connection| close_next(connection, now).await)
        .await?
    {}
    drop_old(&mut connection, state.config().analytics, now).await
}

async fn make_ahead(
    connection: &mut AsyncPgConnection,
    now: DateTime<Utc>,
) -> Result<(), ApiError> {
    let today = now.date_naive();
    let first = month_of(store::closed_until(connection).await?.min(today));
    let last = month_of(today) + AHEAD;
    for table in TABLES {
        let known = store::months(connection, table).await?;
        let months = std::iter::successors(Some(first), |month| Some(*month + Months::new(1)));
        let months = months.take_while(|month| *month <= last);
        for month in months.filter(|month| !known.contains(month)) {
            make(connection, table, month).await?;
        }
    }
    Ok(())
}

/// Unless another replica just did.
async fn make(
    connection: &mut AsyncPgConnection,
    table: Table,
    month: NaiveDate,
) -> Result<(), ApiError> {
    connection
        .transaction(async |connection| {
            if store::lock(connection).await?
                && !store::months(connection, table).await?.contains(&month)
            {
                store::make(connection, table, month).await?;
            }
            Ok(())
        })
        .await
}

/// Says whether there was a day to be closed.
async fn close_next(
    connection: &mut AsyncPgConnection,
    now: DateTime<Utc>,
) -> Result<bool, ApiError> {
    if !store::lock(connection).await? {
        return Ok(false);
    }
    let day = store::closed_until(connection).await?;
    if !is_over(day, now) {
        return Ok(false);
    }
    store::close_day(connection, day).await?;
    tracing::info!(%day, "analytics.day_closed");
    Ok(true)
}

async fn drop_old(
    connection: &mut AsyncPgConnection,
    kept: AnalyticsConfig,
    now: DateTime<Utc>,
) -> Result<(), ApiError> {
    let closed = store::closed_until(connection).await?;
    for table in TABLES {
        let first = expired(table, kept, now, closed);
        let months = store::months(connection, table).await?.into_iter();
        for month in months.filter(|month| *month + Months::new(1) <= first) {
            drop(connection, table, month).await?;
        }
    }
    Ok(())
}

async fn drop(
    connection: &mut AsyncPgConnection,
    table: Table,
    month: NaiveDate,
) -> Result<(), ApiError> {
    connection
        .transaction(async |connection| {
            if store::lock(connection).await? {
                store::drop(connection, table, month).await?;
                tracing::info!(?table, %month, "analytics.month_dropped");
            }
            Ok(())
        })
        .await
}

/// The first day that is still kept. Hours that no day has yet are.
fn expired(
    table: Table,
    kept: AnalyticsConfig,
    now: DateTime<Utc>,
    closed: NaiveDate,
) -> NaiveDate {
    let before = |life: Duration| {
        let life = TimeDelta::from_std(life).ok();
        let moment = life.and_then(|life| now.checked_sub_signed(life));
        moment.map_or(NaiveDate::MIN, |moment| moment.date_naive())
    };
    if table.is_hourly {
        before(kept.hours_kept).min(closed)
    } else {
        before(kept.days_kept)
    }
}

fn is_over(day: NaiveDate, now: DateTime<Utc>) -> bool {
    let next = day.succ_opt().unwrap_or(NaiveDate::MAX);
    next.and_time(NaiveTime::MIN).and_utc() + MARGIN <= now
}

fn month_of(day: NaiveDate) -> NaiveDate {
    day.with_day(1).unwrap_or(day)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn day(text: &str) -> NaiveDate {
        text.parse().unwrap()
    }

    #[rstest]
    #[case("2026-03-02T00:59:59Z", false)]
    #[case("2026-03-02T01:00:00Z", true)]
    #[case("2026-02-28T12:00:00Z", false)]
    fn a_day_is_over_an_hour_after_its_end(#[case] now: &str, #[case] is: bool) {
        assert_eq!(is_over(day("2026-03-01"), now.parse().unwrap()), is);
    }

    #[rstest]
    #[case::hours(0, "2026-03-30", "2026-02-28")]
    #[case::unclosed_hours(0, "2026-02-10", "2026-02-10")]
    #[case::days(2, "2026-03-30", "2025-03-30")]
    fn what_no_day_has_is_kept(#[case] table: usize, #[case] closed: &str, #[case] first: &str) {
        let days = |days: u64| Duration::from_secs(days * 86_400);
        let kept = AnalyticsConfig {
            hours_kept: days(30),
            days_kept: days(365),
        };
        let now = "2026-03-30T12:00:00Z".parse().unwrap();
        assert_eq!(expired(TABLES[table], kept, now, day(closed)), day(first));
    }
}
