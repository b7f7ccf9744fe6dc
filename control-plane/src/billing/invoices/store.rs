//! The queries about payments.

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel::result::Error;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use shared::ids::UserId;
use uuid::Uuid;

use super::payment::{Payment, PaymentStatus, Seen};
use super::reading::Reading;
use super::sealed::{INTENT, INVOICE};
use crate::billing::money::Money;
use crate::billing::reference::{IntentId, InvoiceId, Kept, fingerprints, open};
use crate::db::schema::payments;
use crate::error::ApiError;
use crate::secrets::{KeyRing, Place};

#[derive(Queryable, Selectable)]
#[diesel(table_name = payments, check_for_backend(diesel::pg::Pg))]
struct Row {
    id: Uuid,
    user_id: Uuid,
    subscription_id: Option<Uuid>,
    plan_id: Option<String>,
    minor: i64,
    tax: i64,
    currency: String,
    refunded: i64,
    status: String,
    stripe_hash: Vec<u8>,
    sealed_stripe_id: Vec<u8>,
    intent_hash: Option<Vec<u8>>,
    sealed_intent_id: Option<Vec<u8>>,
    period_start: Option<DateTime<Utc>>,
    period_end: Option<DateTime<Utc>>,
    created_at: DateTime<Utc>,
    paid_at: Option<DateTime<Utc>>,
}

/// A payment with what it is called at Stripe.
#[derive(Debug, Clone)]
pub struct Stored {
    pub id: Uuid,
    pub payment: Payment,
    /// What its invoice is found by.
    pub hash: Vec<u8>,
    sealed_invoice: Vec<u8>,
    intent_hash: Option<Vec<u8>>,
    sealed_intent: Option<Vec<u8>>,
}

impl Stored {
    pub fn invoice(&self, keys: &KeyRing) -> Result<InvoiceId, ApiError> {
        Ok(open(keys, INVOICE, self.id, &self.sealed_invoice)?)
    }

    /// What paid it.
    pub fn intent(&self, keys: &KeyRing) -> Result<Option<IntentId>, ApiError> {
        let sealed = self.sealed_intent.as_ref();
        let id = sealed.map(|sealed| open(keys, INTENT, self.id, sealed));
        Ok(id.transpose()?)
    }
}

impl TryFrom<Row> for Stored {
    type Error = Error;

    fn try_from(row: Row) -> QueryResult<Self> {
        let unreadable = |what: &str| Error::DeserializationError(what.into());
        let currency = row.currency.parse();
        let status = PaymentStatus::parse(&row.status);
        Ok(Self {
            id: row.id,
            payment: Payment {
                user: UserId(row.user_id),
                subscription: row.subscription_id,
                plan: row.plan_id,
                seen: Seen {
                    amount: Money {
                        minor: row.minor,
                        currency: currency.map_err(|_| unreadable("a payment's currency"))?,
                    },
                    tax: row.tax,
                    status: status.ok_or_else(|| unreadable("a payment's status"))?,
                    period: row.period_start.zip(row.period_end),
                    created_at: row.created_at,
                    paid_at: row.paid_at,
                },
                refunded: row.refunded,
            },
            hash: row.stripe_hash,
            sealed_invoice: row.sealed_stripe_id,
            intent_hash: row.intent_hash,
            sealed_intent: row.sealed_intent_id,
        })
    }
}

fn read(row: Option<Row>) -> QueryResult<Option<Stored>> {
    row.map(TryInto::try_into).transpose()
}

fn read_all(rows: Vec<Row>) -> QueryResult<Vec<Stored>> {
    rows.into_iter().map(TryInto::try_into).collect()
}

pub async fn find(connection: &mut AsyncPgConnection, id: Uuid) -> QueryResult<Option<Stored>> {
    let row = payments::table
        .find(id)
        .select(Row::as_select())
        .first(connection)
        .await
        .optional()?;
    read(row)
}

/// The same, held until the transaction ends.
pub async fn lock(connection: &mut AsyncPgConnection, id: Uuid) -> QueryResult<Option<Stored>> {
    let row = payments::table
        .find(id)
        .select(Row::as_select())
        .for_no_key_update()
        .first(connection)
        .await
        .optional()?;
    read(row)
}

/// Those of invoices that are found by one of these.
pub async fn by_invoices(
    connection: &mut AsyncPgConnection,
    hashes: &[Vec<u8>],
) -> QueryResult<Vec<Stored>> {
    let rows = payments::table
        .filter(payments::stripe_hash.eq_any(hashes))
        .select(Row::as_select())
        .load(connection)
        .await?;
    read_all(rows)
}

pub(super) async fn lock_invoice(
    connection: &mut AsyncPgConnection,
    keys: &KeyRing,
    invoice: &InvoiceId,
) -> QueryResult<Option<Stored>> {
    let row = payments::table
        .filter(payments::stripe_hash.eq_any(fingerprints(keys, invoice)))
        .select(Row::as_select())
        .for_no_key_update()
        .first(connection)
        .await
        .optional()?;
    read(row)
}

/// The invoice that this pays, where we know it.
pub(super) async fn by_intent(
    connection: &mut AsyncPgConnection,
    keys: &KeyRing,
    intent: &IntentId,
) -> Result<Option<InvoiceId>, ApiError> {
    let row = payments::table
        .filter(payments::intent_hash.eq_any(fingerprints(keys, intent)))
        .select(Row::as_select())
        .first(connection)
        .await
        .optional()?;
    let stored = read(row)?;
    stored.map(|stored| stored.invoice(keys)).transpose()
}

