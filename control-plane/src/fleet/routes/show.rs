use actix_web::{get, web};
use chrono::Utc;
use shared::ids::ServerId;
use uuid::Uuid;

use super::views::ServerView;
use crate::app::AppState;
use crate::error::{ApiError, Code, ErrorEnvelope};
use crate::http::CurrentUser;

/// One server.
#[utoipa::path(
    tag = "servers",
    security(("bearer" = [])),
    params(("id" = Uuid, Path, description = "The server's id")),
    responses(
        (status = 200, description = "The server", body = ServerView),
        (status = 404, description = "SERVER_NOT_FOUND", body = ErrorEnvelope),
    ),
)]
#[get("/servers/{id}")]
pub(super) async fn show(
    state: web::Data<AppState>,
    _: CurrentUser,
    id: web::Path<Uuid>,
) -> Result<web::Json<ServerView>, ApiError> {
    let view = state.fleet().view();
    let server = view.get(ServerId(*id)).ok_or(Code::ServerNotFound)?;
    Ok(web::Json(ServerView::new(server, Utc::now())))
}
