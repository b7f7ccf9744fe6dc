//! A start whose reading of the interface began before it had the ledger.

use std::sync::Arc;

use tempfile::TempDir;
use uuid::Uuid;

use super::rig::{Rig, config, counters, keys, peer, remove, upsert, world};
use crate::reconcile::Ahead;
use crate::wireguard::fake::FakeDevice;
use crate::wireguard::{Device, PeerSpec};

/// An agent that held peer 1, which has moved 5 and 6 bytes, and ended.
async fn ended() -> (TempDir, FakeDevice) {
    let (directory, device) = world();
    let mut rig = Rig::start(&directory, &device).await;
    let one = peer(1);
    rig.apply(0, 1, vec![upsert(&one)]).await;
    rig.stop().await;
    device.transfer(&one.public_key, 5, 6);
    let _ = device.take_operations();
    (directory, device)
}

/// The next agent, with something happening between its reading and the rest of its start.
async fn starts(directory: &TempDir, device: &FakeDevice, meanwhile: impl FnOnce()) -> Rig {
    let shared: Arc<dyn Device> = Arc::new(device.clone());
    let ahead = Ahead::begin(&shared).await;
    meanwhile();
    let config = config(directory.path(), Uuid::from_u128(1), "10.8.0.0/24");
    Rig::start_from(directory, device, config, Some(ahead)).await
}

#[tokio::test]
async fn what_it_read_is_what_it_compares_and_books() {
    let (directory, device) = ended().await;
    let stranger = PeerSpec {
        public_key: peer(9).public_key,
        preshared_key: None,
        allowed_ips: Vec::new(),
    };
    let mut rig = starts(&directory, &device, || device.put_foreign(&stranger)).await;
    assert_eq!(device.take_operations(), [], "it looked again");
    rig.node.reconcile().await.expect("runs");
    rig.until("repaired", |status| status.drift == 1).await;
    let gone = rig.apply(1, 2, vec![remove(1)]).await;
    assert_eq!(gone, [counters(1, 5, 6)]);
}

#[tokio::test]
async fn a_reading_of_an_interface_that_is_gone_is_passed_over() {
    let (directory, device) = ended().await;
    let before = keys(&device).await;
    let mut rig = starts(&directory, &device, || device.vanish()).await;
    assert_eq!(keys(&device).await, before);
    assert_eq!(device.take_operations().len(), 1);
    let gone = rig.apply(1, 2, vec![remove(1)]).await;
    assert_eq!(gone, [counters(2, 0, 0)]);
}
