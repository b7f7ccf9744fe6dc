//! `/billing/history` and `/billing/invoices`

use std::collections::HashMap;

use actix_web::{HttpRequest, get, web};
use utoipa_actix_web::service_config::ServiceConfig;
use uuid::Uuid;

use super::store;
use super::wire::{InvoiceView, PaymentView};
use crate::app::AppState;
use crate::billing::refunds::{self, Refund};
use crate::error::{ApiError, Code, ErrorEnvelope};
use crate::http::{CurrentUser, Page, PageQuery, ValidQuery};

pub fn routes(config: &mut ServiceConfig<'_>) {
    config.service(history).service(invoice);
}

/// What the caller paid or is to pay, the newest first.
#[utoipa::path(
    tag = "billing",
    security(("bearer" = [])),
    params(PageQuery),
    responses(
        (status = 200, description = "One page of payments", body = Page<PaymentView>),
        (status = 503, description = "PAYMENTS_NOT_CONFIGURED, SERVICE_UNAVAILABLE", body = ErrorEnvelope),
    ),
)]
#[get("/billing/history")]
async fn history(
    request: HttpRequest,
    state: web::Data<AppState>,
    user: CurrentUser,
    ValidQuery(asked): ValidQuery<PageQuery>,
) -> Result<web::Json<Page<PaymentView>>, ApiError> {
    state.payments()?;
    let mut connection = state.db().get().await?;
    let page = (asked.offset(), asked.limit());
    let (payments, total) = store::page(&mut connection, user.id, page).await?;
    let ids: Vec<Uuid> = payments.iter().map(|payment| payment.id).collect();
    let mut of_payment: HashMap<Uuid, Vec<Refund>> = HashMap::new();
    for refund in refunds::of_payments(&mut connection, &ids).await? {
        of_payment.entry(refund.payment).or_default().push(refund);
    }
    let view = |stored: store::Stored| {
        let refunds = of_payment.remove(&stored.id).unwrap_or_default();
        PaymentView::new(stored.id, stored.payment, refunds)
    };
    let data = payments.into_iter().map(view).collect();
    let (path, query) = (request.path(), request.query_string());
    Ok(web::Json(Page::new(data, total, asked, path, query)))
}

/// An invoice of the caller's, with its lines and pages.
#[utoipa::path(
    tag = "billing",
    security(("bearer" = [])),
    params(("id" = Uuid, Path, description = "The payment, as `GET /billing/history` has it")),
    responses(
        (status = 200, description = "The invoice", body = InvoiceView),
        (status = 404, description = "PAYMENT_NOT_FOUND", body = ErrorEnvelope),
        (status = 503, description = "PAYMENTS_NOT_CONFIGURED, PAYMENTS_UNAVAILABLE, SERVICE_UNAVAILABLE", body = ErrorEnvelope),
    ),
)]
#[get("/billing/invoices/{id}")]
async fn invoice(
    state: web::Data<AppState>,
    user: CurrentUser,
    path: web::Path<Uuid>,
) -> Result<web::Json<InvoiceView>, ApiError> {
    let stripe = &state.payments()?.stripe;
    let (stored, refunds) = {
        let mut connection = state.db().get().await?;
        let stored = store::find(&mut connection, path.into_inner()).await?;
        let stored = stored.filter(|it| it.payment.user == user.id);
        let stored = stored.ok_or(Code::PaymentNotFound)?;
        let refunds = refunds::of_payments(&mut connection, &[stored.id]).await?;
        (stored, refunds)
    };
    let read = stripe.invoice(&stored.invoice(state.keys())?).await;
    let read = read.map_err(|error| {
        if error.is_missing() {
            ApiError::new(Code::PaymentNotFound).with_source(error)
        } else {
            error.into()
        }
    })?;
    Ok(web::Json(InvoiceView::new(stored, refunds, read)))
}
