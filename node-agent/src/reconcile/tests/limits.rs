//! Limits through the node: what the table holds, what the plane hears, what survives.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use chrono::{TimeDelta, Utc};
use shared::ids::PeerId;
use shared::protocol::counters::CountersFrame;
use shared::protocol::{AgentMessage, FailureReason, Limits, Outcome, Peer};
use tempfile::TempDir;
use uuid::Uuid;

use super::rig::{Rig, addresses, apply, config, failed, keys, peer, remove, until, upsert, world};
use crate::limits::fake::FakeTable;
use crate::limits::{Change, Kind, Object};
use crate::reconcile::{NodeConfig, Outgoing};
use crate::wireguard::PeerOp;
use crate::wireguard::fake::FakeDevice;

fn limited(id: u64, allowance: Option<u64>) -> Peer {
    Peer {
        limits: Limits {
            download_bps: Some(10_000_000),
            upload_bps: None,
            allowance,
        },
        ..peer(id)
    }
}

fn with(peer: &Peer, limits: Limits) -> shared::protocol::Change {
    let peer = peer.clone();
    upsert(&Peer { limits, ..peer })
}

fn setup(directory: &TempDir, table: &FakeTable, boot: u128) -> NodeConfig {
    NodeConfig {
        limits: Arc::new(table.clone()),
        ..config(directory.path(), Uuid::from_u128(boot), "10.8.0.0/24")
    }
}

async fn start(directory: &TempDir, device: &FakeDevice, table: &FakeTable) -> Rig {
    Rig::start_with(directory, device, setup(directory, table, 1)).await
}

fn quota(table: &FakeTable, id: u64) -> Option<Object> {
    table.content()?.object(Kind::Quota, PeerId(id))
}

fn consumed(frames: Vec<CountersFrame>) -> Vec<(u64, u64)> {
    let all = frames.into_iter().flat_map(|frame| frame.consumed);
    all.map(|(peer, bytes)| (peer.0, bytes)).collect()
}

async fn report(rig: &mut Rig) -> Vec<(u64, u64)> {
    rig.node.report().await.expect("runs");
    match rig.next().await {
        Outgoing::Report(report) => consumed(report.counters),
        other => panic!("no report: {other:?}"),
    }
}

#[tokio::test]
async fn a_change_of_limits_never_touches_the_peer() {
    let ((directory, device), table) = (world(), FakeTable::new());
    let mut rig = start(&directory, &device, &table).await;
    let one = limited(1, Some(100));
    let given = rig.apply(0, 1, vec![upsert(&one)]).await;
    assert_eq!(device.take_operations().len(), 1);
    let address = IpAddr::V4(addresses(&given[0]).v4);
    table.transfer(address, 60);
    let _ = table.take_changes();

    let raised = Limits {
        allowance: Some(500),
        ..one.limits
    };
    assert_eq!(rig.apply(1, 2, vec![with(&one, raised)]).await, given);
    assert_eq!(table.take_changes(), [Change::SetAllowance(PeerId(1), 500)]);
    let bytes = 500;
    let object = Object::Quota {
        bytes,
        consumed: 60,
    };
    assert_eq!(quota(&table, 1), Some(object));
    let none = Limits::default();
    assert_eq!(rig.apply(2, 3, vec![with(&one, none)]).await, given);
    assert!(table.content().expect("made").is_empty());
    assert_eq!(device.take_operations(), []);
    assert_eq!(rig.node.status().await.expect("runs").limited, 0);
    rig.apply(3, 4, vec![with(&one, raised)]).await;
    assert_eq!(quota(&table, 1), Some(object), "what was used stays known");
    assert_eq!(rig.node.status().await.expect("runs").limited, 1);
}

