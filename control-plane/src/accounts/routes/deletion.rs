use actix_web::{HttpResponse, delete, web};
use garde::Validate;
use secrecy::SecretString;
use serde::Deserialize;
use utoipa::ToSchema;

use crate::accounts::deletion;
use crate::app::AppState;
use crate::error::{ApiError, ErrorEnvelope};
use crate::http::{CurrentUser, RequestId, ValidJson};

#[derive(Debug, Deserialize, Validate, ToSchema)]
pub(super) struct DeletionRequest {
    #[garde(skip)]
    #[schema(value_type = String, format = Password)]
    password: SecretString,
}

/// Deletes the caller's account with everything personal in it.
///
/// Sessions and tunnels end at once. It cannot be undone.
#[utoipa::path(
    tag = "accounts",
    security(("bearer" = [])),
    request_body = DeletionRequest,
    responses(
        (status = 204, description = "The account is gone"),
        (status = 400, description = "INVALID_INPUT, WRONG_PASSWORD", body = ErrorEnvelope),
    ),
)]
#[delete("/users/me")]
pub(super) async fn delete_account(
    state: web::Data<AppState>,
    user: CurrentUser,
    request: RequestId,
    ValidJson(body): ValidJson<DeletionRequest>,
) -> Result<HttpResponse, ApiError> {
    deletion::delete(&state, user.id, body.password, &request).await?;
    Ok(HttpResponse::NoContent().finish())
}
