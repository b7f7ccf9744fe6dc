use actix_web::{HttpResponse, delete, post, web};
use uuid::Uuid;

use crate::accounts::sessions::{self, EndReason, SessionId};
use crate::app::AppState;
use crate::error::{ApiError, Code, ErrorEnvelope};
use crate::http::{CurrentUser, RequestId};

/// Ends the session of this access token.
#[utoipa::path(
    tag = "sessions",
    security(("bearer" = [])),
    responses((status = 204, description = "The session has ended")),
)]
#[post("/auth/logout")]
pub(super) async fn logout(
    state: web::Data<AppState>,
    user: CurrentUser,
    request: RequestId,
) -> Result<HttpResponse, ApiError> {
    sessions::end(
        &state,
        user.id,
        user.session,
        EndReason::LoggedOut,
        &request,
    )
    .await?;
    Ok(HttpResponse::NoContent().finish())
}

/// Ends all of the caller's sessions, this one too.
#[utoipa::path(
    tag = "sessions",
    security(("bearer" = [])),
    responses((status = 204, description = "The sessions have ended")),
)]
#[post("/auth/logout-all")]
pub(super) async fn logout_all(
    state: web::Data<AppState>,
    user: CurrentUser,
    request: RequestId,
) -> Result<HttpResponse, ApiError> {
    sessions::log_out_everywhere(&state, user.id, &request).await?;
    Ok(HttpResponse::NoContent().finish())
}

/// Ends one of the caller's sessions.
#[utoipa::path(
    tag = "sessions",
    security(("bearer" = [])),
    params(("id" = Uuid, Path, description = "The session's id")),
    responses(
        (status = 204, description = "The session has ended"),
        (status = 404, description = "SESSION_NOT_FOUND", body = ErrorEnvelope),
    ),
)]
#[delete("/auth/sessions/{id}")]
pub(super) async fn end(
    state: web::Data<AppState>,
    user: CurrentUser,
    id: web::Path<Uuid>,
    request: RequestId,
) -> Result<HttpResponse, ApiError> {
    let session = SessionId(*id);
    if sessions::end(&state, user.id, session, EndReason::Ended, &request).await? {
        Ok(HttpResponse::NoContent().finish())
    } else {
        Err(Code::SessionNotFound.into())
    }
}
