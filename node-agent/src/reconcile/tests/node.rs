//! What the plane and the operator see of the node.

use std::sync::Arc;
use std::time::Duration;

use chrono::{TimeDelta, Utc};
use shared::ids::{Generation, PeerId, Revision};
use shared::protocol::{Addresses, AgentMessage, FailureReason, Outcome, Peer};
use shared::wireguard::PrivateKey;
use uuid::Uuid;

use super::rig::{
    Rig, addresses, apply, config, counters, failed, hash, keys, peer, remove, snapshot, upsert,
    world,
};
use crate::ledger::Ledger;
use crate::reconcile::{Held, Node, Operations, Outgoing};
use crate::wireguard::{Device, PeerOp};

#[tokio::test]
async fn a_peer_is_acknowledged_when_the_interface_has_it() {
    let (directory, device) = world();
    let mut rig = Rig::start(&directory, &device).await;
    let one = peer(1);
    rig.send(apply(0, 1, vec![upsert(&one)])).await;
    let applied = rig.applied().await;
    assert_eq!(applied.state_hash, hash(&[&one]));
    assert!(applied.timings.total_us >= applied.timings.ledger_us);
    assert!(applied.timings.ledger_us > 0);
    let given = addresses(&applied.results[0].outcome);
    let held = device.peers().await.expect("interface");
    assert_eq!(held[0].public_key, one.public_key);
    assert_eq!(held[0].preshared_key, one.preshared_key);
    let allowed: Vec<_> = held[0]
        .allowed_ips
        .iter()
        .map(ToString::to_string)
        .collect();
    let v6 = given.v6.expect("dual stack");
    assert_eq!(allowed, [format!("{}/32", given.v4), format!("{v6}/128")]);
}

#[tokio::test]
async fn repeating_an_upsert_changes_nothing() {
    let (directory, device) = world();
    let mut rig = Rig::start(&directory, &device).await;
    let one = peer(1);
    let first = rig.apply(0, 1, vec![upsert(&one)]).await;
    assert_eq!(device.take_operations().len(), 1);
    assert_eq!(rig.apply(1, 1, vec![upsert(&one)]).await, first);
    let named = Peer {
        addresses: Some(addresses(&first[0])),
        ..one
    };
    assert_eq!(rig.apply(1, 2, vec![upsert(&named)]).await, first);
    assert_eq!(device.take_operations(), []);
}

#[tokio::test]
async fn a_restart_issues_no_operation_and_forgets_nothing() {
    let (directory, device) = world();
    let mut rig = Rig::start(&directory, &device).await;
    let (one, two) = (peer(1), peer(2));
    let given = rig.apply(0, 2, vec![upsert(&one), upsert(&two)]).await;
    rig.apply(2, 3, vec![remove(1)]).await;
    rig.node.drain(true).await.expect("runs");
    let before = rig.standing.clone();
    rig.stop().await;
    let _ = device.take_operations();
    device.transfer(&two.public_key, 7, 8);

    let mut rig = Rig::start(&directory, &device).await;
    let status = rig.node.status().await.expect("runs");
    assert_eq!(device.take_operations(), []);
    assert_eq!(status.operations, Operations::default());
    assert_eq!((status.peers, status.pool_used), (1, 2));
    assert!(status.draining);
    assert_eq!(rig.standing.applied, Revision(3));
    assert_eq!(rig.standing.state_hash, hash(&[&two]));
    assert_eq!(rig.standing.interface_epoch, before.interface_epoch);
    assert_eq!(rig.standing.public_key, before.public_key);
    assert_eq!(rig.apply(3, 3, vec![upsert(&two)]).await, given[1..]);
    let again = rig.apply(3, 5, vec![remove(1), remove(2)]).await;
    assert_eq!(again, [counters(1, 0, 0), counters(1, 7, 8)]);
}

