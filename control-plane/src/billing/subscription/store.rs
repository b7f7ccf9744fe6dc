//! The queries about subscriptions.

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel::result::Error;
use diesel::sql_types::{Array, Bool, Bytea, Uuid as SqlUuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use shared::ids::UserId;
use uuid::Uuid;

use super::machine::{Status, Subscription};
use super::reference::open_id;
use crate::accounts::registration::FREE_PLAN;
use crate::billing::reference::SubscriptionId;
use crate::db::schema::{plans, subscriptions};
use crate::db::statement;
use crate::error::ApiError;
use crate::secrets::{KeyRing, SealError};

#[derive(Queryable, Selectable, QueryableByName)]
#[diesel(table_name = subscriptions, check_for_backend(diesel::pg::Pg))]
struct Row {
    id: Uuid,
    user_id: Uuid,
    plan_id: String,
    status: String,
    start_date: DateTime<Utc>,
    end_date: Option<DateTime<Utc>>,
    trial_end: Option<DateTime<Utc>>,
    cancel_at_period_end: bool,
    access_until: Option<DateTime<Utc>>,
    throttle_mbps: Option<i32>,
    lapsed_at: Option<DateTime<Utc>>,
    stripe_hash: Option<Vec<u8>>,
}

/// How many subscriptions of a plan have a status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanCount {
    pub plan: String,
    pub status: String,
    pub count: u64,
}

/// Subscriptions by plan and status. Reads the whole table.
pub async fn count(connection: &mut AsyncPgConnection) -> QueryResult<Vec<PlanCount>> {
    let rows: Vec<(String, String, i64)> = subscriptions::table
        .group_by((subscriptions::plan_id, subscriptions::status))
        .select((
            subscriptions::plan_id,
            subscriptions::status,
            diesel::dsl::count_star(),
        ))
        .order((subscriptions::plan_id, subscriptions::status))
        .load(connection)
        .await?;
    let count = |(plan, status, count): (_, _, i64)| PlanCount {
        plan,
        status,
        count: u64::try_from(count).unwrap_or_default(),
    };
    Ok(rows.into_iter().map(count).collect())
}

/// A subscription with whose it is.
#[derive(Debug, Clone)]
pub(super) struct Stored {
    pub(super) id: Uuid,
    pub(super) user: UserId,
    pub(super) hash: Option<Vec<u8>>,
    pub(super) subscription: Subscription,
}

impl Stored {
    pub(super) fn is_running(&self) -> bool {
        self.subscription.status != Status::Canceled
    }
}

impl TryFrom<Row> for Stored {
    type Error = Error;

    fn try_from(row: Row) -> QueryResult<Self> {
        let status = Status::parse(&row.status)
            .ok_or_else(|| Error::DeserializationError("a subscription's status".into()))?;
        Ok(Self {
            id: row.id,
            user: UserId(row.user_id),
            subscription: Subscription {
                plan: row.plan_id,
                status,
                started_at: row.start_date,
                period_end: row.end_date,
                trial_end: row.trial_end,
                cancel_at_period_end: row.cancel_at_period_end,
                access_until: row.access_until,
                throttle_mbps: row.throttle_mbps.and_then(|rate| u32::try_from(rate).ok()),
                lapsed_at: row.lapsed_at,
                is_billed: row.stripe_hash.is_some(),
            },
            hash: row.stripe_hash,
        })
    }
}

/// The person's running subscription, and the one with one of these hashes, whosever it is.
pub(super) async fn related(
    connection: &mut AsyncPgConnection,
    user: UserId,
    hashes: &[Vec<u8>],
) -> QueryResult<Vec<Stored>> {
    const SQL: &str = "
        SELECT s.* FROM subscriptions s
         WHERE s.stripe_hash = ANY ($2) OR s.user_id = $1 AND s.status <> 'canceled'";
    let rows: Vec<Row> = statement(SQL)
        .bind::<SqlUuid, _>(user.0)
        .bind::<Array<Bytea>, _>(hashes)
        .load(connection)
        .await?;
    rows.into_iter().map(TryInto::try_into).collect()
}

/// Those with one of these hashes, and whether their people have one that runs.
pub(super) async fn all_of(
    connection: &mut AsyncPgConnection,
    hashes: &[Vec<u8>],
) -> QueryResult<Vec<(Stored, bool)>> {
    #[derive(QueryableByName)]
    struct Found {
        #[diesel(embed)]
        found: Row,
        #[diesel(sql_type = Bool)]
        has_running: bool,
    }
    const SQL: &str = "
        SELECT s.*, EXISTS (
                   SELECT FROM subscriptions r WHERE r.user_id = s.user_id AND r.status <> 'canceled'
               ) AS has_running
          FROM subscriptions s WHERE s.stripe_hash = ANY ($1)";
    let found: Vec<Found> = statement(SQL)
        .bind::<Array<Bytea>, _>(hashes)
        .load(connection)
        .await?;
    let read = |it: Found| Ok((it.found.try_into()?, it.has_running));
    found.into_iter().map(read).collect()
}

