//! How the rest of the agent talks to the [`Node`](super::Node).

use std::time::Instant;

use serde::{Deserialize, Serialize};
use shared::ids::{PeerId, Revision};
use shared::protocol::counters::CountersFrame;
use shared::protocol::{AgentMessage, Apply, NextKey, Peer, Settings, StateHash};
use shared::wireguard::PublicKey;
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use crate::host::Occupancy;
use crate::ledger::Identity;
use crate::probe::Target;

/// Commands that wait for the node at most.
const QUEUE: usize = 64;

/// What the plane wants.
#[derive(Debug)]
pub enum Desired {
    Apply(Apply),
    /// The whole state, assembled from its parts.
    Snapshot {
        revision: Revision,
        peers: Vec<Peer>,
    },
}

/// One thing for the node to do.
#[derive(Debug)]
pub enum Command {
    /// A session begins: answers go to this outbox from here on, and all counters are sent again.
    Attach(mpsc::Sender<Outgoing>, oneshot::Sender<Standing>),
    /// `received` is when the message was read.
    Desired {
        desired: Desired,
        received: Instant,
    },
    /// Read the counters and send a [`Report`] to the outbox.
    Report,
    /// Keep a new identity.
    Identity(Identity, oneshot::Sender<()>),
    Status(oneshot::Sender<NodeStatus>),
    Drain(bool, oneshot::Sender<()>),
    /// What the plane wants of the node as a whole.
    Settings(Settings),
    /// Whose round trips are looked at from now on: these and no others.
    Watch(Vec<PeerId>),
    /// Apply the snapshot that is held, if there is one.
    AcceptSnapshot(oneshot::Sender<Option<Held>>),
    Reconcile,
    Stop,
}

/// What the node has for the plane.
#[derive(Debug)]
pub enum Outgoing {
    Message(AgentMessage),
    Report(Report),
    /// The interface has another key: the plane learns it from the hello of the next session.
    KeyChanged,
}

/// Once per report interval.
#[derive(Debug)]
pub struct Report {
    pub counters: Vec<CountersFrame>,
    pub occupancy: Occupancy,
    /// Whose round trip to measure, and where; none while the plane looks at nobody's.
    pub watched: Option<Vec<Target>>,
}

/// Where the node stands when a session begins.
#[derive(Debug, Clone)]
pub struct Standing {
    pub interface_epoch: Uuid,
    pub applied: Revision,
    pub state_hash: StateHash,
    pub public_key: PublicKey,
    pub capacity: u32,
    pub backend: &'static str,
    pub draining: bool,
    pub next_key: Option<NextKey>,
}

/// A snapshot that waits for an operator, because it removes too many peers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    pub revision: Revision,
    pub removals: usize,
    pub peers: usize,
}

/// Operations on the interface's peers since this process started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Operations {
    pub added: u64,
    pub updated: u64,
    pub removed: u64,
}

/// Who asked that a node takes no new clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DrainedBy {
    /// `node-agent drain` on this host.
    Host,
    Plane,
}

/// For an operator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    pub applied_revision: Revision,
    pub state_hash: StateHash,
    pub peers: usize,
    /// Peers with a rate or an allowance.
    #[serde(default)]
    pub limited: usize,
    /// Why limits cannot be programmed; clients that need them are refused.
    #[serde(default)]
    pub limits_error: Option<String>,
    pub pool_used: u32,
    pub capacity: u32,
    pub backend: String,
    pub interface_index: u32,
    pub interface_epoch: Uuid,
    pub operations: Operations,
    /// Differences between ledger and interface that were repaired.
    pub drift: u64,
    pub held: Option<Held>,
    pub draining: bool,
    /// Who asked for it.
    pub drained_by: Vec<DrainedBy>,
    /// The key that the interface will have next.
    pub next_key: Option<NextKey>,
    pub uptime_seconds: u64,
}

/// The node's task has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the node has stopped")]
pub struct NodeGone;

/// Sends commands to the node. Waits while its queue is full.
#[derive(Debug, Clone)]
pub struct NodeHandle {
    commands: mpsc::Sender<Command>,
}

impl NodeHandle {
    #[must_use]
    pub fn new() -> (Self, mpsc::Receiver<Command>) {
        let (commands, queue) = mpsc::channel(QUEUE);
        (Self { commands }, queue)
    }

    pub async fn attach(&self, outbox: mpsc::Sender<Outgoing>) -> Result<Standing, NodeGone> {
        self.ask(|reply| Command::Attach(outbox, reply)).await
    }

    pub async fn desired(&self, desired: Desired, received: Instant) -> Result<(), NodeGone> {
        self.send(Command::Desired { desired, received }).await
    }

    pub async fn report(&self) -> Result<(), NodeGone> {
        self.send(Command::Report).await
    }

    pub async fn keep_identity(&self, identity: Identity) -> Result<(), NodeGone> {
        self.ask(|reply| Command::Identity(identity, reply)).await
    }

    pub async fn status(&self) -> Result<NodeStatus, NodeGone> {
        self.ask(Command::Status).await
    }

    pub async fn drain(&self, on: bool) -> Result<(), NodeGone> {
        self.ask(|reply| Command::Drain(on, reply)).await
    }

    pub async fn settings(&self, settings: Settings) -> Result<(), NodeGone> {
        self.send(Command::Settings(settings)).await
    }

    pub async fn watch(&self, peers: Vec<PeerId>) -> Result<(), NodeGone> {
        self.send(Command::Watch(peers)).await
    }

    /// Applies the held snapshot; none when nothing is held.
    pub async fn accept_snapshot(&self) -> Result<Option<Held>, NodeGone> {
        self.ask(Command::AcceptSnapshot).await
    }

    pub async fn reconcile(&self) -> Result<(), NodeGone> {
        self.send(Command::Reconcile).await
    }

    pub async fn stop(&self) -> Result<(), NodeGone> {
        self.send(Command::Stop).await
    }

    async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<T>) -> Command,
    ) -> Result<T, NodeGone> {
        let (reply, answer) = oneshot::channel();
        self.send(command(reply)).await?;
        answer.await.map_err(|_| NodeGone)
    }

    async fn send(&self, command: Command) -> Result<(), NodeGone> {
        self.commands.send(command).await.map_err(|_| NodeGone)
    }
}
