//! What clients discover: where everything is, and the keys of our tokens.

use actix_web::http::header::{CACHE_CONTROL, HeaderValue};
use actix_web::{HttpResponse, get, web};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::token::{GRANT_TYPES, SCOPE};
use crate::app::AppState;

const CACHED: HeaderValue = HeaderValue::from_static("public, max-age=300");

#[derive(Serialize, ToSchema)]
struct Metadata<'a> {
    #[schema(example = "https://vpn.example.org")]
    issuer: &'a str,
    #[schema(example = "https://vpn.example.org/oauth/authorize")]
    authorization_endpoint: String,
    #[schema(example = "https://vpn.example.org/oauth/token")]
    token_endpoint: String,
    #[schema(example = "https://vpn.example.org/oauth/revoke")]
    revocation_endpoint: String,
    #[schema(example = "https://vpn.example.org/.well-known/jwks.json")]
    jwks_uri: String,
    scopes_supported: [&'static str; 1],
    response_types_supported: [&'static str; 1],
    response_modes_supported: [&'static str; 1],
    grant_types_supported: [&'static str; 2],
    token_endpoint_auth_methods_supported: [&'static str; 1],
    revocation_endpoint_auth_methods_supported: [&'static str; 1],
    code_challenge_methods_supported: [&'static str; 1],
    authorization_response_iss_parameter_supported: bool,
}

/// Says where everything is that a client needs (RFC 8414).
#[utoipa::path(
    tag = "oauth",
    security(()),
    responses((status = 200, description = "The service's metadata", body = Metadata)),
)]
#[get("/.well-known/oauth-authorization-server")]
pub(super) async fn metadata(state: web::Data<AppState>) -> HttpResponse {
    let issuer = state.config().http.public_url.as_str();
    let at = |path: &str| format!("{issuer}{path}");
    HttpResponse::Ok()
        .insert_header((CACHE_CONTROL, CACHED))
        .json(Metadata {
            issuer,
            authorization_endpoint: at("/oauth/authorize"),
            token_endpoint: at("/oauth/token"),
            revocation_endpoint: at("/oauth/revoke"),
            jwks_uri: at("/.well-known/jwks.json"),
            scopes_supported: [SCOPE],
            response_types_supported: ["code"],
            response_modes_supported: ["query"],
            grant_types_supported: GRANT_TYPES,
            token_endpoint_auth_methods_supported: ["none"],
            revocation_endpoint_auth_methods_supported: ["none"],
            code_challenge_methods_supported: ["S256"],
            authorization_response_iss_parameter_supported: true,
        })
}

/// For the document alone: the keys come from what signs the tokens.
#[derive(ToSchema)]
#[expect(dead_code, reason = "a schema")]
struct Jwks {
    /// Empty where tokens are signed with a shared secret.
    keys: Vec<Value>,
}

/// The public keys with which access tokens can be verified.
#[utoipa::path(
    tag = "oauth",
    security(()),
    responses((status = 200, description = "A JWK set (RFC 7517)", body = Jwks)),
)]
#[get("/.well-known/jwks.json")]
pub(super) async fn jwks(state: web::Data<AppState>) -> HttpResponse {
    HttpResponse::Ok()
        .insert_header((CACHE_CONTROL, CACHED))
        .json(state.tokens().jwks())
}
