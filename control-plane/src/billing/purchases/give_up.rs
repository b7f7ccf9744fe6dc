//! Giving a purchase up: first nobody can pay it any more, then it is closed. What was paid meanwhile is done.

use chrono::Utc;

use super::order::{Order, Outcome, Purchase};
use super::settle::{conclude, of_checkout, of_status, settle_one};
use super::{checkout, intent};
use crate::app::AppState;
use crate::billing::reference::{CheckoutId, SubscriptionId};
use crate::billing::stripe::subscriptions::{Status, Subscription};
use crate::billing::stripe::{IdempotencyKey, Stripe, StripeError};
use crate::error::{ApiError, Code};

pub(super) async fn give_up(state: &AppState, purchase: &Purchase) -> Result<(), ApiError> {
    let stripe = &state.payments()?.stripe;
    let outcome = match &purchase.order {
        // It cannot be taken back. Where nobody knows whether it was made, the next change goes from what is found.
        Order::Change { .. } => match settle_one(state, purchase).await? {
            Outcome::Open => Outcome::GivenUp,
            _ => return Ok(()),
        },
        _ if purchase.is_stale(Utc::now()) => Outcome::GivenUp,
        Order::Checkout { .. } => match checkout::make(state, purchase).await {
            Ok(made) => close_checkout(stripe, &made.id).await?,
            Err(error) => refused(error)?,
        },
        Order::Subscription { .. } => match intent::make(state, purchase).await {
            Ok(made) => close_subscription(stripe, &made.id).await?,
            Err(error) => refused(error)?,
        },
    };
    Ok(conclude(state, purchase, outcome).await?)
}

/// What Stripe refuses to make is not there, and the purchase is over. The error is for whoever asked.
pub(super) async fn unmade(state: &AppState, purchase: &Purchase, error: ApiError) -> ApiError {
    if !is_refused(&error) {
        return error;
    }
    match conclude(state, purchase, Outcome::GivenUp).await {
        Ok(()) => error,
        Err(error) => error.into(),
    }
}

pub(in crate::billing) fn is_refused(error: &ApiError) -> bool {
    let source = std::error::Error::source(error);
    let source = source.and_then(|it| it.downcast_ref::<StripeError>());
    source.is_some_and(StripeError::is_refusal)
}

/// Anything else leaves it open.
fn refused(error: ApiError) -> Result<Outcome, ApiError> {
    if is_refused(&error) {
        Ok(Outcome::GivenUp)
    } else {
        Err(error)
    }
}

pub(super) async fn close_checkout(stripe: &Stripe, id: &CheckoutId) -> Result<Outcome, ApiError> {
    let key = IdempotencyKey::once("expire");
    lenient(stripe.expire_checkout(id, &key).await)?;
    let read = stripe.checkout(id).await?;
    let outcome = of_checkout(&read);
    // Somebody may be at their bank's page, which still leads to a payment.
    if outcome == Outcome::GivenUp
        && let Some(begun) = &read.subscription
    {
        return close_subscription(stripe, &begun.id).await;
    }
    closed(outcome)
}

pub(super) async fn close_subscription(
    stripe: &Stripe,
    id: &SubscriptionId,
) -> Result<Outcome, ApiError> {
    let mut read = stripe.subscription_with_payment(id).await?;
    if read.status == Status::Incomplete {
        void(stripe, &read).await?;
        read = stripe.subscription(id).await?;
    }
    if read.status == Status::Incomplete {
        lenient(stripe.cancel_subscription(id).await)?;
        read = stripe.subscription(id).await?;
    }
    closed(of_status(read.status))
}

/// Without its invoice a subscription never begins, and its payment cannot be made.
async fn void(stripe: &Stripe, subscription: &Subscription) -> Result<(), StripeError> {
    let Some(invoice) = &subscription.latest_invoice else {
        return Ok(());
    };
    let key = IdempotencyKey::once("void");
    lenient(stripe.void_invoice(&invoice.id, &key).await)
}

/// A refusal says that it is not open any more: what it is, is read.
fn lenient<T>(result: Result<T, StripeError>) -> Result<(), StripeError> {
    match result {
        Err(error) if !error.is_refusal() => Err(error),
        _ => Ok(()),
    }
}

fn closed(outcome: Outcome) -> Result<Outcome, ApiError> {
    if outcome == Outcome::Open {
        let going_on = "A payment of yours is being made; try again";
        return Err(ApiError::new(Code::Conflict).with_message(going_on));
    }
    Ok(outcome)
}
