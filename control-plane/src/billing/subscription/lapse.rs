//! What time ends: graces, periods that are not renewed, and what an operator gave for a time.
//!
//! Rights end by the clock in the view of them; here it is noticed, so that live connections are brought
//! down to what is left and the person is told.

use std::time::Duration;

use chrono::{DateTime, Utc};
use diesel_async::AsyncConnection;
use shared::ids::UserId;
use tokio::time::{MissedTickBehavior, interval};

use super::change::{Applied, Change};
use super::machine::{Status, lapse};
use super::store;
use crate::accounts;
use crate::app::AppState;
use crate::error::ApiError;

const EVERY: Duration = Duration::from_secs(2);
/// People looked at by one sweep.
const BATCH: i64 = 200;

/// Notices what has ended, until the service stops.
pub async fn run(state: &AppState) {
    let mut tick = interval(EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while state
        .shutdown()
        .run_until_cancelled(tick.tick())
        .await
        .is_some()
    {
        if let Err(error) = sweep(state, Utc::now()).await {
            tracing::warn!(%error, source = ?std::error::Error::source(&error), "billing.lapse_failed");
        }
    }
}

async fn sweep(state: &AppState, now: DateTime<Utc>) -> Result<(), ApiError> {
    let users = {
        let mut connection = state.db().get().await?;
        store::lapsing(&mut connection, now, BATCH).await?
    };
    for user in users {
        notice(state, user, now).await?.signal(state);
    }
    Ok(())
}

/// Replicas may come at once: whoever gets the person's row second finds nothing to do.
async fn notice(state: &AppState, user: UserId, now: DateTime<Utc>) -> Result<Applied, ApiError> {
    let mut connection = state.db().get().await?;
    connection
        .transaction(async |connection| {
            let Some(email) = accounts::hold(connection, user).await? else {
                // Nobody is left to be told.
                store::mark_lapsed(connection, user, now).await?;
                return Ok(Applied::default());
            };
            let Some(current) = store::running(connection, user).await? else {
                return Ok(Applied::default());
            };
            let Some(transition) = lapse(&current.subscription, now) else {
                return Ok(Applied::default());
            };
            let Some(next) = transition.next else {
                return Ok(Applied::default());
            };
            store::update(connection, current.id, &next, None).await?;
            let mut change = Change {
                state,
                connection,
                user,
                email,
                now,
                applied: Applied::default(),
            };
            if next.status == Status::Canceled {
                change.fall_back().await?;
            }
            change
                .conclude(Some(&current), &next, transition.news)
                .await
        })
        .await
}