#[tokio::test]
async fn final_counters_are_read_before_removal_and_answered_again() {
    let (directory, device) = world();
    let mut rig = Rig::start(&directory, &device).await;
    let one = peer(1);
    rig.apply(0, 1, vec![upsert(&one)]).await;
    device.transfer(&one.public_key, 100, 2000);
    let gone = rig.apply(1, 2, vec![remove(1), remove(77)]).await;
    assert_eq!(
        gone,
        [counters(1, 100, 2000), Outcome::Removed { counters: None }]
    );
    assert_eq!(keys(&device).await, []);
    assert_eq!(rig.apply(2, 2, vec![remove(1)]).await, gone[..1]);
}

#[tokio::test]
async fn a_key_that_moves_to_another_peer_counts_from_zero() {
    let (directory, device) = world();
    let mut rig = Rig::start(&directory, &device).await;
    let one = peer(1);
    let two = Peer {
        public_key: one.public_key,
        ..peer(2)
    };
    let three = Peer {
        public_key: one.public_key,
        ..peer(3)
    };
    rig.apply(0, 1, vec![upsert(&one)]).await;
    device.transfer(&one.public_key, 10, 20);
    let moved = rig.apply(1, 3, vec![remove(1), upsert(&two)]).await;
    assert_eq!(moved[0], counters(1, 10, 20));
    device.transfer(&one.public_key, 1, 2);
    // Here the plane names the new peer before it removes the old one.
    let moved = rig.apply(3, 4, vec![upsert(&three)]).await;
    let held = device.peers().await.expect("interface");
    assert_eq!(held.len(), 1);
    assert_eq!((held[0].rx_bytes, held[0].tx_bytes), (0, 0));
    assert_eq!(held[0].preshared_key, three.preshared_key);
    assert_eq!(held[0].allowed_ips[0].addr(), addresses(&moved[0]).v4);
    assert_eq!(rig.apply(4, 5, vec![remove(2)]).await, [counters(1, 1, 2)]);
    assert_eq!(keys(&device).await, [one.public_key]);
    assert_eq!(rig.standing.capacity, 253);
    assert_eq!(
        rig.node.status().await.expect("runs").state_hash,
        hash(&[&three])
    );
}

#[tokio::test]
async fn a_key_that_moves_counts_from_zero_even_when_the_interface_fails_between() {
    let (directory, device) = world();
    let mut rig = Rig::start(&directory, &device).await;
    let one = peer(1);
    let two = Peer {
        public_key: one.public_key,
        ..peer(2)
    };
    rig.apply(0, 1, vec![upsert(&one)]).await;
    device.transfer(&one.public_key, 10, 20);
    device.fail_apply_after(0);
    let moved = rig.apply(1, 2, vec![upsert(&two)]).await;
    assert!(matches!(moved[0], Outcome::Active { .. }));
    device.transfer(&one.public_key, 1, 2);
    let gone = rig.apply(2, 4, vec![remove(1), remove(2)]).await;
    assert_eq!(gone, [counters(1, 10, 20), counters(2, 1, 2)]);
}

#[tokio::test]
async fn a_changed_key_of_the_same_peer_is_another_client_in_a_new_generation() {
    let (directory, device) = world();
    let mut rig = Rig::start(&directory, &device).await;
    let one = peer(1);
    let first = rig.apply(0, 1, vec![upsert(&one)]).await;
    device.transfer(&one.public_key, 10, 20);
    let rekeyed = Peer {
        public_key: PrivateKey::generate().public_key(),
        ..one
    };
    let second = rig.apply(1, 2, vec![upsert(&rekeyed)]).await;
    assert_ne!(addresses(&second[0]), addresses(&first[0]));
    assert_eq!(keys(&device).await, [rekeyed.public_key]);
    rig.node.report().await.expect("runs");
    match rig.next().await {
        Outgoing::Report(report) => {
            let (peer, ended) = report.counters[0].entries[0];
            assert_eq!(
                (peer, ended.generation, ended.sent),
                (PeerId(1), Generation(1), 10)
            );
        }
        other => panic!("no report: {other:?}"),
    }
}

