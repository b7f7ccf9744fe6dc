//! The queries about purchases.

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use secrecy::zeroize::Zeroizing;
use serde::{Deserialize, Serialize};
use shared::ids::UserId;
use uuid::Uuid;

use super::order::{Order, Outcome, Purchase};
use crate::db::schema::purchases;
use crate::error::ApiError;
use crate::secrets::{KeyRing, Place, SealedColumn};

const COLUMN: &str = "purchases.sealed_order";

#[derive(Queryable, Selectable)]
#[diesel(table_name = purchases, check_for_backend(diesel::pg::Pg))]
struct Row {
    id: Uuid,
    user_id: Uuid,
    plan_id: String,
    sealed_order: Vec<u8>,
    created_at: DateTime<Utc>,
}

/// What is sealed of a purchase.
#[derive(Serialize, Deserialize)]
struct Content {
    order: Order,
    made: Option<String>,
}

impl Content {
    fn seal(&self, keys: &KeyRing, row: Uuid) -> Result<Vec<u8>, ApiError> {
        let plain = Zeroizing::new(serde_json::to_vec(self).map_err(ApiError::internal)?);
        Ok(keys.seal(place(row), &plain)?)
    }
}

const fn place(row: Uuid) -> Place {
    Place {
        column: COLUMN,
        row,
    }
}

fn read(keys: &KeyRing, row: Row) -> Result<Purchase, ApiError> {
    let plain = keys.open(place(row.id), &row.sealed_order)?;
    let Content { order, made } = serde_json::from_slice(&plain).map_err(ApiError::internal)?;
    Ok(Purchase {
        id: row.id,
        user: UserId(row.user_id),
        plan: row.plan_id,
        order,
        made,
        created_at: row.created_at,
    })
}

/// What the person is about to pay for.
pub(super) async fn open(
    connection: &mut AsyncPgConnection,
    keys: &KeyRing,
    user: UserId,
) -> Result<Option<Purchase>, ApiError> {
    let row: Option<Row> = purchases::table
        .filter(purchases::user_id.eq(user.0))
        .filter(purchases::status.eq(Outcome::Open.as_str()))
        .select(Row::as_select())
        .first(connection)
        .await
        .optional()?;
    row.map(|row| read(keys, row)).transpose()
}

/// Who has had an open purchase since before then, the oldest first.
pub(super) async fn open_since(
    connection: &mut AsyncPgConnection,
    before: DateTime<Utc>,
    after: Option<DateTime<Utc>>,
    limit: i64,
) -> QueryResult<Vec<(UserId, DateTime<Utc>)>> {
    let rows: Vec<(Uuid, DateTime<Utc>)> = purchases::table
        .filter(purchases::status.eq(Outcome::Open.as_str()))
        .filter(purchases::created_at.lt(before))
        .filter(purchases::created_at.gt(after.unwrap_or(DateTime::UNIX_EPOCH)))
        .order(purchases::created_at)
        .limit(limit)
        .select((purchases::user_id, purchases::created_at))
        .load(connection)
        .await?;
    let rows = rows.into_iter().map(|(user, at)| (UserId(user), at));
    Ok(rows.collect())
}

/// Opens a purchase of somebody who has none; call it while the person's row is held.
pub(super) async fn insert(
    connection: &mut AsyncPgConnection,
    keys: &KeyRing,
    user: UserId,
    plan: &str,
    order: &Order,
) -> Result<Purchase, ApiError> {
    let id = Uuid::now_v7();
    let content = Content {
        order: order.clone(),
        made: None,
    };
    let row: Row = diesel::insert_into(purchases::table)
        .values((
            purchases::id.eq(id),
            purchases::user_id.eq(user.0),
            purchases::plan_id.eq(plan),
            purchases::kind.eq(order.kind()),
            purchases::sealed_order.eq(content.seal(keys, id)?),
        ))
        .returning(Row::as_returning())
        .get_result(connection)
        .await?;
    read(keys, row)
}

/// Takes note of what Stripe made of a purchase that is open.
pub(super) async fn keep_made(
    connection: &mut AsyncPgConnection,
    keys: &KeyRing,
    purchase: &Purchase,
    made: &str,
) -> Result<(), ApiError> {
    let content = Content {
        order: purchase.order.clone(),
        made: Some(made.to_owned()),
    };
    diesel::update(purchases::table.find(purchase.id))
        .filter(purchases::status.eq(Outcome::Open.as_str()))
        .set((
            purchases::sealed_order.eq(content.seal(keys, purchase.id)?),
            purchases::updated_at.eq(diesel::dsl::now),
        ))
        .execute(connection)
        .await?;
    Ok(())
}

/// Takes note of what became of a purchase.
pub(super) async fn conclude(
    connection: &mut AsyncPgConnection,
    purchase: Uuid,
    outcome: Outcome,
) -> QueryResult<()> {
    diesel::update(purchases::table.find(purchase))
        .filter(purchases::status.eq(Outcome::Open.as_str()))
        .set((
            purchases::status.eq(outcome.as_str()),
            purchases::updated_at.eq(diesel::dsl::now),
        ))
        .execute(connection)
        .await
        .map(drop)
}

/// The orders, for whoever changes the key.
pub const SEALED_ORDERS: SealedColumn = SealedColumn::new(COLUMN);