/// The row with one of these hashes.
pub async fn row_of(
    connection: &mut AsyncPgConnection,
    hashes: &[Vec<u8>],
) -> QueryResult<Option<Uuid>> {
    subscriptions::table
        .filter(subscriptions::stripe_hash.eq_any(hashes))
        .select(subscriptions::id)
        .first(connection)
        .await
        .optional()
}

/// A running subscription that Stripe has, whosever it is.
#[derive(Debug, Clone)]
pub struct AtStripe {
    pub row: Uuid,
    pub user: UserId,
    pub id: SubscriptionId,
    pub plan: String,
    pub started_at: DateTime<Utc>,
    pub period_end: DateTime<Utc>,
    /// What it is found by.
    pub hash: Vec<u8>,
}

#[derive(Queryable, Selectable)]
#[diesel(table_name = subscriptions, check_for_backend(diesel::pg::Pg))]
struct AtStripeRow {
    id: Uuid,
    user_id: Uuid,
    plan_id: String,
    start_date: DateTime<Utc>,
    stripe_hash: Option<Vec<u8>>,
    sealed_stripe_id: Option<Vec<u8>>,
    end_date: Option<DateTime<Utc>>,
}

impl AtStripeRow {
    fn read(self, keys: &KeyRing) -> Result<Option<AtStripe>, SealError> {
        let Self {
            stripe_hash: Some(hash),
            sealed_stripe_id: Some(sealed),
            end_date: Some(period_end),
            ..
        } = self
        else {
            return Ok(None);
        };
        Ok(Some(AtStripe {
            row: self.id,
            user: UserId(self.user_id),
            id: open_id(keys, self.id, &sealed)?,
            plan: self.plan_id,
            started_at: self.start_date,
            period_end,
            hash,
        }))
    }
}

/// The subscription of this row, if it runs and Stripe has it.
pub async fn at_stripe(
    connection: &mut AsyncPgConnection,
    keys: &KeyRing,
    row: Uuid,
) -> Result<Option<AtStripe>, ApiError> {
    let found: Option<AtStripeRow> = subscriptions::table
        .find(row)
        .filter(subscriptions::status.ne(Status::Canceled.as_str()))
        .select(AtStripeRow::as_select())
        .first(connection)
        .await
        .optional()?;
    Ok(found.map(|row| row.read(keys)).transpose()?.flatten())
}

/// All such, by row and past `after`.
pub async fn all_at_stripe(
    connection: &mut AsyncPgConnection,
    keys: &KeyRing,
    after: Uuid,
    limit: i64,
) -> Result<Vec<AtStripe>, ApiError> {
    let rows: Vec<AtStripeRow> = subscriptions::table
        .filter(subscriptions::id.gt(after))
        .filter(subscriptions::status.ne(Status::Canceled.as_str()))
        .filter(subscriptions::stripe_hash.is_not_null())
        .filter(subscriptions::end_date.is_not_null())
        .order(subscriptions::id)
        .limit(limit)
        .select(AtStripeRow::as_select())
        .load(connection)
        .await?;
    let read: Result<Vec<_>, _> = rows.into_iter().map(|row| row.read(keys)).collect();
    Ok(read?.into_iter().flatten().collect())
}

/// The running one; nobody has two.
pub(super) async fn running(
    connection: &mut AsyncPgConnection,
    user: UserId,
) -> QueryResult<Option<Stored>> {
    let row: Option<Row> = subscriptions::table
        .filter(subscriptions::user_id.eq(user.0))
        .filter(subscriptions::status.ne(Status::Canceled.as_str()))
        .select(Row::as_select())
        .first(connection)
        .await
        .optional()?;
    row.map(TryInto::try_into).transpose()
}

/// The running one's id at Stripe, sealed, where Stripe has it.
pub(super) async fn sealed_id(
    connection: &mut AsyncPgConnection,
    id: Uuid,
) -> QueryResult<Option<Vec<u8>>> {
    subscriptions::table
        .find(id)
        .select(subscriptions::sealed_stripe_id)
        .first(connection)
        .await
}

/// Whether the person ever had a subscription that Stripe has.
pub(super) async fn was_billed(
    connection: &mut AsyncPgConnection,
    user: UserId,
) -> QueryResult<bool> {
    let billed = subscriptions::table
        .filter(subscriptions::user_id.eq(user.0))
        .filter(subscriptions::stripe_hash.is_not_null());
    diesel::select(diesel::dsl::exists(billed))
        .get_result(connection)
        .await
}

