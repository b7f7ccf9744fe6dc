//! `/billing/portal`: Stripe's own page for cards, invoices and the subscription's end.

use actix_web::{post, web};
use garde::Validate;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_actix_web::service_config::ServiceConfig;

use super::purchases;
use super::redirect::{self, LONGEST};
use super::stripe::IdempotencyKey;
use crate::app::AppState;
use crate::error::ApiError;
use crate::http::{CurrentUser, ValidJson};

pub(super) fn routes(config: &mut ServiceConfig<'_>) {
    config.service(open_portal);
}

#[derive(Debug, Deserialize, Validate, ToSchema)]
#[schema(as = PortalRequest)]
struct PortalBody {
    /// Where the page leads back to. Over HTTPS, and on a host that the service lists.
    #[garde(length(max = LONGEST))]
    #[schema(example = "https://app.example.org/account", max_length = 2048)]
    return_url: String,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Portal)]
struct PortalView {
    /// Lets its bearer in, for a short time.
    #[schema(example = "https://billing.stripe.com/p/session/live_a1b2")]
    url: String,
}

/// A page of Stripe's where the caller keeps their cards, reads their invoices and cancels.
#[utoipa::path(
    tag = "billing",
    security(("bearer" = [])),
    request_body = PortalBody,
    responses((status = 200, description = "The page", body = PortalView)),
)]
#[post("/billing/portal")]
async fn open_portal(
    state: web::Data<AppState>,
    user: CurrentUser,
    ValidJson(body): ValidJson<PortalBody>,
) -> Result<web::Json<PortalView>, ApiError> {
    let stripe = &state.payments()?.stripe;
    let hosts = &state.config().stripe.redirect_hosts;
    redirect::check("return_url", &body.return_url, hosts)?;
    let customer = purchases::customer(&state, user.id).await?;
    let key = IdempotencyKey::once("portal");
    let portal = stripe
        .create_portal(&customer, &body.return_url, &key)
        .await?;
    Ok(web::Json(PortalView { url: portal.url }))
}
