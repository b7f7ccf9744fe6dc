//! `/subscriptions/subscribe`

use actix_web::{post, web};

use crate::app::AppState;
use crate::billing::purchases::subscribe::{Wanted, subscribe};
use crate::billing::purchases::wire::{PaymentView, SubscribeBody};
use crate::error::{ApiError, ErrorEnvelope};
use crate::http::{CurrentUser, RequestId, ValidJson};

/// Subscribes to a plan with a card that is saved or named.
///
/// Who has a paid plan changes it: the difference for the rest of the period is charged or credited at once. The same
/// plan again goes on if it was canceled, and what is missing of it is paid. `free` cancels at the period's end.
#[utoipa::path(
    tag = "billing",
    security(("bearer" = [])),
    request_body = SubscribeBody,
    responses(
        (status = 200, description = "How it stands", body = PaymentView),
        (status = 400, description = "INVALID_INPUT, PAYMENT_DECLINED", body = ErrorEnvelope),
        (status = 404, description = "PAYMENT_METHOD_NOT_FOUND", body = ErrorEnvelope),
        (status = 409, description = "CONFLICT", body = ErrorEnvelope),
    ),
)]
#[post("/subscriptions/subscribe")]
pub(super) async fn subscribe_to_plan(
    state: web::Data<AppState>,
    user: CurrentUser,
    request: RequestId,
    ValidJson(body): ValidJson<SubscribeBody>,
) -> Result<web::Json<PaymentView>, ApiError> {
    state.payments()?;
    let wanted = Wanted {
        user: user.id,
        plan_type: &body.plan_type,
        method: body.payment_method.as_deref(),
        request: &request,
    };
    let view = Box::pin(subscribe(&state, &wanted)).await?;
    Ok(web::Json(view))
}
