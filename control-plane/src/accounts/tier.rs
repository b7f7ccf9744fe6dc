//! Which servers a person's plan opens.

use diesel_async::AsyncPgConnection;
use shared::ids::UserId;

use super::store;
use crate::error::{ApiError, Code};

/// The tier of the person's plan; the lowest where nothing paid is running.
pub async fn tier(connection: &mut AsyncPgConnection, user: UserId) -> Result<i16, ApiError> {
    let (is_active, tier) = store::tier(connection, user)
        .await?
        .ok_or(Code::Unauthorized)?;
    if is_active {
        Ok(tier.unwrap_or_default())
    } else {
        Err(Code::AccountSuspended.into())
    }
}
