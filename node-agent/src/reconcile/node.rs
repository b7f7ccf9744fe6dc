//! The task that owns the node: takes one command at a time and answers it.

use std::collections::HashSet;
use std::future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::Utc;
use shared::ids::{PeerId, Revision};
use shared::protocol::{
    AgentMessage, Applied, Apply, Change, MAX_PEERS_PER_MESSAGE, MAX_WATCHED, Outcome, Peer,
    PeerResult, Timings,
};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinError, JoinHandle};
use tokio::time::{MissedTickBehavior, interval};
use tracing::{error, info, warn};
use uuid::Uuid;

use super::ahead::Ahead;
use super::handle::{
    Command, Desired, DrainedBy, Held, NodeStatus, Operations, Outgoing, Report, Standing,
};
use super::plan::must_be_held;
use super::rotation::Rotation;
use super::scrub::Scrubber;
use super::state::{State, changes_to};
use crate::counters::Sequence;
use crate::host::Occupancy;
use crate::ipam::{Pool, PoolError};
use crate::ledger::{self, Interface, Ledger, LedgerError, Write};
use crate::limits::{Consumed, Limiter, Table, TableError};
use crate::probe::Target;
use crate::wireguard::{Device, DeviceError, InterfaceSetup, Traffic};

/// How long after it was told the plane has an ended generation in its database, by all means.
const ENDED_SETTLED_SECONDS: u64 = 600;

/// Why the node cannot go on. Peers stay in the interface all the same.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    #[error("WireGuard: {0}")]
    Device(#[from] DeviceError),
    #[error(
        "the ledger's peers do not fit VPN_SUBNET ({0}); set the subnet that they were given from, \
         or start anew with `node-agent teardown --forget`"
    )]
    Subnet(PoolError),
    #[error("a blocking task ended early: {0}")]
    Task(#[from] JoinError),
}

/// What a node is made from.
#[derive(Debug)]
pub struct NodeConfig {
    pub setup: InterfaceSetup,
    pub pool: Pool,
    /// Changes with every boot of the host.
    pub boot_id: Uuid,
    pub reconcile_every: Duration,
    pub limits: Arc<dyn Table>,
}

pub(super) struct HeldSnapshot {
    revision: Revision,
    peers: Vec<Peer>,
    summary: Held,
    /// An Apply came meanwhile and was not carried out.
    missed: bool,
}

/// What is read at once for one report; quotas only while somebody has one.
pub(super) struct Dump {
    began: Sequence,
    counters: Result<Vec<Traffic>, DeviceError>,
    quotas: Option<Result<Vec<Consumed>, TableError>>,
}

/// Owner of peers, addresses, counters, ledger and device.
pub struct Node {
    pub(super) device: Arc<dyn Device>,
    pub(super) ledger: Arc<Ledger>,
    pub(super) setup: InterfaceSetup,
    pub(super) boot_id: Uuid,
    pub(super) state: State,
    pub(super) limiter: Limiter,
    /// Why limits could not be programmed at the last attempt.
    pub(super) limits_error: Option<String>,
    pub(super) interface: Option<Interface>,
    /// The plane has said at least once what shall be here. Until then peers that the ledger does
    /// not know stay in the interface: an empty ledger is no order to cut everyone off.
    pub(super) settled: bool,
    pub(super) operations: Operations,
    pub(super) drift: u64,
    pub(super) rotation: Rotation,
    pub(super) scrubber: Option<Scrubber>,
    /// Whose round trips the plane looks at.
    watched: Vec<PeerId>,
    held: Option<HeldSnapshot>,
    outbox: Option<mpsc::Sender<Outgoing>>,
    dump: Option<JoinHandle<Dump>>,
    /// Room for the next reading of the counters.
    pub(super) table: Vec<Traffic>,
    reconcile_every: Duration,
    started: Instant,
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node")
            .field("applied", &self.state.applied)
            .field("peers", &self.state.len())
            .finish_non_exhaustive()
    }
}

impl Node {
    /// Restores the node from its ledger and brings the interface to it.
    pub async fn start(
        ledger: Ledger,
        stored: ledger::State,
        device: Arc<dyn Device>,
        config: NodeConfig,
    ) -> Result<Self, NodeError> {
        Self::start_from(ledger, stored, device, config, None).await
    }

