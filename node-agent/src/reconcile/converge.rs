//! The node's dealings with ledger and device: write first, then program, repair what failed.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::Utc;
use shared::ids::PeerId;
use shared::protocol::{FailureReason, Outcome, PeerResult};
use shared::wireguard::PublicKey;
use tokio::task::JoinHandle;
use tracing::{error, info, warn};
use uuid::Uuid;

use super::ahead::Ahead;
use super::node::{Node, NodeError};
use super::state::Staged;
use crate::counters::Sequence;
use crate::ledger::{Interface, LedgerError, Write};
use crate::wireguard::{DeviceError, PeerOp, PeerStatus, Traffic};

/// Most changes that are written without a blocking thread: it takes less than a thread would take to
/// wake.
const MAX_WRITES_AT_ONCE: usize = 64;

/// Ends when a commit is on disk.
type OnDisk = JoinHandle<Result<(), LedgerError>>;

/// What became of a [`Staged`].
#[derive(Debug, Default)]
pub(super) struct Carried {
    /// To write it down, and what the disk took longer than the interface.
    pub(super) ledger: Duration,
    /// Of that, what the disk took longer.
    pub(super) disk: Duration,
    pub(super) interface: Duration,
    /// Peers that the interface did not take.
    failed: HashSet<PeerId>,
}

impl Carried {
    /// The results as they turned out.
    pub(super) fn judge(&self, mut results: Vec<PeerResult>) -> Vec<PeerResult> {
        for result in &mut results {
            if self.failed.contains(&result.peer)
                && matches!(result.outcome, Outcome::Active { .. })
            {
                result.outcome = Outcome::Failed {
                    reason: FailureReason::Interface,
                };
            }
        }
        results
    }
}

impl Node {
    /// Ledger, then interface. A peer that the interface does not take even after a repair is
    /// given up. The disk takes its time beside the interface, and nobody is told before both are done.
    pub(super) async fn carry_out(&mut self, staged: Staged) -> Result<Carried, NodeError> {
        let begin = Instant::now();
        let on_disk = self.write_down(staged.writes).await?;
        let written = begin.elapsed();
        let begin = Instant::now();
        let mut operations = staged.operations;
        let mut failed = self.limit(&mut operations).await?;
        if let Err(error) = self.program(&operations).await {
            warn!(event = "interface_failed", %error);
            failed.extend(self.recover(&operations).await?);
        }
        self.unlimit().await;
        let interface = begin.elapsed();
        let begin = Instant::now();
        on_disk.await??;
        let disk = begin.elapsed();
        Ok(Carried {
            ledger: written + disk,
            disk,
            interface,
            failed,
        })
    }

    /// After a failed call no one knows how far it came: look, and do what is missing.
    async fn recover(&mut self, attempted: &[PeerOp]) -> Result<HashSet<PeerId>, NodeError> {
        let added: HashSet<PublicKey> = added(attempted).copied().collect();
        let replaced = attempted
            .iter()
            .filter_map(|operation| match operation {
                PeerOp::Remove(key) if added.contains(key) => Some(*key),
                _ => None,
            })
            .collect();
        let absent = match self.reconcile(&replaced).await {
            Ok(_) => return Ok(HashSet::new()),
            Err(NodeError::Device(error)) => {
                error!(event = "interface_not_repaired", %error);
                self.absent(added).await
            }
            Err(error) => return Err(error),
        };
        let failed = absent.iter().filter_map(|key| self.state.holder(key));
        let failed = failed.collect();
        let writes = self.state.withdraw(&absent, Utc::now());
        self.commit(writes).await?;
        Ok(failed)
    }

    /// Those of `keys` that are not in the interface; all of them when it cannot be read.
    async fn absent(&self, mut keys: HashSet<PublicKey>) -> HashSet<PublicKey> {
        if let Ok(peers) = self.device.peers().await {
            for peer in peers {
                keys.remove(&peer.public_key);
            }
        }
        keys
    }

    /// A comparison out of turn; what it finds is our own doing and no drift.
    pub(super) async fn try_reconcile(&mut self) -> Result<(), NodeError> {
        match self.reconcile(&HashSet::new()).await {
            Err(NodeError::Device(error)) => {
                error!(event = "reconcile_failed", %error);
                Ok(())
            }
            other => other.map(drop),
        }
    }

