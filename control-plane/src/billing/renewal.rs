//! `/subscriptions/cancel`, `/subscriptions/resume`: whether a subscription goes on after its period.

use actix_web::{put, web};
use shared::ids::UserId;
use utoipa_actix_web::service_config::ServiceConfig;

use super::stripe::IdempotencyKey;
use super::subscription::{self, StatusView};
use super::superseded;
use crate::app::AppState;
use crate::audit::{self, Action, Event};
use crate::error::{ApiError, Code, ErrorEnvelope};
use crate::http::{CurrentUser, RequestId};

pub(super) fn routes(config: &mut ServiceConfig<'_>) {
    config
        .service(cancel_subscription)
        .service(resume_subscription);
}

/// Cancels the caller's subscription at the end of the period that is paid for.
#[utoipa::path(
    tag = "billing",
    security(("bearer" = [])),
    responses(
        (status = 200, description = "How it stands", body = StatusView),
        (status = 409, description = "NOT_SUBSCRIBED", body = ErrorEnvelope),
    ),
)]
#[put("/subscriptions/cancel")]
async fn cancel_subscription(
    state: web::Data<AppState>,
    user: CurrentUser,
    request: RequestId,
) -> Result<web::Json<StatusView>, ApiError> {
    set(&state, user.id, false, &request).await?;
    Ok(web::Json(subscription::current(&state, user.id).await?))
}

/// Lets a canceled subscription go on, before its period is over.
#[utoipa::path(
    tag = "billing",
    security(("bearer" = [])),
    responses(
        (status = 200, description = "How it stands", body = StatusView),
        (status = 409, description = "NOT_SUBSCRIBED", body = ErrorEnvelope),
    ),
)]
#[put("/subscriptions/resume")]
async fn resume_subscription(
    state: web::Data<AppState>,
    user: CurrentUser,
    request: RequestId,
) -> Result<web::Json<StatusView>, ApiError> {
    set(&state, user.id, true, &request).await?;
    Ok(web::Json(subscription::current(&state, user.id).await?))
}

/// Says to Stripe whether the person's subscription goes on, and reads what it is then.
pub(super) async fn set(
    state: &AppState,
    user: UserId,
    goes_on: bool,
    request: &RequestId,
) -> Result<(), ApiError> {
    let stripe = &state.payments()?.stripe;
    let billed = {
        let mut connection = state.db().get().await?;
        subscription::billed(state, &mut connection, user).await?
    };
    let billed = billed.ok_or(Code::NotSubscribed)?;
    let (act, action) = if goes_on {
        ("resume", Action::ResumeSubscription)
    } else {
        ("cancel", Action::CancelSubscription)
    };
    let key = IdempotencyKey::once(act);
    let changed = stripe
        .set_cancel_at_period_end(&billed.id, !goes_on, &key)
        .await;
    match changed {
        Ok(_) => {}
        // It has ended, and nobody told us yet.
        Err(error) if error.is_refusal() => {
            superseded::refresh(state, user).await?;
            return Err(ApiError::new(Code::NotSubscribed).with_source(error));
        }
        Err(error) => return Err(error.into()),
    }
    {
        let event = Event::own(action, user).in_request(request);
        let mut connection = state.db().get().await?;
        audit::record(&mut connection, &event).await?;
    }
    Ok(superseded::refresh(state, user).await?)
}
