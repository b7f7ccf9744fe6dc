//! Enrolment tokens, and the servers that they become.

use std::net::IpAddr;

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Integer};
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl};
use ipnet::IpNet;
use shared::ids::ServerId;
use shared::protocol::enrolment::EnrolRequest;
use uuid::Uuid;

use super::leases::count;
use crate::db::schema::{enrolment_tokens, vpn_servers};
use crate::db::{Pool, statement};
use crate::error::ApiError;
use crate::fleet::desired::Fence;

/// Where a server stands, as the operator says when making the token.
#[derive(Debug, Clone, PartialEq, Eq, Insertable, Queryable, Selectable)]
#[diesel(table_name = enrolment_tokens)]
pub(in crate::fleet) struct Place {
    pub(in crate::fleet) hostname: String,
    pub(in crate::fleet) country: String,
    pub(in crate::fleet) country_code: String,
    pub(in crate::fleet) city: String,
    pub(in crate::fleet) location: String,
    pub(in crate::fleet) tier: i16,
}

pub(in crate::fleet) async fn insert_token(
    conn: &mut AsyncPgConnection,
    id: Uuid,
    place: &Place,
    expires_at: DateTime<Utc>,
) -> QueryResult<()> {
    diesel::insert_into(enrolment_tokens::table)
        .values((
            enrolment_tokens::id.eq(id),
            enrolment_tokens::expires_at.eq(expires_at),
            place,
        ))
        .execute(conn)
        .await
        .map(drop)
}

/// What became of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::fleet) enum Redemption {
    Enrolled(Enrolled),
    /// No such token: its database is another one, or it was taken back.
    Unknown,
    Used,
    Expired,
    /// The token is for another host. It stays unused.
    OtherHost,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::fleet) struct Enrolled {
    pub(in crate::fleet) server: ServerId,
    /// Tokens of this epoch are good, all earlier ones are not.
    pub(in crate::fleet) epoch: i32,
    /// Sessions before this one are over.
    pub(in crate::fleet) fence: Fence,
}

/// Spends the token and makes the server and its node, or takes an existing one over, all or
/// nothing.
pub(in crate::fleet) async fn redeem(
    db: &Pool,
    token: Uuid,
    request: &EnrolRequest,
    address: IpAddr,
) -> Result<Redemption, ApiError> {
    let mut conn = db.get().await?;
    let redeemed = conn
        .transaction::<_, Refused, _>(async |conn| {
            let place = spend(conn, token).await?;
            if !place.hostname.eq_ignore_ascii_case(&request.hostname) {
                return Err(Refused::Because(Redemption::OtherHost));
            }
            let server = upsert_server(conn, &place, request, address).await?;
            let enrolled = upsert_node(conn, server).await?;
            diesel::update(enrolment_tokens::table.find(token))
                .set(enrolment_tokens::server_id.eq(server))
                .execute(conn)
                .await?;
            Ok(Redemption::Enrolled(enrolled))
        })
        .await;
    match redeemed {
        Ok(redemption) | Err(Refused::Because(redemption)) => Ok(redemption),
        Err(Refused::Database(error)) => Err(error.into()),
    }
}

/// Rolls the transaction back.
enum Refused {
    Because(Redemption),
    Database(diesel::result::Error),
}

impl From<diesel::result::Error> for Refused {
    fn from(error: diesel::result::Error) -> Self {
        Self::Database(error)
    }
}

async fn spend(conn: &mut AsyncPgConnection, token: Uuid) -> Result<Place, Refused> {
    let spent = diesel::update(enrolment_tokens::table.find(token))
        .filter(enrolment_tokens::used_at.is_null())
        .filter(enrolment_tokens::expires_at.gt(diesel::dsl::now))
        .set(enrolment_tokens::used_at.eq(diesel::dsl::now))
        .returning(Place::as_returning())
        .get_result(conn)
        .await
        .optional()?;
    if let Some(place) = spent {
        return Ok(place);
    }
    let used_at: Option<Option<DateTime<Utc>>> = enrolment_tokens::table
        .find(token)
        .select(enrolment_tokens::used_at)
        .first(conn)
        .await
        .optional()?;
    Err(Refused::Because(match used_at {
        None => Redemption::Unknown,
        Some(Some(_)) => Redemption::Used,
        Some(None) => Redemption::Expired,
    }))
}

async fn upsert_server(
    conn: &mut AsyncPgConnection,
    place: &Place,
    request: &EnrolRequest,
    address: IpAddr,
) -> QueryResult<Uuid> {
    #[derive(Insertable, AsChangeset)]
    #[diesel(table_name = vpn_servers, treat_none_as_null = true)]
    struct Row<'a> {
        country: &'a str,
        country_code: &'a str,
        city: &'a str,
        location: &'a str,
        tier: i16,
        ip_address: IpNet,
        endpoint: &'a str,
        public_key: String,
        available_ips: IpNet,
        available_ips_v6: Option<IpNet>,
        capacity: i32,
    }
    let row = Row {
        country: &place.country,
        country_code: &place.country_code,
        city: &place.city,
        location: &place.location,
        tier: place.tier,
        ip_address: address.into(),
        endpoint: &request.endpoint,
        public_key: request.public_key.to_base64(),
        available_ips: request.subnet.trunc().into(),
        available_ips_v6: request.subnet_v6.map(|subnet| subnet.trunc().into()),
        capacity: count(request.capacity),
    };
    diesel::insert_into(vpn_servers::table)
        .values((
            vpn_servers::id.eq(ServerId::generate().0),
            vpn_servers::hostname.eq(&place.hostname),
            &row,
        ))
        .on_conflict(vpn_servers::hostname)
        .do_update()
        .set((&row, vpn_servers::updated_at.eq(diesel::dsl::now)))
        .returning(vpn_servers::id)
        .get_result(conn)
        .await
}

const UPSERT_NODE: &str = "
    INSERT INTO nodes AS node (server_id) VALUES ($1)
    ON CONFLICT (server_id) DO UPDATE SET
        token_epoch = node.token_epoch + 1, session_fence = node.session_fence + 1,
        session_replica = NULL, rotate_key_at = NULL, next_public_key = NULL
    RETURNING token_epoch, session_fence";

async fn upsert_node(conn: &mut AsyncPgConnection, server: Uuid) -> QueryResult<Enrolled> {
    #[derive(QueryableByName)]
    struct Row {
        #[diesel(sql_type = Integer)]
        token_epoch: i32,
        #[diesel(sql_type = BigInt)]
        session_fence: i64,
    }
    let row: Row = statement(UPSERT_NODE)
        .bind::<diesel::sql_types::Uuid, _>(server)
        .get_result(conn)
        .await?;
    Ok(Enrolled {
        server: ServerId(server),
        epoch: row.token_epoch,
        fence: Fence(row.session_fence),
    })
}
