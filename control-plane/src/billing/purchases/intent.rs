//! Paying in an app: a subscription that waits for its first payment.

use super::claim::{Claimed, Wish, claim};
use super::offer::customer;
use super::order::{Order, Outcome, Purchase};
use super::settle::{of_status, settle_one};
use super::{give_up, store};
use crate::app::AppState;
use crate::billing::reference::SubscriptionId;
use crate::billing::stripe::IdempotencyKey;
use crate::billing::stripe::intents::Intent;
use crate::billing::stripe::subscriptions::{NewSubscription, Subscription};
use crate::error::{ApiError, Code};

/// Subscriptions that may turn out to be over, one after the other.
const TRIES: usize = 3;

/// What was begun.
#[derive(Debug)]
pub(super) enum Begun {
    /// It waits for this payment.
    Waits(Box<Intent>),
    /// It runs: nothing is due now, or it was paid meanwhile.
    Runs,
}

/// A subscription that waits for its first payment, or runs.
pub(super) async fn begin(state: &AppState, wish: &Wish<'_>) -> Result<Begun, ApiError> {
    // Nothing may be left open for somebody whom Stripe cannot know.
    customer(state, wish.user).await?;
    for _ in 0..TRIES {
        let Claimed { purchase, is_new } = claim(state, wish).await?;
        let made = match make(state, &purchase).await {
            Ok(made) => made,
            Err(error) => return Err(give_up::unmade(state, &purchase, error).await),
        };
        // What a key gave before is how it was then.
        let now = if is_new {
            made
        } else {
            let stripe = &state.payments()?.stripe;
            stripe.subscription_with_payment(&made.id).await?
        };
        let is_waiting = of_status(now.status) == Outcome::Open;
        let id = now.id.as_str().to_owned();
        if let Some(intent) = payment(now).filter(|_| is_waiting) {
            return Ok(Begun::Waits(Box::new(intent)));
        }
        let purchase = Purchase {
            made: Some(id),
            ..purchase
        };
        if settle_one(state, &purchase).await? == Outcome::Done {
            return Ok(Begun::Runs);
        }
    }
    Err(Code::PaymentsUnavailable.into())
}

/// The purchase's subscription. Made where nobody knows of one, as it was asked for at first.
pub(super) async fn make(state: &AppState, purchase: &Purchase) -> Result<Subscription, ApiError> {
    let Order::Subscription {
        price,
        trial_days,
        method,
    } = &purchase.order
    else {
        return Err(ApiError::internal("a purchase of no subscription"));
    };
    let stripe = &state.payments()?.stripe;
    if let Some(known) = &purchase.made {
        let id = SubscriptionId::try_from(known.clone()).map_err(ApiError::internal)?;
        return Ok(stripe.subscription_with_payment(&id).await?);
    }
    let customer = customer(state, purchase.user).await?;
    let new = NewSubscription {
        customer: &customer,
        price,
        method: method.as_ref(),
        trial_days: *trial_days,
    };
    let key = IdempotencyKey::of(purchase.id, "subscription");
    let made = stripe.create_subscription(&new, &key).await?;
    let mut connection = state.db().get().await?;
    store::keep_made(&mut connection, state.keys(), purchase, made.id.as_str()).await?;
    Ok(made)
}

/// What it waits for.
pub(super) fn payment(subscription: Subscription) -> Option<Intent> {
    let invoice = subscription.latest_invoice?.object?;
    invoice.payment_intent?.object
}
