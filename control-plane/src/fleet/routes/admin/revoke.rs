use actix_web::{post, web};

use super::views::ManagedView;
use super::{by, changed};
use crate::app::AppState;
use crate::error::{ApiError, ErrorEnvelope};
use crate::fleet::admin::Change;
use crate::http::permission::WriteServers;
use crate::http::{Allowed, RequestId};

/// Ends a node's tokens and its session at once.
///
/// Its tunnels stay; it has to enrol again before it hears from us.
#[utoipa::path(
    tag = "administration",
    security(("bearer" = []), ("operator" = [])),
    params(("id" = String, Path, format = Uuid, description = "The server's id")),
    responses(
        (status = 200, description = "The server as it is now", body = ManagedView),
        (status = 404, description = "SERVER_NOT_FOUND", body = ErrorEnvelope),
    ),
)]
#[post("/admin/servers/{id}/revoke")]
pub(super) async fn revoke_node(
    state: web::Data<AppState>,
    allowed: Allowed<WriteServers>,
    request: RequestId,
    path: web::Path<String>,
) -> Result<web::Json<ManagedView>, ApiError> {
    let by = by(&allowed.actor, &request);
    changed(&state, &path, Change::Revoke, by).await
}
