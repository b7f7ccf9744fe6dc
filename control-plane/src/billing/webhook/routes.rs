//! `/payments/webhook`

use actix_web::http::header::HeaderName;
use actix_web::{HttpRequest, post, web};
use chrono::Utc;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_actix_web::service_config::ServiceConfig;

use super::{admin, intake};
use crate::app::AppState;
use crate::error::{ApiError, Code, ErrorEnvelope};
use crate::http::input;

/// The largest event. Stripe's own are far smaller; what is larger is refused before its signature is looked at.
const LIMIT: usize = 512 * 1024;

const SIGNATURE: HeaderName = HeaderName::from_static("stripe-signature");

pub fn routes(config: &mut ServiceConfig<'_>) {
    config
        .service(receive)
        .service(admin::list_events)
        .service(admin::replay_event);
}

pub fn aliases(config: &mut ServiceConfig<'_>) {
    config.service(receive);
}

/// An event of Stripe's.
#[derive(Debug, ToSchema)]
#[schema(as = StripeEvent)]
#[expect(dead_code, reason = "for the document: the handler takes the bytes")]
struct EventBody {
    #[schema(example = "evt_1NG8Du2eZvKYlo2CUI79vXWy")]
    id: String,
    #[schema(rename = "type", example = "customer.subscription.updated")]
    kind: String,
}

#[derive(Debug, Serialize, ToSchema)]
struct Received {
    #[schema(example = true)]
    received: bool,
}

/// What happened at Stripe. The answer comes once it is stored; what was told before is not stored again.
#[utoipa::path(
    tag = "billing",
    security(()),
    params(("stripe-signature" = String, Header, description = "`t=…,v1=…`, by the endpoint's secret")),
    request_body = EventBody,
    responses(
        (status = 200, description = "It is stored", body = Received),
        (status = 400, description = "WEBHOOK_SIGNATURE_INVALID, INVALID_INPUT", body = ErrorEnvelope),
    ),
)]
#[post("/payments/webhook")]
async fn receive(
    state: web::Data<AppState>,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<web::Json<Received>, ApiError> {
    let payments = state.payments()?;
    let body = input::raw(payload, LIMIT).await?;
    let header = request.headers().get(SIGNATURE);
    let header = header.and_then(|value| value.to_str().ok());
    payments
        .webhook
        .verify(header, &body, Utc::now())
        .map_err(|error| {
            if error.is_somebodys_doing() {
                state.guard().bad_webhook();
            }
            tracing::warn!(%error, "stripe.event_refused");
            ApiError::new(Code::WebhookSignatureInvalid).with_source(error)
        })?;
    intake::take(&state, &body).await?;
    Ok(web::Json(Received { received: true }))
}