#[tokio::test]
async fn who_cannot_be_limited_is_refused_and_others_are_not() {
    let ((directory, device), table) = (world(), FakeTable::new());
    let mut rig = start(&directory, &device, &table).await;
    table.set_broken(true);
    let (free, bound) = (peer(1), limited(2, None));
    let results = rig.apply(0, 2, vec![upsert(&free), upsert(&bound)]).await;
    assert!(matches!(results[0], Outcome::Active { .. }));
    assert_eq!(results[1], failed(FailureReason::Interface));
    assert_eq!(keys(&device).await, [free.public_key]);
    assert_eq!(device.take_operations().len(), 1, "it was never there");
    let status = rig.node.status().await.expect("runs");
    assert!(status.limits_error.is_some(), "{status:?}");

    table.set_broken(false);
    let results = rig.apply(2, 3, vec![upsert(&bound)]).await;
    assert!(matches!(results[0], Outcome::Active { .. }));
    let status = rig.node.status().await.expect("runs");
    assert_eq!((status.peers, status.limited), (2, 1));
    // A limit that cannot be changed is none: better no client than one without it.
    table.set_broken(true);
    let faster = Limits {
        download_bps: Some(50_000_000),
        ..bound.limits
    };
    let results = rig.apply(3, 4, vec![with(&bound, faster)]).await;
    assert_eq!(results, [failed(FailureReason::Interface)]);
    assert_eq!(keys(&device).await, [free.public_key]);
}

#[tokio::test]
async fn one_refused_change_is_repaired_before_the_answer() {
    let ((directory, device), table) = (world(), FakeTable::new());
    let mut rig = start(&directory, &device, &table).await;
    rig.apply(0, 1, vec![upsert(&limited(1, Some(5)))]).await;
    table.fail_changes(1);
    let results = rig.apply(1, 2, vec![upsert(&limited(2, Some(5)))]).await;
    assert!(matches!(results[0], Outcome::Active { .. }));
    assert!(quota(&table, 2).is_some());
}

#[tokio::test]
async fn what_was_used_is_reported_when_it_moved_and_again_in_a_new_session() {
    let ((directory, device), table) = (world(), FakeTable::new());
    let mut rig = start(&directory, &device, &table).await;
    let reads = table.reads();
    rig.apply(0, 1, vec![upsert(&limited(9, None))]).await;
    assert_eq!(report(&mut rig).await, []);
    assert_eq!(table.reads(), reads, "nobody has a quota");

    let given = rig.apply(1, 2, vec![upsert(&limited(1, Some(100)))]).await;
    let address = IpAddr::V4(addresses(&given[0]).v4);
    assert!(table.transfer(address, 70));
    assert_eq!(report(&mut rig).await, [(1, 70)]);
    assert_eq!(report(&mut rig).await, []);
    assert!(!table.transfer(address, 70));
    assert_eq!(report(&mut rig).await, [(1, 100)], "no more than there was");
    let (outbox, answers) = tokio::sync::mpsc::channel(64);
    rig.node.attach(outbox).await.expect("runs");
    rig.answers = answers;
    assert_eq!(report(&mut rig).await, [(1, 100)]);
}

#[tokio::test]
async fn the_last_use_is_told_before_the_peer_is_gone() {
    let ((directory, device), table) = (world(), FakeTable::new());
    let mut rig = start(&directory, &device, &table).await;
    let one = limited(1, Some(100));
    let given = rig.apply(0, 1, vec![upsert(&one)]).await;
    table.transfer(IpAddr::V4(addresses(&given[0]).v4), 30);
    rig.send(apply(1, 2, vec![remove(1)])).await;
    match rig.next().await {
        Outgoing::Report(report) => assert_eq!(consumed(report.counters), [(1, 30)]),
        other => panic!("no report: {other:?}"),
    }
    assert!(matches!(
        rig.next().await,
        Outgoing::Message(AgentMessage::Applied(_))
    ));
    assert!(table.content().expect("made").is_empty());

    // It comes back, here and after a restart: what it used is not forgotten.
    rig.stop().await;
    let mut rig = start(&directory, &device, &table).await;
    assert_eq!(report(&mut rig).await, [(1, 30)]);
    rig.apply(2, 3, vec![upsert(&one)]).await;
    let expected = Object::Quota {
        bytes: 100,
        consumed: 30,
    };
    assert_eq!(quota(&table, 1), Some(expected));
}

#[tokio::test]
async fn a_restart_leaves_the_table_and_a_reboot_brings_it_back() {
    let ((directory, device), table) = (world(), FakeTable::new());
    let mut rig = start(&directory, &device, &table).await;
    let one = limited(1, Some(100));
    let given = rig.apply(0, 1, vec![upsert(&one)]).await;
    let address = IpAddr::V4(addresses(&given[0]).v4);
    table.transfer(address, 30);
    rig.stop().await;
    table.transfer(address, 5);
    let _ = table.take_changes();

    let mut rig = start(&directory, &device, &table).await;
    assert_eq!(table.take_changes(), []);
    assert_eq!(report(&mut rig).await, [(1, 35)]);
    rig.stop().await;

    table.vanish();
    device.vanish();
    let rig = Rig::start_with(&directory, &device, setup(&directory, &table, 2)).await;
    let expected = Object::Quota {
        bytes: 100,
        consumed: 35,
    };
    assert_eq!(quota(&table, 1), Some(expected));
    assert_eq!(rig.node.status().await.expect("runs").drift, 0);
}

