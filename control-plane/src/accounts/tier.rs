//! Which servers a person's plan opens.

use diesel::prelude::*;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use shared::ids::UserId;

use crate::db::schema::{plans, subscriptions, users};
use crate::error::{ApiError, Code};

/// The tier of the person's plan; the lowest where nothing paid is running.
pub async fn tier(connection: &mut AsyncPgConnection, user: UserId) -> Result<i16, ApiError> {
    let running = subscriptions::user_id
        .eq(users::id)
        .and(subscriptions::status.ne("canceled"))
        .and(
            subscriptions::end_date.is_null().or(subscriptions::end_date
                .assume_not_null()
                .gt(diesel::dsl::now)),
        );
    let (is_active, tier): (bool, Option<i16>) = users::table
        .left_join(subscriptions::table.on(running))
        .left_join(plans::table.on(plans::id.nullable().eq(subscriptions::plan_id.nullable())))
        .filter(users::id.eq(user.0))
        .select((users::is_active, plans::tier.nullable()))
        .first(connection)
        .await
        .optional()?
        .ok_or(Code::Unauthorized)?;
    if is_active {
        Ok(tier.unwrap_or_default())
    } else {
        Err(Code::AccountSuspended.into())
    }
}
