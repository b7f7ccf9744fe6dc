//! What operators read.

use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::pulse::Pulse;
use crate::accounts::people::PeopleCount;
use crate::billing::reconcile::Latest;
use crate::billing::subscription::PlanCount;
use crate::fleet::NodeStates;
use crate::guard::OpenAlerts;
use crate::jobs::Backlog;
use crate::tunnels::LiveCount;

/// What is counted over whole tables.
#[derive(Debug, Clone)]
pub(super) struct Counted {
    pub(super) users: PeopleCount,
    pub(super) sessions: u64,
    pub(super) subscriptions: Vec<PlanCount>,
    pub(super) reconciliation: Option<Latest>,
}

/// What a view is made of.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) now: DateTime<Utc>,
    pub(super) nodes: NodeStates,
    pub(super) connections: LiveCount,
    pub(super) replicas: Vec<(Uuid, DateTime<Utc>, Pulse)>,
    pub(super) jobs: Backlog,
    pub(super) alerts: OpenAlerts,
    pub(super) counted: Counted,
}

/// The whole at a glance.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Overview)]
pub(super) struct OverviewView {
    at: DateTime<Utc>,
    nodes: NodesView,
    connections: ConnectionsView,
    traffic: TrafficView,
    users: UsersView,
    /// Logins that have not ended.
    #[schema(example = 1840)]
    sessions: u64,
    /// By plan and status.
    subscriptions: Vec<SubscriptionsView>,
    jobs: JobsView,
    alerts: AlertsView,
    /// The latest comparison with the payment provider; null where there was none yet.
    last_reconciliation: Option<ReconciliationView>,
    /// The processes that answer, at most a hundred.
    replicas: Vec<ReplicaView>,
}

/// Each node is in one of these.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OverviewNodes)]
struct NodesView {
    #[schema(example = 24)]
    total: u64,
    /// It answers and takes clients.
    #[schema(example = 20)]
    online: u64,
    /// It is to be emptied.
    #[schema(example = 1)]
    draining: u64,
    #[schema(example = 1)]
    maintenance: u64,
    /// Switched off by an operator.
    #[schema(example = 1)]
    offline: u64,
    /// It should answer and does not.
    #[schema(example = 1)]
    silent: u64,
    /// Nodes that are connected to a replica.
    #[schema(example = 21)]
    sessions: u64,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OverviewConnections)]
struct ConnectionsView {
    /// A client can use them.
    #[schema(example = 8123)]
    live: u64,
    /// Asked of a node that has not answered yet.
    #[schema(example = 3)]
    connecting: u64,
}

/// Through all nodes at this moment, from their clients' side.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OverviewTraffic)]
struct TrafficView {
    /// Bits a second.
    #[schema(example = 125_000_000)]
    upload_bps: u64,
    #[schema(example = 2_400_000_000_u64)]
    download_bps: u64,
    /// Clients that moved anything in the last second.
    #[schema(example = 5210)]
    moving: u64,
    /// Sockets and streams that show live metrics.
    #[schema(example = 340)]
    viewers: u64,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OverviewUsers)]
struct UsersView {
    #[schema(example = 15_200)]
    total: u64,
    /// Not suspended.
    #[schema(example = 15_180)]
    active: u64,
    /// With a verified address.
    #[schema(example = 14_900)]
    verified: u64,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OverviewSubscriptions)]
struct SubscriptionsView {
    #[schema(example = "premium_monthly")]
    plan: String,
    #[schema(example = "active")]
    status: String,
    #[schema(example = 4100)]
    count: u64,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OverviewJobs)]
struct JobsView {
    #[schema(example = 2)]
    waiting: u64,
    #[schema(example = 0)]
    failed: u64,
    /// Since when the longest waits that is due; null where nothing is.
    due_since: Option<DateTime<Utc>>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OverviewAlerts)]
struct AlertsView {
    /// Nobody looked into them.
    #[schema(example = 1)]
    open: u64,
    /// They go on.
    #[schema(example = 0)]
    ongoing: u64,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OverviewReconciliation)]
struct ReconciliationView {
    started_at: DateTime<Utc>,
    ended_at: DateTime<Utc>,
    /// It repaired nothing.
    is_dry_run: bool,
    /// It read everything.
    is_complete: bool,
    /// Nothing that differs is left.
    is_clean: bool,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OverviewReplica)]
struct ReplicaView {
    replica: Uuid,
    /// When it said this.
    at: DateTime<Utc>,
    #[schema(example = 12)]
    node_sessions: u64,
    #[schema(example = 170)]
    viewers: u64,
    #[schema(example = 65_000_000)]
    upload_bps: u64,
    #[schema(example = 1_200_000_000)]
    download_bps: u64,
}

impl OverviewView {
    pub(super) fn new(parts: Parts) -> Self {
        let Parts {
            now,
            nodes,
            connections,
            replicas,
            jobs,
            alerts,
            counted,
        } = parts;
        let all: Pulse = replicas.iter().map(|(.., pulse)| *pulse).sum();
        let total = nodes.total();
        Self {
            at: now,
            nodes: NodesView {
                total,
                online: nodes.online,
                draining: nodes.draining,
                maintenance: nodes.maintenance,
                offline: nodes.offline,
                silent: nodes.silent,
                sessions: all.node_sessions,
            },
            connections: ConnectionsView {
                live: connections.connected,
                connecting: connections.connecting,
            },
            traffic: TrafficView {
                upload_bps: all.upload_bps,
                download_bps: all.download_bps,
                moving: all.moving_peers,
                viewers: all.viewers,
            },
            users: UsersView {
                total: counted.users.total,
                active: counted.users.active,
                verified: counted.users.verified,
            },
            sessions: counted.sessions,
            subscriptions: counted.subscriptions.into_iter().map(Into::into).collect(),
            jobs: JobsView {
                waiting: jobs.waiting,
                failed: jobs.failed,
                due_since: jobs.due_since,
            },
            alerts: AlertsView {
                open: alerts.open,
                ongoing: alerts.ongoing,
            },
            last_reconciliation: counted.reconciliation.map(Into::into),
            replicas: replicas.into_iter().map(Into::into).collect(),
        }
    }
}

impl From<PlanCount> for SubscriptionsView {
    fn from(of: PlanCount) -> Self {
        Self {
            plan: of.plan,
            status: of.status,
            count: of.count,
        }
    }
}

impl From<Latest> for ReconciliationView {
    fn from(latest: Latest) -> Self {
        Self {
            started_at: latest.started_at,
            ended_at: latest.ended_at,
            is_dry_run: latest.is_dry_run,
            is_complete: latest.is_complete,
            is_clean: latest.is_clean,
        }
    }
}

impl From<(Uuid, DateTime<Utc>, Pulse)> for ReplicaView {
    fn from((replica, at, pulse): (Uuid, DateTime<Utc>, Pulse)) -> Self {
        Self {
            replica,
            at,
            node_sessions: pulse.node_sessions,
            viewers: pulse.viewers,
            upload_bps: pulse.upload_bps,
            download_bps: pulse.download_bps,
        }
    }
}