/// What is neither paid nor given up, by id and past `after`.
pub async fn unpaid(
    connection: &mut AsyncPgConnection,
    after: Uuid,
    limit: i64,
) -> QueryResult<Vec<Stored>> {
    let open = [PaymentStatus::Open, PaymentStatus::Failed].map(PaymentStatus::as_str);
    let rows = payments::table
        .filter(payments::status.eq_any(open))
        .filter(payments::id.gt(after))
        .order(payments::id)
        .limit(limit)
        .select(Row::as_select())
        .load(connection)
        .await?;
    read_all(rows)
}

/// What went back whole of what was paid for a time that is not over, by id and past `after`.
pub async fn given_back(
    connection: &mut AsyncPgConnection,
    now: DateTime<Utc>,
    after: Uuid,
    limit: i64,
) -> QueryResult<Vec<Stored>> {
    let rows = payments::table
        .filter(payments::status.eq(PaymentStatus::Succeeded.as_str()))
        .filter(payments::refunded.gt(0))
        .filter(payments::refunded.ge(payments::minor))
        .filter(payments::period_end.gt(now))
        .filter(payments::id.gt(after))
        .order(payments::id)
        .limit(limit)
        .select(Row::as_select())
        .load(connection)
        .await?;
    read_all(rows)
}

/// One page of a person's, the newest first, and how many there are in all.
pub(super) async fn page(
    connection: &mut AsyncPgConnection,
    user: UserId,
    (offset, limit): (i64, i64),
) -> QueryResult<(Vec<Stored>, u64)> {
    let own = payments::table.filter(payments::user_id.eq(user.0));
    let total: i64 = own.count().get_result(connection).await?;
    let rows = own
        .order((payments::created_at.desc(), payments::id.desc()))
        .offset(offset)
        .limit(limit)
        .select(Row::as_select())
        .load(connection)
        .await?;
    Ok((read_all(rows)?, u64::try_from(total).unwrap_or_default()))
}

/// Whether something of what was paid for the subscription's period was not given back.
pub(super) async fn is_something_left(
    connection: &mut AsyncPgConnection,
    subscription: Uuid,
    period_end: DateTime<Utc>,
) -> QueryResult<bool> {
    let paid = payments::table
        .filter(payments::subscription_id.eq(subscription))
        .filter(payments::status.eq(PaymentStatus::Succeeded.as_str()))
        .filter(payments::period_end.ge(period_end));
    let left = paid.filter(payments::refunded.lt(payments::minor));
    diesel::select(diesel::dsl::exists(left))
        .get_result(connection)
        .await
}

pub(super) async fn void(connection: &mut AsyncPgConnection, id: Uuid) -> QueryResult<()> {
    diesel::update(payments::table.find(id))
        .set(payments::status.eq(PaymentStatus::Void.as_str()))
        .execute(connection)
        .await
        .map(drop)
}

#[derive(Insertable, AsChangeset)]
#[diesel(table_name = payments, treat_none_as_null = true)]
struct Changed<'a> {
    subscription_id: Option<Uuid>,
    plan_id: Option<&'a str>,
    minor: i64,
    tax: i64,
    currency: &'a str,
    refunded: i64,
    status: &'static str,
    period_start: Option<DateTime<Utc>>,
    period_end: Option<DateTime<Utc>>,
    created_at: DateTime<Utc>,
    paid_at: Option<DateTime<Utc>>,
}

fn changed(payment: &Payment) -> Changed<'_> {
    let seen = &payment.seen;
    let (period_start, period_end) = seen.period.unzip();
    Changed {
        subscription_id: payment.subscription,
        plan_id: payment.plan.as_deref(),
        minor: seen.amount.minor,
        tax: seen.tax,
        currency: seen.amount.currency.as_str(),
        refunded: payment.refunded,
        status: seen.status.as_str(),
        period_start,
        period_end,
        created_at: seen.created_at,
        paid_at: seen.paid_at,
    }
}

/// Writes a payment over the one that is known, or as a new one. True where what pays it is another now.
pub(super) async fn put(
    connection: &mut AsyncPgConnection,
    keys: &KeyRing,
    id: Uuid,
    known: Option<&Stored>,
    payment: &Payment,
    read: &Reading,
) -> Result<bool, ApiError> {
    let place = |column| Place { column, row: id };
    if known.is_none() {
        let kept = Kept::new(keys, place(INVOICE), &read.invoice.id)?;
        diesel::insert_into(payments::table)
            .values((
                payments::id.eq(id),
                payments::user_id.eq(payment.user.0),
                payments::stripe_hash.eq(kept.fingerprint),
                payments::sealed_stripe_id.eq(kept.sealed),
                changed(payment),
            ))
            .execute(connection)
            .await?;
    } else if known.is_some_and(|it| it.payment != *payment) {
        diesel::update(payments::table.find(id))
            .set(changed(payment))
            .execute(connection)
            .await?;
    }
    let Some(intent) = read.intent() else {
        return Ok(false);
    };
    let was = known.and_then(|it| it.intent_hash.as_ref());
    if was.is_some_and(|hash| fingerprints(keys, intent).contains(hash)) {
        return Ok(false);
    }
    let kept = Kept::new(keys, place(INTENT), intent)?;
    diesel::update(payments::table.find(id))
        .set((
            payments::intent_hash.eq(kept.fingerprint),
            payments::sealed_intent_id.eq(kept.sealed),
        ))
        .execute(connection)
        .await?;
    Ok(true)
}
