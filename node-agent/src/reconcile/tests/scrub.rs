//! Endpoints are cleared, and no byte is lost or counted twice, wherever the agent dies.

use std::collections::{BTreeMap, HashMap};
use std::future;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use proptest::prelude::*;
use shared::ids::{Generation, PeerId};
use shared::protocol::Peer;
use shared::protocol::counters::CountersFrame;
use shared::wireguard::PublicKey;
use tempfile::TempDir;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use uuid::Uuid;

use super::rig::{
    DEADLINE, Rig, addresses, config, counters, peer, remove, snapshot, upsert, world,
};
use crate::ledger::Ledger;
use crate::reconcile::{Node, NodeError, NodeHandle, Operations, Outgoing};
use crate::wireguard::fake::FakeDevice;
use crate::wireguard::{Device, DeviceError, InterfaceSetup, InterfaceStatus, PeerOp, PeerStatus};

/// A device at whose calls things happen: the agent dies, or a client sends something.
#[derive(Debug, Clone, Default)]
struct Eventful {
    inner: FakeDevice,
    plot: Arc<Mutex<Plot>>,
    died: Arc<Notify>,
}

#[derive(Debug, Default)]
struct Plot {
    /// Moments until the agent dies.
    fuse: Option<u32>,
    /// Moments until this client sends so many bytes.
    visit: Option<(u32, PublicKey, u64)>,
    /// Operations until one is refused.
    trip: Option<u32>,
    /// What clients really sent.
    truth: HashMap<PublicKey, u64>,
}

