//! `/payments/refund`

use actix_web::{HttpRequest, HttpResponse, get, post, web};
use utoipa_actix_web::service_config::ServiceConfig;
use uuid::Uuid;

use super::request::{Asked, Promised, promise};
use super::store;
use super::wire::{RefundBody, RefundView};
use super::{Refund, carry_out};
use crate::app::AppState;
use crate::billing::invoices;
use crate::error::{ApiError, Code, ErrorEnvelope};
use crate::http::idempotency_key::{IdempotencyKey, idempotency_key};
use crate::http::permission::{OwnOr, ReadBilling, WriteBilling};
use crate::http::{RequestId, ValidJson};

pub fn routes(config: &mut ServiceConfig<'_>) {
    config.service(refund_payment).service(refund_status);
}

/// What the first API had without a version in its path.
pub fn aliases(config: &mut ServiceConfig<'_>) {
    routes(config);
}

/// Gives a payment back: an operator any part of what is left, the payer all of it within
/// `REFUND_WINDOW_DAYS`.
///
/// The answer comes when the refund is certain; `requested` is one that the payment provider did not answer yet,
/// and that is made as soon as it does. What was paid for ends where nothing is left of the payment.
#[utoipa::path(
    tag = "billing",
    security(("bearer" = []), ("operator" = [])),
    params(IdempotencyKey),
    request_body = RefundBody,
    responses(
        (status = 201, description = "The refund", body = RefundView),
        (status = 200, description = "The refund that was asked for with this key before", body = RefundView),
        (status = 404, description = "PAYMENT_NOT_FOUND", body = ErrorEnvelope),
        (status = 409, description = "PAYMENT_NOT_REFUNDABLE, ALREADY_REFUNDED, REFUND_TOO_LARGE, REFUND_WINDOW_OVER, CONFLICT", body = ErrorEnvelope),
        (status = 503, description = "PAYMENTS_NOT_CONFIGURED, SERVICE_UNAVAILABLE", body = ErrorEnvelope),
    ),
)]
#[post("/payments/refund")]
async fn refund_payment(
    state: web::Data<AppState>,
    by: OwnOr<WriteBilling>,
    request: RequestId,
    http: HttpRequest,
    ValidJson(body): ValidJson<RefundBody>,
) -> Result<HttpResponse, ApiError> {
    state.payments()?;
    let asked = Asked {
        payment: body.payment_id,
        // The text of a number is the decimal that was written.
        amount: body.amount.map(|amount| amount.to_string()),
        reason: body.reason.filter(|reason| !reason.is_empty()),
        key: idempotency_key(&http)?,
        by: &by,
        request: &request,
    };
    let (promised, is_new) = match promise(&state, &asked).await? {
        Promised::New(refund) => (refund, true),
        Promised::Known(refund) => (refund, false),
    };
    if let Err(error) = Box::pin(carry_out(&state, promised.id, is_new)).await {
        // The job goes on with it.
        tracing::warn!(refund = %promised.id, %error, "billing.refund_postponed");
        state.jobs().ring();
    }
    let refund = RefundView::from(current(&state, promised).await?);
    Ok(if is_new {
        HttpResponse::Created().json(refund)
    } else {
        HttpResponse::Ok().json(refund)
    })
}

async fn current(state: &AppState, promised: Refund) -> Result<Refund, ApiError> {
    let mut connection = state.db().get().await?;
    let now = store::find(&mut connection, promised.id).await?;
    Ok(now.unwrap_or(promised))
}

/// What has become of a refund: the payer's own, or anybody's for operators.
#[utoipa::path(
    tag = "billing",
    security(("bearer" = []), ("operator" = [])),
    params(("id" = Uuid, Path, description = "The refund")),
    responses(
        (status = 200, description = "The refund", body = RefundView),
        (status = 404, description = "REFUND_NOT_FOUND", body = ErrorEnvelope),
        (status = 503, description = "PAYMENTS_NOT_CONFIGURED, SERVICE_UNAVAILABLE", body = ErrorEnvelope),
    ),
)]
#[get("/payments/refund/{id}")]
async fn refund_status(
    state: web::Data<AppState>,
    by: OwnOr<ReadBilling>,
    path: web::Path<Uuid>,
) -> Result<web::Json<RefundView>, ApiError> {
    state.payments()?;
    let mut connection = state.db().get().await?;
    let refund = store::find(&mut connection, path.into_inner()).await?;
    let refund = refund.ok_or(Code::RefundNotFound)?;
    let payment = invoices::find(&mut connection, refund.payment).await?;
    if !payment.is_some_and(|it| by.sees(it.payment.user)) {
        return Err(Code::RefundNotFound.into());
    }
    Ok(web::Json(refund.into()))
}
