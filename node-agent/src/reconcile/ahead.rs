//! A reading of the interface that begins before the node has its ledger.
//!
//! The kernel tells ten thousand peers in about the time in which the agent reads its ledger, so a start
//! does both at once. What must hold: what was read is of the interface that the node then finds. One with
//! the index that the ledger knows, in the same boot, was there all the time; a reading of any other is
//! passed over. And nobody but the node changes it meanwhile: whoever begins a reading has the lock of the
//! state directory.

use std::sync::Arc;

use tokio::task::{JoinHandle, yield_now};

use crate::wireguard::{Device, DeviceError, PeerStatus};

/// A reading that has begun.
#[derive(Debug)]
pub struct Ahead(JoinHandle<Result<Vec<PeerStatus>, DeviceError>>);

impl Ahead {
    /// Returns once it is on a thread of its own: whoever calls has work for this one.
    pub async fn begin(device: &Arc<dyn Device>) -> Self {
        let device = Arc::clone(device);
        let reading = tokio::spawn(async move { device.peers().await });
        yield_now().await;
        Self(reading)
    }

    /// None where the interface was not there, or could not be read: that shows again in a moment.
    pub(super) async fn peers(self) -> Option<Vec<PeerStatus>> {
        self.0.await.ok()?.ok()
    }
}
