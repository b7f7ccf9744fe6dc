//! Who asks. A handler that takes [`CurrentUser`] is for people with an account only.

use std::future::Future;
use std::pin::Pin;

use actix_web::dev::Payload;
use actix_web::http::header::{AUTHORIZATION, HeaderMap};
use actix_web::{FromRequest, HttpMessage, HttpRequest, web};
use chrono::{DateTime, Utc};
use futures_util::future::{Either, Ready, ready};
use serde::{Deserialize, Serialize};
use shared::ids::UserId;
use uuid::Uuid;

use crate::accounts::tokens::Claims;
use crate::accounts::{Role, SessionId};
use crate::app::AppState;
use crate::error::{ApiError, Code};

/// How an access token is announced.
const SCHEME: &[u8] = b"Bearer ";

/// The bearer of a valid access token whose session has not been ended. Costs no query while Redis
/// tells of ended sessions: whether the account still exists and is not suspended is for the
/// handler's own query to see, and suspending it ends its sessions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CurrentUser {
    pub id: UserId,
    pub role: Role,
    pub session: SessionId,
    /// The token's own id.
    pub token: Uuid,
    pub expires_at: DateTime<Utc>,
}

impl From<Claims> for CurrentUser {
    fn from(claims: Claims) -> Self {
        Self {
            id: claims.user,
            role: claims.role,
            session: claims.session,
            token: claims.token,
            expires_at: claims.expires_at,
        }
    }
}

/// The same for a token that did not come in the `Authorization` header.
pub async fn user_from_token(state: &AppState, token: &str) -> Result<CurrentUser, ApiError> {
    let user: CurrentUser = state.tokens().verify(token)?.into();
    match state.revocations().is_revoked(user.session) {
        Some(revoked) => unless(revoked, user),
        None => look_up(state, user).await,
    }
}

impl FromRequest for CurrentUser {
    type Error = ApiError;
    type Future = Either<
        Ready<Result<Self, ApiError>>,
        Pin<Box<dyn Future<Output = Result<Self, ApiError>>>>,
    >;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let Some(state) = request.app_data::<web::Data<AppState>>() else {
            let error = ApiError::internal("the application has no state");
            return Either::Left(ready(Err(error)));
        };
        let user: Self = match claims(state, request) {
            Ok(claims) => claims.into(),
            Err(error) => return Either::Left(ready(Err(error))),
        };
        match state.revocations().is_revoked(user.session) {
            Some(revoked) => Either::Left(ready(unless(revoked, user))),
            None => {
                let state = state.clone();
                Either::Right(Box::pin(async move { look_up(&state, user).await }))
            }
        }
    }
}

/// What the request's token says. Whoever looked at it before the handler may have left it with the request.
fn claims(state: &AppState, request: &HttpRequest) -> Result<Claims, ApiError> {
    if let Some(claims) = request.extensions().get::<Claims>() {
        return Ok(claims.clone());
    }
    let token = bearer_of(request.headers()).ok_or(Code::Unauthorized)?;
    Ok(state.tokens().verify(token)?)
}

/// Asks Postgres, where this replica may have missed a revocation.
async fn look_up(state: &AppState, user: CurrentUser) -> Result<CurrentUser, ApiError> {
    let revoked = crate::accounts::sessions::has_ended(state, user.session).await?;
    unless(revoked, user)
}

fn unless(revoked: bool, user: CurrentUser) -> Result<CurrentUser, ApiError> {
    if revoked {
        Err(Code::Unauthorized.into())
    } else {
        Ok(user)
    }
}

/// The token of the `Authorization` header, if it is a bearer's.
#[must_use]
pub fn bearer(request: &HttpRequest) -> Option<&str> {
    str::from_utf8(bearer_of(request.headers())?).ok()
}

/// The same as it came: no good token has other letters than a text, and looking at each takes its time.
pub(crate) fn bearer_of(headers: &HeaderMap) -> Option<&[u8]> {
    let value = headers.get(AUTHORIZATION)?.as_bytes();
    let (scheme, token) = value.split_at_checked(SCHEME.len())?;
    let token = scheme
        .eq_ignore_ascii_case(SCHEME)
        .then(|| token.trim_ascii())?;
    (!token.is_empty()).then_some(token)
}
