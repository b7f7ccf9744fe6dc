//! Servers as their operator reads and changes them.
//!
//! A change locks the node's row before the server's, as everything does that touches both.

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel::result::{DatabaseErrorKind, Error};
use diesel::sql_types::{Double, Nullable};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use ipnet::IpNet;
use serde_json::{Map, Value, json};
use shared::ids::{Revision, ServerId};
use uuid::Uuid;

use super::catalogue::{seconds, unsigned};
use super::enrolment::{Enrolled, Place};
use crate::db::schema::{enrolment_tokens, nodes, vpn_servers};
use crate::error::{ApiError, Code};
use crate::fleet::admin::{Host, Managed, ManagedNode};
use crate::fleet::desired::Fence;
use crate::fleet::view::ServerStatus;

/// Which servers are asked for: all that is given has to hold.
#[derive(Debug, Clone, Default)]
pub(in crate::fleet) struct ServerFilter {
    pub(in crate::fleet) status: Option<ServerStatus>,
    pub(in crate::fleet) hostname: Option<String>,
}

#[derive(Queryable, Selectable)]
#[diesel(table_name = vpn_servers, check_for_backend(diesel::pg::Pg))]
struct ServerRow {
    id: Uuid,
    hostname: String,
    country: String,
    country_code: String,
    city: String,
    location: String,
    ip_address: Option<IpNet>,
    endpoint: Option<String>,
    public_key: Option<String>,
    status: String,
    tier: i16,
    current_load: f64,
    ping: i32,
    available_ips: Option<IpNet>,
    available_ips_v6: Option<IpNet>,
    capacity: i32,
    download_mbps: i32,
    upload_mbps: i32,
    protocols: Vec<String>,
    streaming_services: Vec<String>,
    features: Vec<String>,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

#[derive(Queryable, Selectable)]
#[diesel(table_name = nodes, check_for_backend(diesel::pg::Pg))]
struct NodeRow {
    session_replica: Option<Uuid>,
    agent_version: Option<String>,
    backend: Option<String>,
    protocol: Option<i16>,
    desired_revision: i64,
    applied_revision: i64,
    state_hash: Option<String>,
    draining: bool,
    drain_requested_at: Option<DateTime<Utc>>,
    rotate_key_at: Option<DateTime<Utc>>,
    next_public_key: Option<String>,
    peers: i32,
    pool_used: i32,
    last_load: Option<Value>,
}

type Row = (ServerRow, Option<NodeRow>, Option<f64>);

/// Seconds since the node's last sign of life, by the database's clock.
fn age() -> diesel::expression::SqlLiteral<Nullable<Double>> {
    diesel::dsl::sql("EXTRACT(EPOCH FROM now() - nodes.last_seen_at)::float8")
}

pub(in crate::fleet) async fn managed(
    conn: &mut AsyncPgConnection,
    server: ServerId,
) -> QueryResult<Option<Managed>> {
    let row: Option<Row> = vpn_servers::table
        .left_join(nodes::table)
        .filter(vpn_servers::id.eq(server.0))
        .select((
            ServerRow::as_select(),
            Option::<NodeRow>::as_select(),
            age(),
        ))
        .first(conn)
        .await
        .optional()?;
    Ok(row.map(from_row))
}

/// The same, held until the transaction ends.
pub(in crate::fleet) async fn lock_server(
    conn: &mut AsyncPgConnection,
    server: ServerId,
) -> QueryResult<Option<Managed>> {
    let _node: Option<Uuid> = nodes::table
        .find(server.0)
        .select(nodes::server_id)
        .for_no_key_update()
        .first(conn)
        .await
        .optional()?;
    let _server: Option<Uuid> = vpn_servers::table
        .find(server.0)
        .select(vpn_servers::id)
        .for_no_key_update()
        .first(conn)
        .await
        .optional()?;
    managed(conn, server).await
}

pub(in crate::fleet) async fn managed_page(
    conn: &mut AsyncPgConnection,
    filter: &ServerFilter,
    (offset, limit): (i64, i64),
) -> QueryResult<(Vec<Managed>, u64)> {
    let total: i64 = matching(filter).count().get_result(conn).await?;
    let ids = matching(filter).select(vpn_servers::id);
    let rows: Vec<Row> = vpn_servers::table
        .left_join(nodes::table)
        .filter(vpn_servers::id.eq_any(ids))
        .order(vpn_servers::hostname)
        .offset(offset)
        .limit(limit)
        .select((
            ServerRow::as_select(),
            Option::<NodeRow>::as_select(),
            age(),
        ))
        .load(conn)
        .await?;
    let total = u64::try_from(total).unwrap_or_default();
    Ok((rows.into_iter().map(from_row).collect(), total))
}

fn matching(filter: &ServerFilter) -> vpn_servers::BoxedQuery<'_, diesel::pg::Pg> {
    let mut query = vpn_servers::table.into_boxed();
    if let Some(status) = filter.status {
        query = query.filter(vpn_servers::status.eq(status.as_str()));
    }
    if let Some(hostname) = &filter.hostname {
        query = query.filter(vpn_servers::hostname.eq(hostname.to_lowercase()));
    }
    query
}

