//! `/oauth/token`

use actix_web::{HttpResponse, post, web};
use chrono::Utc;
use garde::Validate;
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::form::Form;
use crate::accounts::sessions::Tokens;
use crate::app::AppState;
use crate::error::ApiError;
use crate::http::RequestId;
use crate::oauth::code::Presented;
use crate::oauth::grant;
use crate::oauth::refusal::{GrantError, OauthError, Refusal, respond};

/// All that there is to ask for; whatever an app asks for, it gets this.
pub(super) const SCOPE: &str = "account";

pub(super) const GRANT_TYPES: [&str; 2] = ["authorization_code", "refresh_token"];

#[derive(Deserialize, Validate)]
#[garde(allow_unvalidated)]
struct GrantType {
    grant_type: String,
}

#[derive(Deserialize, Validate, ToSchema)]
#[serde(tag = "grant_type", rename_all = "snake_case")]
enum TokenRequest {
    AuthorizationCode(#[garde(dive)] CodeGrant),
    RefreshToken(#[garde(dive)] RefreshGrant),
}

#[derive(Deserialize, Validate, ToSchema)]
struct CodeGrant {
    #[garde(length(chars, min = 1, max = 100))]
    #[schema(example = "org.example.app", min_length = 1, max_length = 100)]
    client_id: String,
    /// The same as the one of the authorization request.
    #[garde(length(chars, min = 1, max = 500))]
    #[schema(
        example = "org.example.app:/callback",
        min_length = 1,
        max_length = 500
    )]
    redirect_uri: String,
    #[garde(length(chars, min = 1, max = 100))]
    #[schema(example = "4x0mQ3kZr6y", min_length = 1, max_length = 100)]
    code: String,
    #[garde(length(chars, min = 43, max = 128))]
    #[schema(
        example = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk",
        min_length = 43,
        max_length = 128
    )]
    code_verifier: String,
}

#[derive(Deserialize, Validate, ToSchema)]
struct RefreshGrant {
    #[garde(length(chars, min = 1, max = 100))]
    #[schema(example = "org.example.app", min_length = 1, max_length = 100)]
    client_id: String,
    #[garde(length(chars, min = 1, max = 100))]
    #[schema(example = "7Vb3c9yTqk0", min_length = 1, max_length = 100)]
    refresh_token: String,
}

#[derive(Serialize, ToSchema)]
struct TokenResponse<'a> {
    /// A JWT for `Authorization: Bearer`. It says of nobody that they are more than a user.
    #[schema(
        example = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.e30.ZRrHA1JJJW8opsbCGfG_HACGpVUMN_a9IV7pAx_Zmeo"
    )]
    access_token: &'a str,
    #[schema(example = "Bearer")]
    token_type: &'static str,
    /// Seconds.
    #[schema(example = 1800)]
    expires_in: u64,
    /// Good for one exchange.
    #[schema(example = "yB1FvT2nqZ9m0r3sW8kQ5dLxE7uJcH4aPgOiVtRbN6Y")]
    refresh_token: &'a str,
    #[schema(example = "account")]
    scope: &'static str,
}

/// Exchanges a code or a refresh token for tokens.
///
/// A code needs the PKCE verifier whose challenge it was asked for with. Errors have the form of RFC
/// 6749, 5.2.
#[utoipa::path(
    tag = "oauth",
    security(()),
    request_body(content = TokenRequest, content_type = "application/x-www-form-urlencoded"),
    responses(
        (status = 200, description = "Tokens", body = TokenResponse),
        (status = 400, description = "`invalid_request`, `invalid_grant` or `unsupported_grant_type`", body = OauthError),
        (status = 401, description = "`invalid_client`", body = OauthError),
    ),
)]
#[post("/oauth/token")]
pub(super) async fn token(
    state: web::Data<AppState>,
    id: RequestId,
    form: Form,
) -> Result<HttpResponse, ApiError> {
    let tokens = grant(&state, &id, &form).await;
    respond(tokens.map(|tokens| {
        HttpResponse::Ok().json(TokenResponse {
            access_token: tokens.access.token.expose_secret(),
            token_type: "Bearer",
            expires_in: tokens.access.life.as_secs(),
            refresh_token: tokens.refresh.expose_secret(),
            scope: SCOPE,
        })
    }))
}

async fn grant(state: &AppState, id: &RequestId, form: &Form) -> Result<Tokens, GrantError> {
    let GrantType { grant_type } = form.read()?;
    if !GRANT_TYPES.contains(&grant_type.as_str()) {
        return Err(Refusal::UnsupportedGrantType.into());
    }
    let request: TokenRequest = form.read()?;
    let client = match &request {
        TokenRequest::AuthorizationCode(grant) => &grant.client_id,
        TokenRequest::RefreshToken(grant) => &grant.client_id,
    };
    let known = grant::client(state, client).await?;
    let client = known.ok_or(Refusal::InvalidClient)?.id;
    let now = Utc::now();
    match &request {
        TokenRequest::AuthorizationCode(grant) => {
            let presented = Presented {
                client: &client,
                redirect_uri: &grant.redirect_uri,
                verifier: &grant.code_verifier,
            };
            grant::exchange(state, &grant.code, presented, now, id).await
        }
        TokenRequest::RefreshToken(grant) => {
            grant::refresh(state, &client, &grant.refresh_token, now, id).await
        }
    }
}
