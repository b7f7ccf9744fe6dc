use actix_web::{HttpResponse, delete, web};
use garde::Validate;
use serde::Deserialize;
use utoipa::IntoParams;

use super::{by, server_in_path};
use crate::app::AppState;
use crate::error::{ApiError, ErrorEnvelope};
use crate::http::permission::WriteServers;
use crate::http::{Allowed, RequestId, ValidQuery};

#[derive(Debug, Deserialize, Validate, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct RemoveQuery {
    /// Also when it has live connections, which end before.
    #[serde(default)]
    #[garde(skip)]
    #[param(required = false, default = false)]
    force: bool,
}

/// Takes a server out of the fleet; the history of its connections stays.
#[utoipa::path(
    tag = "administration",
    security(("bearer" = []), ("operator" = [])),
    params(("id" = String, Path, format = Uuid, description = "The server's id"), RemoveQuery),
    responses(
        (status = 204, description = "The server is gone, and its node's tokens with it"),
        (status = 404, description = "SERVER_NOT_FOUND", body = ErrorEnvelope),
        (status = 409, description = "SERVER_IN_USE", body = ErrorEnvelope),
    ),
)]
#[delete("/admin/servers/{id}")]
pub(super) async fn remove_server(
    state: web::Data<AppState>,
    allowed: Allowed<WriteServers>,
    request: RequestId,
    path: web::Path<String>,
    ValidQuery(query): ValidQuery<RemoveQuery>,
) -> Result<HttpResponse, ApiError> {
    let server = server_in_path(&path)?;
    let by = by(&allowed.actor, &request);
    state.fleet().remove(server, query.force, by).await?;
    Ok(HttpResponse::NoContent().finish())
}