impl Eventful {
    /// A client sends, which goes through only where the interface has its addresses.
    async fn sends(&self, key: PublicKey, bytes: u64) {
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
struct Plane(BTreeMap<PeerId, (u64, Generation, u64)>);

impl Plane {
    fn take(&mut self, frames: &[CountersFrame]) {
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

    fn bytes(&self, peer: PeerId) -> u64 {
        self.0
            .get(&peer)
            .map_or(0, |(sum, _, counted)| sum + counted)
    }
}

/// An agent that scrubs whoever was ever heard of, at each reconcile.
struct Agent {
    node: NodeHandle,
    task: JoinHandle<Result<(), NodeError>>,
    answers: mpsc::Receiver<Outgoing>,
}

impl Agent {
    async fn start(directory: &TempDir, device: &Eventful) -> Self {
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
    async fn attach(&mut self) {
        let (outbox, answers) = mpsc::channel(64);
        self.node.attach(outbox).await.expect("attached");
        self.answers = answers;
    }

    /// `kill -9`: what is in memory is gone.
    async fn kill(self) {
        self.task.abort();
        drop(self.task.await);
    }

    async fn report(&mut self) -> Vec<CountersFrame> {
        self.node.report().await.expect("runs");
        loop {
            let answer = timeout(DEADLINE, self.answers.recv()).await;
            if let Outgoing::Report(report) = answer.expect("in time").expect("runs") {
                return report.counters;
            }
        }
    }
}

#[derive(Debug, Clone)]
enum Step {
    Traffic(prop::sample::Index, u64),
    Report {
        arrives: bool,
    },
    /// Perhaps somebody sends in the middle of it, and perhaps the agent dies in it.
    Scrub {
        visit: Option<(u32, prop::sample::Index, u64)>,
        fuse: Option<u32>,
    },
    Kill,
}

fn step() -> impl Strategy<Value = Step> {
    let visit = prop::option::of((0_u32..16, any::<prop::sample::Index>(), 1_u64..1000));
    prop_oneof![
        4 => (any::<prop::sample::Index>(), 1_u64..1000).prop_map(|(who, bytes)| Step::Traffic(who, bytes)),
        2 => any::<bool>().prop_map(|arrives| Step::Report { arrives }),
        4 => (visit, prop::option::of(0_u32..24)).prop_map(|(visit, fuse)| Step::Scrub { visit, fuse }),
        1 => Just(Step::Kill),
    ]
}

async fn live(steps: Vec<Step>) {
    let (directory, device) = (tempfile::tempdir().expect("directory"), Eventful::default());
    let mut agent = Agent::start(&directory, &device).await;
    let peers: Vec<Peer> = (1..=3).map(peer).collect();
    let desired = snapshot(3, peers.clone());
    agent
        .node
        .desired(desired, Instant::now())
        .await
        .expect("runs");
    let mut plane = Plane::default();
    plane.take(&agent.report().await);
    for step in steps {
        match step {
            Step::Traffic(who, bytes) => device.sends(who.get(&peers).public_key, bytes).await,
            Step::Report { arrives } => {
                let frames = agent.report().await;
                if arrives {
                    plane.take(&frames);
                } else {
                    // A frame is lost with its session.
                    agent.attach().await;
                }
            }
            Step::Scrub { visit, fuse } => {
                {
                    let mut plot = device.plot.lock().expect("whole");
                    plot.fuse = fuse;
                    plot.visit =
                        visit.map(|(left, who, bytes)| (left, who.get(&peers).public_key, bytes));
                }
                agent.node.reconcile().await.expect("runs");
                let died = tokio::select! {
                    status = agent.node.status() => status.is_err(),
                    () = device.died.notified() => true,
                };
                {
                    let mut plot = device.plot.lock().expect("whole");
                    (plot.fuse, plot.visit) = (None, None);
                }
                if died {
                    agent.kill().await;
                    agent = Agent::start(&directory, &device).await;
                }
            }
            Step::Kill => {
                agent.kill().await;
                agent = Agent::start(&directory, &device).await;
            }
        }
    }
    agent.kill().await;
    let mut agent = Agent::start(&directory, &device).await;
    plane.take(&agent.report().await);
    let truth = device.plot.lock().expect("whole").truth.clone();
    let held = device.inner.peers().await.expect("interface");
    for peer in &peers {
        let expected = truth.get(&peer.public_key).copied().unwrap_or_default();
        assert_eq!(plane.bytes(peer.peer), expected, "{:?}", peer.peer);
        let held = held.iter().find(|it| it.public_key == peer.public_key);
        let held = held.expect("in the interface");
        assert_eq!(held.preshared_key, peer.preshared_key);
        assert_eq!(held.allowed_ips.len(), 2);
    }
    agent.kill().await;
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn no_byte_is_lost_or_counted_twice_wherever_the_agent_dies(
        steps in proptest::collection::vec(step(), 1..16),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(live(steps));
    }
}

#[tokio::test]
async fn an_idle_peer_is_put_back_once_with_all_that_it_had() {
    let (directory, device) = world();
    let mut rig = Rig::start(&directory, &device).await;
    let (one, silent) = (peer(1), peer(2));
    let given = rig.apply(0, 2, vec![upsert(&one), upsert(&silent)]).await;
    device.transfer(&one.public_key, 10, 20);
    device.handshake(&one.public_key, 1_800_000_000);
    rig.stop().await;
    let _ = device.take_operations();

    let eventful = Eventful {
        inner: device.clone(),
        ..Eventful::default()
    };
    let mut agent = Agent::start(&directory, &eventful).await;
    for _ in 0..3 {
        agent.node.reconcile().await.expect("runs");
    }
    let status = agent.node.status().await.expect("runs");
    let once = Operations {
        added: 1,
        updated: 1,
        removed: 1,
    };
    assert_eq!((status.operations, status.drift), (once, 0));
    let held = device.peers().await.expect("interface");
    let put_back = held.iter().find(|it| it.public_key == one.public_key);
    let put_back = put_back.expect("there");
    assert_eq!((put_back.rx_bytes, put_back.last_handshake), (0, None));
    assert_eq!(put_back.preshared_key, one.preshared_key);
    assert_eq!(put_back.allowed_ips[0].addr(), addresses(&given[0]).v4);
    let mut plane = Plane::default();
    plane.take(&agent.report().await);
    device.transfer(&one.public_key, 1, 2);
    plane.take(&agent.report().await);
    assert_eq!(plane.bytes(PeerId(1)), 11);
    agent.kill().await;

    // It is gone before any report of the new session: what it had counted goes out first.
    let mut rig = Rig::start(&directory, &device).await;
    rig.send(super::rig::apply(2, 3, vec![remove(1)])).await;
    let Outgoing::Report(report) = rig.next().await else {
        panic!("the removal came first");
    };
    let (peer, ended) = report.counters[0].entries[0];
    assert_eq!(
        (peer, ended.generation, ended.sent),
        (PeerId(1), Generation(1), 10)
    );
    let outcomes = super::rig::outcomes(rig.applied().await);
    assert_eq!(outcomes, [counters(2, 1, 2)]);
}

#[tokio::test]
async fn a_device_that_fails_in_the_middle_is_put_in_order() {
    // The addresses are taken, the peer is removed, the peer is added.
    for operations in 0..3 {
        let (directory, device) = world();
        let mut rig = Rig::start(&directory, &device).await;
        let one = peer(1);
        rig.apply(0, 1, vec![upsert(&one)]).await;
        device.transfer(&one.public_key, 10, 20);
        rig.stop().await;
        let eventful = Eventful {
            inner: device.clone(),
            ..Eventful::default()
        };
        let mut agent = Agent::start(&directory, &eventful).await;
        eventful.plot.lock().expect("whole").trip = Some(operations);
        agent.node.reconcile().await.expect("runs");
        agent.node.status().await.expect("runs");
        let held = device.peers().await.expect("interface");
        assert_eq!((held.len(), held[0].allowed_ips.len()), (1, 2));
        let mut plane = Plane::default();
        plane.take(&agent.report().await);
        device.transfer(&one.public_key, 1, 0);
        plane.take(&agent.report().await);
        assert_eq!(plane.bytes(PeerId(1)), 11);
        agent.kill().await;
    }
}
