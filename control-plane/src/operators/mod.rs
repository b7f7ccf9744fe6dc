//! Operator tokens: Biscuits with rights and an expiry, which their holder can attenuate offline.
//!
//! A token is worth what it says as long as its row is there and not revoked.

mod store;
mod token;

use chrono::Utc;
use uuid::Uuid;

use crate::app::AppState;
use crate::audit::Actor;
use crate::error::{ApiError, Code};

pub use store::{Minted, find, insert, list, revoke};
pub use token::{Authority, Grant, Restriction, TokenError, Wish, attenuate, inspect};

/// Whether the text has the form of an operator token: a JWT has dots.
#[must_use]
pub fn is_operator_token(token: &str) -> bool {
    !token.contains('.')
}

/// Whose token this is, if it allows `right` on `resource`, or on everything where that is none.
pub async fn authorize(
    state: &AppState,
    token: &str,
    right: &str,
    resource: Option<Uuid>,
) -> Result<Actor, ApiError> {
    let wish = Wish {
        right,
        resource,
        now: Utc::now(),
    };
    let id = state.operators().authorize(token, wish)?;
    let name = {
        let mut connection = state.db().get().await?;
        find(&mut connection, id).await?
    };
    let name = name.ok_or(Code::Unauthorized)?;
    Ok(Actor::Operator { token: id, name })
}
