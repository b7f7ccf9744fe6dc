//! A server as its operator sees it.

use std::net::IpAddr;

use chrono::{DateTime, Duration, Utc};
use ipnet::IpNet;
use shared::ids::{Revision, ServerId};
use shared::protocol::Load;
use uuid::Uuid;

use crate::fleet::session::Vitals;
use crate::fleet::view::{Live, ServerStatus};

#[derive(Debug, Clone, PartialEq)]
pub(in crate::fleet) struct Managed {
    pub(in crate::fleet) id: ServerId,
    pub(in crate::fleet) hostname: String,
    pub(in crate::fleet) country: String,
    pub(in crate::fleet) country_code: String,
    pub(in crate::fleet) city: String,
    pub(in crate::fleet) location: String,
    pub(in crate::fleet) status: ServerStatus,
    pub(in crate::fleet) tier: i16,
    pub(in crate::fleet) load: f64,
    pub(in crate::fleet) ping: u32,
    pub(in crate::fleet) download_mbps: i32,
    pub(in crate::fleet) upload_mbps: i32,
    pub(in crate::fleet) protocols: Vec<String>,
    pub(in crate::fleet) streaming_services: Vec<String>,
    pub(in crate::fleet) features: Vec<String>,
    pub(in crate::fleet) created_at: DateTime<Utc>,
    pub(in crate::fleet) updated_at: DateTime<Utc>,
    /// What its host brought; none before one has enrolled.
    pub(in crate::fleet) host: Option<Host>,
    pub(in crate::fleet) node: Option<ManagedNode>,
}

#[derive(Debug, Clone, PartialEq)]
pub(in crate::fleet) struct Host {
    pub(in crate::fleet) ip_address: IpAddr,
    pub(in crate::fleet) endpoint: String,
    pub(in crate::fleet) public_key: String,
    pub(in crate::fleet) subnet: IpNet,
    pub(in crate::fleet) subnet_v6: Option<IpNet>,
    pub(in crate::fleet) capacity: u32,
}

#[derive(Debug, Clone, PartialEq)]
pub(in crate::fleet) struct ManagedNode {
    pub(in crate::fleet) replica: Option<Uuid>,
    pub(in crate::fleet) last_seen: Option<DateTime<Utc>>,
    pub(in crate::fleet) agent_version: Option<String>,
    pub(in crate::fleet) backend: Option<String>,
    pub(in crate::fleet) protocol: Option<i16>,
    pub(in crate::fleet) desired_revision: Revision,
    pub(in crate::fleet) applied_revision: Revision,
    pub(in crate::fleet) state_hash: Option<String>,
    /// What the node says.
    pub(in crate::fleet) draining: bool,
    pub(in crate::fleet) drain_requested_at: Option<DateTime<Utc>>,
    pub(in crate::fleet) rotate_key_at: Option<DateTime<Utc>>,
    pub(in crate::fleet) next_public_key: Option<String>,
    pub(in crate::fleet) peers: u32,
    pub(in crate::fleet) pool_used: u32,
    pub(in crate::fleet) report: Option<Load>,
}

impl Managed {
    /// With what the node's session knows since its last heartbeat.
    pub(super) fn updated(mut self, vitals: &Vitals, now: DateTime<Utc>) -> Self {
        let Some(node) = &mut self.node else {
            return self;
        };
        let silence = Duration::from_std(vitals.last_heard.elapsed()).unwrap_or(Duration::MAX);
        node.last_seen = Some(now - silence);
        node.applied_revision = vitals.applied;
        node.state_hash = Some(vitals.state_hash.to_string());
        node.draining = vitals.draining;
        if let Some(report) = &vitals.report {
            (node.peers, node.pool_used) = (report.peers, report.pool_used);
            node.report = Some(report.clone());
            self.load = report.current_load;
        }
        self.ping = vitals.ping;
        self
    }

    /// Whether the node has a session and gave a sign of life lately.
    pub(in crate::fleet) fn is_online(&self, now: DateTime<Utc>) -> bool {
        self.node.as_ref().is_some_and(|node| {
            let live = Live {
                last_seen: node.last_seen,
                replica: node.replica,
                ..Live::default()
            };
            live.is_online(now)
        })
    }
}
