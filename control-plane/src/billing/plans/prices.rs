//! Plans' prices at Stripe, as operators wrote them into the rows. Sealed like every id of Stripe's.

use std::fmt;

use diesel::prelude::*;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use uuid::Uuid;

use crate::db::schema::plans;
use crate::error::ApiError;
use crate::secrets::{KeyRing, Place, SealError, SealedColumn};

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

impl SealedColumn for SealedPrices {
    fn name(&self) -> &'static str {
        COLUMN
    }

    fn stale_sql(&self) -> &'static str {
        "
            SELECT seal_row AS id, sealed_price AS sealed FROM plans
             WHERE seal_row > $2 AND substring(sealed_price FOR octet_length($1)) <> $1
             ORDER BY seal_row LIMIT $3"
    }

    fn replace_sql(&self) -> &'static str {
        "
            UPDATE plans p SET sealed_price = changed.new
              FROM unnest($1, $2, $3, $4) AS changed (row, old, new, hash)
             WHERE p.seal_row = changed.row AND p.sealed_price = changed.old"
    }
}
