//! The queries about plans.

use diesel::prelude::*;
use diesel::result::{DatabaseErrorKind, Error};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use uuid::Uuid;

use super::plan::{Period, Plan, Terms};
use crate::billing::money::Money;
use crate::db::schema::plans;

#[derive(Queryable, Selectable)]
#[diesel(table_name = plans, check_for_backend(diesel::pg::Pg))]
struct Row {
    id: String,
    name: String,
    plan_type: String,
    price_minor: i64,
    currency: String,
    features: Vec<String>,
    streaming_support: bool,
    max_devices: i32,
    max_connections: i32,
    tier: i16,
    download_mbps: Option<i32>,
    upload_mbps: Option<i32>,
    quota_bytes: Option<i64>,
    is_offered: bool,
    sealed_price: Option<Vec<u8>>,
    trial_days: i32,
}

impl TryFrom<Row> for Plan {
    type Error = Error;

    fn try_from(row: Row) -> QueryResult<Self> {
        let corrupt = |what: &'static str| Error::DeserializationError(what.into());
        let currency = row.currency.parse().map_err(|_| corrupt("a currency"))?;
        Ok(Self {
            id: row.id,
            period: Period::parse(&row.plan_type).ok_or_else(|| corrupt("a plan's type"))?,
            terms: Terms {
                name: row.name,
                price: Money {
                    minor: row.price_minor,
                    currency,
                },
                features: row.features,
                streaming_support: row.streaming_support,
                max_devices: row.max_devices,
                max_connections: row.max_connections,
                tier: row.tier,
                download_mbps: row.download_mbps,
                upload_mbps: row.upload_mbps,
                quota_bytes: row.quota_bytes,
                trial_days: row.trial_days,
                is_offered: row.is_offered,
            },
            has_price: row.sealed_price.is_some(),
        })
    }
}

/// What can be had, the cheapest first.
pub async fn offered(connection: &mut AsyncPgConnection) -> QueryResult<Vec<Plan>> {
    let rows: Vec<Row> = plans::table
        .filter(plans::is_offered)
        .order((plans::price_minor, plans::id))
        .select(Row::as_select())
        .load(connection)
        .await?;
    rows.into_iter().map(TryInto::try_into).collect()
}

/// None where there is no such plan; withdrawn ones are there.
pub async fn by_id(connection: &mut AsyncPgConnection, id: &str) -> QueryResult<Option<Plan>> {
    let row: Option<Row> = plans::table
        .find(id)
        .select(Row::as_select())
        .first(connection)
        .await
        .optional()?;
    row.map(TryInto::try_into).transpose()
}

/// One page of all plans by id, and how many there are.
pub(super) async fn page(
    connection: &mut AsyncPgConnection,
    (offset, limit): (i64, i64),
) -> QueryResult<(Vec<Plan>, u64)> {
    let total: i64 = plans::table.count().get_result(connection).await?;
    let rows: Vec<Row> = plans::table
        .order(plans::id)
        .offset(offset)
        .limit(limit)
        .select(Row::as_select())
        .load(connection)
        .await?;
    let rows: QueryResult<_> = rows.into_iter().map(TryInto::try_into).collect();
    Ok((rows?, u64::try_from(total).unwrap_or_default()))
}

/// The plan with what its price is bound to, held until the transaction ends.
pub(super) async fn lock(
    connection: &mut AsyncPgConnection,
    id: &str,
) -> QueryResult<Option<(Plan, Uuid)>> {
    let row: Option<(Row, Uuid)> = plans::table
        .find(id)
        .select((Row::as_select(), plans::seal_row))
        .for_no_key_update()
        .first(connection)
        .await
        .optional()?;
    row.map(|(row, seal_row)| Ok((row.try_into()?, seal_row)))
        .transpose()
}

/// False where the id is taken.
pub(super) async fn insert(
    connection: &mut AsyncPgConnection,
    plan: &Plan,
    (seal_row, sealed_price): (Uuid, Option<&[u8]>),
) -> QueryResult<bool> {
    let inserted = diesel::insert_into(plans::table)
        .values((
            plans::id.eq(&plan.id),
            plans::plan_type.eq(plan.period.as_str()),
            plans::seal_row.eq(seal_row),
            plans::sealed_price.eq(sealed_price),
            changed(&plan.terms),
        ))
        .execute(connection)
        .await;
    match inserted {
        Err(Error::DatabaseError(DatabaseErrorKind::UniqueViolation, _)) => Ok(false),
        inserted => inserted.map(|rows| rows == 1),
    }
}

/// `sealed_price` is written where it is given, a null one too.
pub(super) async fn update(
    connection: &mut AsyncPgConnection,
    plan: &Plan,
    sealed_price: Option<Option<&[u8]>>,
) -> QueryResult<()> {
    diesel::update(plans::table.find(&plan.id))
        .set((
            changed(&plan.terms),
            sealed_price.map(|sealed| plans::sealed_price.eq(sealed)),
            plans::updated_at.eq(diesel::dsl::now),
        ))
        .execute(connection)
        .await
        .map(drop)
}

#[derive(Insertable, AsChangeset)]
#[diesel(table_name = plans, treat_none_as_null = true)]
struct Changed<'a> {
    name: &'a str,
    price_minor: i64,
    currency: String,
    features: &'a [String],
    streaming_support: bool,
    max_devices: i32,
    max_connections: i32,
    tier: i16,
    download_mbps: Option<i32>,
    upload_mbps: Option<i32>,
    quota_bytes: Option<i64>,
    is_offered: bool,
    trial_days: i32,
}

fn changed(terms: &Terms) -> Changed<'_> {
    Changed {
        name: &terms.name,
        price_minor: terms.price.minor,
        currency: terms.price.currency.to_string(),
        features: &terms.features,
        streaming_support: terms.streaming_support,
        max_devices: terms.max_devices,
        max_connections: terms.max_connections,
        tier: terms.tier,
        download_mbps: terms.download_mbps,
        upload_mbps: terms.upload_mbps,
        quota_bytes: terms.quota_bytes,
        is_offered: terms.is_offered,
        trial_days: terms.trial_days,
    }
}
