use actix_web::{HttpResponse, post, web};
use chrono::Utc;
use garde::Validate;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_actix_web::service_config::ServiceConfig;

use super::links::ask_for_link;
use super::{Purpose, reset, verification};
use crate::accounts::Email;
use crate::accounts::email::is_email;
use crate::accounts::passwords::check_new;
use crate::app::AppState;
use crate::error::ApiError;
use crate::guard::Caller;
use crate::http::{RequestId, ValidJson};

pub fn routes(config: &mut ServiceConfig<'_>) {
    config
        .service(verify_email)
        .service(resend_verification)
        .service(request_password_reset)
        .service(confirm_password_reset);
}

#[derive(Debug, Deserialize, Validate, ToSchema)]
struct VerifyEmailRequest {
    /// From the link of the mail.
    #[garde(length(bytes, min = 1, max = 200))]
    #[schema(value_type = String, min_length = 1, max_length = 200, pattern = "^[A-Za-z0-9_-]+$", example = "3q2-7wAbCdEfGhIjKlMnOpQrStUvWxYz0123456789A")]
    token: String,
}

#[derive(Debug, Deserialize, Validate, ToSchema)]
struct LinkRequest {
    #[garde(custom(is_email))]
    #[schema(
        example = "anna@example.org",
        max_length = 254,
        pattern = r"^[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*$"
    )]
    email: String,
}

#[derive(Debug, Deserialize, Validate, ToSchema)]
struct PasswordResetConfirmation {
    /// From the link of the mail.
    #[garde(length(bytes, min = 1, max = 200))]
    #[schema(
        min_length = 1,
        max_length = 200,
        pattern = "^[A-Za-z0-9_-]+$",
        example = "3q2-7wAbCdEfGhIjKlMnOpQrStUvWxYz0123456789A"
    )]
    token: String,
    /// 8 to 128 characters, not the address.
    #[garde(custom(is_password))]
    #[schema(value_type = String, format = Password, min_length = 8, max_length = 128, example = "correct horse battery staple")]
    password: SecretString,
}

#[derive(Debug, Serialize, ToSchema)]
struct EmailVerified {
    #[schema(example = true)]
    is_verified: bool,
}

/// What was done, in words.
#[derive(Debug, Serialize, ToSchema)]
struct Notice {
    #[schema(example = "If the address has an account, a mail is on its way")]
    message: &'static str,
}

const ON_ITS_WAY: Notice = Notice {
    message: "If the address has an account, a mail is on its way",
};

/// Whether it is the address is asked when the token has told it.
fn is_password(password: &SecretString, (): &()) -> garde::Result {
    check_new(password, "").map_err(garde::Error::new)
}

/// Verifies an address by the token of a mail.
#[utoipa::path(
    tag = "accounts",
    security(()),
    request_body = VerifyEmailRequest,
    responses((status = 200, description = "The address is verified", body = EmailVerified)),
)]
#[post("/auth/verify-email")]
async fn verify_email(
    state: web::Data<AppState>,
    request_id: RequestId,
    ValidJson(request): ValidJson<VerifyEmailRequest>,
) -> Result<HttpResponse, ApiError> {
    verification::verify(&state, &request.token, &request_id, Utc::now()).await?;
    Ok(HttpResponse::Ok().json(EmailVerified { is_verified: true }))
}

/// Sends the verification mail again, if there is an unverified account with this address.
#[utoipa::path(
    tag = "accounts",
    security(()),
    request_body = LinkRequest,
    responses((status = 200, description = "The same for every address", body = Notice)),
)]
#[post("/auth/resend-verification")]
async fn resend_verification(
    state: web::Data<AppState>,
    request_id: RequestId,
    ValidJson(request): ValidJson<LinkRequest>,
) -> Result<HttpResponse, ApiError> {
    let email = Email::parse(&request.email)?;
    ask_for_link(
        &state,
        Purpose::VerifyEmail,
        &email,
        &request_id,
        Utc::now(),
    )
    .await?;
    Ok(HttpResponse::Ok().json(ON_ITS_WAY))
}

/// Sends a mail with a link to choose a new password, if there is an account with this address.
#[utoipa::path(
    tag = "accounts",
    security(()),
    request_body = LinkRequest,
    responses((status = 200, description = "The same for every address", body = Notice)),
)]
#[post("/auth/password-reset/request")]
async fn request_password_reset(
    state: web::Data<AppState>,
    request_id: RequestId,
    ValidJson(request): ValidJson<LinkRequest>,
) -> Result<HttpResponse, ApiError> {
    let email = Email::parse(&request.email)?;
    let purpose = Purpose::ResetPassword;
    ask_for_link(&state, purpose, &email, &request_id, Utc::now()).await?;
    Ok(HttpResponse::Ok().json(ON_ITS_WAY))
}

/// Sets a new password by the token of a mail and ends every session.
#[utoipa::path(
    tag = "accounts",
    security(()),
    request_body = PasswordResetConfirmation,
    responses((status = 200, description = "The password is changed", body = Notice)),
)]
#[post("/auth/password-reset/confirm")]
async fn confirm_password_reset(
    state: web::Data<AppState>,
    caller: Caller,
    request_id: RequestId,
    ValidJson(request): ValidJson<PasswordResetConfirmation>,
) -> Result<HttpResponse, ApiError> {
    let PasswordResetConfirmation { token, password } = request;
    let now = Utc::now();
    reset::reset(&state, &token, password, &caller, &request_id, now).await?;
    Ok(HttpResponse::Ok().json(Notice {
        message: "The password is changed; log in with it",
    }))
}
