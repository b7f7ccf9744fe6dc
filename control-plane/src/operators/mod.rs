//! Operator tokens: Biscuits with rights and an expiry, which their holder can attenuate offline.

use crate::app::AppState;
use crate::audit::Actor;
use crate::error::{ApiError, Code};

/// Whether the text has the form of an operator token: a JWT has dots.
#[must_use]
pub fn is_operator_token(token: &str) -> bool {
    !token.contains('.')
}

/// Whose token this is, if it allows `right`.
#[expect(clippy::unused_async, reason = "asks Postgres")]
pub async fn authorize(_: &AppState, _: &str, _: &str) -> Result<Actor, ApiError> {
    Err(Code::Unauthorized.into())
}
