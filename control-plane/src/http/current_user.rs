//! Who asks. A handler that takes [`CurrentUser`] is for people with an account only.

use std::future::{Ready, ready};

use actix_web::dev::Payload;
use actix_web::http::header::AUTHORIZATION;
use actix_web::{FromRequest, HttpRequest, web};
use chrono::{DateTime, Utc};
use shared::ids::UserId;
use uuid::Uuid;

use crate::accounts::Role;
use crate::accounts::tokens::Claims;
use crate::app::AppState;
use crate::error::{ApiError, Code};

/// The bearer of a valid access token. Costs no query: whether the account still exists and is not
/// suspended is for the handler's own query to see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CurrentUser {
    pub id: UserId,
    pub role: Role,
    /// The token's own id.
    pub token: Uuid,
    pub expires_at: DateTime<Utc>,
}

impl From<Claims> for CurrentUser {
    fn from(claims: Claims) -> Self {
        Self {
            id: claims.user,
            role: claims.role,
            token: claims.token,
            expires_at: claims.expires_at,
        }
    }
}

/// The same for a token that did not come in the `Authorization` header.
pub fn user_from_token(state: &AppState, token: &str) -> Result<CurrentUser, ApiError> {
    Ok(state.tokens().verify(token)?.into())
}

impl FromRequest for CurrentUser {
    type Error = ApiError;
    type Future = Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(from_header(request))
    }
}

fn from_header(request: &HttpRequest) -> Result<CurrentUser, ApiError> {
    let state = request
        .app_data::<web::Data<AppState>>()
        .ok_or_else(|| ApiError::internal("the application has no state"))?;
    let token = bearer(request).ok_or(Code::Unauthorized)?;
    user_from_token(state, token)
}

/// The token of the `Authorization` header, if it is a bearer's.
#[must_use]
pub fn bearer(request: &HttpRequest) -> Option<&str> {
    let value = request.headers().get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme
        .eq_ignore_ascii_case("bearer")
        .then(|| token.trim())
        .filter(|token| !token.is_empty())
}
