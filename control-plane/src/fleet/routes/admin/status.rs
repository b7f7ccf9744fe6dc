use actix_web::{put, web};
use garde::Validate;
use serde::Deserialize;
use utoipa::ToSchema;

use super::views::ManagedView;
use super::wire::StatusWord;
use super::{by, changed};
use crate::app::AppState;
use crate::error::{ApiError, ErrorEnvelope};
use crate::fleet::admin::Change;
use crate::http::permission::WriteServers;
use crate::http::{Allowed, RequestId, ValidJson};

#[derive(Debug, Deserialize, Validate, ToSchema)]
#[schema(as = ServerStatusChange)]
pub(super) struct StatusBody {
    #[garde(skip)]
    status: StatusWord,
}

/// Puts a server into service, into maintenance, or out of service.
#[utoipa::path(
    tag = "administration",
    security(("bearer" = []), ("operator" = [])),
    params(("id" = String, Path, format = Uuid, description = "The server's id")),
    request_body = StatusBody,
    responses(
        (status = 200, description = "The server as it is now", body = ManagedView),
        (status = 404, description = "SERVER_NOT_FOUND", body = ErrorEnvelope),
    ),
)]
#[put("/admin/servers/{id}/status")]
pub(super) async fn change_server_status(
    state: web::Data<AppState>,
    allowed: Allowed<WriteServers>,
    request: RequestId,
    path: web::Path<String>,
    ValidJson(body): ValidJson<StatusBody>,
) -> Result<web::Json<ManagedView>, ApiError> {
    let by = by(&allowed.actor, &request);
    changed(&state, &path, Change::Status(body.status.into()), by).await
}
