//! Plans' prices at Stripe, as operators wrote them into the rows. Sealed like every id of Stripe's.

use std::fmt;

use async_trait::async_trait;
use diesel::QueryResult;
use diesel::prelude::*;
use diesel::sql_types::{Array, Bytea, Int8, Uuid as SqlUuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use uuid::Uuid;

use crate::db::schema::plans;
use crate::db::statement;
use crate::error::ApiError;
use crate::secrets::{KeyRing, Place, Resealed, SealError, SealedColumn, SealedRow};

const COLUMN: &str = "plans.sealed_price";

/// Which price at Stripe a plan is sold at.
#[derive(Clone, PartialEq, Eq)]
pub struct Price {
    pub plan: String,
    /// The price's id at Stripe.
    pub id: String,
}

impl fmt::Debug for Price {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Price")
            .field("plan", &self.plan)
            .finish_non_exhaustive()
    }
}

/// Every price that a row names, withdrawn plans' too: who has one keeps it.
pub async fn prices(
    connection: &mut AsyncPgConnection,
    keys: &KeyRing,
) -> Result<Vec<Price>, ApiError> {
    let rows: Vec<(String, Uuid, Vec<u8>)> = plans::table
        .filter(plans::sealed_price.is_not_null())
        .order(plans::id)
        .select((
            plans::id,
            plans::seal_row,
            plans::sealed_price.assume_not_null(),
        ))
        .load(connection)
        .await?;
    rows.into_iter()
        .map(|(plan, row, sealed)| {
            let id = keys.open(place(row), &sealed)?;
            let id = String::from_utf8(id.to_vec()).map_err(ApiError::internal)?;
            Ok(Price { plan, id })
        })
        .collect()
}

pub(super) fn seal(keys: &KeyRing, row: Uuid, id: &str) -> Result<Vec<u8>, SealError> {
    keys.seal(place(row), id.as_bytes())
}

const fn place(row: Uuid) -> Place {
    Place {
        column: COLUMN,
        row,
    }
}

/// The prices, for whoever changes the key.
#[derive(Debug)]
pub struct SealedPrices;

#[async_trait]
impl SealedColumn for SealedPrices {
    fn name(&self) -> &'static str {
        COLUMN
    }

    async fn stale(
        &self,
        connection: &mut AsyncPgConnection,
        prefix: &[u8],
        after: Uuid,
        limit: i64,
    ) -> QueryResult<Vec<SealedRow>> {
        const SQL: &str = "
            SELECT seal_row AS id, sealed_price AS sealed FROM plans
             WHERE seal_row > $2 AND substring(sealed_price FOR octet_length($1)) <> $1
             ORDER BY seal_row LIMIT $3";
        statement(SQL)
            .bind::<Bytea, _>(prefix)
            .bind::<SqlUuid, _>(after)
            .bind::<Int8, _>(limit)
            .load(connection)
            .await
    }

    async fn replace(
        &self,
        connection: &mut AsyncPgConnection,
        rows: &Resealed,
    ) -> QueryResult<usize> {
        const SQL: &str = "
            UPDATE plans p SET sealed_price = changed.new
              FROM unnest($1, $2, $3) AS changed (row, old, new)
             WHERE p.seal_row = changed.row AND p.sealed_price = changed.old";
        statement(SQL)
            .bind::<Array<SqlUuid>, _>(&rows.ids)
            .bind::<Array<Bytea>, _>(&rows.old)
            .bind::<Array<Bytea>, _>(&rows.new)
            .execute(connection)
            .await
    }
}
