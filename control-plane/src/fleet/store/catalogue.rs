//! The one query that every view is made from.

use chrono::{DateTime, Duration, Utc};
use diesel::prelude::*;
use diesel::sql_types::{Double, Nullable};
use diesel_async::RunQueryDsl;
use ipnet::IpNet;
use shared::ids::ServerId;
use shared::protocol::NextKey;
use uuid::Uuid;

use crate::db::Pool;
use crate::db::schema::{nodes, vpn_servers};
use crate::error::ApiError;
use crate::fleet::view::{Live, Profile, ServerStatus};

/// Every server that has enrolled with its stored figures, by hostname.
pub(in crate::fleet) async fn read_fleet(db: &Pool) -> Result<Vec<(Profile, Live)>, ApiError> {
    // The age is measured by one clock, the database's.
    let age = diesel::dsl::sql::<Nullable<Double>>(
        "EXTRACT(EPOCH FROM now() - nodes.last_seen_at)::float8",
    );
    let mut conn = db.get().await?;
    let rows: Vec<(ServerRow, Option<NodeRow>, Option<f64>)> = vpn_servers::table
        .left_join(nodes::table)
        .filter(vpn_servers::public_key.is_not_null())
        .select((ServerRow::as_select(), Option::<NodeRow>::as_select(), age))
        .order(vpn_servers::hostname)
        .load(&mut conn)
        .await?;
    let now = Utc::now();
    let read = rows.into_iter().filter_map(|(server, node, age)| {
        let id = server.id;
        let word = Word::of(node.as_ref());
        let live = live(&server, node, age.map(|age| now - seconds(age)));
        let profile = server.into_profile(word);
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
    #[diesel(select_expression = vpn_servers::ip_address.assume_not_null())]
    ip_address: IpNet,
    #[diesel(select_expression = vpn_servers::endpoint.assume_not_null())]
    endpoint: String,
    #[diesel(select_expression = vpn_servers::public_key.assume_not_null())]
    public_key: String,
    status: String,
    tier: i16,
    current_load: f64,
    ping: i32,
    #[diesel(select_expression = vpn_servers::available_ips.assume_not_null())]
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
    drain_requested_at: Option<DateTime<Utc>>,
    rotate_key_at: Option<DateTime<Utc>>,
    next_public_key: Option<String>,
    protocol: Option<i16>,
}

/// The operator's word on the node.
struct Word {
    is_drained: bool,
    next_key: Option<NextKey>,
}

impl Word {
    fn of(node: Option<&NodeRow>) -> Self {
        let next_key = node.and_then(|node| {
            Some(NextKey {
                public_key: node.next_public_key.as_ref()?.parse().ok()?,
                at: node.rotate_key_at?,
            })
        });
        Self {
            is_drained: node.is_some_and(|node| node.drain_requested_at.is_some()),
            next_key,
        }
    }
}

impl ServerRow {
    /// None when the row holds a key that nobody can handshake with.
    fn into_profile(self, word: Word) -> Option<Profile> {
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
            is_drained: word.is_drained,
            next_key: word.next_key,
        })
    }
}

fn live(server: &ServerRow, node: Option<NodeRow>, last_seen: Option<DateTime<Utc>>) -> Live {
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
pub(super) fn unsigned(number: i32) -> u32 {
    u32::try_from(number).unwrap_or(0)
}

pub(super) fn seconds(age: f64) -> Duration {
    std::time::Duration::try_from_secs_f64(age.max(0.0))
        .ok()
        .and_then(|age| Duration::from_std(age).ok())
        .unwrap_or(Duration::MAX)
}