#[tokio::test]
async fn an_exhausted_pool_refuses_one_peer_and_takes_the_rest() {
    let (directory, device) = world();
    let mut rig = Rig::start_with(
        &directory,
        &device,
        config(directory.path(), Uuid::nil(), "10.8.0.0/29"),
    )
    .await;
    let peers: Vec<_> = (1..=6).map(peer).collect();
    let results = rig.apply(0, 6, peers.iter().map(upsert).collect()).await;
    assert!(
        results[..5]
            .iter()
            .all(|it| matches!(it, Outcome::Active { .. }))
    );
    assert_eq!(results[5], failed(FailureReason::PoolExhausted));
    // A freed address rests.
    let results = rig.apply(6, 8, vec![remove(1), upsert(&peer(8))]).await;
    assert_eq!(results[1], failed(FailureReason::PoolExhausted));
    assert_eq!(keys(&device).await.len(), 4);
}

#[tokio::test]
async fn a_draining_node_takes_no_new_peer_but_keeps_those_it_had() {
    let (directory, device) = world();
    let mut rig = Rig::start(&directory, &device).await;
    let one = peer(1);
    rig.apply(0, 1, vec![upsert(&one)]).await;
    rig.node.drain(true).await.expect("runs");
    let known = Peer {
        addresses: Some(Addresses {
            v4: [10, 8, 0, 77].into(),
            v6: None,
        }),
        ..peer(3)
    };
    let results = rig
        .apply(1, 3, vec![upsert(&peer(2)), upsert(&one), upsert(&known)])
        .await;
    assert_eq!(results[0], failed(FailureReason::Draining));
    assert!(matches!(results[1], Outcome::Active { .. }));
    assert_eq!(
        addresses(&results[2]).v4,
        std::net::Ipv4Addr::new(10, 8, 0, 77)
    );
}

#[tokio::test]
async fn an_address_that_has_a_holder_is_not_given_again() {
    let (directory, device) = world();
    let mut rig = Rig::start(&directory, &device).await;
    let given = rig.apply(0, 1, vec![upsert(&peer(1))]).await;
    let taken = Peer {
        addresses: Some(addresses(&given[0])),
        ..peer(2)
    };
    let results = rig.apply(1, 2, vec![upsert(&taken)]).await;
    assert_eq!(results, [failed(FailureReason::PoolExhausted)]);
    // Once its holder is gone, who names it gets it.
    let results = rig.apply(2, 4, vec![remove(1), upsert(&taken)]).await;
    assert_eq!(results[1], given[0]);
}

#[tokio::test]
async fn a_gap_in_the_revisions_asks_for_a_snapshot() {
    let (directory, device) = world();
    let mut rig = Rig::start(&directory, &device).await;
    rig.send(apply(5, 6, vec![upsert(&peer(6))])).await;
    assert!(matches!(
        rig.next().await,
        Outgoing::Message(AgentMessage::Resync)
    ));
    assert_eq!(keys(&device).await, []);
    let (one, two) = (peer(1), peer(2));
    let results = rig.snapshot(6, vec![one.clone(), two.clone()]).await;
    assert_eq!(results.len(), 2);
    device.transfer(&one.public_key, 3, 4);
    let _ = device.take_operations();
    let results = rig.snapshot(7, vec![two.clone()]).await;
    assert_eq!(results[0], counters(1, 3, 4));
    assert_eq!(device.take_operations(), [PeerOp::Remove(one.public_key)]);
    assert_eq!(
        rig.node.status().await.expect("runs").state_hash,
        hash(&[&two])
    );
}