pub(in crate::fleet) async fn server_named(
    conn: &mut AsyncPgConnection,
    hostname: &str,
) -> QueryResult<Option<ServerId>> {
    let id: Option<Uuid> = vpn_servers::table
        .filter(vpn_servers::hostname.eq(hostname.to_lowercase()))
        .select(vpn_servers::id)
        .first(conn)
        .await
        .optional()?;
    Ok(id.map(ServerId))
}

/// A server that no host has enrolled for yet.
#[derive(Debug, Clone, Insertable)]
#[diesel(table_name = vpn_servers)]
pub(in crate::fleet) struct NewServer {
    #[diesel(embed)]
    pub(in crate::fleet) place: ServerPlace,
    pub(in crate::fleet) status: &'static str,
    pub(in crate::fleet) download_mbps: i32,
    pub(in crate::fleet) upload_mbps: i32,
    pub(in crate::fleet) protocols: Vec<String>,
    pub(in crate::fleet) streaming_services: Vec<String>,
    pub(in crate::fleet) features: Vec<String>,
}

/// [`Place`] as columns of a server.
#[derive(Debug, Clone, Insertable)]
#[diesel(table_name = vpn_servers)]
pub(in crate::fleet) struct ServerPlace {
    hostname: String,
    country: String,
    country_code: String,
    city: String,
    location: String,
    tier: i16,
}

impl From<Place> for ServerPlace {
    fn from(place: Place) -> Self {
        Self {
            hostname: place.hostname,
            country: place.country,
            country_code: place.country_code,
            city: place.city,
            location: place.location,
            tier: place.tier,
        }
    }
}

impl NewServer {
    /// For the record.
    pub(in crate::fleet) fn described(&self) -> Value {
        let place = &self.place;
        json!({
            "hostname": place.hostname, "country_code": place.country_code, "city": place.city,
            "location": place.location, "tier": place.tier, "status": self.status,
        })
    }
}

/// For the record.
pub(in crate::fleet) fn described(server: &Managed) -> Value {
    json!({
        "hostname": server.hostname, "country_code": server.country_code, "city": server.city,
        "location": server.location, "tier": server.tier, "status": server.status.as_str(),
    })
}

pub(in crate::fleet) async fn insert_server(
    conn: &mut AsyncPgConnection,
    server: ServerId,
    new: &NewServer,
) -> Result<(), ApiError> {
    diesel::insert_into(vpn_servers::table)
        .values((vpn_servers::id.eq(server.0), new.clone()))
        .execute(conn)
        .await
        .map_err(taken)?;
    diesel::insert_into(nodes::table)
        .values(nodes::server_id.eq(server.0))
        .execute(conn)
        .await?;
    Ok(())
}

/// What of a server is to be different; the rest stays.
#[derive(Debug, Clone, Default, AsChangeset)]
#[diesel(table_name = vpn_servers)]
pub(in crate::fleet) struct Edit {
    pub(in crate::fleet) hostname: Option<String>,
    pub(in crate::fleet) country: Option<String>,
    pub(in crate::fleet) country_code: Option<String>,
    pub(in crate::fleet) city: Option<String>,
    pub(in crate::fleet) location: Option<String>,
    pub(in crate::fleet) tier: Option<i16>,
    pub(in crate::fleet) download_mbps: Option<i32>,
    pub(in crate::fleet) upload_mbps: Option<i32>,
    pub(in crate::fleet) protocols: Option<Vec<String>>,
    pub(in crate::fleet) streaming_services: Option<Vec<String>>,
    pub(in crate::fleet) features: Option<Vec<String>>,
}

impl Edit {
    /// What the server has of the fields that change, and what it will have; none where nothing does.
    pub(in crate::fleet) fn difference(&self, server: &Managed) -> Option<(Value, Value)> {
        let (mut before, mut after) = (Map::new(), Map::new());
        macro_rules! compare {
            ($($field:ident)*) => {$(
                if let Some(wanted) = &self.$field
                    && *wanted != server.$field
                {
                    let name = stringify!($field);
                    before.insert(name.to_owned(), json!(server.$field));
                    after.insert(name.to_owned(), json!(wanted));
                }
            )*};
        }
        compare! {
            hostname country country_code city location tier download_mbps upload_mbps
            protocols streaming_services features
        }
        (!after.is_empty()).then(|| (before.into(), after.into()))
    }
}

/// Changes a server. Another name makes what was to enrol under the old one void.
pub(in crate::fleet) async fn edit(
    conn: &mut AsyncPgConnection,
    server: &Managed,
    edit: &Edit,
) -> Result<(), ApiError> {
    diesel::update(vpn_servers::table.find(server.id.0))
        .set((edit, vpn_servers::updated_at.eq(diesel::dsl::now)))
        .execute(conn)
        .await
        .map_err(taken)?;
    if edit
        .hostname
        .as_ref()
        .is_some_and(|name| *name != server.hostname)
    {
        diesel::delete(enrolment_tokens::table)
            .filter(enrolment_tokens::hostname.eq(&server.hostname))
            .filter(enrolment_tokens::used_at.is_null())
            .execute(conn)
            .await?;
    }
    Ok(())
}

