//! Saved ways to pay. Stripe keeps them; here it is held that nobody uses another person's.
//!
//! Their ids are Stripe's: an app's SDK hands them over. None is kept.

mod routes;

use shared::ids::UserId;

use super::reference::{CustomerId, MethodId};
use super::stripe::IdempotencyKey;
use super::stripe::methods::Method;
use super::{customers, purchases, subscription};
use crate::app::AppState;
use crate::audit::{self, Action, Event};
use crate::error::{ApiError, Code};
use crate::http::RequestId;

pub(super) use routes::routes;

/// What callers send.
pub(super) const FIELD: &str = "payment_method";

/// What ids of ways to pay begin with.
const PREFIXES: [&str; 3] = ["pm_", "card_", "src_"];

/// The one with this id, if it is this customer's or nobody's yet.
pub(super) async fn usable(
    state: &AppState,
    customer: &CustomerId,
    id: &str,
) -> Result<Method, ApiError> {
    let id = parse(FIELD, id)?;
    let method = match state.payments()?.stripe.method(&id).await {
        Err(error) if error.is_missing() => return Err(Code::PaymentMethodNotFound.into()),
        method => method?,
    };
    match &method.customer {
        Some(owner) if owner.id != *customer => Err(Code::PaymentMethodNotFound.into()),
        _ => Ok(method),
    }
}

/// The same, saved for this customer.
pub(super) async fn own(
    state: &AppState,
    customer: &CustomerId,
    id: &str,
) -> Result<Method, ApiError> {
    let method = usable(state, customer, id).await?;
    if method.customer.is_some() {
        return Ok(method);
    }
    let key = IdempotencyKey::once("attach");
    let stripe = &state.payments()?.stripe;
    Ok(stripe.attach_method(&method.id, customer, &key).await?)
}

/// What pays where nothing else is said.
pub(super) async fn default(
    state: &AppState,
    customer: &CustomerId,
) -> Result<Option<MethodId>, ApiError> {
    let read = state.payments()?.stripe.customer(customer).await?;
    let default = read.invoice_settings.default_payment_method;
    Ok(default.map(|it| it.id))
}

fn parse(field: &str, id: &str) -> Result<MethodId, ApiError> {
    let wrong = || ApiError::invalid(field, "Must be the id of a payment method");
    if !PREFIXES.iter().any(|prefix| id.starts_with(prefix)) {
        return Err(wrong());
    }
    id.to_owned().try_into().map_err(|_| wrong())
}

/// A person's, and which of them pays.
struct Saved {
    methods: Vec<Method>,
    default: Option<MethodId>,
}

async fn saved(state: &AppState, user: UserId) -> Result<Saved, ApiError> {
    let stripe = &state.payments()?.stripe;
    let Some(customer) = customer_of(state, user).await? else {
        return Ok(Saved {
            methods: Vec::new(),
            default: None,
        });
    };
    Ok(Saved {
        methods: stripe.methods(&customer).all().await?,
        default: default(state, &customer).await?,
    })
}

async fn customer_of(state: &AppState, user: UserId) -> Result<Option<CustomerId>, ApiError> {
    let mut connection = state.db().get().await?;
    customers::of_user(state, &mut connection, user).await
}

/// From now on it pays: what is bought, and what runs.
async fn set(
    state: &AppState,
    user: UserId,
    id: &str,
    request: &RequestId,
) -> Result<Method, ApiError> {
    let customer = purchases::customer(state, user).await?;
    let method = own(state, &customer, id).await?;
    let id = &method.id;
    let stripe = &state.payments()?.stripe;
    let key = IdempotencyKey::once("default");
    stripe.set_default_method(&customer, id, &key).await?;
    let running = {
        let mut connection = state.db().get().await?;
        subscription::billed(state, &mut connection, user).await?
    };
    if let Some(running) = running {
        let key = IdempotencyKey::once("method");
        match stripe.set_subscription_method(&running.id, id, &key).await {
            // It has ended, and nobody told us yet.
            Err(error) if error.is_refusal() => {}
            set => drop(set?),
        }
    }
    record(state, Action::SetPaymentMethod, user, request).await?;
    Ok(method)
}

/// Stripe forgets it. What the running subscription is paid with stays until another one is named.
async fn remove(
    state: &AppState,
    user: UserId,
    id: &str,
    request: &RequestId,
) -> Result<(), ApiError> {
    let id = parse("id", id)?;
    let missing = || ApiError::new(Code::PaymentMethodNotFound);
    let customer = customer_of(state, user).await?.ok_or_else(missing)?;
    let method = usable(state, &customer, id.as_str()).await?;
    if method.customer.is_none() {
        return Err(missing());
    }
    if pays(state, user, &customer, &id).await? {
        let in_use = "It pays for your plan; name another one first";
        return Err(ApiError::new(Code::Conflict).with_message(in_use));
    }
    let key = IdempotencyKey::once("detach");
    match state.payments()?.stripe.detach_method(&id, &key).await {
        // Somebody else was faster.
        Err(error) if error.is_refusal() => return Err(missing()),
        removed => drop(removed?),
    }
    record(state, Action::RemovePaymentMethod, user, request).await
}

/// Whether a renewal will be paid with it.
async fn pays(
    state: &AppState,
    user: UserId,
    customer: &CustomerId,
    id: &MethodId,
) -> Result<bool, ApiError> {
    let running = {
        let mut connection = state.db().get().await?;
        subscription::billed(state, &mut connection, user).await?
    };
    let Some(running) = running.filter(|it| it.subscription.renews()) else {
        return Ok(false);
    };
    let read = state.payments()?.stripe.subscription(&running.id).await?;
    let named = read.default_payment_method.map(|it| it.id);
    let paying = match named {
        Some(named) => Some(named),
        None => default(state, customer).await?,
    };
    Ok(paying.as_ref() == Some(id))
}

async fn record(
    state: &AppState,
    action: Action,
    user: UserId,
    request: &RequestId,
) -> Result<(), ApiError> {
    let event = Event::own(action, user).in_request(request);
    let mut connection = state.db().get().await?;
    Ok(audit::record(&mut connection, &event).await?)
}
