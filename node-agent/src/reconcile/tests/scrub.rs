//! Endpoints are cleared, and no byte is lost or counted twice, wherever the agent dies.

use std::time::Instant;

use proptest::prelude::*;
use shared::ids::{Generation, PeerId};
use shared::protocol::Peer;

use super::eventful::{Agent, Eventful, Plane};
use super::rig::{Rig, addresses, counters, peer, remove, snapshot, upsert, world};
use crate::reconcile::{Operations, Outgoing};
use crate::wireguard::Device;

const PEERS: usize = 3;

#[derive(Debug, Clone)]
enum Step {
    Traffic(usize, u64),
    Report {
        arrives: bool,
    },
    /// Perhaps somebody sends in the middle of it, and perhaps the agent dies in it.
    Scrub {
        visit: Option<(u32, usize, u64)>,
        fuse: Option<u32>,
    },
    Kill,
}

fn step() -> impl Strategy<Value = Step> {
    let visit = prop::option::of((0_u32..16, 0..PEERS, 1_u64..1000));
    prop_oneof![
        4 => (0..PEERS, 1_u64..1000).prop_map(|(who, bytes)| Step::Traffic(who, bytes)),
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
            Step::Traffic(who, bytes) => device.sends(peers[who].public_key, bytes).await,
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
                        visit.map(|(left, who, bytes)| (left, peers[who].public_key, bytes));
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

#[tokio::test]
async fn a_client_may_wake_up_and_the_agent_die_at_every_moment_of_a_scrub() {
    for visit in 0..12 {
        for fuse in 0..16 {
            let visit = Some((visit, 0, 7));
            let scrub = Step::Scrub {
                visit,
                fuse: Some(fuse),
            };
            live(vec![Step::Traffic(0, 1), scrub]).await;
        }
    }
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
