//! The node's dealings with the table of limits.
//!
//! A client that comes is limited before it is in the interface, and one that leaves is out of it
//! before its limits go: it is never there without them. One whose limits cannot be programmed is given
//! up. Those who are here already stay, with whatever the table still holds, until it can be mended.

use std::collections::HashSet;

use chrono::Utc;
use shared::ids::PeerId;
use shared::protocol::counters::CountersFrame;
use tracing::{error, warn};

use super::handle::{Outgoing, Report};
use super::node::{Node, NodeError, unix_now};
use crate::ledger::Write;
use crate::limits::{Consumed, TableError};
use crate::wireguard::PeerOp;

impl Node {
    /// Limits those who come or whose limits change. Returns whom that failed for: they are given up,
    /// and `operations` are those of the others.
    pub(super) async fn limit(
        &mut self,
        operations: &mut Vec<PeerOp>,
    ) -> Result<HashSet<PeerId>, NodeError> {
        let peers = self.state.limits.to_limit();
        if peers.is_empty() {
            return Ok(HashSet::new());
        }
        let Err(error) = self.limiter.limit(&mut self.state.limits).await else {
            self.limits_error = None;
            return Ok(HashSet::new());
        };
        // No one knows how far it came: look, and do what is missing.
        warn!(event = "limits_failed", %error);
        if self.repair_limits().await.is_ok() {
            return Ok(HashSet::new());
        }
        let keys = self.state.keys_of_limited(&peers);
        let failed = keys.iter().filter_map(|key| self.state.holder(key));
        let failed = failed.collect();
        let writes = self.state.withdraw(&keys, Utc::now());
        self.commit(writes).await?;
        let mut coming = HashSet::new();
        operations.retain(|operation| match operation {
            PeerOp::Add(spec) if keys.contains(&spec.public_key) => {
                coming.insert(spec.public_key);
                false
            }
            PeerOp::Update(spec) => !keys.contains(&spec.public_key),
            _ => true,
        });
        let present = keys.difference(&coming);
        operations.extend(present.map(|key| PeerOp::Remove(*key)));
        Ok(failed)
    }

    /// Takes the limits of those out who left. What stays behind goes with the next repair.
    pub(super) async fn unlimit(&mut self) {
        if let Err(error) = self.limiter.clear(&mut self.state.limits).await {
            warn!(event = "limits_not_cleared", %error);
        }
    }

    /// Compares the whole table; returns how many peers differed.
    pub(super) async fn repair_limits(&mut self) -> Result<usize, TableError> {
        if self.limiter.is_idle(&self.state.limits) {
            return Ok(0);
        }
        let repaired = self.limiter.repair(&mut self.state.limits).await;
        self.limits_error = repaired.as_ref().err().map(ToString::to_string);
        if let Err(error) = &repaired {
            if self.state.limits.limited().next().is_some() {
                error!(event = "limits_not_repaired", %error);
            } else {
                // Nobody needs them on this host.
                self.limits_error = None;
            }
        }
        repaired
    }

    /// What is read last counts where the table cannot be read.
    pub(super) async fn try_read_quotas(&mut self, peers: &[PeerId]) {
        if let Err(error) = self.limiter.read(&mut self.state.limits, peers).await {
            warn!(event = "quotas_not_read", %error);
        }
    }

    /// Takes in what the periodic reading said.
    pub(super) async fn observe_quotas(
        &mut self,
        read: Result<Vec<Consumed>, TableError>,
    ) -> Result<(), NodeError> {
        match read {
            // Somebody deleted the table: every second without it is used for nothing.
            Ok(quotas) if quotas.is_empty() && self.limiter.has_quota() => self.repair().await,
            Ok(quotas) => {
                self.limiter.observe(&mut self.state.limits, &quotas);
                Ok(())
            }
            Err(error) => {
                warn!(event = "quotas_not_read", %error);
                Ok(())
            }
        }
    }

    /// Writes down what was used since the last time, at once for all.
    pub(super) async fn save_consumed(&mut self) -> Result<(), NodeError> {
        let moved = self.state.limits.unsaved();
        if moved.is_empty() {
            return Ok(());
        }
        self.commit(vec![Write::Consumed(moved)]).await
    }

    /// The last thing before the agent ends.
    pub(super) async fn save_last_consumed(&mut self) -> Result<(), NodeError> {
        if self.state.limits.counts_any() {
            match self.limiter.table().quotas().await {
                Ok(quotas) => self.limiter.observe(&mut self.state.limits, &quotas),
                Err(error) => warn!(event = "quotas_not_read", %error),
            }
        }
        self.save_consumed().await
    }

    /// Tells what was used, before it is told that peers left or that an allowance was lowered: whoever
    /// shares a quota out must not take what was used for what is left.
    pub(super) fn tell_consumed(&mut self) {
        let mut counters: Vec<CountersFrame> = Vec::new();
        self.state.limits.report(unix_now(), &mut counters);
        if counters.is_empty() {
            return;
        }
        let occupancy = self.occupancy();
        self.send(Outgoing::Report(Report {
            counters,
            occupancy,
            watched: None,
        }));
    }
}
