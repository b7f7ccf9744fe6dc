//! The fleet: servers, the nodes that run them, their sessions, and the choice among them.
//!
//! What holds here:
//! - Selection and the server lists read [`FleetView`] and cost no query.
//! - A node has one session; [`desired::Fence`] grows with each, and an older one writes nothing.
//! - Postgres knows what a node shall be. A signal only says "read again"; a lost one costs time,
//!   never a change: sessions that lag are found by every heartbeat, and once a second while Redis
//!   is away.
//! - Peers and bytes belong to the rooms above, which hand in [`DesiredState`] and [`CounterSink`].

pub mod cli;
pub mod desired;
pub mod identity;
pub mod selection;

mod admin;
mod attention;
mod bus;
mod enrolment;
mod pages;
mod routes;
mod session;
mod states;
mod store;
mod tasks;
mod tiers;
mod trouble;
mod view;
mod waiters;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use chrono::{DateTime, Utc};
use shared::ids::{ConnectionId, ServerId, UserId};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

pub use self::desired::{CounterSink, DesiredState};
pub use self::routes::{node_routes, routes};
pub use self::states::NodeStates;
pub use self::tiers::Tiers;
pub use self::trouble::Trouble;
pub use self::view::{Assignment, FRESHNESS, FleetView, Live, Profile, Server, ServerStatus};
pub use self::waiters::{AckWaiter, AnswerTimings, Answered, TooManyWaiting, Unanswered};

use self::attention::Attention;
use self::bus::{Bus, Channel, Notice};
use self::identity::Identity;
use self::session::Sessions;
use self::trouble::Sight;
use self::waiters::Waiters;
use crate::db;
use crate::error::ApiError;

/// What a fleet is put together from.
#[derive(Debug)]
pub struct Parts {
    pub db: db::Pool,
    /// Opens its own connections: one to publish, one to listen.
    pub redis: redis::Client,
    /// This process, among all replicas.
    pub replica: Uuid,
    pub identity: Identity,
    pub desired: Arc<dyn DesiredState>,
    pub counters: Arc<dyn CounterSink>,
    /// How often nodes report counters and load.
    pub report_interval: Duration,
    /// Cancelled when the process shall end.
    pub shutdown: CancellationToken,
}

/// The fleet as this replica knows it. Shared by every worker.
#[derive(Debug)]
pub struct Fleet {
    db: db::Pool,
    replica: Uuid,
    identity: Identity,
    desired: Arc<dyn DesiredState>,
    counters: Arc<dyn CounterSink>,
    report_interval: Duration,
    shutdown: CancellationToken,
    view: ArcSwap<FleetView>,
    /// Asks for a new view before its time.
    stale: Notify,
    sessions: Sessions,
    waiters: Arc<Waiters>,
    attention: Attention,
    sight: Mutex<Sight>,
    tiers: Tiers,
    bus: Bus,
}

impl Fleet {
    /// A fleet that does nothing yet; [`Fleet::start`] brings it to life.
    #[must_use]
    pub fn new(parts: Parts) -> Arc<Self> {
        Arc::new(Self {
            db: parts.db,
            replica: parts.replica,
            identity: parts.identity,
            desired: parts.desired,
            counters: parts.counters,
            report_interval: parts.report_interval,
            shutdown: parts.shutdown,
            view: ArcSwap::default(),
            stale: Notify::new(),
            sessions: Sessions::default(),
            waiters: Arc::default(),
            attention: Attention::default(),
            sight: Mutex::default(),
            tiers: Tiers::default(),
            bus: Bus::new(parts.redis),
        })
    }

    /// Starts what runs beside the requests: view, heartbeats, the bus. The tasks end after
    /// `shutdown`. Needs a tokio runtime; Postgres and Redis may still be away.
    pub async fn start(self: &Arc<Self>, tasks: &TaskTracker) {
        tasks::start(self, tasks).await;
    }

    /// The fleet at this moment. No query.
    #[must_use]
    pub fn view(&self) -> Arc<FleetView> {
        self.view.load_full()
    }

    /// Counts a client on its way to `server`; drop the assignment once the node answered, release
    /// it when the client goes elsewhere.
    #[must_use]
    pub fn assign(&self, server: &Server) -> Assignment {
        server.assign()
    }

    /// Registers for the node's answer about `connection`. Call it before the commit.
    pub fn expect(&self, connection: ConnectionId) -> Result<AckWaiter, TooManyWaiting> {
        self.waiters.expect(connection)
    }

    /// Says after a commit that `server`'s desired state changed, wherever its session is. With a
    /// `connection` the answer comes back to the waiter in this process. Never blocks.
    pub fn signal(&self, server: ServerId, connection: Option<ConnectionId>) {
        if self.sessions.wake(server) {
            metrics::counter!("fleet_signals_total", "path" => "local").increment(1);
            return;
        }
        metrics::counter!("fleet_signals_total", "path" => "bus").increment(1);
        let holder = self.view().get(server).and_then(|it| it.live().replica);
        let channel = holder
            .filter(|holder| *holder != self.replica)
            .map_or(Channel::Everyone, Channel::Replica);
        let asker = connection.map(|connection| (connection, self.replica));
        self.bus.publish(channel, Notice::Wake { server, asker });
    }

    /// How many nodes are in which state.
    #[must_use]
    pub fn states(&self, now: DateTime<Utc>) -> NodeStates {
        NodeStates::of(&self.view(), now)
    }

    /// How many nodes have their session in this process.
    #[must_use]
    pub fn sessions_held(&self) -> usize {
        self.sessions.all().len()
    }

    /// How many requests in this process wait for nodes now.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiters.count()
    }

    /// The authority that signs and reads node tokens.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    fn is_stopping(&self) -> bool {
        self.shutdown.is_cancelled()
    }

    /// Reads the catalogue anew; every later [`Fleet::view`] has at least what is committed now.
    pub async fn refresh(&self) -> Result<(), ApiError> {
        let read = match store::read_fleet(&self.db).await {
            Ok(read) => read,
            Err(error) => {
                lock(&self.sight).failed();
                return Err(error);
            }
        };
        lock(&self.sight).read(Instant::now());
        self.view
            .store(Arc::new(self.view().next(read, self.replica)));
        Ok(())
    }

    /// Which tiers of servers people may use.
    #[must_use]
    pub const fn tiers(&self) -> &Tiers {
        &self.tiers
    }

    /// Tells every replica, this one included, that this person's plan changed, or everybody's may have.
    pub fn tier_changed(&self, user: Option<UserId>) {
        self.tiers.forget(user);
        self.bus
            .publish(Channel::Everyone, Notice::TierChanged { user });
    }

    /// Tells every replica, this one included, that the catalogue changed.
    fn announce_change(&self) {
        self.stale.notify_one();
        self.bus.publish(Channel::Everyone, Notice::FleetChanged);
    }
}

/// A poisoned lock only says that some thread panicked; the values behind these locks are whole
/// after every statement.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
