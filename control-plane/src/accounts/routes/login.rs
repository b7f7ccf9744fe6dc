use actix_web::{HttpResponse, post, web};
use chrono::Utc;
use secrecy::ExposeSecret;
use serde::Serialize;
use utoipa::ToSchema;

use super::credentials::{Credentials, LoginForm};
use super::views::LoginUser;
use crate::accounts::login::{Proof, log_in};
use crate::app::AppState;
use crate::error::{ApiError, ErrorEnvelope};
use crate::guard::Caller;
use crate::http::RequestId;

#[derive(Serialize, ToSchema)]
struct LoginResponse<'a> {
    /// A JWT for `Authorization: Bearer`.
    #[schema(
        example = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.e30.ZRrHA1JJJW8opsbCGfG_HACGpVUMN_a9IV7pAx_Zmeo"
    )]
    access_token: &'a str,
    /// Good for one `POST /auth/refresh`.
    #[schema(example = "q3Wm0yE1v5n8Jt2bK7cX4dZ6fG9hL0pRsTuVwYxA1B2")]
    refresh_token: &'a str,
    #[schema(example = "bearer")]
    token_type: &'static str,
    /// Seconds.
    #[schema(example = 1800)]
    expires_in: u64,
    user: LoginUser,
}

/// Exchanges address and password for an access token.
#[utoipa::path(
    tag = "accounts",
    security(()),
    request_body(content(
        (Credentials = "application/json"),
        (LoginForm = "application/x-www-form-urlencoded"),
    )),
    responses(
        (status = 200, description = "An access token", body = LoginResponse),
        (status = 401, description = "INVALID_CREDENTIALS, OTP_REQUIRED, OTP_INVALID", body = ErrorEnvelope),
        (status = 403, description = "ACCOUNT_SUSPENDED, EMAIL_NOT_VERIFIED", body = ErrorEnvelope),
    ),
)]
#[post("/auth/login")]
pub(super) async fn login(
    state: web::Data<AppState>,
    caller: Caller,
    request: RequestId,
    credentials: Credentials,
) -> Result<HttpResponse, ApiError> {
    let Credentials {
        email,
        password,
        otp,
        device_name,
    } = credentials;
    let proof = Proof {
        email,
        password,
        otp,
    };
    let device_name = device_name.as_deref();
    let logged_in = log_in(&state, proof, device_name, &caller, Utc::now(), &request).await?;
    let tokens = &logged_in.tokens;
    Ok(HttpResponse::Ok().json(LoginResponse {
        access_token: tokens.access.token.expose_secret(),
        refresh_token: tokens.refresh.expose_secret(),
        token_type: "bearer",
        expires_in: tokens.access.life.as_secs(),
        user: logged_in.profile.into(),
    }))
}
