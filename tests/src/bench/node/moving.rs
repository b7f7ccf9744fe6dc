//! A real interface on which every peer is busy. Ten thousand handshakes would measure handshakes, so
//! the counters alone are moved, after they have been read.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use chrono::Utc;
use node_agent::wireguard::{
    Device, DeviceError, InterfaceSetup, InterfaceStatus, PeerOp, PeerStatus, Traffic,
};

/// Five gigabytes up and eighty down: what a peer has moved in a busy week.
const SENT: u64 = 5_000_000_000;
const RECEIVED: u64 = 80_000_000_000;

#[derive(Debug)]
pub struct Moving {
    device: Arc<dyn Device>,
    readings: AtomicU64,
}

impl Moving {
    #[must_use]
    pub fn new(device: Arc<dyn Device>) -> Self {
        let readings = AtomicU64::new(0);
        Self { device, readings }
    }
}

#[async_trait]
impl Device for Moving {
    fn backend(&self) -> &'static str {
        self.device.backend()
    }

    async fn ensure(&self, setup: &InterfaceSetup) -> Result<InterfaceStatus, DeviceError> {
        self.device.ensure(setup).await
    }

    async fn peers(&self) -> Result<Vec<PeerStatus>, DeviceError> {
        self.device.peers().await
    }

    async fn counters(&self, table: Vec<Traffic>) -> Result<Vec<Traffic>, DeviceError> {
        let mut table = self.device.counters(table).await?;
        let moved = self.readings.fetch_add(1, Ordering::Relaxed) * 100_000;
        let now = u64::try_from(Utc::now().timestamp()).unwrap_or_default();
        for row in &mut table {
            row.rx_bytes = SENT + moved;
            row.tx_bytes = RECEIVED + moved;
            row.last_handshake = Some(now - 100);
        }
        Ok(table)
    }

    async fn apply(&self, operations: &[PeerOp]) -> Result<(), DeviceError> {
        self.device.apply(operations).await
    }

    async fn teardown(&self) -> Result<(), DeviceError> {
        self.device.teardown().await
    }
}
