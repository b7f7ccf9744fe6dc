//! What became of a purchase: Stripe is asked, the subscription's row is brought in line, and the purchase is
//! closed after it.

use chrono::{DateTime, TimeDelta, Utc};
use shared::ids::UserId;

use super::order::{Order, Outcome, Purchase};
use super::store;
use crate::app::AppState;
use crate::billing::reference::{CheckoutId, SubscriptionId};
use crate::billing::stripe::StripeError;
use crate::billing::stripe::checkouts::Checkout;
use crate::billing::stripe::subscriptions::Status;
use crate::billing::sync::{self, SyncError, Synced};
use crate::billing::{reference, superseded};
use crate::error::ApiError;

/// How long a purchase may be in somebody's hands.
const IN_HAND: TimeDelta = TimeDelta::hours(1);
/// Purchases looked for at once.
const BATCH: i64 = 100;

/// Closes the person's open purchase if it came to an end. True where it is done.
pub async fn settle(state: &AppState, user: UserId) -> Result<bool, SyncError> {
    let purchase = {
        let mut connection = state.db().get().await.map_err(ApiError::from)?;
        store::open(&mut connection, state.keys(), user).await?
    };
    let Some(purchase) = purchase else {
        return Ok(false);
    };
    Ok(settle_one(state, &purchase).await? == Outcome::Done)
}

/// Closes what people began more than an hour ago. Gives how many purchases turned out to be paid for, and how many
/// could not be looked at.
pub async fn settle_old(state: &AppState, now: DateTime<Utc>) -> Result<(usize, usize), ApiError> {
    let (mut done, mut failed, mut after) = (0, 0, None);
    loop {
        let users = {
            let mut connection = state.db().get().await?;
            store::open_since(&mut connection, now - IN_HAND, after, BATCH).await?
        };
        let Some((_, last)) = users.last() else {
            return Ok((done, failed));
        };
        after = Some(*last);
        for (user, _) in users {
            match settle(state, user).await {
                Ok(true) => done += 1,
                Ok(false) => {}
                Err(error) => {
                    failed += 1;
                    tracing::warn!(%user, %error, "billing.purchase_unsettled");
                }
            }
        }
    }
}

pub(super) async fn settle_one(
    state: &AppState,
    purchase: &Purchase,
) -> Result<Outcome, SyncError> {
    let outcome = match (&purchase.order, &purchase.made) {
        (Order::Checkout { .. }, Some(id)) => {
            let id = CheckoutId::try_from(id.clone()).map_err(corrupt)?;
            let read = state.payments()?.stripe.checkout(&id).await;
            known(read)?.map_or(Outcome::GivenUp, |read| of_checkout(&read))
        }
        (Order::Subscription { .. }, Some(id)) => {
            let id = SubscriptionId::try_from(id.clone()).map_err(corrupt)?;
            let read = state.payments()?.stripe.subscription(&id).await;
            known(read)?.map_or(Outcome::GivenUp, |read| of_status(read.status))
        }
        (Order::Change { .. }, _) => of_change(state, purchase).await?,
        (_, None) if purchase.is_stale(Utc::now()) => Outcome::GivenUp,
        // Whoever began it may ask for the same again.
        (_, None) => Outcome::Open,
    };
    conclude(state, purchase, outcome).await?;
    Ok(outcome)
}

/// Closes a purchase, after the subscription's row says what is paid for.
pub(super) async fn conclude(
    state: &AppState,
    purchase: &Purchase,
    outcome: Outcome,
) -> Result<(), SyncError> {
    if outcome == Outcome::Open {
        return Ok(());
    }
    let synced = sync::person(state, purchase.user).await?;
    if outcome == Outcome::Done && synced == Synced::Foreign {
        return Err(ApiError::internal("something was paid for by nobody").into());
    }
    superseded::end(state, synced).await?;
    let mut connection = state.db().get().await.map_err(ApiError::from)?;
    store::conclude(&mut connection, purchase.id, outcome).await?;
    tracing::info!(user = %purchase.user, purchase = %purchase.id, outcome = outcome.as_str(), "billing.purchase");
    Ok(())
}

pub(super) fn of_checkout(checkout: &Checkout) -> Outcome {
    match checkout.status.as_deref() {
        Some("complete") => Outcome::Done,
        Some("expired") => Outcome::GivenUp,
        _ => Outcome::Open,
    }
}

pub(super) const fn of_status(status: Status) -> Outcome {
    match status {
        Status::Incomplete | Status::Unknown => Outcome::Open,
        Status::IncompleteExpired | Status::Canceled => Outcome::GivenUp,
        Status::Trialing | Status::Active | Status::PastDue | Status::Unpaid | Status::Paused => {
            Outcome::Done
        }
    }
}

async fn of_change(state: &AppState, purchase: &Purchase) -> Result<Outcome, SyncError> {
    let Order::Change {
        subscription,
        price,
        ..
    } = &purchase.order
    else {
        return Ok(Outcome::Open);
    };
    let read = state.payments()?.stripe.subscription(subscription).await;
    let Some(read) = known(read)? else {
        return Ok(Outcome::GivenUp);
    };
    Ok(match of_status(read.status) {
        Outcome::GivenUp => Outcome::GivenUp,
        _ if read.price() == Some(price) => Outcome::Done,
        _ if purchase.is_stale(Utc::now()) => Outcome::GivenUp,
        _ => Outcome::Open,
    })
}

/// What Stripe does not know any more cannot be paid.
fn known<T>(read: Result<T, StripeError>) -> Result<Option<T>, StripeError> {
    match read {
        Err(error) if error.is_missing() => Ok(None),
        read => read.map(Some),
    }
}

fn corrupt(error: reference::NotAnId) -> SyncError {
    ApiError::internal(error).into()
}
