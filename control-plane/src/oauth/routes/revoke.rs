//! `/oauth/revoke`

use actix_web::{HttpResponse, post, web};
use garde::Validate;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::form::Form;
use crate::app::AppState;
use crate::error::ApiError;
use crate::http::RequestId;
use crate::oauth::grant;
use crate::oauth::refusal::{GrantError, OauthError, Refusal, respond};

#[derive(Deserialize, Validate, ToSchema)]
struct RevokeRequest {
    #[garde(length(chars, min = 1, max = 100))]
    #[schema(example = "org.example.app", min_length = 1, max_length = 100)]
    client_id: String,
    /// An access token or a refresh token.
    #[garde(length(chars, min = 1, max = 4000))]
    #[schema(example = "7Vb3c9yTqk0", min_length = 1, max_length = 4000)]
    token: String,
}

#[derive(Serialize, ToSchema)]
struct RevokeResponse {}

/// Ends the session of a token (RFC 7009).
///
/// A token that means nothing is answered alike, and so is another client's refresh token.
#[utoipa::path(
    tag = "oauth",
    security(()),
    request_body(content = RevokeRequest, content_type = "application/x-www-form-urlencoded"),
    responses(
        (status = 200, description = "The token is worth nothing", body = RevokeResponse),
        (status = 400, description = "`invalid_request`", body = OauthError),
        (status = 401, description = "`invalid_client`", body = OauthError),
    ),
)]
#[post("/oauth/revoke")]
pub(super) async fn revoke(
    state: web::Data<AppState>,
    id: RequestId,
    form: Form,
) -> Result<HttpResponse, ApiError> {
    let revoked = end(&state, &id, &form).await;
    respond(revoked.map(|()| HttpResponse::Ok().json(RevokeResponse {})))
}

async fn end(state: &AppState, id: &RequestId, form: &Form) -> Result<(), GrantError> {
    let RevokeRequest { client_id, token } = form.read()?;
    let known = grant::client(state, &client_id).await?;
    let client = known.ok_or(Refusal::InvalidClient)?.id;
    Ok(grant::revoke(state, &client, &token, id).await?)
}