#[tokio::test]
async fn a_snapshot_that_empties_the_node_waits_for_an_operator() {
    let (directory, device) = world();
    let mut rig = Rig::start(&directory, &device).await;
    let peers: Vec<_> = (1..=20).map(peer).collect();
    rig.snapshot(20, peers.clone()).await;
    rig.send(snapshot(21, peers[..9].to_vec())).await;
    let held = Held {
        revision: Revision(21),
        removals: 11,
        peers: 20,
    };
    let status = rig.until("held", |status| status.held.is_some()).await;
    assert_eq!(status.held, Some(held.clone()));
    rig.send(apply(21, 22, vec![remove(1)])).await;
    assert_eq!(rig.node.status().await.expect("runs").peers, 20);

    assert_eq!(rig.node.accept_snapshot().await, Ok(Some(held)));
    let applied = rig.applied().await;
    assert_eq!(
        (applied.revision, applied.results.len()),
        (Revision(21), 20)
    );
    assert_eq!(keys(&device).await.len(), 9);
    assert!(matches!(
        rig.next().await,
        Outgoing::Message(AgentMessage::Resync)
    ));
    assert_eq!(rig.node.accept_snapshot().await, Ok(None));
}

#[tokio::test]
async fn a_peer_leaves_by_itself_when_its_time_has_passed() {
    let (directory, device) = world();
    let mut rig = Rig::start(&directory, &device).await;
    let late = Peer {
        not_after: Some(Utc::now()),
        ..peer(1)
    };
    let short = Peer {
        not_after: Some(Utc::now() + TimeDelta::milliseconds(200)),
        ..peer(2)
    };
    let results = rig.apply(0, 2, vec![upsert(&late), upsert(&short)]).await;
    assert_eq!(results[0], failed(FailureReason::Expired));
    device.transfer(&short.public_key, 5, 6);
    rig.until("expired", |status| status.peers == 0).await;
    assert_eq!(keys(&device).await, []);
    assert!(Utc::now() >= short.not_after.expect("set"));
    assert_eq!(rig.apply(2, 3, vec![remove(2)]).await, [counters(1, 5, 6)]);
}

#[tokio::test]
async fn a_lengthened_life_is_no_operation() {
    let (directory, device) = world();
    let mut rig = Rig::start(&directory, &device).await;
    let short = Peer {
        not_after: Some(Utc::now() + TimeDelta::milliseconds(100)),
        ..peer(1)
    };
    rig.apply(0, 1, vec![upsert(&short)]).await;
    let longer = Peer {
        not_after: Some(Utc::now() + TimeDelta::hours(1)),
        ..short.clone()
    };
    rig.apply(1, 2, vec![upsert(&longer)]).await;
    let passed = short.not_after.expect("set") + TimeDelta::milliseconds(20);
    while Utc::now() < passed {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(rig.node.status().await.expect("runs").peers, 1);
    assert_eq!(device.operations().len(), 1);
}

#[tokio::test]
async fn large_snapshots_are_acknowledged_in_frames_that_fit() {
    let (directory, device) = world();
    let mut rig = Rig::start_with(
        &directory,
        &device,
        config(directory.path(), Uuid::nil(), "10.8.0.0/16"),
    )
    .await;
    rig.send(snapshot(1200, (1..=1200).map(peer).collect()))
        .await;
    let mut results = 0;
    while results < 1200 {
        let applied = rig.applied().await;
        assert_eq!(applied.revision, Revision(1200));
        results += applied.results.len();
        let frame = AgentMessage::Applied(applied).encode();
        assert!(frame.len() <= shared::protocol::MAX_FRAME_BYTES);
    }
    assert_eq!(keys(&device).await.len(), 1200);
}

#[tokio::test]
async fn another_subnet_than_the_ledgers_is_refused_with_what_to_do() {
    let (directory, device) = world();
    let mut rig = Rig::start(&directory, &device).await;
    rig.apply(0, 1, vec![upsert(&peer(1))]).await;
    rig.stop().await;
    let (ledger, stored) = Ledger::open(directory.path()).expect("ledger");
    let config = config(directory.path(), Uuid::nil(), "10.99.0.0/24");
    let error = Node::start(ledger, stored, Arc::new(device), config)
        .await
        .expect_err("refused");
    assert!(error.to_string().contains("VPN_SUBNET"), "{error}");
}
