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
pub const SEALED_PRICES: SealedColumn = SealedColumn::new(COLUMN).bound_to("seal_row");
