//! The one query that every view is made from.

use chrono::{Duration, Utc};
use diesel::prelude::*;
use diesel::sql_types::{Double, Nullable};
use diesel_async::RunQueryDsl;
use ipnet::IpNet;
use shared::ids::ServerId;
use uuid::Uuid;

use crate::db::Pool;
use crate::db::schema::{nodes, vpn_servers};
use crate::error::ApiError;
use crate::fleet::view::{Live, Profile, ServerStatus};

/// Every server with its stored figures, by hostname.
pub(in crate::fleet) async fn read_fleet(db: &Pool) -> Result<Vec<(Profile, Live)>, ApiError> {
    // The age is measured by one clock, the database's.
    let age = diesel::dsl::sql::<Nullable<Double>>(
        "EXTRACT(EPOCH FROM now() - nodes.last_seen_at)::float8",
    );
    let mut conn = db.get().await?;
    let rows: Vec<(ServerRow, Option<NodeRow>, Option<f64>)> = vpn_servers::table
        .left_join(nodes::table)
        .select((ServerRow::as_select(), Option::<NodeRow>::as_select(), age))
        .order(vpn_servers::hostname)
        .load(&mut conn)
        .await?;
    let now = Utc::now();
    let read = rows.into_iter().filter_map(|(server, node, age)| {
        let id = server.id;
        let live = live(&server, node, age.map(|age| now - seconds(age)));
        let profile = server.into_profile();
        if profile.is_none() {
            tracing::error!(server = %id, "fleet.view.unreadable_server");
        }
        profile.map(|profile| (profile, live))
    });
    Ok(read.collect())
}

#[derive(Debug, Queryable, Selectable)]
#[diesel(table_name = vpn_servers)]
struct ServerRow {
    id: Uuid,
    hostname: String,
    country: String,
    country_code: String,
    city: String,
    location: String,
    ip_address: IpNet,
    endpoint: String,
    public_key: String,
    status: String,
    tier: i16,
    current_load: f64,
    ping: i32,
    available_ips: IpNet,
    available_ips_v6: Option<IpNet>,
    capacity: i32,
    download_mbps: i32,
    upload_mbps: i32,
    protocols: Vec<String>,
    streaming_services: Vec<String>,
    features: Vec<String>,
}

#[derive(Debug, Queryable, Selectable)]
#[diesel(table_name = nodes)]
struct NodeRow {
    session_replica: Option<Uuid>,
    draining: bool,
    peers: i32,
    pool_used: i32,
    protocol: Option<i16>,
}

impl ServerRow {
    /// None when the row holds a key that nobody can handshake with.
    fn into_profile(self) -> Option<Profile> {
        Some(Profile {
            id: ServerId(self.id),
            hostname: self.hostname,
            country: self.country,
            country_code: self.country_code,
            city: self.city,
            location: self.location,
            ip_address: self.ip_address.addr(),
            endpoint: self.endpoint,
            public_key: self.public_key.parse().ok()?,
            status: ServerStatus::parse(&self.status),
            tier: self.tier,
            subnet: self.available_ips,
            subnet_v6: self.available_ips_v6,
            capacity: unsigned(self.capacity),
            download_mbps: unsigned(self.download_mbps),
            upload_mbps: unsigned(self.upload_mbps),
            protocols: self.protocols,
            streaming_services: self.streaming_services,
            features: self.features,
        })
    }
}

fn live(
    server: &ServerRow,
    node: Option<NodeRow>,
    last_seen: Option<chrono::DateTime<Utc>>,
) -> Live {
    let figures = Live {
        load: server.current_load,
        ping: unsigned(server.ping),
        last_seen,
        ..Live::default()
    };
    match node {
        Some(node) => Live {
            peers: unsigned(node.peers),
            pool_used: unsigned(node.pool_used),
            draining: node.draining,
            protocol: node.protocol.and_then(|it| it.try_into().ok()).unwrap_or(0),
            replica: node.session_replica,
            ..figures
        },
        None => figures,
    }
}

/// The schema holds these to zero and above.
fn unsigned(number: i32) -> u32 {
    u32::try_from(number).unwrap_or(0)
}

fn seconds(age: f64) -> Duration {
    std::time::Duration::try_from_secs_f64(age.max(0.0))
        .ok()
        .and_then(|age| Duration::from_std(age).ok())
        .unwrap_or(Duration::MAX)
}
