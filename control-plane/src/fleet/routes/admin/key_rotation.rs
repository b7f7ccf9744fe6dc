use actix_web::{delete, put, web};
use chrono::{DateTime, Utc};
use garde::Validate;
use serde::Deserialize;
use utoipa::ToSchema;

use super::views::ManagedView;
use super::{by, changed};
use crate::app::AppState;
use crate::error::{ApiError, ErrorEnvelope};
use crate::fleet::admin::Change;
use crate::http::permission::WriteServers;
use crate::http::{Allowed, OptionalJson, RequestId};

#[derive(Debug, Default, Deserialize, Validate, ToSchema)]
#[schema(as = KeyRotationPlan)]
pub(super) struct PlanBody {
    /// When the new key takes over, at most 30 days ahead; a day from now if it is left out.
    #[garde(skip)]
    at: Option<DateTime<Utc>>,
}

/// Plans that a server's node replaces its WireGuard key.
///
/// The node makes the next key at once, so that clients learn it before it takes over.
#[utoipa::path(
    tag = "administration",
    security(("bearer" = []), ("operator" = [])),
    params(("id" = String, Path, format = Uuid, description = "The server's id")),
    request_body = Option<PlanBody>,
    responses(
        (status = 200, description = "The server as it is now", body = ManagedView),
        (status = 404, description = "SERVER_NOT_FOUND", body = ErrorEnvelope),
        (status = 409, description = "CONFLICT: the agent is too old", body = ErrorEnvelope),
    ),
)]
#[put("/admin/servers/{id}/key-rotation")]
pub(super) async fn plan_key_rotation(
    state: web::Data<AppState>,
    allowed: Allowed<WriteServers>,
    request: RequestId,
    path: web::Path<String>,
    OptionalJson(body): OptionalJson<PlanBody>,
) -> Result<web::Json<ManagedView>, ApiError> {
    let by = by(&allowed.actor, &request);
    changed(&state, &path, Change::PlanKeyRotation(body.at), by).await
}

/// Takes the plan back; the node keeps its key.
#[utoipa::path(
    tag = "administration",
    security(("bearer" = []), ("operator" = [])),
    params(("id" = String, Path, format = Uuid, description = "The server's id")),
    responses(
        (status = 200, description = "The server as it is now", body = ManagedView),
        (status = 404, description = "SERVER_NOT_FOUND", body = ErrorEnvelope),
    ),
)]
#[delete("/admin/servers/{id}/key-rotation")]
pub(super) async fn cancel_key_rotation(
    state: web::Data<AppState>,
    allowed: Allowed<WriteServers>,
    request: RequestId,
    path: web::Path<String>,
) -> Result<web::Json<ManagedView>, ApiError> {
    let by = by(&allowed.actor, &request);
    changed(&state, &path, Change::CancelKeyRotation, by).await
}
