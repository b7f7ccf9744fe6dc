//! The interface's key changes at its time, whatever happens in between.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use rstest::rstest;
use shared::protocol::{AgentMessage, NextKey, Settings};
use shared::wireguard::PublicKey;
use tempfile::TempDir;

use super::rig::{Rig, addresses, counters, peer, remove, upsert, world};
use crate::ledger::{self, Ledger, PlannedKey, Write};
use crate::reconcile::{DrainedBy, Operations, Outgoing};
use crate::wireguard::Device;
use crate::wireguard::fake::FakeDevice;

fn rotate_at(at: DateTime<Utc>) -> Settings {
    Settings {
        draining: false,
        rotate_key_at: Some(at),
    }
}

async fn settings(rig: &mut Rig, settings: Settings) {
    rig.node.settings(settings).await.expect("runs");
}

async fn next_key(rig: &mut Rig) -> NextKey {
    match rig.next().await {
        Outgoing::Message(AgentMessage::NextKey(next)) => next,
        other => panic!("no next key: {other:?}"),
    }
}

fn interface_key(device: &FakeDevice) -> PublicKey {
    let setup = device.setup().expect("an interface");
    setup.private_key.public_key()
}

fn key_on_disk(directory: &TempDir) -> PublicKey {
    let key = ledger::private_key(directory.path()).expect("a key");
    key.public_key()
}

/// A ledger with a plan that is due in so many milliseconds, as the agent leaves it.
fn plan(directory: &TempDir, millis: i64) -> PlannedKey {
    let (ledger, _) = Ledger::open(directory.path()).expect("ledger");
    let planned = PlannedKey {
        asked: Utc::now() - TimeDelta::hours(1),
        at: Utc::now() + TimeDelta::milliseconds(millis),
        public_key: ledger.make_next_key().expect("made"),
    };
    let writes = [
        Write::Settings(rotate_at(planned.asked)),
        Write::PlannedKey(planned),
    ];
    ledger.commit(&writes).expect("commits");
    planned
}

#[tokio::test]
async fn a_plan_is_answered_repeated_moved_and_taken_back() {
    let (directory, device) = world();
    let mut rig = Rig::start(&directory, &device).await;
    let present = rig.standing.public_key;
    let tomorrow = Utc::now() + TimeDelta::hours(24);
    settings(&mut rig, rotate_at(tomorrow)).await;
    let planned = next_key(&mut rig).await;
    assert_eq!(planned.at, tomorrow);
    assert_ne!(planned.public_key, present);
    settings(&mut rig, rotate_at(tomorrow)).await;
    assert_eq!(next_key(&mut rig).await, planned);
    let file = directory.path().join("next.key");
    let text = std::fs::read_to_string(&file).expect("on disk");
    assert!(text.len() == 45 && !text.contains(&planned.public_key.to_base64()));

    // The clients that learned the key need no other one.
    let later = tomorrow + TimeDelta::hours(1);
    settings(&mut rig, rotate_at(later)).await;
    let moved = next_key(&mut rig).await;
    assert_eq!((moved.public_key, moved.at), (planned.public_key, later));
    rig.stop().await;
    let mut rig = Rig::start(&directory, &device).await;
    assert_eq!(rig.standing.next_key, Some(moved));
    assert_eq!(rig.standing.public_key, present);

    settings(&mut rig, Settings::default()).await;
    let status = rig.node.status().await.expect("runs");
    assert_eq!(status.next_key, None);
    assert!(!file.exists());
    settings(&mut rig, rotate_at(tomorrow)).await;
    let again = next_key(&mut rig).await;
    assert_ne!(
        again.public_key, planned.public_key,
        "a new plan, a new key"
    );
    assert_eq!(interface_key(&device), present);
    assert_eq!(key_on_disk(&directory), present);
}

#[rstest]
#[case::past(-3600)]
#[case::now(0)]
#[case::near(9)]
#[tokio::test]
async fn notice_is_given_whatever_the_plane_asks(#[case] seconds: i64) {
    let (directory, device) = world();
    let mut rig = Rig::start(&directory, &device).await;
    let asked = Utc::now() + TimeDelta::seconds(seconds);
    settings(&mut rig, rotate_at(asked)).await;
    let planned = next_key(&mut rig).await;
    let notice = planned.at - Utc::now();
    assert!(notice > TimeDelta::seconds(8) && notice <= TimeDelta::seconds(10));
    // Asked again, it is not put off.
    settings(&mut rig, rotate_at(asked)).await;
    assert_eq!(next_key(&mut rig).await, planned);
}

