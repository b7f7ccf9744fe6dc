use actix_web::{HttpResponse, patch, web};
use garde::Validate;
use secrecy::SecretString;
use serde::Deserialize;
use utoipa::ToSchema;

use crate::accounts::password_change::change;
use crate::app::AppState;
use crate::error::{ApiError, ErrorEnvelope};
use crate::http::{CurrentUser, RequestId, ValidJson};

#[derive(Debug, Deserialize, Validate, ToSchema)]
pub(super) struct PasswordChange {
    #[garde(skip)]
    #[schema(value_type = String, format = Password)]
    current_password: SecretString,
    /// 8 to 128 characters, not the address.
    #[garde(skip)]
    #[schema(value_type = String, format = Password, min_length = 8, max_length = 128)]
    new_password: SecretString,
}

/// Changes the caller's password and ends their other sessions.
#[utoipa::path(
    tag = "accounts",
    security(("bearer" = [])),
    request_body = PasswordChange,
    responses(
        (status = 204, description = "The new password is in force"),
        (status = 400, description = "INVALID_INPUT, WRONG_PASSWORD", body = ErrorEnvelope),
    ),
)]
#[patch("/users/me/password")]
pub(super) async fn change_password(
    state: web::Data<AppState>,
    user: CurrentUser,
    request: RequestId,
    ValidJson(body): ValidJson<PasswordChange>,
) -> Result<HttpResponse, ApiError> {
    let PasswordChange {
        current_password,
        new_password,
    } = body;
    let who = (user.id, user.session);
    change(&state, who, current_password, new_password, &request).await?;
    Ok(HttpResponse::NoContent().finish())
}
