//! Whether a subscription's row is as Stripe has it.

use chrono::Utc;
use diesel::result::Error;
use diesel_async::AsyncConnection;

use crate::app::AppState;
use crate::billing::invoices::Folded;
use crate::billing::reference::fingerprints;
use crate::billing::stripe::subscriptions::Subscription;
use crate::billing::subscription::{self, AtStripe, Reference, Seen, StripeStatus};
use crate::billing::superseded;
use crate::billing::sync::{self, Mode, SyncError};
use crate::error::ApiError;

/// What a list shows is tried and undone; where it would change something, it is read again and written. For what
/// is not known to be the same.
pub(super) async fn repair(
    state: &AppState,
    listed: &Subscription,
    mode: Mode,
) -> Result<Folded, SyncError> {
    let customer = &listed.customer.id;
    let Some(owner) = sync::owner(state, customer).await? else {
        return Ok(Folded::Foreign);
    };
    let now = Utc::now();
    let mut is_changed = None;
    let tried = {
        let mut connection = state.db().get().await.map_err(ApiError::from)?;
        connection
            .transaction(async |connection| {
                let applying = sync::apply(state, connection, owner.user, listed, now);
                is_changed = Some(Box::pin(applying).await?.is_changed);
                Err::<(), SyncError>(Error::RollbackTransaction.into())
            })
            .await
    };
    match is_changed {
        None => tried.map(|()| Folded::Same),
        Some(false) => Ok(Folded::Same),
        Some(true) => {
            if mode == Mode::Write {
                let synced = sync::subscription(state, &listed.id, Some(customer)).await?;
                superseded::follow_up(state, synced).await?;
            }
            Ok(Folded::Changed)
        }
    }
}

/// What runs here and was not listed: it is newer than the list, or Stripe does not know it.
pub(super) async fn repair_unlisted(
    state: &AppState,
    row: &AtStripe,
    mode: Mode,
) -> Result<Folded, SyncError> {
    match state.payments()?.stripe.subscription(&row.id).await {
        Ok(read) => repair(state, &read, mode).await,
        Err(error) if error.is_missing() => {
            if mode == Mode::Write {
                end(state, row).await?;
            }
            Ok(Folded::Changed)
        }
        Err(error) => Err(error.into()),
    }
}

/// What Stripe does not know is not paid for.
async fn end(state: &AppState, row: &AtStripe) -> Result<(), ApiError> {
    let seen = Seen {
        plan: row.plan.clone(),
        status: StripeStatus::Canceled,
        started_at: row.started_at,
        period_end: row.period_end,
        trial_end: None,
        cancel_at_period_end: false,
        ended_at: None,
    };
    let hashes = fingerprints(state.keys(), &row.id);
    let reference = Reference::new(row.id.as_str(), hashes);
    let mut connection = state.db().get().await?;
    let applied = connection
        .transaction(async |connection| {
            let now = Utc::now();
            let applying = subscription::apply(state, connection, row.user, &reference, &seen, now);
            Box::pin(applying).await
        })
        .await?;
    drop(connection);
    applied.signal(state);
    Ok(())
}
