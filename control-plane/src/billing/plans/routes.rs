//! `/subscriptions/plans`

use actix_web::{get, web};
use serde::Serialize;
use utoipa::ToSchema;

use super::plan::{Period, Plan};
use super::store;
use crate::app::AppState;
use crate::error::ApiError;

/// What can be had.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = PlanList)]
pub(super) struct PlanList {
    plans: Vec<PlanView>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Plan)]
struct PlanView {
    #[schema(example = "premium_monthly")]
    id: String,
    #[schema(example = "Premium Monthly")]
    name: String,
    #[schema(example = 9.99)]
    price: f64,
    #[schema(example = "USD")]
    currency: String,
    billing_period: Period,
    /// Days before the first payment.
    #[schema(example = 0)]
    trial_days: i32,
    #[schema(example = json!(["unlimited_bandwidth", "all_locations", "5_devices"]))]
    features: Vec<String>,
    details: DetailsView,
}

/// What the plan allows.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = PlanDetails)]
struct DetailsView {
    #[schema(example = 5)]
    max_devices: i32,
    #[schema(example = 5)]
    max_connections: i32,
    streaming_support: bool,
    /// Null for no limit.
    download_mbps: Option<i32>,
    /// Null for no limit.
    upload_mbps: Option<i32>,
    /// Bytes a month in both directions together; null for no limit.
    quota_bytes: Option<i64>,
}

/// The plans that can be had, the cheapest first.
#[utoipa::path(
    tag = "billing",
    security(()),
    responses((status = 200, description = "The plans", body = PlanList)),
)]
#[get("/subscriptions/plans")]
pub(super) async fn list_plans(
    state: web::Data<AppState>,
) -> Result<web::Json<PlanList>, ApiError> {
    let plans = store::offered(&mut *state.db().get().await?).await?;
    let plans = plans.into_iter().map(PlanView::from).collect();
    Ok(web::Json(PlanList { plans }))
}

impl From<Plan> for PlanView {
    fn from(plan: Plan) -> Self {
        let terms = plan.terms;
        Self {
            id: plan.id,
            name: terms.name,
            price: terms.price.number(),
            currency: terms.price.currency.to_string(),
            billing_period: plan.period,
            trial_days: terms.trial_days,
            features: terms.features,
            details: DetailsView {
                max_devices: terms.max_devices,
                max_connections: terms.max_connections,
                streaming_support: terms.streaming_support,
                download_mbps: terms.download_mbps,
                upload_mbps: terms.upload_mbps,
                quota_bytes: terms.quota_bytes,
            },
        }
    }
}