    /// The periodic comparison. A device that fails is tried again at the next one.
    pub(super) async fn repair(&mut self) -> Result<(), NodeError> {
        let compared = self.reconcile(&HashSet::new()).await;
        self.save_consumed().await?;
        match compared {
            Ok(0) => Ok(()),
            Ok(repaired) => {
                warn!(event = "drift_repaired", operations = repaired);
                self.drift = self
                    .drift
                    .saturating_add(u64::try_from(repaired).unwrap_or(u64::MAX));
                Ok(())
            }
            Err(NodeError::Device(error)) => {
                error!(event = "reconcile_failed", %error);
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Brings interface and limits to the state; returns how many differences that mended. Keys in `replaced`
    /// have a new holder.
    pub(super) async fn reconcile(
        &mut self,
        replaced: &HashSet<PublicKey>,
    ) -> Result<usize, NodeError> {
        let actual = self.look(replaced).await?;
        self.converge(actual, replaced).await
    }

    /// Makes the interface if need be, reads its peers once and books the counters of those that
    /// still have their holder.
    pub(super) async fn look(
        &mut self,
        replaced: &HashSet<PublicKey>,
    ) -> Result<Vec<PeerStatus>, NodeError> {
        self.ensure_interface().await?;
        let began = self.state.begin_dump();
        let actual = self.device.peers().await?;
        let own = actual
            .iter()
            .filter(|it| !replaced.contains(&it.public_key));
        self.observe(own.map(Traffic::from), began).await?;
        Ok(actual)
    }

    /// Takes a reading in that began before the node was there, if the interface is the one in the ledger.
    pub(super) async fn look_back(
        &mut self,
        ahead: Ahead,
        known: Option<Interface>,
    ) -> Result<Vec<PeerStatus>, NodeError> {
        self.ensure_interface().await?;
        let actual = match ahead.peers().await {
            Some(actual) if self.interface == known => actual,
            _ => return self.look(&HashSet::new()).await,
        };
        let began = self.state.begin_dump();
        self.observe(actual.iter().map(Traffic::from), began)
            .await?;
        Ok(actual)
    }

    /// Does what is missing in an interface that was just read.
    pub(super) async fn converge(
        &mut self,
        mut actual: Vec<PeerStatus>,
        replaced: &HashSet<PublicKey>,
    ) -> Result<usize, NodeError> {
        // Limits first: no client comes back to the interface without them.
        let limits = self.repair_limits().await;
        let mut operations = Vec::new();
        if !replaced.is_empty() {
            actual.retain(|peer| {
                let stale = replaced.contains(&peer.public_key);
                operations.extend(stale.then_some(PeerOp::Remove(peer.public_key)));
                !stale
            });
        }
        operations.extend(self.state.repairs(&actual));
        if !self.settled {
            operations.retain(|operation| match operation {
                PeerOp::Remove(key) => self.state.holder(key).is_some(),
                _ => true,
            });
        }
        if limits.is_err() {
            operations.retain(|operation| match operation {
                PeerOp::Add(spec) => !self.state.is_limited(&spec.public_key),
                _ => true,
            });
        }
        let writes = self.state.begin_generation(added(&operations));
        self.commit(writes).await?;
        self.program(&operations).await?;
        Ok(operations.len().saturating_add(limits.unwrap_or_default()))
    }

    /// A new interface, or a new boot, is a new epoch: its counters began at zero.
    pub(super) async fn ensure_interface(&mut self) -> Result<(), NodeError> {
        let status = self.device.ensure(&self.setup).await?;
        let same = self
            .interface
            .is_some_and(|it| it.boot_id == self.boot_id && it.index == status.index);
        if !same {
            let interface = Interface {
                boot_id: self.boot_id,
                index: status.index,
                epoch: Uuid::new_v4(),
            };
            self.commit(vec![Write::Interface(interface)]).await?;
            self.interface = Some(interface);
            info!(event = "interface_epoch", index = status.index);
        }
        Ok(())
    }

    pub(super) async fn read_counters(&mut self) -> Result<(), NodeError> {
        let began = self.state.begin_dump();
        let table = std::mem::take(&mut self.table);
        let table = self.device.counters(table).await?;
        self.observe(table.iter().copied(), began).await?;
        self.table = table;
        Ok(())
    }

    /// Where the interface cannot be read, the counters of the last report are the final ones.
    pub(super) async fn try_read_counters(&mut self) -> Result<(), NodeError> {
        match self.read_counters().await {
            Err(NodeError::Device(error)) => {
                warn!(event = "counters_not_read", %error);
                Ok(())
            }
            other => other,
        }
    }

    pub(super) async fn observe(
        &mut self,
        dump: impl Iterator<Item = Traffic>,
        began: Sequence,
    ) -> Result<(), NodeError> {
        let restarted = self.state.book.observe(dump, began);
        if restarted.is_empty() {
            return Ok(());
        }
        warn!(event = "counters_went_back", peers = restarted.len());
        let writes = self.state.begin_generation(restarted.iter());
        self.commit(writes).await
    }

    pub(super) async fn commit(&self, writes: Vec<Write>) -> Result<(), NodeError> {
        if writes.is_empty() {
            return Ok(());
        }
        let ledger = Arc::clone(&self.ledger);
        tokio::task::spawn_blocking(move || ledger.commit(&writes)).await??;
        Ok(())
    }

    /// Writes a commit, which a restart finds from now on, and begins to put it on disk.
    async fn write_down(&self, writes: Vec<Write>) -> Result<OnDisk, NodeError> {
        let unsynced = if writes.len() > MAX_WRITES_AT_ONCE {
            let ledger = Arc::clone(&self.ledger);
            tokio::task::spawn_blocking(move || ledger.append(&writes)).await??
        } else {
            self.ledger.append(&writes)?
        };
        Ok(tokio::task::spawn_blocking(move || unsynced.sync()))
    }

    pub(super) async fn program(&mut self, operations: &[PeerOp]) -> Result<(), DeviceError> {
        if operations.is_empty() {
            return Ok(());
        }
        self.device.apply(operations).await?;
        for operation in operations {
            match operation {
                PeerOp::Add(_) => self.operations.added += 1,
                PeerOp::Update(_) => self.operations.updated += 1,
                PeerOp::Remove(_) => self.operations.removed += 1,
            }
        }
        Ok(())
    }
}

fn added(operations: &[PeerOp]) -> impl Iterator<Item = &PublicKey> {
    operations.iter().filter_map(|operation| match operation {
        PeerOp::Add(spec) => Some(&spec.public_key),
        _ => None,
    })
}
