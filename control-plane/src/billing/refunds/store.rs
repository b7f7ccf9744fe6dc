//! The queries about refunds.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use diesel::dsl::now;
use diesel::prelude::*;
use diesel::result::Error;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use shared::ids::UserId;
use uuid::Uuid;

use super::refund::{Refund, RefundStatus};
use crate::billing::money::Money;
use crate::billing::reference::{Kept, RefundId, fingerprints};
use crate::billing::stripe::refunds::Refund as Read;
use crate::db::schema::refunds;
use crate::error::ApiError;
use crate::secrets::{KeyRing, Place, SealedColumn};

const COLUMN: &str = "refunds.sealed_stripe_id";
/// As many letters as a reason has.
const LONGEST_REASON: usize = 500;

#[derive(Queryable, Selectable)]
#[diesel(table_name = refunds, check_for_backend(diesel::pg::Pg))]
struct Row {
    id: Uuid,
    payment_id: Uuid,
    minor: i64,
    currency: String,
    reason: Option<String>,
    requested_by: Option<Uuid>,
    status: String,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

impl TryFrom<Row> for Refund {
    type Error = Error;

    fn try_from(row: Row) -> QueryResult<Self> {
        let unreadable = |what: &str| Error::DeserializationError(what.into());
        let currency = row.currency.parse();
        let status = RefundStatus::parse(&row.status);
        Ok(Self {
            id: row.id,
            payment: row.payment_id,
            amount: Money {
                minor: row.minor,
                currency: currency.map_err(|_| unreadable("a refund's currency"))?,
            },
            reason: row.reason,
            requested_by: row.requested_by.map(UserId),
            status: status.ok_or_else(|| unreadable("a refund's status"))?,
            created_at: row.created_at,
            updated_at: row.updated_at,
        })
    }
}

pub(super) async fn find(
    connection: &mut AsyncPgConnection,
    id: Uuid,
) -> QueryResult<Option<Refund>> {
    let row: Option<Row> = refunds::table
        .find(id)
        .select(Row::as_select())
        .first(connection)
        .await
        .optional()?;
    row.map(TryInto::try_into).transpose()
}

/// All of these payments, the oldest first.
pub async fn of_payments(
    connection: &mut AsyncPgConnection,
    payments: &[Uuid],
) -> QueryResult<Vec<Refund>> {
    let rows: Vec<Row> = refunds::table
        .filter(refunds::payment_id.eq_any(payments))
        .order((refunds::created_at, refunds::id))
        .select(Row::as_select())
        .load(connection)
        .await?;
    rows.into_iter().map(TryInto::try_into).collect()
}

/// The refund of a payment that was asked for with this key.
pub(super) async fn by_key(
    connection: &mut AsyncPgConnection,
    payment: Uuid,
    key: &str,
) -> QueryResult<Option<Refund>> {
    let row: Option<Row> = refunds::table
        .filter(refunds::payment_id.eq(payment))
        .filter(refunds::request_key.eq(key))
        .select(Row::as_select())
        .first(connection)
        .await
        .optional()?;
    row.map(TryInto::try_into).transpose()
}

pub(super) async fn insert(
    connection: &mut AsyncPgConnection,
    new: &Refund,
    key: Option<&str>,
) -> QueryResult<()> {
    diesel::insert_into(refunds::table)
        .values((
            refunds::id.eq(new.id),
            refunds::payment_id.eq(new.payment),
            refunds::minor.eq(new.amount.minor),
            refunds::currency.eq(new.amount.currency.as_str()),
            refunds::reason.eq(&new.reason),
            refunds::requested_by.eq(new.requested_by.map(|user| user.0)),
            refunds::request_key.eq(key),
            refunds::status.eq(new.status.as_str()),
            refunds::created_at.eq(new.created_at),
            refunds::updated_at.eq(new.updated_at),
        ))
        .execute(connection)
        .await
        .map(drop)
}

/// Those that Stripe was not told of since this time, by id and past `after`.
pub async fn unfinished(
    connection: &mut AsyncPgConnection,
    before: DateTime<Utc>,
    after: Uuid,
    limit: i64,
) -> QueryResult<Vec<Uuid>> {
    refunds::table
        .filter(refunds::status.eq(RefundStatus::Requested.as_str()))
        .filter(refunds::created_at.lt(before))
        .filter(refunds::id.gt(after))
        .order(refunds::id)
        .limit(limit)
        .select(refunds::id)
        .load(connection)
        .await
}

/// The statuses of refunds that are found by one of these, by what they are found by.
pub async fn states(
    connection: &mut AsyncPgConnection,
    hashes: &[Vec<u8>],
) -> QueryResult<HashMap<Vec<u8>, String>> {
    let rows: Vec<(Vec<u8>, String)> = refunds::table
        .filter(refunds::stripe_hash.eq_any(hashes))
        .select((refunds::stripe_hash.assume_not_null(), refunds::status))
        .load(connection)
        .await?;
    Ok(rows.into_iter().collect())
}

/// Stripe will not. Whether it was still open.
pub(super) async fn fail(connection: &mut AsyncPgConnection, id: Uuid) -> QueryResult<bool> {
    diesel::update(refunds::table.find(id))
        .filter(refunds::status.eq(RefundStatus::Requested.as_str()))
        .set((
            refunds::status.eq(RefundStatus::Failed.as_str()),
            refunds::updated_at.eq(now),
        ))
        .execute(connection)
        .await
        .map(|changed| changed == 1)
}

#[derive(Queryable, Selectable)]
#[diesel(table_name = refunds, check_for_backend(diesel::pg::Pg))]
struct Known {
    id: Uuid,
    minor: i64,
    status: String,
    stripe_hash: Option<Vec<u8>>,
}

/// Writes what Stripe says of a refund of the payment: over the row that it is, or asked for it, or as a new one.
/// Whether that changed something.
pub async fn fold(
    connection: &mut AsyncPgConnection,
    keys: &KeyRing,
    payment: Uuid,
    read: &Read,
) -> Result<bool, ApiError> {
    let status = RefundStatus::of_stripe(read.status.as_deref()).as_str();
    let Some(known) = known(connection, keys, payment, read).await? else {
        insert_read(connection, keys, payment, read).await?;
        return Ok(true);
    };
    let is_same = known.status == status && known.minor == read.amount;
    if is_same && known.stripe_hash.is_some() {
        return Ok(false);
    }
    let kept = kept(keys, known.id, &read.id)?;
    diesel::update(refunds::table.find(known.id))
        .set((
            refunds::minor.eq(read.amount),
            refunds::status.eq(status),
            refunds::stripe_hash.eq(kept.fingerprint),
            refunds::sealed_stripe_id.eq(kept.sealed),
            refunds::updated_at.eq(now),
        ))
        .execute(connection)
        .await?;
    Ok(true)
}

async fn known(
    connection: &mut AsyncPgConnection,
    keys: &KeyRing,
    payment: Uuid,
    read: &Read,
) -> QueryResult<Option<Known>> {
    let by_hash = refunds::table
        .filter(refunds::stripe_hash.eq_any(fingerprints(keys, &read.id)))
        .select(Known::as_select())
        .first(connection)
        .await
        .optional()?;
    let (None, Some(row)) = (&by_hash, read.row()) else {
        return Ok(by_hash);
    };
    refunds::table
        .find(row)
        .filter(refunds::payment_id.eq(payment))
        .filter(refunds::stripe_hash.is_null())
        .select(Known::as_select())
        .first(connection)
        .await
        .optional()
}

async fn insert_read(
    connection: &mut AsyncPgConnection,
    keys: &KeyRing,
    payment: Uuid,
    read: &Read,
) -> Result<(), ApiError> {
    let id = Uuid::now_v7();
    let kept = kept(keys, id, &read.id)?;
    let reason = read.reason.as_ref();
    let reason = reason.map(|it| it.chars().take(LONGEST_REASON).collect::<String>());
    let created_at = read.created_at().unwrap_or_else(Utc::now);
    diesel::insert_into(refunds::table)
        .values((
            refunds::id.eq(id),
            refunds::payment_id.eq(payment),
            refunds::minor.eq(read.amount),
            refunds::currency.eq(read.currency.to_ascii_uppercase()),
            refunds::reason.eq(reason),
            refunds::status.eq(RefundStatus::of_stripe(read.status.as_deref()).as_str()),
            refunds::stripe_hash.eq(kept.fingerprint),
            refunds::sealed_stripe_id.eq(kept.sealed),
            refunds::created_at.eq(created_at),
        ))
        .execute(connection)
        .await?;
    Ok(())
}

fn kept(keys: &KeyRing, row: Uuid, id: &RefundId) -> Result<Kept, ApiError> {
    let place = Place {
        column: COLUMN,
        row,
    };
    Ok(Kept::new(keys, place, id)?)
}

/// The ids, for whoever changes the key: what they are found by follows.
pub const SEALED_REFUND_IDS: SealedColumn = SealedColumn::new(COLUMN).found_by("stripe_hash");
