use actix_web::{delete, put, web};

use super::views::ManagedView;
use super::{by, changed};
use crate::app::AppState;
use crate::error::{ApiError, ErrorEnvelope};
use crate::fleet::admin::Change;
use crate::http::permission::WriteServers;
use crate::http::{Allowed, RequestId};

/// Lets a server empty: it takes no new clients, and those that are there stay.
#[utoipa::path(
    tag = "administration",
    security(("bearer" = []), ("operator" = [])),
    params(("id" = String, Path, format = Uuid, description = "The server's id")),
    responses(
        (status = 200, description = "The server as it is now", body = ManagedView),
        (status = 404, description = "SERVER_NOT_FOUND", body = ErrorEnvelope),
    ),
)]
#[put("/admin/servers/{id}/drain")]
pub(super) async fn drain_server(
    state: web::Data<AppState>,
    allowed: Allowed<WriteServers>,
    request: RequestId,
    path: web::Path<String>,
) -> Result<web::Json<ManagedView>, ApiError> {
    let by = by(&allowed.actor, &request);
    changed(&state, &path, Change::Drain(true), by).await
}

/// Lets a server take clients again.
#[utoipa::path(
    tag = "administration",
    security(("bearer" = []), ("operator" = [])),
    params(("id" = String, Path, format = Uuid, description = "The server's id")),
    responses(
        (status = 200, description = "The server as it is now", body = ManagedView),
        (status = 404, description = "SERVER_NOT_FOUND", body = ErrorEnvelope),
    ),
)]
#[delete("/admin/servers/{id}/drain")]
pub(super) async fn undrain_server(
    state: web::Data<AppState>,
    allowed: Allowed<WriteServers>,
    request: RequestId,
    path: web::Path<String>,
) -> Result<web::Json<ManagedView>, ApiError> {
    let by = by(&allowed.actor, &request);
    changed(&state, &path, Change::Drain(false), by).await
}
