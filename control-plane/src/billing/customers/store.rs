//! The queries about customers.

use std::collections::{HashMap, HashSet};

use diesel::prelude::*;
use diesel::sql_types::{Array, BigInt, Bytea, Uuid as SqlUuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use shared::ids::UserId;
use uuid::Uuid;

use crate::billing::reference::{CustomerId, Kept, fingerprints};
use crate::db::statement;
use crate::error::ApiError;
use crate::secrets::{KeyRing, Place, SealedColumn};

pub(super) const COLUMN: &str = "billing_customers.sealed_stripe_id";

/// An id, with what it is bound to.
#[derive(QueryableByName)]
pub(super) struct Row {
    #[diesel(sql_type = SqlUuid)]
    pub(super) id: Uuid,
    #[diesel(sql_type = Bytea)]
    pub(super) sealed: Vec<u8>,
}

/// Who a customer is here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    pub user: UserId,
    /// How many readings of Stripe were written.
    pub readings: i64,
    /// How many of them there were when the last one of everything began.
    pub whole_since: i64,
}

#[derive(QueryableByName)]
struct Found {
    #[diesel(sql_type = SqlUuid)]
    user_id: Uuid,
    #[diesel(sql_type = BigInt)]
    readings: i64,
    #[diesel(sql_type = BigInt)]
    whole_since: i64,
}

impl From<Found> for Owner {
    fn from(found: Found) -> Self {
        Self {
            user: UserId(found.user_id),
            readings: found.readings,
            whole_since: found.whole_since,
        }
    }
}

pub(super) async fn of_user(
    connection: &mut AsyncPgConnection,
    user: UserId,
) -> QueryResult<Option<Row>> {
    const SQL: &str =
        "SELECT id, sealed_stripe_id AS sealed FROM billing_customers WHERE user_id = $1";
    statement(SQL)
        .bind::<SqlUuid, _>(user.0)
        .get_result(connection)
        .await
        .optional()
}

pub async fn find(
    connection: &mut AsyncPgConnection,
    keys: &KeyRing,
    customer: &CustomerId,
) -> QueryResult<Option<Owner>> {
    const SQL: &str =
        "SELECT user_id, readings, whole_since FROM billing_customers WHERE stripe_hash = ANY ($1)";
    let found: Option<Found> = statement(SQL)
        .bind::<Array<Bytea>, _>(fingerprints(keys, customer))
        .get_result(connection)
        .await
        .optional()?;
    Ok(found.map(Owner::from))
}

/// Whose these are, of those who are somebody's here.
pub async fn owners(
    connection: &mut AsyncPgConnection,
    keys: &KeyRing,
    customers: &HashSet<CustomerId>,
) -> QueryResult<HashMap<CustomerId, UserId>> {
    #[derive(QueryableByName)]
    struct Found {
        #[diesel(sql_type = Bytea)]
        stripe_hash: Vec<u8>,
        #[diesel(sql_type = SqlUuid)]
        user_id: Uuid,
    }
    const SQL: &str =
        "SELECT stripe_hash, user_id FROM billing_customers WHERE stripe_hash = ANY ($1)";
    let mut asked = HashMap::new();
    for customer in customers {
        for hash in fingerprints(keys, customer) {
            asked.insert(hash, customer);
        }
    }
    let hashes: Vec<_> = asked.keys().cloned().collect();
    let found: Vec<Found> = statement(SQL)
        .bind::<Array<Bytea>, _>(hashes)
        .load(connection)
        .await?;
    let owner = |it: Found| {
        let customer = asked.get(&it.stripe_hash)?;
        Some(((*customer).clone(), UserId(it.user_id)))
    };
    Ok(found.into_iter().filter_map(owner).collect())
}

/// As [`find`], with how many readings of what was paid were written.
pub async fn find_payer(
    connection: &mut AsyncPgConnection,
    keys: &KeyRing,
    customer: &CustomerId,
) -> QueryResult<Option<Owner>> {
    const SQL: &str = "
        SELECT user_id, payment_readings AS readings, whole_since FROM billing_customers
         WHERE stripe_hash = ANY ($1)";
    let found: Option<Found> = statement(SQL)
        .bind::<Array<Bytea>, _>(fingerprints(keys, customer))
        .get_result(connection)
        .await
        .optional()?;
    Ok(found.map(Owner::from))
}

/// The same of whom we know already.
pub async fn payer(connection: &mut AsyncPgConnection, user: UserId) -> QueryResult<Option<Owner>> {
    const SQL: &str = "
        SELECT user_id, payment_readings AS readings, whole_since FROM billing_customers WHERE user_id = $1";
    let found: Option<Found> = statement(SQL)
        .bind::<SqlUuid, _>(user.0)
        .get_result(connection)
        .await
        .optional()?;
    Ok(found.map(Owner::from))
}

/// Keeps the id of somebody who has none, and who is still there.
pub(super) async fn put(
    connection: &mut AsyncPgConnection,
    keys: &KeyRing,
    user: UserId,
    customer: &CustomerId,
) -> Result<(), ApiError> {
    const SQL: &str = "
        INSERT INTO billing_customers (user_id, id, stripe_hash, sealed_stripe_id)
        SELECT id, $2, $3, $4 FROM users WHERE id = $1
            ON CONFLICT (user_id) DO NOTHING";
    let row = Uuid::now_v7();
    let place = Place {
        column: COLUMN,
        row,
    };
    let Kept {
        fingerprint,
        sealed,
    } = Kept::new(keys, place, customer)?;
    statement(SQL)
        .bind::<SqlUuid, _>(user.0)
        .bind::<SqlUuid, _>(row)
        .bind::<Bytea, _>(fingerprint)
        .bind::<Bytea, _>(sealed)
        .execute(connection)
        .await?;
    Ok(())
}

/// Whether no reading of the person was written since these; if so, one is now, and nobody writes another before
/// the commit.
pub async fn count_reading(connection: &mut AsyncPgConnection, owner: Owner) -> QueryResult<bool> {
    const SQL: &str = "
        UPDATE billing_customers SET readings = readings + 1
         WHERE user_id = $1 AND readings = $2";
    count(connection, owner, SQL).await
}

/// The same for a reading of everything.
pub async fn count_whole_reading(
    connection: &mut AsyncPgConnection,
    owner: Owner,
) -> QueryResult<bool> {
    const SQL: &str = "
        UPDATE billing_customers SET readings = readings + 1, whole_since = readings
         WHERE user_id = $1 AND readings = $2";
    count(connection, owner, SQL).await
}

/// The same of what was paid, which is counted apart.
pub async fn count_payment_reading(
    connection: &mut AsyncPgConnection,
    owner: Owner,
) -> QueryResult<bool> {
    const SQL: &str = "
        UPDATE billing_customers SET payment_readings = payment_readings + 1
         WHERE user_id = $1 AND payment_readings = $2";
    count(connection, owner, SQL).await
}

async fn count(
    connection: &mut AsyncPgConnection,
    owner: Owner,
    sql: &'static str,
) -> QueryResult<bool> {
    statement(sql)
        .bind::<SqlUuid, _>(owner.user.0)
        .bind::<BigInt, _>(owner.readings)
        .execute(connection)
        .await
        .map(|changed| changed == 1)
}

/// The ids, for whoever changes the key: what they are found by follows.
pub const SEALED_CUSTOMERS: SealedColumn = SealedColumn::new(COLUMN).found_by("stripe_hash");