    /// The same with a reading that has begun already.
    pub async fn start_from(
        ledger: Ledger,
        stored: ledger::State,
        device: Arc<dyn Device>,
        config: NodeConfig,
        ahead: Option<Ahead>,
    ) -> Result<Self, NodeError> {
        let (interface, settled) = (stored.interface, stored.applied > Revision(0));
        let rotation = Rotation::restore(&stored);
        let (state, forgotten) =
            State::restore(stored, config.pool, Utc::now()).map_err(NodeError::Subnet)?;
        let mut node = Self {
            device,
            ledger: Arc::new(ledger),
            setup: config.setup,
            boot_id: config.boot_id,
            state,
            limiter: Limiter::new(config.limits),
            limits_error: None,
            interface,
            settled,
            operations: Operations::default(),
            drift: 0,
            rotation,
            scrubber: None,
            watched: Vec::new(),
            held: None,
            outbox: None,
            dump: None,
            table: Vec::new(),
            reconcile_every: config.reconcile_every,
            started: Instant::now(),
        };
        node.commit(forgotten).await?;
        node.check_rotation().await?;
        node.rotate().await?;
        let nobody = HashSet::new();
        let actual = match ahead {
            Some(ahead) => node.look_back(ahead, interface).await?,
            None => node.look(&nobody).await?,
        };
        let last_words = node.state.observe_removed(&actual);
        node.commit(last_words).await?;
        let expired = node.state.expire(Utc::now());
        node.commit(expired.writes).await?;
        node.converge(actual, &nobody).await?;
        info!(
            event = "node_started",
            peers = node.state.len(),
            revision = node.state.applied.0,
            operations = ?node.operations,
        );
        Ok(node)
    }

    /// Carries out commands until [`Command::Stop`] or until every handle is gone. The interface
    /// stays.
    pub async fn run(mut self, mut commands: mpsc::Receiver<Command>) -> Result<(), NodeError> {
        let mut periodic = interval(self.reconcile_every);
        periodic.set_missed_tick_behavior(MissedTickBehavior::Delay);
        periodic.tick().await;
        loop {
            let (expiry, rotation) = (self.until_expiry(), self.until_rotation());
            tokio::select! {
                command = commands.recv() => match command {
                    None | Some(Command::Stop) => return self.save_last_consumed().await,
                    Some(command) => self.handle(command).await?,
                },
                dump = finished(&mut self.dump) => {
                    self.dump = None;
                    self.report(dump?).await?;
                }
                () = sleep(expiry) => self.expire().await?,
                () = sleep(rotation) => self.rotate().await?,
                _ = periodic.tick() => self.put_in_order().await?,
            }
        }
    }

    async fn handle(&mut self, command: Command) -> Result<(), NodeError> {
        match command {
            Command::Attach(outbox, reply) => {
                self.outbox = Some(outbox);
                self.held = None;
                self.watched = Vec::new();
                self.state.book.report_all_again();
                self.state.limits.report_all_again();
                answer(reply, self.standing());
            }
            Command::Desired { desired, received } => match desired {
                Desired::Apply(apply) => self.apply(apply, received).await?,
                Desired::Snapshot { revision, peers } => {
                    self.snapshot(revision, peers, received).await?;
                }
            },
            Command::Report => self.begin_report(),
            Command::Identity(identity, reply) => {
                self.commit(vec![Write::Identity(identity)]).await?;
                answer(reply, ());
            }
            Command::Status(reply) => answer(reply, self.status()),
            Command::Drain(on, reply) => {
                self.commit(vec![Write::Draining(on)]).await?;
                self.state.draining = on;
                answer(reply, ());
            }
            Command::Settings(settings) => self.take_settings(settings).await?,
            Command::Watch(mut peers) => {
                peers.sort_unstable();
                peers.dedup();
                peers.truncate(MAX_WATCHED);
                self.watched = peers;
            }
            Command::AcceptSnapshot(reply) => {
                let accepted = self.accept_held().await?;
                answer(reply, accepted);
            }
            Command::Reconcile => self.put_in_order().await?,
            Command::Stop => {}
        }
        Ok(())
    }

    /// What is done once a period, or when somebody asks for it.
    async fn put_in_order(&mut self) -> Result<(), NodeError> {
        self.repair().await?;
        self.scrub().await?;
        self.settle_ended().await?;
        self.tidy().await
    }

    async fn tidy(&self) -> Result<(), NodeError> {
        if self.ledger.is_long() {
            self.with_ledger(Ledger::tidy).await?;
        }
        Ok(())
    }

    async fn apply(&mut self, apply: Apply, received: Instant) -> Result<(), NodeError> {
        if let Some(held) = &mut self.held {
            held.missed = true;
            warn!(event = "apply_not_taken", reason = "a snapshot is held");
            return Ok(());
        }
        if apply.from != self.state.applied || apply.to < apply.from {
            warn!(
                event = "resync",
                from = apply.from.0,
                applied = self.state.applied.0
            );
            self.send(Outgoing::Message(AgentMessage::Resync));
            return Ok(());
        }
        self.accept(apply.changes, apply.to, received).await
    }

