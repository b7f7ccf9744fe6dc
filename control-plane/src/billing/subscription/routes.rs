//! `/subscriptions/status`

use actix_web::{get, web};
use chrono::{DateTime, Utc};
use serde::Serialize;
use shared::ids::UserId;
use utoipa::ToSchema;
use utoipa_actix_web::service_config::ServiceConfig;

use super::machine::{Status, Subscription, entitles};
use super::store;
use crate::accounts::registration::FREE_PLAN;
use crate::app::AppState;
use crate::billing::plans::{self, Period};
use crate::error::ApiError;
use crate::http::CurrentUser;

pub fn routes(config: &mut ServiceConfig<'_>) {
    config.service(subscription_status);
}

/// What the first API had without a version in its path.
pub fn aliases(config: &mut ServiceConfig<'_>) {
    config.service(subscription_status);
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = SubscriptionState)]
enum StatusWord {
    Active,
    /// A payment is missing.
    PastDue,
    Canceled,
}

impl From<Status> for StatusWord {
    fn from(status: Status) -> Self {
        match status {
            Status::Active => Self::Active,
            Status::PastDue => Self::PastDue,
            Status::Canceled => Self::Canceled,
        }
    }
}

/// The subscription that runs.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SubscriptionStatus)]
pub struct StatusView {
    plan_type: Period,
    #[schema(example = "premium_monthly")]
    plan: String,
    status: StatusWord,
    start_date: Option<DateTime<Utc>>,
    /// The end of the period that runs; null where nothing expires.
    end_date: Option<DateTime<Utc>>,
    trial_end: Option<DateTime<Utc>>,
    /// It ends with the period instead of being renewed.
    cancel_at_period_end: bool,
    /// Whether it will be charged again.
    auto_renew: bool,
    /// When the plan's rights end if nothing else happens; null for never.
    access_until: Option<DateTime<Utc>>,
    /// The plan whose rights hold now: the free one where those of `plan` are over.
    #[schema(example = "premium_monthly")]
    effective_plan: String,
    /// A rate in each direction that holds beside the plan's while a payment is missing.
    throttle_mbps: Option<u32>,
}

/// The caller's subscription.
#[utoipa::path(
    tag = "billing",
    security(("bearer" = [])),
    responses((status = 200, description = "How it stands", body = StatusView)),
)]
#[get("/subscriptions/status")]
async fn subscription_status(
    state: web::Data<AppState>,
    user: CurrentUser,
) -> Result<web::Json<StatusView>, ApiError> {
    Ok(web::Json(current(&state, user.id).await?))
}

/// How the person's subscription stands.
pub async fn current(state: &AppState, user: UserId) -> Result<StatusView, ApiError> {
    let mut connection = state.db().get().await?;
    let Some(stored) = store::running(&mut connection, user).await? else {
        return Ok(StatusView::free());
    };
    let plan = plans::by_id(&mut connection, &stored.subscription.plan).await?;
    let period = plan.map_or(Period::Free, |plan| plan.period);
    Ok(StatusView::new(stored.subscription, period, Utc::now()))
}

impl StatusView {
    fn new(subscription: Subscription, period: Period, now: DateTime<Utc>) -> Self {
        let effective_plan = if entitles(&subscription, now) {
            subscription.plan.clone()
        } else {
            FREE_PLAN.to_owned()
        };
        Self {
            plan_type: period,
            status: subscription.status.into(),
            start_date: Some(subscription.started_at),
            end_date: subscription.period_end,
            trial_end: subscription.trial_end,
            cancel_at_period_end: subscription.cancel_at_period_end,
            auto_renew: subscription.renews(),
            access_until: subscription.access_until,
            effective_plan,
            throttle_mbps: subscription.throttle_mbps,
            plan: subscription.plan,
        }
    }

    /// Of whoever has no row: the free plan needs none.
    fn free() -> Self {
        Self {
            plan_type: Period::Free,
            plan: FREE_PLAN.to_owned(),
            status: StatusWord::Active,
            start_date: None,
            end_date: None,
            trial_end: None,
            cancel_at_period_end: false,
            auto_renew: false,
            access_until: None,
            effective_plan: FREE_PLAN.to_owned(),
            throttle_mbps: None,
        }
    }
}