#[tokio::test]
async fn at_its_time_the_key_changes_and_nothing_else() {
    let (directory, device) = world();
    let mut rig = Rig::start(&directory, &device).await;
    let one = peer(1);
    let given = rig.apply(0, 1, vec![upsert(&one)]).await;
    device.transfer(&one.public_key, 10, 20);
    rig.stop().await;
    let planned = plan(&directory, 400);
    let _ = device.take_operations();

    let mut rig = Rig::start(&directory, &device).await;
    let before = rig.standing.clone();
    assert_ne!(before.public_key, planned.public_key);
    assert!(matches!(rig.next().await, Outgoing::KeyChanged));
    assert!(Utc::now() >= planned.at);
    assert_eq!(interface_key(&device), planned.public_key);
    assert_eq!(key_on_disk(&directory), planned.public_key);
    assert_eq!(device.take_operations(), []);
    let status = rig.node.status().await.expect("runs");
    assert_eq!(status.interface_epoch, before.interface_epoch);
    assert_eq!((status.peers, status.next_key), (1, None));
    // The plane repeats itself until it knows.
    settings(&mut rig, rotate_at(planned.asked)).await;
    assert_eq!(rig.apply(1, 1, vec![upsert(&one)]).await, given);
    let held = &device.peers().await.expect("interface")[0];
    assert_eq!(held.preshared_key, one.preshared_key);
    assert_eq!(held.allowed_ips[0].addr(), addresses(&given[0]).v4);
    assert_eq!(
        rig.apply(1, 2, vec![remove(1)]).await,
        [counters(1, 10, 20)]
    );
}

/// Where a crash stopped the agent.
#[derive(Debug, Clone, Copy)]
enum Crash {
    /// The next key lies on disk; the ledger does not know of a plan.
    KeyMade,
    /// The plan is in the ledger; nobody was told.
    Planned,
    /// The same, and the time passes while no agent runs.
    Away,
    /// The key's file has taken over; the ledger still has the plan.
    FileMoved,
    /// The ledger knows that it is done; the interface has the old key.
    Recorded,
    /// Everything is done but the plane was not told.
    KeySet,
}

/// Carries a plan out by hand up to the crash. Answers the key that is to take over.
async fn crash(directory: &TempDir, device: &FakeDevice, crash: Crash) -> PublicKey {
    let millis = match crash {
        Crash::KeyMade | Crash::Planned => 300,
        _ => -1,
    };
    if matches!(crash, Crash::KeyMade) {
        let (ledger, _) = Ledger::open(directory.path()).expect("ledger");
        return ledger.make_next_key().expect("made");
    }
    let planned = plan(directory, millis);
    if matches!(crash, Crash::Planned | Crash::Away) {
        return planned.public_key;
    }
    let (ledger, _) = Ledger::open(directory.path()).expect("ledger");
    let key = ledger.adopt_next_key(&planned.public_key).expect("adopts");
    if matches!(crash, Crash::FileMoved) {
        return planned.public_key;
    }
    let done = [Write::Rotated(planned.asked), Write::NoPlannedKey];
    ledger.commit(&done).expect("commits");
    if matches!(crash, Crash::KeySet) {
        let mut setup = device.setup().expect("an interface");
        setup.private_key = key.expect("here");
        device.ensure(&setup).await.expect("sets");
    }
    planned.public_key
}

#[rstest]
#[case(Crash::Planned)]
#[case(Crash::Away)]
#[case(Crash::FileMoved)]
#[case(Crash::Recorded)]
#[case(Crash::KeySet)]
#[tokio::test]
async fn a_crash_at_any_step_ends_with_the_new_key_and_no_operation(#[case] at: Crash) {
    let (directory, device) = world();
    let mut rig = Rig::start(&directory, &device).await;
    let one = peer(1);
    rig.apply(0, 1, vec![upsert(&one)]).await;
    device.transfer(&one.public_key, 10, 20);
    let before = rig.standing.clone();
    rig.stop().await;
    let _ = device.take_operations();
    let promised = crash(&directory, &device, at).await;

    let mut rig = Rig::start(&directory, &device).await;
    if matches!(at, Crash::Planned) {
        assert!(matches!(rig.next().await, Outgoing::KeyChanged));
    } else {
        assert_eq!(rig.standing.public_key, promised);
        assert_eq!(rig.standing.next_key, None);
    }
    assert_eq!(interface_key(&device), promised);
    assert_eq!(key_on_disk(&directory), promised);
    let status = rig.node.status().await.expect("runs");
    assert_eq!(status.operations, Operations::default());
    assert_eq!(status.interface_epoch, before.interface_epoch);
    assert_eq!(device.take_operations(), []);
    assert_eq!(
        rig.apply(1, 2, vec![remove(1)]).await,
        [counters(1, 10, 20)]
    );
    rig.stop().await;
    let rig = Rig::start(&directory, &device).await;
    assert_eq!(rig.standing.public_key, promised);
}

