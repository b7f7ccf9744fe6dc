use actix_web::{get, web};

use super::views::ManagedView;
use super::{server_in_path, shown};
use crate::app::AppState;
use crate::error::{ApiError, ErrorEnvelope};
use crate::http::Allowed;
use crate::http::permission::ReadServers;

/// One server with its node: where it stands, what it bears, what is planned.
#[utoipa::path(
    tag = "administration",
    security(("bearer" = []), ("operator" = [])),
    params(("id" = String, Path, format = Uuid, description = "The server's id")),
    responses(
        (status = 200, description = "The server", body = ManagedView),
        (status = 404, description = "SERVER_NOT_FOUND", body = ErrorEnvelope),
    ),
)]
#[get("/admin/servers/{id}")]
pub(super) async fn show_managed(
    state: web::Data<AppState>,
    _: Allowed<ReadServers>,
    path: web::Path<String>,
) -> Result<web::Json<ManagedView>, ApiError> {
    shown(&state, server_in_path(&path)?).await
}
