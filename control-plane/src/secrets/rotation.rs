//! Changing `SECRET_KEY`: everything sealed is sealed again under the key in force.
//!
//! Replicas go on meanwhile. A row that somebody changes at the same moment keeps the change; whatever
//! a replica with the former configuration still writes is found by the next run.

use std::fmt;

use async_trait::async_trait;
use diesel::QueryResult;
use diesel::prelude::QueryableByName;
use diesel::sql_types::{Array, BigInt, Bytea, Uuid as SqlUuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use uuid::Uuid;

use super::{KeyRing, Place, SealError};
use crate::accounts::mfa::SealedSecrets;
use crate::billing::customers::SealedCustomers;
use crate::billing::invoices::{SealedIntentIds, SealedInvoiceIds};
use crate::billing::refunds::SealedRefundIds;
use crate::billing::webhook::SealedEvents;
use crate::billing::{SealedOrders, SealedPrices, SealedSubscriptionIds};
use crate::db::statement;
use crate::jobs::SealedPayloads;
use crate::tunnels::SealedPresharedKeys;

/// Every column that is sealed.
pub const COLUMNS: &[&dyn SealedColumn] = &[
    &SealedSecrets,
    &SealedPayloads,
    &SealedPresharedKeys,
    &SealedSubscriptionIds,
    &SealedPrices,
    &SealedCustomers,
    &SealedInvoiceIds,
    &SealedIntentIds,
    &SealedRefundIds,
    &SealedEvents,
    &SealedOrders,
];

/// Rows read and written at once.
const BATCH: i64 = 500;

/// A sealed value and its row.
#[derive(Debug, Clone, QueryableByName)]
#[diesel(check_for_backend(diesel::pg::Pg))]
pub struct SealedRow {
    #[diesel(sql_type = SqlUuid)]
    pub id: Uuid,
    #[diesel(sql_type = Bytea)]
    pub sealed: Vec<u8>,
}

/// Values sealed anew, with those that they replace: four lists of one length.
#[derive(Debug, Default)]
pub struct Resealed {
    pub ids: Vec<Uuid>,
    pub old: Vec<Vec<u8>>,
    pub new: Vec<Vec<u8>>,
    /// Under the key in force, for a table that finds its rows by them.
    pub fingerprints: Vec<Vec<u8>>,
}

/// A column whose values are sealed; each room has its own two statements.
#[async_trait]
pub trait SealedColumn: fmt::Debug + Sync {
    /// `table.column`, as in [`Place`].
    fn name(&self) -> &'static str;

    /// At most `$3` rows of `id` and `sealed` whose value does not begin with `$1`, past the id `$2` and in
    /// the order of ids.
    fn stale_sql(&self) -> &'static str;

    /// Writes each value whose old one still stands, of `unnest($1, $2, $3, $4)`: ids, old values, new
    /// ones, and their fingerprints.
    fn replace_sql(&self) -> &'static str;

    async fn stale(
        &self,
        connection: &mut AsyncPgConnection,
        prefix: &[u8],
        after: Uuid,
        limit: i64,
    ) -> QueryResult<Vec<SealedRow>> {
        statement(self.stale_sql())
            .bind::<Bytea, _>(prefix)
            .bind::<SqlUuid, _>(after)
            .bind::<BigInt, _>(limit)
            .load(connection)
            .await
    }

    /// How many were written.
    async fn replace(
        &self,
        connection: &mut AsyncPgConnection,
        rows: &Resealed,
    ) -> QueryResult<usize> {
        statement(self.replace_sql())
            .bind::<Array<SqlUuid>, _>(&rows.ids)
            .bind::<Array<Bytea>, _>(&rows.old)
            .bind::<Array<Bytea>, _>(&rows.new)
            .bind::<Array<Bytea>, _>(&rows.fingerprints)
            .execute(connection)
            .await
    }
}

/// What became of one column.
#[derive(Debug)]
pub struct Rotated {
    pub column: &'static str,
    /// Sealed again.
    pub resealed: usize,
    /// Changed by somebody else meanwhile.
    pub overtaken: usize,
    pub unreadable: Vec<(Uuid, SealError)>,
}

/// Seals every value of the column again that is not under the key in force.
pub async fn rotate(
    connection: &mut AsyncPgConnection,
    keys: &KeyRing,
    column: &dyn SealedColumn,
) -> QueryResult<Rotated> {
    let mut rotated = Rotated {
        column: column.name(),
        resealed: 0,
        overtaken: 0,
        unreadable: Vec::new(),
    };
    let prefix = keys.current_prefix();
    let mut after = Uuid::nil();
    loop {
        let rows = column.stale(connection, &prefix, after, BATCH).await?;
        let Some(last) = rows.last() else {
            return Ok(rotated);
        };
        after = last.id;
        let (resealed, unreadable) = reseal(keys, column.name(), rows);
        let written = column.replace(connection, &resealed).await?;
        rotated.resealed += written;
        rotated.overtaken += resealed.ids.len().saturating_sub(written);
        rotated.unreadable.extend(unreadable);
    }
}

/// Seals each value again, and names those that cannot be read.
fn reseal(
    keys: &KeyRing,
    column: &'static str,
    rows: Vec<SealedRow>,
) -> (Resealed, Vec<(Uuid, SealError)>) {
    let (mut resealed, mut unreadable) = (Resealed::default(), Vec::new());
    for SealedRow { id, sealed } in rows {
        let place = Place { column, row: id };
        let again = keys.open(place, &sealed);
        match again.and_then(|plain| Ok((keys.seal(place, &plain)?, keys.fingerprint(&plain)))) {
            Ok((new, fingerprint)) => {
                resealed.ids.push(id);
                resealed.old.push(sealed);
                resealed.new.push(new);
                resealed.fingerprints.push(fingerprint);
            }
            Err(error) => unreadable.push((id, error)),
        }
    }
    (resealed, unreadable)
}
