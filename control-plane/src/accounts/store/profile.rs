//! An account with its running subscription and its devices, in one query: a row a device.

use chrono::{DateTime, Utc};
use diesel::QueryableByName;
use diesel::prelude::*;
use diesel::result::Error;
use diesel::sql_types::{Array, Bool, Bytea, Nullable, Text, Timestamptz, Uuid as SqlUuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use shared::ids::UserId;
use uuid::Uuid;

use crate::accounts::profile::{Device, Profile, Subscription};
use crate::accounts::{Email, UnknownRole};
use crate::db::statement;
use crate::guard::LoginPlace;

/// `$1` is what the condition compares with. The path that everybody's application asks for: the text
/// is prepared once a connection, where the query builder would write it at each call.
macro_rules! profile_sql {
    ($more:literal, $join:literal, $condition:literal) => {
        concat!(
            "SELECT u.id, u.email, u.full_name, u.role, u.is_active, u.is_verified, u.created_at,
                    s.plan_id, s.plan_type, s.status, s.start_date, s.end_date, s.auto_renew,
                    d.id AS device_id, d.name AS device_name, d.public_key AS device_key,
                    d.last_connected_at AS device_connected_at, d.created_at AS device_created_at",
            $more,
            " FROM users u
              LEFT JOIN subscriptions s ON s.user_id = u.id AND s.status <> 'canceled'
              LEFT JOIN devices d ON d.user_id = u.id ",
            $join,
            " WHERE u.deleted_at IS NULL AND ",
            $condition,
            " ORDER BY d.id"
        )
    };
}

/// What a login is checked against.
pub(in crate::accounts) struct Credentials {
    pub(in crate::accounts) profile: Profile,
    pub(in crate::accounts) password_hash: String,
    pub(in crate::accounts) has_second_factor: bool,
    places: Vec<Vec<u8>>,
}

impl Credentials {
    /// Whether the account was logged in there.
    pub(in crate::accounts) fn knows(&self, place: LoginPlace) -> bool {
        self.places.iter().any(|known| known == place.as_bytes())
    }
}

pub(in crate::accounts) async fn profile(
    connection: &mut AsyncPgConnection,
    user: UserId,
) -> QueryResult<Option<Profile>> {
    const SQL: &str = profile_sql!("", "", "u.id = $1");
    let rows: Vec<Row> = statement(SQL)
        .bind::<SqlUuid, _>(user.0)
        .load(connection)
        .await?;
    assemble(rows)
}

pub(in crate::accounts) async fn credentials(
    connection: &mut AsyncPgConnection,
    email: &Email,
) -> QueryResult<Option<Credentials>> {
    const SQL: &str = profile_sql!(
        ", u.hashed_password, f.user_id IS NOT NULL AS has_second_factor,
           ARRAY(SELECT place FROM login_places WHERE user_id = u.id) AS places",
        "LEFT JOIN totp_factors f ON f.user_id = u.id AND f.enabled_at IS NOT NULL",
        "lower(u.email) = $1"
    );

    #[derive(QueryableByName)]
    struct Secrets {
        #[diesel(sql_type = Text)]
        hashed_password: String,
        #[diesel(sql_type = Bool)]
        has_second_factor: bool,
        #[diesel(sql_type = Array<Bytea>)]
        places: Vec<Vec<u8>>,
    }

    let rows: Vec<(Row, Secrets)> = statement(SQL)
        .bind::<Text, _>(email.as_str())
        .load(connection)
        .await?;
    let (rows, mut secrets): (Vec<_>, Vec<_>) = rows.into_iter().unzip();
    let secrets = secrets.pop();
    Ok(assemble(rows)?
        .zip(secrets)
        .map(|(profile, secrets)| Credentials {
            profile,
            password_hash: secrets.hashed_password,
            has_second_factor: secrets.has_second_factor,
            places: secrets.places,
        }))
}

#[derive(QueryableByName)]
struct Row {
    #[diesel(sql_type = SqlUuid)]
    id: Uuid,
    #[diesel(sql_type = Text)]
    email: String,
    #[diesel(sql_type = Nullable<Text>)]
    full_name: Option<String>,
    #[diesel(sql_type = Text)]
    role: String,
    #[diesel(sql_type = Bool)]
    is_active: bool,
    #[diesel(sql_type = Bool)]
    is_verified: bool,
    #[diesel(sql_type = Timestamptz)]
    created_at: DateTime<Utc>,
    #[diesel(embed)]
    subscription: SubscriptionColumns,
    #[diesel(embed)]
    device: DeviceColumns,
}

/// All null where there is no running subscription, but for its end.
#[derive(QueryableByName)]
struct SubscriptionColumns {
    #[diesel(sql_type = Nullable<Text>)]
    plan_id: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    plan_type: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    status: Option<String>,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    start_date: Option<DateTime<Utc>>,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    end_date: Option<DateTime<Utc>>,
    #[diesel(sql_type = Nullable<Bool>)]
    auto_renew: Option<bool>,
}

/// All null where there is no device, but for when it connected last.
#[derive(QueryableByName)]
struct DeviceColumns {
    #[diesel(sql_type = Nullable<SqlUuid>)]
    device_id: Option<Uuid>,
    #[diesel(sql_type = Nullable<Text>)]
    device_name: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    device_key: Option<String>,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    device_connected_at: Option<DateTime<Utc>>,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    device_created_at: Option<DateTime<Utc>>,
}

fn assemble(rows: Vec<Row>) -> QueryResult<Option<Profile>> {
    let mut rows = rows.into_iter();
    let Some(first) = rows.next() else {
        return Ok(None);
    };
    let devices = std::iter::once(first.device).chain(rows.map(|row| row.device));
    Ok(Some(Profile {
        id: first.id.into(),
        email: first.email,
        full_name: first.full_name,
        role: first
            .role
            .parse()
            .map_err(|error: UnknownRole| Error::DeserializationError(error.into()))?,
        is_active: first.is_active,
        is_verified: first.is_verified,
        created_at: first.created_at,
        subscription: first.subscription.read(),
        devices: devices.filter_map(DeviceColumns::read).collect(),
    }))
}

impl SubscriptionColumns {
    fn read(self) -> Option<Subscription> {
        Some(Subscription {
            plan: self.plan_id?,
            plan_type: self.plan_type?,
            status: self.status?,
            start_date: self.start_date?,
            end_date: self.end_date,
            auto_renew: self.auto_renew?,
        })
    }
}

impl DeviceColumns {
    fn read(self) -> Option<Device> {
        Some(Device {
            id: self.device_id?.into(),
            name: self.device_name?,
            public_key: self.device_key?,
            last_connected_at: self.device_connected_at,
            created_at: self.device_created_at?,
        })
    }
}
