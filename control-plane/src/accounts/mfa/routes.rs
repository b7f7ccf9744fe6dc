//! `/auth/mfa/*`.

use actix_web::{HttpResponse, post, web};
use chrono::Utc;
use garde::Validate;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_actix_web::service_config::ServiceConfig;

use super::factor;
use crate::app::AppState;
use crate::error::{ApiError, ErrorEnvelope};
use crate::http::{CurrentUser, RequestId, ValidJson};

pub fn routes(config: &mut ServiceConfig<'_>) {
    config
        .service(setup_totp)
        .service(enable_totp)
        .service(disable_totp);
}

#[derive(Debug, Deserialize, Validate, ToSchema)]
struct TotpSetupRequest {
    #[garde(custom(is_present))]
    #[schema(value_type = String, format = Password, min_length = 1, max_length = 128)]
    password: SecretString,
}

#[derive(Serialize, ToSchema)]
struct TotpSetupResponse<'a> {
    /// In base32, to be typed into an authenticator app. Shown once.
    #[schema(example = "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP")]
    secret: &'a str,
    /// The same as an app scans it: make a QR code of it.
    #[schema(
        example = "otpauth://totp/Prime%20VPN:anna%40example.org?secret=JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP&issuer=Prime%20VPN"
    )]
    otpauth_url: &'a str,
}

#[derive(Debug, Deserialize, Validate, ToSchema)]
struct TotpEnableRequest {
    /// The six digits that the app shows.
    #[garde(length(chars, min = 1, max = 40))]
    #[schema(example = "492039", min_length = 1, max_length = 40)]
    code: String,
}

#[derive(Serialize, ToSchema)]
struct TotpEnableResponse<'a> {
    /// Each works once in the place of a code. Shown once.
    #[schema(example = json!(["7h2k-0qzr-m4xa-9bce"]), min_items = 10, max_items = 10)]
    recovery_codes: Vec<&'a str>,
}

#[derive(Debug, Deserialize, Validate, ToSchema)]
struct TotpDisableRequest {
    #[garde(custom(is_present))]
    #[schema(value_type = String, format = Password, min_length = 1, max_length = 128)]
    password: SecretString,
    /// A code of the app, or a recovery code.
    #[garde(length(chars, min = 1, max = 40))]
    #[schema(example = "7h2k-0qzr-m4xa-9bce", min_length = 1, max_length = 40)]
    code: String,
}

fn is_present(password: &SecretString, (): &()) -> garde::Result {
    let length = password.expose_secret().chars().count();
    if (1..=128).contains(&length) {
        Ok(())
    } else {
        Err(garde::Error::new("Must have 1 to 128 characters"))
    }
}

/// Makes a secret for an authenticator app.
///
/// Nothing changes until a code of it is sent to `…/enable`. Asking again makes another secret.
#[utoipa::path(
    tag = "second factor",
    security(("bearer" = [])),
    request_body = TotpSetupRequest,
    responses(
        (status = 200, description = "The secret", body = TotpSetupResponse),
        (status = 409, description = "CONFLICT: a second factor is enabled", body = ErrorEnvelope),
    ),
)]
#[post("/auth/mfa/totp/setup")]
async fn setup_totp(
    state: web::Data<AppState>,
    user: CurrentUser,
    id: RequestId,
    ValidJson(request): ValidJson<TotpSetupRequest>,
) -> Result<HttpResponse, ApiError> {
    let setup = factor::set_up(&state, user.id, request.password, &id).await?;
    Ok(HttpResponse::Ok().json(TotpSetupResponse {
        secret: setup.secret.expose_secret(),
        otpauth_url: setup.url.expose_secret(),
    }))
}

/// Enables the second factor: every login needs a code from now on.
#[utoipa::path(
    tag = "second factor",
    security(("bearer" = [])),
    request_body = TotpEnableRequest,
    responses(
        (status = 200, description = "Recovery codes", body = TotpEnableResponse),
        (status = 409, description = "CONFLICT: it is enabled, or was not set up", body = ErrorEnvelope),
    ),
)]
#[post("/auth/mfa/totp/enable")]
async fn enable_totp(
    state: web::Data<AppState>,
    user: CurrentUser,
    id: RequestId,
    ValidJson(request): ValidJson<TotpEnableRequest>,
) -> Result<HttpResponse, ApiError> {
    let codes = factor::enable(&state, user.id, &request.code, Utc::now(), &id).await?;
    let recovery_codes = codes.iter().map(ExposeSecret::expose_secret).collect();
    Ok(HttpResponse::Ok().json(TotpEnableResponse { recovery_codes }))
}

/// Disables the second factor and forgets its recovery codes.
#[utoipa::path(
    tag = "second factor",
    security(("bearer" = [])),
    request_body = TotpDisableRequest,
    responses(
        (status = 204, description = "It is disabled"),
        (status = 409, description = "CONFLICT: none is enabled", body = ErrorEnvelope),
    ),
)]
#[post("/auth/mfa/totp/disable")]
async fn disable_totp(
    state: web::Data<AppState>,
    user: CurrentUser,
    id: RequestId,
    ValidJson(request): ValidJson<TotpDisableRequest>,
) -> Result<HttpResponse, ApiError> {
    let TotpDisableRequest { password, code } = request;
    factor::disable(&state, user.id, password, &code, Utc::now(), &id).await?;
    Ok(HttpResponse::NoContent().finish())
}
