//! Sessions: what a login opens, and what ends it.
//!
//! - A session is a family of refresh tokens. Each works once; one that comes again was copied, and
//!   the whole family ends.
//! - An access token names its session. It stops working when the session ends, on every replica
//!   within a second.
//! - Postgres has the truth. Redis tells the replicas; a replica that may have missed word asks
//!   Postgres.
//! - A person has a bounded number of sessions; a new one displaces the longest unused.

mod end;
mod open;
mod refresh;
mod revocations;
mod routes;
mod store;

pub use end::{
    EndReason, Ended, announce, end, end_all, end_by_refresh_token, end_one, log_out_everywhere,
};
pub use open::{NewSession, Tokens, open};
pub use refresh::{RefreshError, refresh};
pub use revocations::Revocations;
pub use routes::routes;
pub use store::{count, forget_ended};

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::app::AppState;
use crate::error::ApiError;

/// One login of one client.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SessionId(pub Uuid);

impl SessionId {
    #[must_use]
    pub fn generate() -> Self {
        Self(Uuid::now_v7())
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionId({})", self.0)
    }
}

impl FromStr for SessionId {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

/// What Postgres says of a session. One that is not there has ended.
pub async fn has_ended(state: &AppState, session: SessionId) -> Result<bool, ApiError> {
    let mut connection = state.db().get().await?;
    Ok(!store::is_live(&mut connection, session).await?)
}
