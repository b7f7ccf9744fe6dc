//! What the node does when interface and ledger differ, or a device fails.

use std::time::Duration;

use chrono::{TimeDelta, Utc};
use shared::protocol::{Addresses, FailureReason, Outcome, Peer};
use uuid::Uuid;

use super::rig::{Rig, config, counters, failed, hash, keys, peer, remove, upsert, world};
use crate::reconcile::NodeConfig;
use crate::wireguard::{Device, PeerSpec};

#[tokio::test]
async fn after_a_reboot_the_peers_come_back_in_a_new_generation() {
    let (directory, device) = world();
    let mut rig = Rig::start(&directory, &device).await;
    let (one, short) = (
        peer(1),
        Peer {
            not_after: Some(Utc::now() + TimeDelta::milliseconds(300)),
            ..peer(2)
        },
    );
    rig.apply(0, 2, vec![upsert(&one), upsert(&short)]).await;
    let before = rig.standing.interface_epoch;
    rig.stop().await;
    device.vanish();
    let _ = device.take_operations();
    tokio::time::sleep(Duration::from_millis(300)).await;

    let mut rig = Rig::start_with(
        &directory,
        &device,
        config(directory.path(), Uuid::from_u128(2), "10.8.0.0/24"),
    )
    .await;
    assert_ne!(rig.standing.interface_epoch, before);
    assert_eq!(keys(&device).await, [one.public_key]);
    assert_eq!(
        device.take_operations().len(),
        1,
        "the expired peer was added"
    );
    device.transfer(&one.public_key, 5, 6);
    let gone = rig.apply(2, 4, vec![remove(1), remove(2)]).await;
    assert_eq!(
        gone,
        [counters(2, 5, 6), Outcome::Removed { counters: None }]
    );
}

#[tokio::test]
async fn a_device_failure_is_repaired_before_the_answer() {
    let (directory, device) = world();
    let mut rig = Rig::start(&directory, &device).await;
    device.fail_apply_after(1);
    let results = rig
        .apply(0, 2, vec![upsert(&peer(1)), upsert(&peer(2))])
        .await;
    assert!(
        results
            .iter()
            .all(|it| matches!(it, Outcome::Active { .. }))
    );
    assert_eq!(keys(&device).await.len(), 2);
    // One addition before the failure and one in the repair.
    assert_eq!(device.operations().len(), 2);
}

#[tokio::test]
async fn a_device_that_stays_broken_fails_the_peer_and_only_it() {
    let (directory, device) = world();
    let mut rig = Rig::start(&directory, &device).await;
    let one = peer(1);
    rig.apply(0, 1, vec![upsert(&one)]).await;
    device.fail_next(3);
    let results = rig.apply(1, 2, vec![upsert(&peer(2))]).await;
    assert_eq!(results, [failed(FailureReason::Interface)]);
    let status = rig.node.status().await.expect("runs");
    assert_eq!(
        (status.peers, status.pool_used),
        (1, 2),
        "its address rests"
    );
    assert_eq!(status.state_hash, hash(&[&one]));
    assert_eq!(keys(&device).await, [one.public_key]);
}

#[tokio::test]
async fn a_node_without_a_ledger_cuts_nobody_off_before_the_plane_has_spoken() {
    let (directory, device) = world();
    let setup = config(directory.path(), Uuid::nil(), "10.8.0.0/24").setup;
    device.ensure(&setup).await.expect("made");
    let (kept, foreign) = (peer(1), peer(2));
    for (peer, host) in [(&kept, "10.8.0.9/32"), (&foreign, "10.8.0.10/32")] {
        device.put_foreign(&PeerSpec {
            public_key: peer.public_key,
            preshared_key: peer.preshared_key.clone(),
            allowed_ips: vec![host.parse().expect("host")],
        });
    }
    let mut rig = Rig::start(&directory, &device).await;
    rig.node.reconcile().await.expect("runs");
    assert_eq!(keys(&device).await.len(), 2);
    let named = Peer {
        addresses: Some(Addresses {
            v4: [10, 8, 0, 9].into(),
            v6: None,
        }),
        ..kept.clone()
    };
    rig.snapshot(1, vec![named]).await;
    rig.node.reconcile().await.expect("runs");
    rig.until("repaired", |status| status.drift == 1).await;
    assert_eq!(keys(&device).await, [kept.public_key]);
}

#[tokio::test]
async fn drift_is_repaired_and_counted() {
    let (directory, device) = world();
    let mut rig = Rig::start(&directory, &device).await;
    let one = peer(1);
    rig.apply(0, 1, vec![upsert(&one)]).await;
    device.transfer(&one.public_key, 50, 60);
    rig.node.report().await.expect("runs");
    rig.next().await;
    device.remove_foreign(&one.public_key);
    device.put_foreign(&PeerSpec {
        public_key: peer(9).public_key,
        preshared_key: None,
        allowed_ips: vec![],
    });
    rig.node.reconcile().await.expect("runs");
    rig.until("repaired", |status| status.drift == 2).await;
    assert_eq!(keys(&device).await, [one.public_key]);
    device.transfer(&one.public_key, 1, 1);
    assert_eq!(rig.apply(1, 2, vec![remove(1)]).await, [counters(2, 1, 1)]);
}

#[tokio::test]
async fn a_vanished_interface_comes_back_by_itself_in_a_new_epoch() {
    let (directory, device) = world();
    let often = NodeConfig {
        reconcile_every: Duration::from_millis(20),
        ..config(directory.path(), Uuid::nil(), "10.8.0.0/24")
    };
    let mut rig = Rig::start_with(&directory, &device, often).await;
    let one = peer(1);
    rig.apply(0, 1, vec![upsert(&one)]).await;
    device.vanish();
    let before = rig.standing.interface_epoch;
    let status = rig.until("repaired", |status| status.drift == 1).await;
    assert_ne!(status.interface_epoch, before);
    assert_eq!(keys(&device).await, [one.public_key]);
}
