//! Changing `SECRET_KEY`: everything sealed is sealed again under the key in force.
//!
//! Replicas go on meanwhile. A row that somebody changes at the same moment keeps the change; whatever
//! a replica with the former configuration still writes is found by the next run.

use diesel::prelude::QueryableByName;
use diesel::sql_types::{Array, BigInt, Bytea, Uuid as SqlUuid};
use diesel::{QueryResult, sql_query};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use uuid::Uuid;

use super::{KeyRing, Place, SealError};
use crate::accounts::mfa::SEALED_SECRETS;
use crate::billing::customers::SEALED_CUSTOMERS;
use crate::billing::invoices::{SEALED_INTENT_IDS, SEALED_INVOICE_IDS};
use crate::billing::refunds::SEALED_REFUND_IDS;
use crate::billing::webhook::SEALED_EVENTS;
use crate::billing::{SEALED_ORDERS, SEALED_PRICES, SEALED_SUBSCRIPTION_IDS};
use crate::jobs::SEALED_PAYLOADS;
use crate::tunnels::SEALED_PRESHARED_KEYS;

/// Every column that is sealed.
pub const COLUMNS: &[SealedColumn] = &[
    SEALED_SECRETS,
    SEALED_PAYLOADS,
    SEALED_PRESHARED_KEYS,
    SEALED_SUBSCRIPTION_IDS,
    SEALED_PRICES,
    SEALED_CUSTOMERS,
    SEALED_INVOICE_IDS,
    SEALED_INTENT_IDS,
    SEALED_REFUND_IDS,
    SEALED_EVENTS,
    SEALED_ORDERS,
];

/// Rows read and written at once.
const BATCH: i64 = 500;

/// A sealed value and its row.
#[derive(QueryableByName)]
struct SealedRow {
    #[diesel(sql_type = SqlUuid)]
    id: Uuid,
    #[diesel(sql_type = Bytea)]
    sealed: Vec<u8>,
}

/// Values sealed anew, with those that they replace: four lists of one length.
#[derive(Default)]
struct Resealed {
    ids: Vec<Uuid>,
    old: Vec<Vec<u8>>,
    new: Vec<Vec<u8>>,
    /// Under the key in force, for a table that finds its rows by them.
    fingerprints: Vec<Vec<u8>>,
}

/// A column whose values are sealed.
#[derive(Debug, Clone, Copy)]
pub struct SealedColumn {
    /// `table.column`, as in [`Place`].
    name: &'static str,
    /// The column of the ids that values are bound to.
    row: &'static str,
    /// The column of what rows are found by, where that is the value's fingerprint.
    hash: Option<&'static str>,
    /// Which rows have a value.
    only: &'static str,
}

impl SealedColumn {
    /// Bound to `id`; the column is called `table.column`, as in [`Place`].
    pub const fn new(name: &'static str) -> Self {
        Self {
            name,
            row: "id",
            hash: None,
            only: "true",
        }
    }

    pub const fn bound_to(self, row: &'static str) -> Self {
        Self { row, ..self }
    }

    /// Rows are found by the value's fingerprint in this column, which follows the key.
    pub const fn found_by(self, hash: &'static str) -> Self {
        Self {
            hash: Some(hash),
            ..self
        }
    }

    pub const fn only(self, only: &'static str) -> Self {
        Self { only, ..self }
    }

    fn parts(&self) -> (&'static str, &'static str) {
        self.name.split_once('.').unwrap_or((self.name, ""))
    }

    /// Values that do not begin with the prefix, past the id `after` and in the order of ids.
    async fn stale(
        &self,
        connection: &mut AsyncPgConnection,
        prefix: &[u8],
        after: Uuid,
        limit: i64,
    ) -> QueryResult<Vec<SealedRow>> {
        let (table, column) = self.parts();
        let Self { row, only, .. } = self;
        let sql = format!(
            "SELECT t.{row} AS id, t.{column} AS sealed FROM {table} t
              WHERE {only} AND t.{row} > $2 AND substring(t.{column} FOR octet_length($1)) <> $1
              ORDER BY t.{row} LIMIT $3"
        );
        sql_query(sql)
            .bind::<Bytea, _>(prefix)
            .bind::<SqlUuid, _>(after)
            .bind::<BigInt, _>(limit)
            .load(connection)
            .await
    }

    /// Writes each value whose old one still stands; how many those were.
    async fn replace(
        &self,
        connection: &mut AsyncPgConnection,
        rows: &Resealed,
    ) -> QueryResult<usize> {
        let (table, column) = self.parts();
        let Self { row, hash, .. } = self;
        let hash = hash.map_or_else(String::new, |hash| format!(", {hash} = changed.hash"));
        let sql = format!(
            "UPDATE {table} t SET {column} = changed.new{hash}
               FROM unnest($1, $2, $3, $4) AS changed (id, old, new, hash)
              WHERE t.{row} = changed.id AND t.{column} = changed.old"
        );
        sql_query(sql)
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
    column: SealedColumn,
) -> QueryResult<Rotated> {
    let mut rotated = Rotated {
        column: column.name,
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
        let (resealed, unreadable) = reseal(keys, column.name, rows);
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
