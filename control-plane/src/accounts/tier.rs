//! Which servers a person's plan opens, and the hold on a person whose plan changes.

use chrono::{DateTime, Utc};
use diesel_async::AsyncPgConnection;
use shared::ids::UserId;

use super::{Email, store};
use crate::error::{ApiError, Code};

/// What somebody may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tier {
    /// Servers up to this one.
    pub tier: i16,
    /// When another one takes its place; none for never.
    pub ends_at: Option<DateTime<Utc>>,
}

/// The tier that the person may use; the free plan's where nothing paid is running.
pub async fn tier(connection: &mut AsyncPgConnection, user: UserId) -> Result<Tier, ApiError> {
    let (is_active, tier) = store::tier(connection, user)
        .await?
        .ok_or(Code::Unauthorized)?;
    if is_active {
        Ok(tier)
    } else {
        Err(Code::AccountSuspended.into())
    }
}

/// Holds the person's row until the transaction ends, so that one change of what they have follows the
/// other. Their address; none where they are gone.
pub async fn hold(
    connection: &mut AsyncPgConnection,
    user: UserId,
) -> Result<Option<Email>, ApiError> {
    Ok(store::hold(connection, user).await?)
}
