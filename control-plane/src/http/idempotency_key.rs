//! `Idempotency-Key`: a request that is repeated with the same one acts once.

use actix_web::HttpRequest;
use utoipa::IntoParams;

use crate::error::ApiError;

const NAME: &str = "Idempotency-Key";
const LONGEST: usize = 200;

/// The header, for the document.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "it is read by hand")]
pub struct IdempotencyKey {
    /// A request that is repeated with the same key acts once.
    #[param(
        rename = "Idempotency-Key",
        min_length = 1,
        max_length = 200,
        pattern = "^[!-~]+$",
        example = "5f1c7a2e",
        nullable = false
    )]
    idempotency_key: Option<String>,
}

/// The request's key, if it has one.
pub fn idempotency_key(http: &HttpRequest) -> Result<Option<String>, ApiError> {
    let Some(value) = http.headers().get(NAME) else {
        return Ok(None);
    };
    value
        .to_str()
        .ok()
        .filter(|key| (1..=LONGEST).contains(&key.len()))
        .filter(|key| key.bytes().all(|byte| byte.is_ascii_graphic()))
        .map(|key| Some(key.to_owned()))
        .ok_or_else(|| {
            ApiError::invalid(
                NAME,
                format!("Must be 1 to {LONGEST} printable ASCII characters without spaces"),
            )
        })
}
