//! How a token request is refused: in the form that every OAuth library reads (RFC 6749, 5.2) and not
//! in our envelope.

use actix_web::HttpResponse;
use serde::Serialize;
use utoipa::ToSchema;

use crate::error::{ApiError, Code};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refusal {
    /// With what is wrong with it.
    InvalidRequest(String),
    UnsupportedGrantType,
    InvalidClient,
    /// The code or the refresh token; why is nobody's business.
    InvalidGrant,
}

/// Why there are no tokens.
#[derive(Debug)]
pub(super) enum GrantError {
    Refused(Refusal),
    /// Not the caller's doing.
    Other(ApiError),
}

#[derive(Serialize, ToSchema)]
pub(super) struct OauthError {
    /// `invalid_request`, `invalid_client`, `invalid_grant` or `unsupported_grant_type`.
    #[schema(example = "invalid_grant")]
    error: &'static str,
    #[schema(example = "The code or token is unknown, used, expired, or not this client's")]
    error_description: String,
}

impl Refusal {
    pub(super) fn respond(self) -> HttpResponse {
        let mut response = match self {
            Self::InvalidClient => HttpResponse::Unauthorized(),
            _ => HttpResponse::BadRequest(),
        };
        let (error, error_description) = self.describe();
        response.json(OauthError {
            error,
            error_description,
        })
    }

    fn describe(self) -> (&'static str, String) {
        match self {
            Self::InvalidRequest(why) => ("invalid_request", why),
            Self::UnsupportedGrantType => (
                "unsupported_grant_type",
                "grant_type is authorization_code or refresh_token".to_owned(),
            ),
            Self::InvalidClient => ("invalid_client", "There is no such client".to_owned()),
            Self::InvalidGrant => (
                "invalid_grant",
                "The code or token is unknown, used, expired, or not this client's".to_owned(),
            ),
        }
    }
}

impl From<Refusal> for GrantError {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// Bad input becomes `invalid_request`, with the first of its details.
impl From<ApiError> for GrantError {
    fn from(error: ApiError) -> Self {
        if error.code() != Code::InvalidInput {
            return Self::Other(error);
        }
        let details = error.envelope("").error.details;
        let texts = details
            .iter()
            .map(|detail| format!("{}: {}", detail.field, detail.message));
        Self::Refused(Refusal::InvalidRequest(
            texts.collect::<Vec<_>>().join("; "),
        ))
    }
}

impl From<crate::db::PoolError> for GrantError {
    fn from(error: crate::db::PoolError) -> Self {
        Self::Other(error.into())
    }
}

/// The answer, a refusal being one.
pub(super) fn respond(result: Result<HttpResponse, GrantError>) -> Result<HttpResponse, ApiError> {
    match result {
        Ok(response) => Ok(response),
        Err(GrantError::Refused(refusal)) => Ok(refusal.respond()),
        Err(GrantError::Other(error)) => Err(error),
    }
}