/// Whose rights ended by the clock without anybody noticing, at most so many.
pub(super) async fn lapsing(
    connection: &mut AsyncPgConnection,
    now: DateTime<Utc>,
    limit: i64,
) -> QueryResult<Vec<UserId>> {
    let users: Vec<Uuid> = subscriptions::table
        .filter(subscriptions::access_until.le(now))
        .filter(subscriptions::status.ne(Status::Canceled.as_str()))
        .filter(subscriptions::lapsed_at.is_null())
        .order(subscriptions::access_until)
        .limit(limit)
        .select(subscriptions::user_id)
        .load(connection)
        .await?;
    Ok(users.into_iter().map(UserId).collect())
}

pub(super) async fn mark_lapsed(
    connection: &mut AsyncPgConnection,
    user: UserId,
    now: DateTime<Utc>,
) -> QueryResult<()> {
    diesel::update(subscriptions::table)
        .filter(subscriptions::user_id.eq(user.0))
        .filter(subscriptions::status.ne(Status::Canceled.as_str()))
        .set(subscriptions::lapsed_at.eq(now))
        .execute(connection)
        .await
        .map(drop)
}

/// What there is to write of Stripe's id.
#[derive(Debug, Clone)]
pub(super) struct Sealed<'a> {
    pub(super) hash: &'a [u8],
    pub(super) id: Vec<u8>,
}

/// False where there is no such plan.
pub(super) async fn insert(
    connection: &mut AsyncPgConnection,
    id: Uuid,
    user: UserId,
    new: &Subscription,
    sealed: Option<Sealed<'_>>,
) -> QueryResult<bool> {
    let Some(plan_type) = plan_type(connection, &new.plan).await? else {
        return Ok(false);
    };
    let (hash, sealed) = sealed.map(|it| (it.hash.to_vec(), it.id)).unzip();
    diesel::insert_into(subscriptions::table)
        .values((
            subscriptions::id.eq(id),
            subscriptions::user_id.eq(user.0),
            subscriptions::stripe_hash.eq(hash),
            subscriptions::sealed_stripe_id.eq(sealed),
            changed(new, &plan_type),
        ))
        .execute(connection)
        .await?;
    Ok(true)
}

/// False where there is no such plan. The hash is written anew, for the key may have changed.
pub(super) async fn update(
    connection: &mut AsyncPgConnection,
    id: Uuid,
    new: &Subscription,
    hash: Option<&[u8]>,
) -> QueryResult<bool> {
    let Some(plan_type) = plan_type(connection, &new.plan).await? else {
        return Ok(false);
    };
    let hash = hash.map(|hash| subscriptions::stripe_hash.eq(hash));
    diesel::update(subscriptions::table.find(id))
        .set((
            changed(new, &plan_type),
            hash,
            subscriptions::updated_at.eq(diesel::dsl::now),
        ))
        .execute(connection)
        .await?;
    Ok(true)
}

#[derive(Insertable, AsChangeset)]
#[diesel(table_name = subscriptions, treat_none_as_null = true)]
struct Changed<'a> {
    plan_id: &'a str,
    plan_type: &'a str,
    status: &'static str,
    start_date: DateTime<Utc>,
    end_date: Option<DateTime<Utc>>,
    auto_renew: bool,
    trial_end: Option<DateTime<Utc>>,
    cancel_at_period_end: bool,
    access_until: Option<DateTime<Utc>>,
    throttle_mbps: Option<i32>,
    lapsed_at: Option<DateTime<Utc>>,
}

fn changed<'a>(new: &'a Subscription, plan_type: &'a str) -> Changed<'a> {
    Changed {
        plan_id: &new.plan,
        plan_type,
        status: new.status.as_str(),
        start_date: new.started_at,
        end_date: new.period_end,
        auto_renew: new.renews(),
        trial_end: new.trial_end,
        cancel_at_period_end: new.cancel_at_period_end,
        access_until: new.access_until,
        throttle_mbps: new.throttle_mbps.and_then(|rate| i32::try_from(rate).ok()),
        lapsed_at: new.lapsed_at,
    }
}

async fn plan_type(connection: &mut AsyncPgConnection, plan: &str) -> QueryResult<Option<String>> {
    plans::table
        .find(plan)
        .select(plans::plan_type)
        .first(connection)
        .await
        .optional()
}

/// What everybody has who pays for nothing.
pub(super) fn free(now: DateTime<Utc>) -> Subscription {
    Subscription {
        plan: FREE_PLAN.to_owned(),
        status: Status::Active,
        started_at: now,
        period_end: None,
        trial_end: None,
        cancel_at_period_end: false,
        access_until: None,
        throttle_mbps: None,
        lapsed_at: None,
        is_billed: false,
    }
}
