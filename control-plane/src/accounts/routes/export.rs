use actix_web::http::header::CONTENT_DISPOSITION;
use actix_web::{HttpResponse, get, web};
use chrono::Utc;

use crate::accounts::export::{self, ExportView};
use crate::app::AppState;
use crate::error::ApiError;
use crate::http::{CurrentUser, RequestId};

/// Everything that is stored about the caller.
///
/// Of sessions, connections, days of usage and acts, the newest 10,000 each.
#[utoipa::path(
    tag = "accounts",
    security(("bearer" = [])),
    responses((status = 200, description = "What is stored", body = ExportView)),
)]
#[get("/users/me/export")]
pub(super) async fn export_account(
    state: web::Data<AppState>,
    user: CurrentUser,
    request: RequestId,
) -> Result<HttpResponse, ApiError> {
    let export = export::gather(&state, user.id, &request, Utc::now()).await?;
    Ok(HttpResponse::Ok()
        .insert_header((CONTENT_DISPOSITION, "attachment; filename=\"account.json\""))
        .json(export))
}
