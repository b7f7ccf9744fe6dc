use actix_web::{HttpResponse, post, web};
use chrono::Utc;
use garde::Validate;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::accounts::sessions;
use crate::app::AppState;
use crate::error::{ApiError, ErrorEnvelope};
use crate::http::{RequestId, ValidJson};

#[derive(Debug, Deserialize, Validate, ToSchema)]
struct RefreshRequest {
    /// The latest that a login or a refresh gave.
    #[garde(skip)]
    #[schema(value_type = String, example = "yB1FvT2nqZ9m0r3sW8kQ5dLxE7uJcH4aPgOiVtRbN6Y")]
    refresh_token: SecretString,
}

#[derive(Serialize, ToSchema)]
struct RefreshResponse<'a> {
    /// A JWT for `Authorization: Bearer`.
    #[schema(
        example = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.e30.ZRrHA1JJJW8opsbCGfG_HACGpVUMN_a9IV7pAx_Zmeo"
    )]
    access_token: &'a str,
    /// Good for one `POST /auth/refresh`.
    #[schema(example = "yB1FvT2nqZ9m0r3sW8kQ5dLxE7uJcH4aPgOiVtRbN6Y")]
    refresh_token: &'a str,
    #[schema(example = "bearer")]
    token_type: &'static str,
    /// Seconds.
    #[schema(example = 1800)]
    expires_in: u64,
}

/// Exchanges a refresh token for an access token and the next refresh token.
///
/// A refresh token works once. One that comes a second time was copied, and ends its session.
#[utoipa::path(
    tag = "sessions",
    security(()),
    request_body = RefreshRequest,
    responses(
        (status = 200, description = "The next tokens", body = RefreshResponse),
        (status = 401, description = "REFRESH_TOKEN_INVALID, REFRESH_TOKEN_REUSED", body = ErrorEnvelope),
        (status = 403, description = "ACCOUNT_SUSPENDED", body = ErrorEnvelope),
    ),
)]
#[post("/auth/refresh")]
pub(super) async fn refresh(
    state: web::Data<AppState>,
    request: RequestId,
    ValidJson(body): ValidJson<RefreshRequest>,
) -> Result<HttpResponse, ApiError> {
    let presented = body.refresh_token.expose_secret();
    let tokens = sessions::refresh(&state, presented, None, Utc::now(), &request).await?;
    Ok(HttpResponse::Ok().json(RefreshResponse {
        access_token: tokens.access.token.expose_secret(),
        refresh_token: tokens.refresh.expose_secret(),
        token_type: "bearer",
        expires_in: tokens.access.life.as_secs(),
    }))
}
