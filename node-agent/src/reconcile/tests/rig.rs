//! A running node over a real ledger and a device in memory, and words for talking to it.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::TimeDelta;
use shared::ids::{ConnectionId, Generation, PeerId, Revision};
use shared::protocol::{
    Addresses, AgentMessage, Applied, Apply, Change, FailureReason, Limits, Outcome, Peer,
    PeerCounters, StateHash,
};
use shared::wireguard::{PresharedKey, PrivateKey, PublicKey};
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use uuid::Uuid;

use crate::ipam::Pool;
use crate::ledger::{self, Ledger};
use crate::limits::fake::FakeTable;
use crate::reconcile::{
    Ahead, Desired, Node, NodeConfig, NodeError, NodeHandle, NodeStatus, Outgoing, Standing,
};
use crate::wireguard::fake::FakeDevice;
use crate::wireguard::{Device, InterfaceSetup};

pub(super) const DEADLINE: Duration = Duration::from_secs(10);

/// A running node; dropped and started again it is a restarted agent.
pub(super) struct Rig {
    pub(super) node: NodeHandle,
    pub(super) answers: mpsc::Receiver<Outgoing>,
    pub(super) standing: Standing,
    pub(super) task: JoinHandle<Result<(), NodeError>>,
}

pub(super) fn config(directory: &Path, boot_id: Uuid, subnet: &str) -> NodeConfig {
    let pool = Pool::new(
        subnet.parse().expect("v4"),
        Some("fd00::/64".parse().expect("v6")),
        TimeDelta::seconds(120),
    )
    .expect("pool");
    NodeConfig {
        setup: InterfaceSetup {
            private_key: ledger::private_key(directory).expect("key"),
            listen_port: 51820,
            addresses: pool.node_addresses(),
            mtu: 1420,
        },
        pool,
        boot_id,
        // Tests ask for a comparison when they want one.
        reconcile_every: Duration::from_secs(3600),
        limits: Arc::new(FakeTable::new()),
    }
}

impl Rig {
    pub(super) async fn start(directory: &TempDir, device: &FakeDevice) -> Self {
        Self::start_with(
            directory,
            device,
            config(directory.path(), Uuid::from_u128(1), "10.8.0.0/24"),
        )
        .await
    }

    pub(super) async fn start_with(
        directory: &TempDir,
        device: &FakeDevice,
        config: NodeConfig,
    ) -> Self {
        Self::start_from(directory, device, config, None).await
    }

    pub(super) async fn start_from(
        directory: &TempDir,
        device: &FakeDevice,
        config: NodeConfig,
        ahead: Option<Ahead>,
    ) -> Self {
        let (ledger, stored) = Ledger::open(directory.path()).expect("ledger");
        let device = Arc::new(device.clone());
        let node = Node::start_from(ledger, stored, device, config, ahead)
            .await
            .expect("starts");
        let (handle, commands) = NodeHandle::new();
        let task = tokio::spawn(node.run(commands));
        let (outbox, answers) = mpsc::channel(64);
        let standing = handle.attach(outbox).await.expect("attached");
        Self {
            node: handle,
            answers,
            standing,
            task,
        }
    }

    pub(super) async fn stop(self) {
        self.node.stop().await.expect("runs");
        self.task.await.expect("ends").expect("without error");
    }

    pub(super) async fn next(&mut self) -> Outgoing {
        timeout(DEADLINE, self.answers.recv())
            .await
            .expect("in time")
            .expect("runs")
    }

    pub(super) async fn send(&mut self, desired: Desired) {
        let sent = self.node.desired(desired, Instant::now()).await;
        sent.expect("runs");
    }

    /// Reports may come first.
    pub(super) async fn applied(&mut self) -> Applied {
        loop {
            match self.next().await {
                Outgoing::Message(AgentMessage::Applied(applied)) => return applied,
                Outgoing::Report(_) => {}
                other => panic!("no acknowledgement: {other:?}"),
            }
        }
    }

    pub(super) async fn apply(&mut self, from: u64, to: u64, changes: Vec<Change>) -> Vec<Outcome> {
        self.send(apply(from, to, changes)).await;
        let applied = self.applied().await;
        assert_eq!(applied.revision, Revision(to));
        outcomes(applied)
    }

    pub(super) async fn snapshot(&mut self, revision: u64, peers: Vec<Peer>) -> Vec<Outcome> {
        self.send(snapshot(revision, peers)).await;
        outcomes(self.applied().await)
    }

    pub(super) async fn until(&self, what: &str, is: impl Fn(&NodeStatus) -> bool) -> NodeStatus {
        let begin = Instant::now();
        loop {
            let status = self.node.status().await.expect("runs");
            if is(&status) {
                return status;
            }
            assert!(begin.elapsed() < DEADLINE, "not {what}: {status:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

pub(super) async fn until(what: &str, is: impl Fn() -> bool) {
    let begin = Instant::now();
    while !is() {
        assert!(begin.elapsed() < DEADLINE, "not {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub(super) fn outcomes(applied: Applied) -> Vec<Outcome> {
    applied.results.into_iter().map(|it| it.outcome).collect()
}

pub(super) fn apply(from: u64, to: u64, changes: Vec<Change>) -> Desired {
    Desired::Apply(Apply {
        from: Revision(from),
        to: Revision(to),
        changes,
    })
}

pub(super) fn snapshot(revision: u64, peers: Vec<Peer>) -> Desired {
    Desired::Snapshot {
        revision: Revision(revision),
        peers,
    }
}

pub(super) fn peer(id: u64) -> Peer {
    Peer {
        peer: PeerId(id),
        connection: ConnectionId::generate(),
        public_key: PrivateKey::generate().public_key(),
        preshared_key: Some(PresharedKey::generate()),
        addresses: None,
        not_after: None,
        limits: Limits::default(),
    }
}

pub(super) fn upsert(peer: &Peer) -> Change {
    Change::Upsert(peer.clone())
}

pub(super) fn remove(id: u64) -> Change {
    Change::Remove { peer: PeerId(id) }
}

pub(super) fn failed(reason: FailureReason) -> Outcome {
    Outcome::Failed { reason }
}

pub(super) fn addresses(outcome: &Outcome) -> Addresses {
    match outcome {
        Outcome::Active { addresses } => *addresses,
        other => panic!("not active: {other:?}"),
    }
}

pub(super) fn counters(generation: u32, sent: u64, received: u64) -> Outcome {
    Outcome::Removed {
        counters: Some(PeerCounters {
            generation: Generation(generation),
            sent,
            received,
            last_handshake: None,
        }),
    }
}

pub(super) fn hash(peers: &[&Peer]) -> StateHash {
    peers.iter().map(|it| (it.peer, &it.public_key)).collect()
}

pub(super) async fn keys(device: &FakeDevice) -> Vec<PublicKey> {
    let mut keys: Vec<_> = device
        .peers()
        .await
        .expect("interface")
        .into_iter()
        .map(|peer| peer.public_key)
        .collect();
    keys.sort();
    keys
}

pub(super) fn world() -> (TempDir, FakeDevice) {
    (tempfile::tempdir().expect("directory"), FakeDevice::new())
}