    async fn snapshot(
        &mut self,
        revision: Revision,
        peers: Vec<Peer>,
        received: Instant,
    ) -> Result<(), NodeError> {
        let surplus = self.state.surplus_to(&peers);
        let removals = surplus.len();
        if must_be_held(self.state.len(), removals) {
            let summary = Held {
                revision,
                removals,
                peers: self.state.len(),
            };
            error!(
                event = "snapshot_held",
                removals,
                peers = summary.peers,
                advice = "check the plane; `node-agent accept-snapshot` applies it"
            );
            self.held = Some(HeldSnapshot {
                revision,
                peers,
                summary,
                missed: false,
            });
            return Ok(());
        }
        self.held = None;
        let changes = changes_to(peers, surplus);
        self.accept(changes, revision, received).await
    }

    async fn accept_held(&mut self) -> Result<Option<Held>, NodeError> {
        let Some(held) = self.held.take() else {
            return Ok(None);
        };
        let surplus = self.state.surplus_to(&held.peers);
        let changes = changes_to(held.peers, surplus);
        self.accept(changes, held.revision, Instant::now()).await?;
        if held.missed {
            self.send(Outgoing::Message(AgentMessage::Resync));
        }
        Ok(Some(held.summary))
    }

    async fn accept(
        &mut self,
        changes: Vec<Change>,
        to: Revision,
        received: Instant,
    ) -> Result<(), NodeError> {
        self.settled = true;
        let now = Utc::now();
        if self.state.removes_any(&changes, now) {
            self.try_read_counters().await?;
        }
        let quotas = self.state.quotas_at_stake(&changes, now);
        self.try_read_quotas(&quotas).await;
        let mut staged = self.state.stage(changes, to, now, &mut rand::rng());
        let results = std::mem::take(&mut staged.results);
        let carried = self.carry_out(staged).await?;
        let results = carried.judge(results);
        if !quotas.is_empty() || self.state.limits.owes_last_words() {
            self.tell_consumed();
        }
        let timings = Timings {
            total_us: micros(received.elapsed()),
            ledger_us: micros(carried.ledger),
            disk_us: micros(carried.disk),
            interface_us: micros(carried.interface),
        };
        self.acknowledge(to, results, timings);
        Ok(())
    }

    /// One message for each [`MAX_PEERS_PER_MESSAGE`] results, so that none exceeds the frame limit.
    /// A removal's counters must not overtake those of the peer's earlier generations.
    fn acknowledge(&mut self, revision: Revision, results: Vec<PeerResult>, timings: Timings) {
        let is_removal = |it: &PeerResult| matches!(it.outcome, Outcome::Removed { .. });
        if self.state.book.owes_ended() && results.iter().any(is_removal) {
            self.send_report();
        }
        let mut results = results.into_iter().peekable();
        loop {
            let applied = Applied {
                revision,
                state_hash: self.state.hash(),
                results: results.by_ref().take(MAX_PEERS_PER_MESSAGE).collect(),
                timings,
            };
            self.send(Outgoing::Message(AgentMessage::Applied(applied)));
            if results.peek().is_none() {
                return;
            }
        }
    }

    async fn expire(&mut self) -> Result<(), NodeError> {
        self.try_read_counters().await?;
        let now = Utc::now();
        self.try_read_quotas(&self.state.expiring_quotas(now)).await;
        let staged = self.state.expire(now);
        info!(event = "peers_expired", count = staged.operations.len());
        self.carry_out(staged).await?;
        Ok(())
    }

    fn until_expiry(&self) -> Option<Duration> {
        self.state
            .next_expiry()
            .map(|at| (at - Utc::now()).to_std().unwrap_or_default())
    }

    /// The dump runs beside the loop, so that a large interface delays no connect.
    fn begin_report(&mut self) {
        let room = self.outbox.as_ref().is_some_and(|it| it.capacity() > 0);
        if self.dump.is_none() && room {
            let (device, began) = (Arc::clone(&self.device), self.state.begin_dump());
            let counted = self.state.limits.counts_any();
            let limits = counted.then(|| self.limiter.table());
            let table = std::mem::take(&mut self.table);
            self.dump = Some(tokio::spawn(async move {
                Dump {
                    began,
                    counters: device.counters(table).await,
                    quotas: match limits {
                        Some(table) => Some(table.quotas().await),
                        None => None,
                    },
                }
            }));
        }
    }

