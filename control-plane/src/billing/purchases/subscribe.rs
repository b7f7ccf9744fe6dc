//! Subscribing with a saved card: a first plan, another plan, or the same one again.

use shared::ids::UserId;

use super::claim::{Claimed, Wish, claim};
use super::give_up;
use super::intent::{self, Begun, payment};
use super::offer::{Offer, customer, offer, plan};
use super::order::Order;
use super::pay::{conclude, pay};
use super::settle::settle_one;
use super::wire::PaymentView;
use crate::app::AppState;
use crate::billing::plans::Plan;
use crate::billing::reference::{CustomerId, MethodId, SubscriptionId};
use crate::billing::stripe::IdempotencyKey;
use crate::billing::stripe::intents::{Intent, IntentStatus};
use crate::billing::subscription::{self, Billed, Status};
use crate::billing::{methods, renewal};
use crate::error::{ApiError, Code};
use crate::http::RequestId;

/// Others of the same person that may come first, one after the other.
const TRIES: usize = 3;

/// What somebody asks for.
#[derive(Debug)]
pub(super) struct Wanted<'a> {
    pub(super) user: UserId,
    pub(super) plan_type: &'a str,
    pub(super) method: Option<&'a str>,
    pub(super) request: &'a RequestId,
}

pub(super) async fn subscribe(
    state: &AppState,
    wanted: &Wanted<'_>,
) -> Result<PaymentView, ApiError> {
    let plan = plan(state, wanted.plan_type).await?;
    for _ in 0..TRIES {
        let billed = {
            let mut connection = state.db().get().await?;
            subscription::billed(state, &mut connection, wanted.user).await?
        };
        let result = match billed {
            None if plan.is_free() => conclude(state, wanted.user, None).await,
            Some(_) if plan.is_free() => {
                renewal::set(state, wanted.user, false, wanted.request).await?;
                conclude(state, wanted.user, None).await
            }
            Some(billed) if billed.subscription.plan == plan.id => {
                keep(state, wanted, &billed).await
            }
            Some(billed) => Box::pin(change(state, wanted, &plan, &billed)).await,
            None => Box::pin(begin(state, wanted, &plan)).await,
        };
        match result {
            // It began to run, or ended, while we looked.
            Err(error) if is_overtaken(&error) => {}
            result => return result,
        }
    }
    Err(Code::Conflict.into())
}

fn is_overtaken(error: &ApiError) -> bool {
    matches!(error.code(), Code::AlreadySubscribed | Code::NotSubscribed)
}

async fn begin(
    state: &AppState,
    wanted: &Wanted<'_>,
    plan: &Plan,
) -> Result<PaymentView, ApiError> {
    let Offer { price, trial_days } = offer(state, wanted.user, plan, None).await?;
    let customer = customer(state, wanted.user).await?;
    let method = method(state, &customer, wanted.method).await?;
    let wish = Wish {
        user: wanted.user,
        plan: &plan.id,
        order: Order::Subscription {
            price,
            trial_days,
            method: (trial_days > 0).then(|| method.clone()),
        },
        request: wanted.request,
    };
    let paid = match intent::begin(state, &wish).await? {
        Begun::Waits(intent) => Some(pay(state, *intent, Some(&method), None).await?),
        Begun::Runs => None,
    };
    conclude(state, wanted.user, paid).await
}

/// The same plan again: it goes on, and what is missing is paid.
async fn keep(
    state: &AppState,
    wanted: &Wanted<'_>,
    billed: &Billed,
) -> Result<PaymentView, ApiError> {
    if billed.subscription.cancel_at_period_end {
        renewal::set(state, wanted.user, true, wanted.request).await?;
    }
    let paid = collect(state, wanted, billed).await?;
    conclude(state, wanted.user, paid).await
}

/// Pays what a renewal could not.
async fn collect(
    state: &AppState,
    wanted: &Wanted<'_>,
    billed: &Billed,
) -> Result<Option<Intent>, ApiError> {
    if billed.subscription.status != Status::PastDue {
        return Ok(None);
    }
    let stripe = &state.payments()?.stripe;
    let read = stripe.subscription_with_payment(&billed.id).await?;
    let customer = read.customer.id.clone();
    let Some(intent) = payment(read) else {
        return Ok(None);
    };
    let method = method(state, &customer, wanted.method).await?;
    Ok(Some(pay(state, intent, Some(&method), None).await?))
}

/// Another plan. The difference for the rest of the period is charged, or credited, at once.
async fn change(
    state: &AppState,
    wanted: &Wanted<'_>,
    plan: &Plan,
    billed: &Billed,
) -> Result<PaymentView, ApiError> {
    let Offer { price, .. } = offer(state, wanted.user, plan, None).await?;
    if let Some(missing) = collect(state, wanted, billed).await?
        && missing.status != Some(IntentStatus::Succeeded)
    {
        return conclude(state, wanted.user, Some(missing)).await;
    }
    let stripe = &state.payments()?.stripe;
    let read = stripe.subscription(&billed.id).await?;
    if let Some(method) = wanted.method {
        let method = methods::own(state, &read.customer.id, method).await?;
        let key = IdempotencyKey::once("method");
        stripe
            .set_subscription_method(&billed.id, &method.id, &key)
            .await?;
    }
    let item = read.item().ok_or(Code::Internal)?;
    if read.price() != Some(&price) {
        let wish = Wish {
            user: wanted.user,
            plan: &plan.id,
            order: Order::Change {
                subscription: billed.id.clone(),
                item: item.id.clone(),
                price,
            },
            request: wanted.request,
        };
        make(state, &billed.id, &wish).await?;
    }
    conclude(state, wanted.user, None).await
}

/// What Stripe refuses stays as it was.
async fn make(state: &AppState, id: &SubscriptionId, wish: &Wish<'_>) -> Result<(), ApiError> {
    let Claimed { purchase, .. } = claim(state, wish).await?;
    let Order::Change { item, price, .. } = &purchase.order else {
        return Err(ApiError::internal("a purchase of no change"));
    };
    let key = IdempotencyKey::of(purchase.id, "change");
    let stripe = &state.payments()?.stripe;
    if let Err(error) = stripe.change_price(id, item, price, &key).await {
        return Err(give_up::unmade(state, &purchase, error.into()).await);
    }
    settle_one(state, &purchase).await?;
    Ok(())
}

/// What pays: the named one, which is the person's from now on, or what pays by default.
async fn method(
    state: &AppState,
    customer: &CustomerId,
    named: Option<&str>,
) -> Result<MethodId, ApiError> {
    let found = match named {
        Some(named) => Some(methods::own(state, customer, named).await?.id),
        None => methods::default(state, customer).await?,
    };
    let none = || ApiError::invalid(methods::FIELD, "Is needed: none is saved");
    found.ok_or_else(none)
}