#[tokio::test]
async fn after_a_reboot_nobody_comes_back_without_limits() {
    let ((directory, device), table) = (world(), FakeTable::new());
    let mut rig = start(&directory, &device, &table).await;
    let (free, bound) = (peer(1), limited(2, None));
    rig.apply(0, 2, vec![upsert(&free), upsert(&bound)]).await;
    rig.stop().await;
    table.vanish();
    device.vanish();
    table.set_broken(true);
    let rig = Rig::start_with(&directory, &device, setup(&directory, &table, 2)).await;
    assert_eq!(keys(&device).await, [free.public_key]);
    table.set_broken(false);
    rig.node.reconcile().await.expect("runs");
    rig.until("repaired", |status| status.drift > 0).await;
    assert_eq!(keys(&device).await.len(), 2);
    assert!(
        table
            .content()
            .expect("made")
            .object(Kind::Download, PeerId(2))
            .is_some()
    );
}

#[tokio::test]
async fn tunnels_that_are_up_stay_while_the_table_cannot_be_mended() {
    let ((directory, device), table) = (world(), FakeTable::new());
    let mut rig = start(&directory, &device, &table).await;
    let one = limited(1, None);
    rig.apply(0, 1, vec![upsert(&one)]).await;
    table.set_broken(true);
    rig.node.reconcile().await.expect("runs");
    rig.until("noticed", |status| status.limits_error.is_some())
        .await;
    rig.stop().await;
    let rig = start(&directory, &device, &table).await;
    assert_eq!(keys(&device).await, [one.public_key]);
    drop(rig);
}

#[tokio::test]
async fn a_deleted_table_is_noticed_at_the_next_report() {
    let ((directory, device), table) = (world(), FakeTable::new());
    let mut rig = start(&directory, &device, &table).await;
    let given = rig.apply(0, 1, vec![upsert(&limited(1, Some(100)))]).await;
    table.transfer(IpAddr::V4(addresses(&given[0]).v4), 30);
    assert_eq!(report(&mut rig).await, [(1, 30)]);
    table.vanish();
    assert_eq!(report(&mut rig).await, []);
    let expected = Object::Quota {
        bytes: 100,
        consumed: 30,
    };
    assert_eq!(quota(&table, 1), Some(expected));
    assert_eq!(rig.node.status().await.expect("runs").drift, 1);
}

#[tokio::test]
async fn the_limits_of_an_expired_peer_go_with_it() {
    let ((directory, device), table) = (world(), FakeTable::new());
    let mut rig = start(&directory, &device, &table).await;
    let short = Peer {
        not_after: Some(Utc::now() + TimeDelta::milliseconds(100)),
        ..limited(1, Some(100))
    };
    rig.apply(0, 1, vec![upsert(&short)]).await;
    rig.until("expired", |status| status.peers == 0).await;
    assert!(table.content().expect("made").is_empty());
}

#[tokio::test]
async fn without_a_session_what_was_used_is_written_down_all_the_same() {
    let ((directory, device), table) = (world(), FakeTable::new());
    let often = NodeConfig {
        reconcile_every: Duration::from_millis(10),
        ..setup(&directory, &table, 1)
    };
    let mut rig = Rig::start_with(&directory, &device, often).await;
    let given = rig.apply(0, 1, vec![upsert(&limited(1, Some(100)))]).await;
    let _ = device.take_operations();
    table.transfer(IpAddr::V4(addresses(&given[0]).v4), 30);
    let reads = table.reads();
    until("two comparisons", || table.reads() >= reads + 2).await;
    // As by `kill -9`.
    rig.task.abort();
    assert!(rig.task.await.expect_err("aborted").is_cancelled());
    table.vanish();
    let rig = start(&directory, &device, &table).await;
    let expected = Object::Quota {
        bytes: 100,
        consumed: 30,
    };
    assert_eq!(quota(&table, 1), Some(expected));
    assert!(
        !device
            .operations()
            .iter()
            .any(|it| matches!(it, PeerOp::Remove(_)))
    );
    drop(rig);
}
