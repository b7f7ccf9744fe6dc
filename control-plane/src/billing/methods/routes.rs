//! `/billing/payment-method`, `/billing/payment-methods`

use actix_web::{HttpResponse, delete, get, put, web};
use garde::Validate;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_actix_web::service_config::ServiceConfig;

use super::{Saved, remove, saved, set};
use crate::app::AppState;
use crate::billing::stripe::methods::Method;
use crate::error::{ApiError, ErrorEnvelope};
use crate::http::{CurrentUser, RequestId, ValidJson};

pub(in crate::billing) fn routes(config: &mut ServiceConfig<'_>) {
    config
        .service(list_payment_methods)
        .service(set_payment_method)
        .service(remove_payment_method);
}

#[derive(Debug, Deserialize, Validate, ToSchema)]
#[schema(as = PaymentMethodRequest)]
struct MethodBody {
    /// As Stripe's SDK gave it.
    #[garde(length(min = 1, max = 255))]
    #[schema(
        example = "pm_1MqLiJLkdIwHu7ixUEgbFdYF",
        min_length = 1,
        max_length = 255
    )]
    payment_method: String,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = PaymentMethodList)]
struct MethodList {
    payment_methods: Vec<MethodView>,
}

/// What its owner knows a card by.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = PaymentMethod)]
struct MethodView {
    #[schema(example = "pm_1MqLiJLkdIwHu7ixUEgbFdYF")]
    id: String,
    #[schema(example = "visa")]
    brand: Option<String>,
    #[schema(example = "4242")]
    last4: Option<String>,
    #[schema(example = 12)]
    exp_month: Option<u32>,
    #[schema(example = 2034)]
    exp_year: Option<u32>,
    /// Whether it pays where nothing else is said.
    is_default: bool,
}

impl MethodView {
    fn new(method: Method, is_default: bool) -> Self {
        let card = method.card.as_ref();
        Self {
            id: method.id.as_str().to_owned(),
            brand: card.map(|card| card.brand.clone()),
            last4: card.map(|card| card.last4.clone()),
            exp_month: card.map(|card| card.exp_month),
            exp_year: card.map(|card| card.exp_year),
            is_default,
        }
    }
}

/// The caller's saved cards.
#[utoipa::path(
    tag = "billing",
    security(("bearer" = [])),
    responses((status = 200, description = "The cards, the newest first", body = MethodList)),
)]
#[get("/billing/payment-methods")]
async fn list_payment_methods(
    state: web::Data<AppState>,
    user: CurrentUser,
) -> Result<web::Json<MethodList>, ApiError> {
    let Saved { methods, default } = saved(&state, user.id).await?;
    let view = |method: Method| {
        let is_default = default.as_ref() == Some(&method.id);
        MethodView::new(method, is_default)
    };
    let payment_methods = methods.into_iter().map(view).collect();
    Ok(web::Json(MethodList { payment_methods }))
}

/// Saves a card and lets it pay from now on, for the running subscription too.
///
/// What a renewal could not collect is paid by subscribing to the same plan again.
#[utoipa::path(
    tag = "billing",
    security(("bearer" = [])),
    request_body = MethodBody,
    responses(
        (status = 200, description = "The card", body = MethodView),
        (status = 400, description = "INVALID_INPUT, PAYMENT_DECLINED", body = ErrorEnvelope),
        (status = 404, description = "PAYMENT_METHOD_NOT_FOUND", body = ErrorEnvelope),
    ),
)]
#[put("/billing/payment-method")]
async fn set_payment_method(
    state: web::Data<AppState>,
    user: CurrentUser,
    request: RequestId,
    ValidJson(body): ValidJson<MethodBody>,
) -> Result<web::Json<MethodView>, ApiError> {
    let method = set(&state, user.id, &body.payment_method, &request).await?;
    Ok(web::Json(MethodView::new(method, true)))
}

/// Forgets a card of the caller's. One that pays for the running plan stays until another one is named.
#[utoipa::path(
    tag = "billing",
    security(("bearer" = [])),
    params(("id" = String, Path, description = "The card's id")),
    responses(
        (status = 204, description = "It is forgotten"),
        (status = 409, description = "CONFLICT", body = ErrorEnvelope),
    ),
)]
#[delete("/billing/payment-methods/{id}")]
async fn remove_payment_method(
    state: web::Data<AppState>,
    user: CurrentUser,
    request: RequestId,
    id: web::Path<String>,
) -> Result<HttpResponse, ApiError> {
    state.payments()?;
    remove(&state, user.id, &id, &request).await?;
    Ok(HttpResponse::NoContent().finish())
}
