//! The agent dies between its ledger and the interface, and clients go on sending meanwhile.

use std::time::Instant;

use shared::protocol::{Change, Outcome, Peer};
use tempfile::TempDir;

use super::eventful::{Agent, Eventful};
use super::rig::{Rig, apply, counters, keys, peer, remove, snapshot, upsert, world};
use crate::wireguard::Device;
use crate::wireguard::fake::FakeDevice;

/// A peer that has moved 10 and 20 bytes. Then comes a change, and the agent dies when the ledger has it
/// and the interface nothing of it; the client moves 3 and 4 more.
async fn dies_at_the_interface(
    change: impl FnOnce(&Peer) -> Change,
) -> (TempDir, FakeDevice, Peer) {
    let (directory, device) = world();
    let eventful = Eventful {
        inner: device.clone(),
        ..Eventful::default()
    };
    let agent = Agent::start(&directory, &eventful).await;
    let one = peer(1);
    let desired = snapshot(1, vec![one.clone()]);
    let sent = agent.node.desired(desired, Instant::now()).await;
    sent.expect("runs");
    agent.node.status().await.expect("runs");
    device.transfer(&one.public_key, 10, 20);
    // The dump before, its end, the first operation.
    eventful.plot.lock().expect("whole").fuse = Some(2);
    let desired = apply(1, 2, vec![change(&one)]);
    let sent = agent.node.desired(desired, Instant::now()).await;
    sent.expect("runs");
    eventful.died.notified().await;
    agent.kill().await;
    assert_eq!(keys(&device).await, [one.public_key], "it was out already");
    device.transfer(&one.public_key, 3, 4);
    (directory, device, one)
}

#[tokio::test]
async fn what_a_removed_peer_counts_until_it_is_out_is_in_its_last_word() {
    let (directory, device, _) = dies_at_the_interface(|_| remove(1)).await;
    let mut rig = Rig::start(&directory, &device).await;
    assert!(device.peers().await.expect("interface").is_empty());
    let told = rig.apply(2, 3, vec![remove(1)]).await;
    assert_eq!(told, [counters(1, 13, 24)]);
}

#[tokio::test]
async fn a_key_that_goes_to_another_peer_brings_it_nothing_and_the_first_loses_nothing() {
    let heir = |one: &Peer| {
        upsert(&Peer {
            public_key: one.public_key,
            ..peer(2)
        })
    };
    let (directory, device, one) = dies_at_the_interface(heir).await;
    let mut rig = Rig::start(&directory, &device).await;
    device.transfer(&one.public_key, 1, 1);
    let told = rig.apply(2, 4, vec![remove(1), remove(2)]).await;
    assert_eq!(told[0], counters(1, 13, 24));
    let Outcome::Removed {
        counters: Some(heirs),
    } = told[1]
    else {
        panic!("the heir has no counters: {told:?}");
    };
    assert_eq!((heirs.sent, heirs.received), (1, 1));
}