#[tokio::test]
async fn a_key_without_a_plan_is_nobodys() {
    let (directory, device) = world();
    let rig = Rig::start(&directory, &device).await;
    let present = rig.standing.public_key;
    rig.stop().await;
    let orphan = crash(&directory, &device, Crash::KeyMade).await;
    let mut rig = Rig::start(&directory, &device).await;
    assert_eq!(
        (rig.standing.public_key, rig.standing.next_key),
        (present, None)
    );
    settings(&mut rig, rotate_at(Utc::now() + TimeDelta::hours(1))).await;
    assert_ne!(next_key(&mut rig).await.public_key, orphan);
}

#[rstest]
#[case::before_its_time(3_600_000)]
#[case::at_its_time(-1)]
#[tokio::test]
async fn a_plan_whose_key_is_lost_cuts_nobody_off(#[case] millis: i64) {
    let (directory, device) = world();
    let rig = Rig::start(&directory, &device).await;
    let present = rig.standing.public_key;
    rig.stop().await;
    let planned = plan(&directory, millis);
    std::fs::write(directory.path().join("next.key"), "gone").expect("written");
    let mut rig = Rig::start(&directory, &device).await;
    assert_eq!(
        (rig.standing.public_key, rig.standing.next_key),
        (present, None)
    );
    assert_eq!(interface_key(&device), present);
    // The plane still wants it: another key is announced in time.
    settings(&mut rig, rotate_at(planned.asked)).await;
    let next = next_key(&mut rig).await;
    assert_ne!(next.public_key, planned.public_key);
    assert!(next.at > Utc::now() + TimeDelta::seconds(8));
}

#[tokio::test]
async fn a_device_that_fails_gets_the_key_at_the_next_comparison() {
    let (directory, device) = world();
    let rig = Rig::start(&directory, &device).await;
    rig.stop().await;
    let planned = plan(&directory, 300);
    let mut rig = Rig::start(&directory, &device).await;
    device.fail_next(1);
    assert!(matches!(rig.next().await, Outgoing::KeyChanged));
    assert_ne!(interface_key(&device), planned.public_key);
    rig.node.reconcile().await.expect("runs");
    rig.node.status().await.expect("runs");
    assert_eq!(interface_key(&device), planned.public_key);
}

#[tokio::test]
async fn the_planes_wish_to_drain_outlives_a_restart_and_the_hosts_own() {
    let (directory, device) = world();
    let mut rig = Rig::start(&directory, &device).await;
    let drained = Settings {
        draining: true,
        rotate_key_at: None,
    };
    settings(&mut rig, drained).await;
    rig.node.drain(true).await.expect("runs");
    rig.stop().await;
    let mut rig = Rig::start(&directory, &device).await;
    assert!(rig.standing.draining);
    let status = rig.node.status().await.expect("runs");
    assert_eq!(status.drained_by, [DrainedBy::Host, DrainedBy::Plane]);
    rig.node.drain(false).await.expect("runs");
    let status = rig.node.status().await.expect("runs");
    assert_eq!(
        (status.draining, status.drained_by),
        (true, vec![DrainedBy::Plane])
    );
    let refused = rig.apply(0, 1, vec![upsert(&peer(1))]).await;
    let reason = shared::protocol::FailureReason::Draining;
    assert_eq!(refused, [super::rig::failed(reason)]);
    settings(&mut rig, Settings::default()).await;
    let status = rig.until("welcoming", |status| !status.draining).await;
    assert_eq!(status.drained_by, []);
    tokio::time::timeout(Duration::from_secs(5), rig.stop())
        .await
        .expect("stops");
}
