use actix_web::{HttpResponse, get, web};
use chrono::Utc;

use super::views::StatusView;
use crate::app::AppState;
use crate::error::ApiError;
use crate::http::CurrentUser;
use crate::tunnels::store;

/// The caller's live connections with their counters at this moment.
#[utoipa::path(
    tag = "connections",
    security(("bearer" = [])),
    responses((status = 200, description = "The live connections", body = StatusView)),
)]
#[get("/connection/status")]
pub(super) async fn status(
    state: web::Data<AppState>,
    user: CurrentUser,
) -> Result<HttpResponse, ApiError> {
    let connections = {
        let mut conn = state.db().get().await?;
        store::live_of(&mut conn, user.id).await?
    };
    let view = StatusView::new(
        &connections,
        state.live(),
        &state.fleet().view(),
        Utc::now(),
    );
    Ok(HttpResponse::Ok().json(view))
}
