//! A server as administrators read it.

use std::net::IpAddr;

use chrono::{DateTime, Utc};
use serde::Serialize;
use shared::protocol::{Load, StateHash};
use utoipa::ToSchema;
use uuid::Uuid;

use super::wire::StatusWord;
use crate::fleet::admin::{Managed, ManagedNode};

/// A server with its node.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AdminServer)]
pub(super) struct ManagedView {
    id: Uuid,
    #[schema(example = "fra1.example.net")]
    hostname: String,
    #[schema(example = "Germany")]
    country: String,
    #[schema(example = "DE")]
    country_code: String,
    #[schema(example = "Frankfurt")]
    city: String,
    #[schema(example = "eu-central")]
    location: String,
    status: StatusWord,
    /// The lowest plan tier that may use the server.
    tier: i16,
    download_mbps: i32,
    upload_mbps: i32,
    #[schema(example = json!(["wireguard"]))]
    protocols: Vec<String>,
    #[schema(example = json!(["netflix"]))]
    streaming_services: Vec<String>,
    #[schema(example = json!(["p2p"]))]
    features: Vec<String>,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
    /// Whether the node has a session and gave a sign of life lately.
    is_online: bool,
    last_seen_at: Option<DateTime<Utc>>,
    /// 0–100: the worst component of the host.
    #[schema(example = 45.5)]
    current_load: f64,
    /// Round trip between the service and the node in milliseconds.
    #[schema(example = 25)]
    ping: u32,
    draining: DrainingView,
    /// Null where no change of the key is planned.
    key_rotation: Option<RotationView>,
    /// What the host brought; null before one has enrolled.
    interface: Option<InterfaceView>,
    /// Null before a host has enrolled.
    node: Option<NodeView>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AdminDraining)]
struct DrainingView {
    /// Since when the operator wants no new clients there.
    requested_at: Option<DateTime<Utc>>,
    /// Whether the node says that it takes none: by the operator's word or its own.
    reported: bool,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AdminKeyRotation)]
struct RotationView {
    at: DateTime<Utc>,
    /// Null until the node has made it.
    #[schema(example = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=")]
    next_public_key: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AdminInterface)]
struct InterfaceView {
    #[schema(value_type = String, example = "203.0.113.10")]
    ip_address: IpAddr,
    #[schema(example = "203.0.113.10:51820")]
    endpoint: String,
    #[schema(example = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=")]
    public_key: String,
    #[schema(example = "10.8.0.0/16")]
    subnet: String,
    #[schema(example = "fd00:8::/64")]
    subnet_v6: Option<String>,
    pool: PoolView,
}

/// Addresses for clients.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AdminPool)]
struct PoolView {
    /// In use or in quarantine.
    used: u32,
    capacity: u32,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AdminNode)]
struct NodeView {
    #[schema(example = "0.1.0")]
    agent_version: Option<String>,
    /// `kernel`, `userspace` or `simulated`.
    #[schema(example = "kernel")]
    backend: Option<String>,
    /// Of its sessions.
    protocol: Option<i16>,
    /// The replica that holds its session.
    session_replica: Option<Uuid>,
    /// Where the node shall be.
    desired_revision: u64,
    /// Where it is.
    applied_revision: u64,
    /// Over the peers that it has.
    #[schema(example = "5c2f6ac1cf2a1f0b0f6a1c7f2f9fd1aa")]
    state_hash: Option<String>,
    /// Over the peers that it shall have at the revision where it is; not worked out in lists.
    #[schema(example = "5c2f6ac1cf2a1f0b0f6a1c7f2f9fd1aa")]
    expected_state_hash: Option<String>,
    /// Whether the revisions are one, and the hashes that are known.
    is_converged: bool,
    peers: u32,
    /// Its last report; null before the first.
    load: Option<LoadView>,
    /// Differences between what it holds and its interface that it repaired since it started.
    drift: u64,
    /// Removals in a snapshot that waits for the operator, because it removes too many peers.
    held_removals: Option<u32>,
}

/// What the node's host bears. Fractions are 0–1.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AdminLoad)]
struct LoadView {
    cpu: f64,
    softirq: f64,
    memory: f64,
    /// Null where the kernel tracks no connections.
    conntrack: Option<f64>,
    /// Bits a second over the uplink.
    rx_bps: u64,
    tx_bps: u64,
    /// The uplink's speed, when known.
    nic_bps: Option<u64>,
}

impl ManagedView {
    /// One server, held against the fingerprint that its node has to have.
    pub(super) fn whole(server: Managed, expected: StateHash) -> Self {
        Self::new(server, Some(expected))
    }

    /// A line of a list.
    pub(super) fn line(server: Managed) -> Self {
        Self::new(server, None)
    }

    fn new(server: Managed, expected: Option<StateHash>) -> Self {
        let is_online = server.is_online(Utc::now());
        let node = server.node.as_ref();
        let used = node.map_or(0, |node| node.pool_used);
        let interface = server.host.map(|host| InterfaceView {
            ip_address: host.ip_address,
            endpoint: host.endpoint,
            public_key: host.public_key,
            subnet: host.subnet.to_string(),
            subnet_v6: host.subnet_v6.map(|subnet| subnet.to_string()),
            pool: PoolView {
                used,
                capacity: host.capacity,
            },
        });
        Self {
            id: server.id.0,
            hostname: server.hostname,
            country: server.country,
            country_code: server.country_code,
            city: server.city,
            location: server.location,
            status: server.status.into(),
            tier: server.tier,
            download_mbps: server.download_mbps,
            upload_mbps: server.upload_mbps,
            protocols: server.protocols,
            streaming_services: server.streaming_services,
            features: server.features,
            created_at: server.created_at,
            updated_at: server.updated_at,
            is_online,
            last_seen_at: node.and_then(|node| node.last_seen),
            current_load: server.load,
            ping: server.ping,
            draining: DrainingView {
                requested_at: node.and_then(|node| node.drain_requested_at),
                reported: node.is_some_and(|node| node.draining),
            },
            key_rotation: node.and_then(RotationView::of),
            node: server
                .node
                .filter(|_| interface.is_some())
                .map(|node| NodeView::new(node, expected)),
            interface,
        }
    }
}

impl RotationView {
    fn of(node: &ManagedNode) -> Option<Self> {
        Some(Self {
            at: node.rotate_key_at?,
            next_public_key: node.next_public_key.clone(),
        })
    }
}

impl NodeView {
    fn new(node: ManagedNode, expected: Option<StateHash>) -> Self {
        let expected = expected.map(|hash| hash.to_string());
        let hashes_agree = expected.is_none() || node.state_hash == expected;
        let report = node.report.as_ref();
        Self {
            agent_version: node.agent_version,
            backend: node.backend,
            protocol: node.protocol,
            session_replica: node.replica,
            desired_revision: node.desired_revision.0,
            applied_revision: node.applied_revision.0,
            is_converged: node.desired_revision == node.applied_revision && hashes_agree,
            state_hash: node.state_hash,
            expected_state_hash: expected,
            peers: node.peers,
            drift: report.map_or(0, |report| report.drift),
            held_removals: report.and_then(|report| report.held_removals),
            load: node.report.as_ref().map(LoadView::from),
        }
    }
}

impl From<&Load> for LoadView {
    fn from(load: &Load) -> Self {
        Self {
            cpu: load.cpu,
            softirq: load.softirq,
            memory: load.memory,
            conntrack: load.conntrack,
            rx_bps: load.rx_bps,
            tx_bps: load.tx_bps,
            nic_bps: load.nic_bps,
        }
    }
}
