//! The queries about what else an account has.

use chrono::{DateTime, Utc};
use diesel::dsl::{exists, select};
use diesel::prelude::*;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use shared::ids::UserId;
use uuid::Uuid;

use super::views::SessionView;
use crate::accounts::Subscription;
use crate::accounts::store::SubscriptionRow;
use crate::db::schema::{sessions, subscriptions, totp_factors};

/// The running subscription and those before it, the oldest first.
pub(super) async fn subscriptions(
    connection: &mut AsyncPgConnection,
    user: UserId,
) -> QueryResult<Vec<Subscription>> {
    let rows: Vec<SubscriptionRow> = subscriptions::table
        .filter(subscriptions::user_id.eq(user.0))
        .order(subscriptions::created_at)
        .select(SubscriptionRow::as_select())
        .load(connection)
        .await?;
    Ok(rows.into_iter().map(Into::into).collect())
}

#[derive(Queryable, Selectable)]
#[diesel(table_name = sessions, check_for_backend(diesel::pg::Pg))]
struct SessionRow {
    id: Uuid,
    client_id: Option<String>,
    name: Option<String>,
    created_at: DateTime<Utc>,
    last_used_at: DateTime<Utc>,
    expires_at: DateTime<Utc>,
    revoked_at: Option<DateTime<Utc>>,
    revoke_reason: Option<String>,
}

/// The newest sessions, ended ones too.
pub(super) async fn sessions(
    connection: &mut AsyncPgConnection,
    user: UserId,
    limit: i64,
) -> QueryResult<Vec<SessionView>> {
    let rows: Vec<SessionRow> = sessions::table
        .filter(sessions::user_id.eq(user.0))
        .order(sessions::id.desc())
        .limit(limit)
        .select(SessionRow::as_select())
        .load(connection)
        .await?;
    Ok(rows
        .into_iter()
        .map(|row| SessionView {
            id: row.id,
            app: row.client_id,
            name: row.name,
            created_at: row.created_at,
            last_used_at: row.last_used_at,
            expires_at: row.expires_at,
            ended_at: row.revoked_at,
            end_reason: row.revoke_reason,
        })
        .collect())
}

pub(super) async fn has_second_factor(
    connection: &mut AsyncPgConnection,
    user: UserId,
) -> QueryResult<bool> {
    let enabled = totp_factors::table
        .find(user.0)
        .filter(totp_factors::enabled_at.is_not_null());
    select(exists(enabled)).get_result(connection).await
}
