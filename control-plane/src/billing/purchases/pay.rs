//! Making a payment that waits, with a card that the app or the person names.

use shared::ids::UserId;

use super::wire::PaymentView;
use crate::app::AppState;
use crate::billing::reference::{IntentId, MethodId};
use crate::billing::stripe::IdempotencyKey;
use crate::billing::stripe::intents::{Intent, IntentStatus};
use crate::billing::{customers, methods, subscription, superseded};
use crate::error::{ApiError, Code};

/// What a payer asks for.
#[derive(Debug)]
pub(super) struct Confirmation<'a> {
    pub(super) intent: &'a str,
    /// What pays; otherwise what is named already, or what pays by default.
    pub(super) method: Option<&'a str>,
    /// Where the payer comes back to from their bank.
    pub(super) return_url: Option<&'a str>,
}

/// Pays a payment of the person's own.
pub(super) async fn confirm(
    state: &AppState,
    user: UserId,
    wanted: &Confirmation<'_>,
) -> Result<PaymentView, ApiError> {
    let stripe = &state.payments()?.stripe;
    let customer = {
        let mut connection = state.db().get().await?;
        customers::of_user(state, &mut connection, user).await?
    };
    let customer = customer.ok_or(Code::IntentNotFound)?;
    let id = IntentId::try_from(wanted.intent.to_owned()).map_err(|_| Code::IntentNotFound)?;
    let intent = match stripe.intent(&id).await {
        Err(error) if error.is_missing() => return Err(Code::IntentNotFound.into()),
        intent => intent?,
    };
    // What is somebody else's is not there.
    if intent.customer.as_ref().map(|it| &it.id) != Some(&customer) {
        return Err(Code::IntentNotFound.into());
    }
    let method = match wanted.method {
        Some(method) => Some(methods::usable(state, &customer, method).await?.id),
        None if intent.status == Some(IntentStatus::RequiresPaymentMethod) => {
            methods::default(state, &customer).await?
        }
        None => None,
    };
    let paid = pay(state, intent, method.as_ref(), wanted.return_url).await?;
    conclude(state, user, Some(paid)).await
}

/// Pays what waits for it, and gives how it stands then. Stripe takes the money of an intent once, whoever asks.
pub(super) async fn pay(
    state: &AppState,
    intent: Intent,
    method: Option<&MethodId>,
    return_url: Option<&str>,
) -> Result<Intent, ApiError> {
    let named = intent.payment_method.as_ref().map(|it| &it.id);
    let is_due = match intent.status {
        Some(IntentStatus::RequiresConfirmation) => true,
        Some(IntentStatus::RequiresPaymentMethod) => method.is_some(),
        // With another card it is another try.
        Some(IntentStatus::RequiresAction) => method.is_some() && method != named,
        _ => false,
    };
    if !is_due {
        return Ok(intent);
    }
    let stripe = &state.payments()?.stripe;
    let key = IdempotencyKey::once("confirm");
    match stripe
        .confirm_intent(&intent.id, method, return_url, &key)
        .await
    {
        // Somebody else was faster.
        Err(error) if error.declined().is_none() && error.is_refusal() => {
            Ok(stripe.intent(&intent.id).await?)
        }
        paid => Ok(paid?),
    }
}

/// The answer, after the subscription's row says what was paid for.
pub(super) async fn conclude(
    state: &AppState,
    user: UserId,
    intent: Option<Intent>,
) -> Result<PaymentView, ApiError> {
    superseded::refresh(state, user).await?;
    let subscription = subscription::current(state, user).await?;
    Ok(PaymentView::new(intent, subscription))
}
