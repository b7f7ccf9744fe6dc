//! `/payments/create`, `/payments/create-intent`, `/payments/confirm`

use actix_web::{post, web};

use crate::app::AppState;
use crate::billing::purchases::checkout;
use crate::billing::purchases::claim::Wish;
use crate::billing::purchases::intent::{self, Begun};
use crate::billing::purchases::offer::{Offer, offer, plan};
use crate::billing::purchases::order::Order;
use crate::billing::purchases::pay::{self, Confirmation};
use crate::billing::purchases::wire::{
    CheckoutBody, CheckoutView, ConfirmBody, IntentBody, IntentView, PaymentView, currency,
};
use crate::billing::redirect;
use crate::error::{ApiError, Code, ErrorEnvelope};
use crate::http::{CurrentUser, RequestId, ValidJson};

/// Begins a purchase at Stripe's own page.
///
/// Who asks for the same again gets the same page, as long as it is neither paid nor expired. Who asks for something
/// else cannot pay at the earlier page any more.
#[utoipa::path(
    tag = "billing",
    security(("bearer" = [])),
    request_body = CheckoutBody,
    responses(
        (status = 200, description = "Where to pay", body = CheckoutView),
        (status = 409, description = "ALREADY_SUBSCRIBED, CONFLICT", body = ErrorEnvelope),
    ),
)]
#[post("/payments/create")]
pub(super) async fn create_checkout(
    state: web::Data<AppState>,
    user: CurrentUser,
    request: RequestId,
    ValidJson(body): ValidJson<CheckoutBody>,
) -> Result<web::Json<CheckoutView>, ApiError> {
    state.payments()?;
    let hosts = &state.config().stripe.redirect_hosts;
    redirect::check("success_url", &body.success_url, hosts)?;
    redirect::check("cancel_url", &body.cancel_url, hosts)?;
    let currency = currency(body.currency.as_deref())?;
    let plan = plan(&state, &body.plan_type).await?;
    let Offer { price, trial_days } = offer(&state, user.id, &plan, currency).await?;
    let wish = Wish {
        user: user.id,
        plan: &plan.id,
        order: Order::Checkout {
            price,
            trial_days,
            success_url: body.success_url,
            cancel_url: body.cancel_url,
        },
        request: &request,
    };
    Ok(web::Json(CheckoutView {
        checkout_url: Box::pin(checkout::begin(&state, &wish)).await?,
        client_secret: None,
        payment_intent_id: None,
    }))
}

/// Begins a purchase in an app that asks for the card itself, by Stripe's SDK.
///
/// Who asks for the same again gets the same payment. A plan's trial is for a purchase with a card: at Stripe's
/// page, or with one that is saved.
#[utoipa::path(
    tag = "billing",
    security(("bearer" = [])),
    request_body = IntentBody,
    responses(
        (status = 200, description = "What is to be paid", body = IntentView),
        (status = 409, description = "ALREADY_SUBSCRIBED, CONFLICT", body = ErrorEnvelope),
    ),
)]
#[post("/payments/create-intent")]
pub(super) async fn create_intent(
    state: web::Data<AppState>,
    user: CurrentUser,
    request: RequestId,
    ValidJson(body): ValidJson<IntentBody>,
) -> Result<web::Json<IntentView>, ApiError> {
    state.payments()?;
    let currency = currency(body.currency.as_deref())?;
    let plan = plan(&state, &body.plan_type).await?;
    let Offer { price, .. } = offer(&state, user.id, &plan, currency).await?;
    let wish = Wish {
        user: user.id,
        plan: &plan.id,
        order: Order::Subscription {
            price,
            trial_days: 0,
            method: None,
        },
        request: &request,
    };
    match Box::pin(intent::begin(&state, &wish)).await? {
        Begun::Waits(intent) => Ok(web::Json(IntentView::new(*intent)?)),
        Begun::Runs => Err(Code::AlreadySubscribed.into()),
    }
}

/// Makes a payment of the caller's, or says how it stands.
///
/// Where their bank asks the payer to prove themselves the answer is `requires_action`: at `next_action_url`, or by
/// Stripe's SDK with `client_secret`. Afterwards the same call says what came of it.
#[utoipa::path(
    tag = "billing",
    security(("bearer" = [])),
    request_body = ConfirmBody,
    responses(
        (status = 200, description = "How it stands", body = PaymentView),
        (status = 400, description = "INVALID_INPUT, PAYMENT_DECLINED", body = ErrorEnvelope),
        (status = 404, description = "PAYMENT_INTENT_NOT_FOUND, PAYMENT_METHOD_NOT_FOUND", body = ErrorEnvelope),
    ),
)]
#[post("/payments/confirm")]
pub(super) async fn confirm_payment(
    state: web::Data<AppState>,
    user: CurrentUser,
    ValidJson(body): ValidJson<ConfirmBody>,
) -> Result<web::Json<PaymentView>, ApiError> {
    state.payments()?;
    if let Some(url) = &body.return_url {
        redirect::check("return_url", url, &state.config().stripe.redirect_hosts)?;
    }
    let wanted = Confirmation {
        intent: &body.payment_intent_id,
        method: body.payment_method.as_deref(),
        return_url: body.return_url.as_deref(),
    };
    let paid = Box::pin(pay::confirm(&state, user.id, &wanted)).await?;
    Ok(web::Json(paid))
}
