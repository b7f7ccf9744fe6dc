//! A device at whose calls things happen, an agent that dies at any of them, and the plane's rule for
//! what it hears.

use std::collections::{BTreeMap, HashMap};
use std::future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use shared::ids::{Generation, PeerId};
use shared::protocol::counters::CountersFrame;
use shared::wireguard::PublicKey;
use tempfile::TempDir;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use uuid::Uuid;

use super::rig::{DEADLINE, config};
use crate::ledger::Ledger;
use crate::reconcile::{Node, NodeError, NodeHandle, Outgoing};
use crate::wireguard::fake::FakeDevice;
use crate::wireguard::{Device, DeviceError, InterfaceSetup, InterfaceStatus, PeerOp, PeerStatus};

/// A device at whose calls things happen: the agent dies, or a client sends something.
#[derive(Debug, Clone, Default)]
pub(super) struct Eventful {
    pub(super) inner: FakeDevice,
    pub(super) plot: Arc<Mutex<Plot>>,
    pub(super) died: Arc<Notify>,
}

#[derive(Debug, Default)]
pub(super) struct Plot {
    /// Moments until the agent dies.
    pub(super) fuse: Option<u32>,
    /// Moments until this client sends so many bytes.
    pub(super) visit: Option<(u32, PublicKey, u64)>,
    /// Operations until one is refused.
    pub(super) trip: Option<u32>,
    /// What clients really sent.
    pub(super) truth: HashMap<PublicKey, u64>,
}

impl Eventful {
    /// A client sends, which goes through only where the interface has its addresses.
    pub(super) async fn sends(&self, key: PublicKey, bytes: u64) {
        let peers = self.inner.peers().await.unwrap_or_default();
        let open = |it: &&PeerStatus| it.public_key == key && !it.allowed_ips.is_empty();
        if peers.iter().any(|it| open(&it)) {
            self.inner.transfer(&key, bytes, 0);
            let mut plot = self.plot.lock().expect("whole");
            *plot.truth.entry(key).or_default() += bytes;
        }
    }

    fn may(&self) -> Result<(), DeviceError> {
        let mut plot = self.plot.lock().expect("whole");
        let trips = plot.trip == Some(0);
        plot.trip = plot.trip.and_then(|left| left.checked_sub(1));
        if trips {
            return Err(DeviceError::Netlink("told to fail".to_owned()));
        }
        Ok(())
    }

    /// Between two things that happen to the interface.
    async fn moment(&self) {
        let (visit, dies) = {
            let mut plot = self.plot.lock().expect("whole");
            let visit = plot.visit.take();
            let visitor = visit.filter(|(left, ..)| *left == 0);
            if let Some((left, key, bytes)) = visit
                && left > 0
            {
                plot.visit = Some((left - 1, key, bytes));
            }
            let dies = plot.fuse == Some(0);
            plot.fuse = plot.fuse.and_then(|left| left.checked_sub(1));
            (visitor, dies)
        };
        if let Some((_, key, bytes)) = visit {
            self.sends(key, bytes).await;
        }
        if dies {
            self.died.notify_one();
            future::pending::<()>().await;
        }
    }
}

#[async_trait]
impl Device for Eventful {
    fn backend(&self) -> &'static str {
        "fake"
    }

    async fn ensure(&self, setup: &InterfaceSetup) -> Result<InterfaceStatus, DeviceError> {
        self.inner.ensure(setup).await
    }

    async fn peers(&self) -> Result<Vec<PeerStatus>, DeviceError> {
        self.moment().await;
        let peers = self.inner.peers().await;
        self.moment().await;
        peers
    }

    async fn apply(&self, operations: &[PeerOp]) -> Result<(), DeviceError> {
        for operation in operations {
            self.moment().await;
            self.may()?;
            self.inner.apply(std::slice::from_ref(operation)).await?;
        }
        self.moment().await;
        Ok(())
    }

    async fn teardown(&self) -> Result<(), DeviceError> {
        self.inner.teardown().await
    }
}

/// The plane's rule: a peer's newest generation counts by its largest total, earlier ones are added
/// up, and what an earlier one still says is ignored.
#[derive(Debug, Default)]
pub(super) struct Plane(BTreeMap<PeerId, (u64, Generation, u64)>);

impl Plane {
    pub(super) fn take(&mut self, frames: &[CountersFrame]) {
        for (peer, counters) in frames.iter().flat_map(|frame| &frame.entries) {
            let (sum, generation, counted) = self.0.entry(*peer).or_default();
            if counters.generation > *generation {
                (*sum, *generation, *counted) = (*sum + *counted, counters.generation, 0);
            }
            if counters.generation == *generation {
                *counted = counters.sent.max(*counted);
            }
        }
    }

    pub(super) fn bytes(&self, peer: PeerId) -> u64 {
        self.0
            .get(&peer)
            .map_or(0, |(sum, _, counted)| sum + counted)
    }
}

/// An agent that scrubs whoever was ever heard of, at each reconcile.
pub(super) struct Agent {
    pub(super) node: NodeHandle,
    task: JoinHandle<Result<(), NodeError>>,
    pub(super) answers: mpsc::Receiver<Outgoing>,
}

impl Agent {
    pub(super) async fn start(directory: &TempDir, device: &Eventful) -> Self {
        let (ledger, stored) = Ledger::open(directory.path()).expect("ledger");
        let config = config(directory.path(), Uuid::from_u128(1), "10.8.0.0/24");
        let node = Node::start(ledger, stored, Arc::new(device.clone()), config).await;
        let node = node.expect("starts").scrubbing(Duration::ZERO);
        let (handle, commands) = NodeHandle::new();
        let task = tokio::spawn(node.run(commands));
        let (outbox, answers) = mpsc::channel(64);
        handle.attach(outbox).await.expect("attached");
        Self {
            node: handle,
            task,
            answers,
        }
    }

    /// Another session.
    pub(super) async fn attach(&mut self) {
        let (outbox, answers) = mpsc::channel(64);
        self.node.attach(outbox).await.expect("attached");
        self.answers = answers;
    }

    /// `kill -9`: what is in memory is gone.
    pub(super) async fn kill(self) {
        self.task.abort();
        drop(self.task.await);
    }

    pub(super) async fn report(&mut self) -> Vec<CountersFrame> {
        self.node.report().await.expect("runs");
        loop {
            let answer = timeout(DEADLINE, self.answers.recv()).await;
            if let Outgoing::Report(report) = answer.expect("in time").expect("runs") {
                return report.counters;
            }
        }
    }
}