    async fn report(&mut self, dump: Dump) -> Result<(), NodeError> {
        match dump.counters {
            Ok(table) => {
                self.observe(table.iter().copied(), dump.began).await?;
                self.table = table;
            }
            Err(error) => {
                warn!(event = "counters_not_read", %error);
                self.repair().await?;
            }
        }
        if let Some(quotas) = dump.quotas {
            self.observe_quotas(quotas).await?;
        }
        self.send_report();
        Ok(())
    }

    fn send_report(&mut self) {
        let is_watching = !self.watched.is_empty();
        let taken_at = unix_now();
        let mut counters = self.state.book.frames(taken_at);
        self.state.limits.report(taken_at, &mut counters);
        let report = Report {
            counters,
            occupancy: self.occupancy(),
            watched: is_watching.then(|| self.targets()),
        };
        self.send(Outgoing::Report(report));
    }

    fn targets(&self) -> Vec<Target> {
        let known = self.state.addresses(&self.watched).into_iter();
        known
            .map(|(peer, addresses)| Target::new(peer, addresses))
            .collect()
    }

    /// What the plane was told long ago in a session that still lives, it has stored.
    async fn settle_ended(&mut self) -> Result<(), NodeError> {
        if self.outbox.as_ref().is_none_or(mpsc::Sender::is_closed) {
            return Ok(());
        }
        let before = unix_now().saturating_sub(ENDED_SETTLED_SECONDS);
        let writes = self.state.settle_ended(before);
        self.commit(writes).await
    }

    /// A session that does not take its answers has lost them: it ends and resumes.
    pub(super) fn send(&mut self, outgoing: Outgoing) {
        if let Some(outbox) = &self.outbox
            && outbox.try_send(outgoing).is_err()
        {
            self.outbox = None;
        }
    }

    fn standing(&self) -> Standing {
        Standing {
            interface_epoch: self.interface.map(|it| it.epoch).unwrap_or_default(),
            applied: self.state.applied,
            state_hash: self.state.hash(),
            public_key: self.setup.private_key.public_key(),
            capacity: self.state.pool.capacity(),
            backend: self.device.backend(),
            draining: self.state.is_draining(),
            next_key: self.next_key(),
        }
    }

    pub(super) fn occupancy(&self) -> Occupancy {
        Occupancy {
            peers: u32::try_from(self.state.len()).unwrap_or(u32::MAX),
            pool_used: self.state.pool.used(),
            capacity: self.state.pool.capacity(),
            draining: self.state.is_draining(),
            drift: self.drift,
            held_removals: self
                .held
                .as_ref()
                .map(|held| u32::try_from(held.summary.removals).unwrap_or(u32::MAX)),
        }
    }

    fn status(&self) -> NodeStatus {
        NodeStatus {
            applied_revision: self.state.applied,
            state_hash: self.state.hash(),
            peers: self.state.len(),
            limited: self.state.limits.limited().count(),
            limits_error: self.limits_error.clone(),
            pool_used: self.state.pool.used(),
            capacity: self.state.pool.capacity(),
            backend: self.device.backend().to_owned(),
            interface_index: self.interface.map(|it| it.index).unwrap_or_default(),
            interface_epoch: self.interface.map(|it| it.epoch).unwrap_or_default(),
            operations: self.operations,
            drift: self.drift,
            held: self.held.as_ref().map(|held| held.summary.clone()),
            draining: self.state.is_draining(),
            drained_by: self.drained_by(),
            next_key: self.next_key(),
            uptime_seconds: self.started.elapsed().as_secs(),
        }
    }

    fn drained_by(&self) -> Vec<DrainedBy> {
        let here = self.state.draining.then_some(DrainedBy::Host);
        let there = self.state.settings.draining.then_some(DrainedBy::Plane);
        here.into_iter().chain(there).collect()
    }
}

/// Whoever asked may be gone by now; then there is no one to tell.
fn answer<T>(reply: oneshot::Sender<T>, value: T) {
    let _ = reply.send(value);
}

async fn finished<T>(task: &mut Option<JoinHandle<T>>) -> Result<T, JoinError> {
    match task {
        Some(task) => task.await,
        None => future::pending().await,
    }
}

async fn sleep(duration: Option<Duration>) {
    match duration {
        Some(duration) => tokio::time::sleep(duration).await,
        None => future::pending().await,
    }
}

pub(super) fn unix_now() -> u64 {
    u64::try_from(Utc::now().timestamp()).unwrap_or_default()
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
