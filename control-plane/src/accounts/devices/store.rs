//! The queries about devices.

use diesel::dsl::count_star;
use diesel::prelude::*;
use diesel::result::Error;
use diesel::sql_types::{BigInt, Bool, Integer, Text, Uuid as SqlUuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use shared::ids::{DeviceId, UserId};
use shared::wireguard::{KeyError, PublicKey};

use crate::accounts::Device;
use crate::accounts::store::DeviceRow;
use crate::db::schema::devices;
use crate::db::statement;

/// One page of a person's devices, the oldest first, and how many there are.
pub(super) async fn list(
    connection: &mut AsyncPgConnection,
    user: UserId,
    (offset, limit): (i64, i64),
) -> QueryResult<(Vec<Device>, u64)> {
    let own = devices::table.filter(devices::user_id.eq(user.0));
    let total: i64 = own.select(count_star()).first(connection).await?;
    let rows: Vec<DeviceRow> = own
        .order(devices::id)
        .offset(offset)
        .limit(limit)
        .select(DeviceRow::as_select())
        .load(connection)
        .await?;
    let total = u64::try_from(total).unwrap_or_default();
    Ok((rows.into_iter().map(Device::from).collect(), total))
}

/// Holds the person's row until the transaction ends: whether the account is active and how many
/// devices its plan allows. Whose paid time is over has the free plan's number.
pub(super) async fn lock(
    connection: &mut AsyncPgConnection,
    user: UserId,
) -> QueryResult<Option<(bool, i32)>> {
    const SQL: &str = "
        SELECT u.is_active, e.max_devices
          FROM users u JOIN entitlements e ON e.user_id = u.id
         WHERE u.id = $1 AND u.deleted_at IS NULL
           FOR NO KEY UPDATE OF u";

    #[derive(QueryableByName)]
    struct Row {
        #[diesel(sql_type = Bool)]
        is_active: bool,
        #[diesel(sql_type = Integer)]
        max_devices: i32,
    }

    let row: Option<Row> = statement(SQL)
        .bind::<SqlUuid, _>(user.0)
        .get_result(connection)
        .await
        .optional()?;
    Ok(row.map(|row| (row.is_active, row.max_devices)))
}

/// How many devices the person has, and whether one of them has this key.
pub(super) async fn count(
    connection: &mut AsyncPgConnection,
    user: UserId,
    key: &str,
) -> QueryResult<(i64, bool)> {
    const SQL: &str = "
        SELECT count(*) AS devices, coalesce(bool_or(public_key = $2), false) AS has_key
          FROM devices WHERE user_id = $1";

    #[derive(QueryableByName)]
    struct Row {
        #[diesel(sql_type = BigInt)]
        devices: i64,
        #[diesel(sql_type = Bool)]
        has_key: bool,
    }

    let row: Row = statement(SQL)
        .bind::<SqlUuid, _>(user.0)
        .bind::<Text, _>(key)
        .get_result(connection)
        .await?;
    Ok((row.devices, row.has_key))
}

pub(super) async fn insert(
    connection: &mut AsyncPgConnection,
    user: UserId,
    device: &Device,
) -> QueryResult<()> {
    diesel::insert_into(devices::table)
        .values((
            devices::id.eq(device.id.0),
            devices::user_id.eq(user.0),
            devices::name.eq(&device.name),
            devices::public_key.eq(&device.public_key),
            devices::created_at.eq(device.created_at),
        ))
        .execute(connection)
        .await
        .map(drop)
}

/// The key of the device, if it is this person's.
pub(super) async fn key(
    connection: &mut AsyncPgConnection,
    user: UserId,
    device: DeviceId,
) -> QueryResult<Option<PublicKey>> {
    let key: Option<String> = devices::table
        .find(device.0)
        .filter(devices::user_id.eq(user.0))
        .select(devices::public_key)
        .first(connection)
        .await
        .optional()?;
    key.map(|key| key.parse())
        .transpose()
        .map_err(|error: KeyError| Error::DeserializationError(error.into()))
}

/// Whether it was there and this person's.
pub(super) async fn delete(
    connection: &mut AsyncPgConnection,
    user: UserId,
    device: DeviceId,
) -> QueryResult<bool> {
    diesel::delete(devices::table.find(device.0))
        .filter(devices::user_id.eq(user.0))
        .execute(connection)
        .await
        .map(|deleted| deleted == 1)
}