fn taken(error: Error) -> ApiError {
    match error {
        Error::DatabaseError(DatabaseErrorKind::UniqueViolation, _) => {
            ApiError::new(Code::HostnameTaken).with_source(error)
        }
        error => error.into(),
    }
}

pub(in crate::fleet) async fn set_status(
    conn: &mut AsyncPgConnection,
    server: ServerId,
    status: ServerStatus,
) -> QueryResult<()> {
    diesel::update(vpn_servers::table.find(server.0))
        .set((
            vpn_servers::status.eq(status.as_str()),
            vpn_servers::updated_at.eq(diesel::dsl::now),
        ))
        .execute(conn)
        .await
        .map(drop)
}

pub(in crate::fleet) async fn set_drain(
    conn: &mut AsyncPgConnection,
    server: ServerId,
    requested_at: Option<DateTime<Utc>>,
) -> QueryResult<()> {
    diesel::update(nodes::table.find(server.0))
        .set(nodes::drain_requested_at.eq(requested_at))
        .execute(conn)
        .await
        .map(drop)
}

/// Plans the change of the key, or no change. The node answers with the key that belongs to the plan.
pub(in crate::fleet) async fn set_rotation(
    conn: &mut AsyncPgConnection,
    server: ServerId,
    at: Option<DateTime<Utc>>,
) -> QueryResult<()> {
    diesel::update(nodes::table.find(server.0))
        .set((
            nodes::rotate_key_at.eq(at),
            nodes::next_public_key.eq(None::<String>),
        ))
        .execute(conn)
        .await
        .map(drop)
}

/// Makes the node's tokens worth nothing, and its session's writes with them.
pub(in crate::fleet) async fn revoke(
    conn: &mut AsyncPgConnection,
    server: ServerId,
) -> QueryResult<Enrolled> {
    let (epoch, fence): (i32, i64) = diesel::update(nodes::table.find(server.0))
        .set((
            nodes::token_epoch.eq(nodes::token_epoch + 1),
            nodes::session_fence.eq(nodes::session_fence + 1),
            nodes::session_replica.eq(None::<Uuid>),
        ))
        .returning((nodes::token_epoch, nodes::session_fence))
        .get_result(conn)
        .await?;
    Ok(Enrolled {
        server,
        epoch,
        fence: Fence(fence),
    })
}

/// Takes the server out of the catalogue, its node and its enrolments with it.
pub(in crate::fleet) async fn delete_server(
    conn: &mut AsyncPgConnection,
    server: ServerId,
) -> QueryResult<()> {
    diesel::delete(vpn_servers::table.find(server.0))
        .execute(conn)
        .await
        .map(drop)
}

fn from_row((server, node, age): Row) -> Managed {
    let host = host(&server);
    let last_seen = age.map(|age| Utc::now() - seconds(age));
    Managed {
        id: ServerId(server.id),
        hostname: server.hostname,
        country: server.country,
        country_code: server.country_code,
        city: server.city,
        location: server.location,
        status: ServerStatus::parse(&server.status),
        tier: server.tier,
        load: server.current_load,
        ping: unsigned(server.ping),
        download_mbps: server.download_mbps,
        upload_mbps: server.upload_mbps,
        protocols: server.protocols,
        streaming_services: server.streaming_services,
        features: server.features,
        created_at: server.created_at,
        updated_at: server.updated_at,
        host,
        node: node.map(|node| node.into_node(last_seen)),
    }
}

fn host(server: &ServerRow) -> Option<Host> {
    Some(Host {
        ip_address: server.ip_address?.addr(),
        endpoint: server.endpoint.clone()?,
        public_key: server.public_key.clone()?,
        subnet: server.available_ips?,
        subnet_v6: server.available_ips_v6,
        capacity: unsigned(server.capacity),
    })
}

impl NodeRow {
    fn into_node(self, last_seen: Option<DateTime<Utc>>) -> ManagedNode {
        let revision = |number: i64| Revision(u64::try_from(number).unwrap_or_default());
        ManagedNode {
            replica: self.session_replica,
            last_seen,
            agent_version: self.agent_version,
            backend: self.backend,
            protocol: self.protocol,
            desired_revision: revision(self.desired_revision),
            applied_revision: revision(self.applied_revision),
            state_hash: self.state_hash,
            draining: self.draining,
            drain_requested_at: self.drain_requested_at,
            rotate_key_at: self.rotate_key_at,
            next_public_key: self.next_public_key,
            peers: unsigned(self.peers),
            pool_used: unsigned(self.pool_used),
            // One of another version may not be readable, and the next report is a second away.
            report: self
                .last_load
                .and_then(|load| serde_json::from_value(load).ok()),
        }
    }
}

impl Managed {
    /// Where it stands, for a token that enrols its host.
    pub(in crate::fleet) fn place(self) -> Place {
        Place {
            hostname: self.hostname,
            country: self.country,
            country_code: self.country_code,
            city: self.city,
            location: self.location,
            tier: self.tier,
        }
    }
}
