//! What changes mean for limits.

use std::collections::HashSet;

use chrono::{DateTime, Utc};
use shared::ids::PeerId;
use shared::protocol::{Change, Peer};
use shared::wireguard::PublicKey;

use super::{State, has_expired};

impl State {
    /// Whose quota these changes end or resize, so that it should be read first.
    #[must_use]
    pub(in crate::reconcile) fn quotas_at_stake(
        &self,
        changes: &[Change],
        now: DateTime<Utc>,
    ) -> Vec<PeerId> {
        let mut peers = Vec::new();
        for change in changes {
            match change {
                Change::Remove { peer } => peers.push(*peer),
                Change::Upsert(peer) => {
                    let holder = self.by_key.get(&peer.public_key).copied();
                    peers.extend(holder.filter(|holder| *holder != peer.peer));
                    if self.is_at_stake(peer, now) {
                        peers.push(peer.peer);
                    }
                }
                Change::Unknown => {}
            }
        }
        peers.retain(|peer| self.limits.allowance(*peer).is_some());
        peers
    }

    fn is_at_stake(&self, peer: &Peer, now: DateTime<Utc>) -> bool {
        self.peers.get(&peer.peer).is_some_and(|known| {
            known.public_key != peer.public_key
                || known.limits.allowance != peer.limits.allowance
                || has_expired(peer.not_after, now)
        })
    }

    /// Peers with a quota whose time has passed.
    #[must_use]
    pub(in crate::reconcile) fn expiring_quotas(&self, now: DateTime<Utc>) -> Vec<PeerId> {
        let expired = self.expiries.iter().take_while(|(at, _)| *at <= now);
        expired
            .map(|(_, peer)| *peer)
            .filter(|peer| self.limits.allowance(*peer).is_some())
            .collect()
    }

    /// The keys of those of `peers` that are limited.
    #[must_use]
    pub(in crate::reconcile) fn keys_of_limited(&self, peers: &[PeerId]) -> HashSet<PublicKey> {
        let records = peers.iter().filter_map(|peer| self.peers.get(peer));
        records
            .filter(|record| !record.limits.are_none())
            .map(|record| record.public_key)
            .collect()
    }

    /// Whether this key's holder is limited.
    #[must_use]
    pub(in crate::reconcile) fn is_limited(&self, key: &PublicKey) -> bool {
        let record = self.by_key.get(key).and_then(|peer| self.peers.get(peer));
        record.is_some_and(|record| !record.limits.are_none())
    }
}
