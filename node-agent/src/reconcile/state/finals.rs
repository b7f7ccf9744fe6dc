//! What peers counted that are gone: kept for a while, so that a repeated removal is answered with the
//! same, and one that comes back goes on from it.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, TimeDelta, Utc};
use shared::ids::{Generation, PeerId};
use shared::protocol::Outcome;
use shared::wireguard::PublicKey;

use super::{Staged, State, next};
use crate::counters;
use crate::ledger::{Final, Write};
use crate::wireguard::{PeerStatus, Traffic};

/// How many removed peers' final counters are kept, and how long.
const MAX_FINALS: usize = 16_384;
const KEEP_FINALS: TimeDelta = TimeDelta::hours(24);

impl State {
    /// What the ledger remembers, without what is too old. Returns what it may forget.
    pub(super) fn restore_finals(
        &mut self,
        finals: HashMap<PeerId, Final>,
        now: DateTime<Utc>,
    ) -> Vec<Write> {
        let mut forgotten = Vec::new();
        for (peer, last) in finals {
            if last.removed_at + KEEP_FINALS <= now {
                forgotten.push(Write::NoFinal(peer));
            } else {
                self.limits.left(peer, last.consumed);
                self.finals_by_age.insert((last.removed_at, peer));
                self.finals.insert(peer, last);
            }
        }
        forgotten
    }

    /// Takes in what peers counted that were removed and still are in the interface: the agent died
    /// between the two.
    pub(in crate::reconcile) fn observe_removed(&mut self, dump: &[PeerStatus]) -> Vec<Write> {
        let tunnels = self.finals.values().filter_map(|last| last.tunnel);
        let gone: HashSet<PublicKey> = tunnels.map(|tunnel| tunnel.public_key).collect();
        let left: HashMap<PublicKey, Traffic> = dump
            .iter()
            .filter(|status| gone.contains(&status.public_key) && !self.is_own(status))
            .map(|status| (status.public_key, Traffic::from(status)))
            .collect();
        let mut writes = Vec::new();
        for (peer, last) in &mut self.finals {
            let Some(tunnel) = last.tunnel else { continue };
            let row = left.get(&tunnel.public_key);
            let Some(row) = row.filter(|it| it.hosts.are(tunnel.addresses)) else {
                continue;
            };
            let counters = counters::of(row, last.generation);
            if last.counters != Some(counters) {
                last.counters = Some(counters);
                writes.push(Write::Final(*peer, last.clone()));
            }
        }
        writes
    }

    pub(super) fn gone(&self, peer: PeerId) -> Outcome {
        let last = self.finals.get(&peer);
        Outcome::Removed {
            counters: last.and_then(|last| last.counters),
        }
    }

    /// The generation of a peer that is new to the interface. One that was here before goes on
    /// counting, and what it counted then is reported next to it.
    pub(super) fn revive(&mut self, peer: PeerId, staged: &mut Staged) -> Generation {
        let Some(last) = self.finals.remove(&peer) else {
            return Generation(1);
        };
        self.finals_by_age.remove(&(last.removed_at, peer));
        staged.writes.push(Write::NoFinal(peer));
        if let Some(counters) = last.counters {
            self.book.end(peer, counters);
        }
        next(last.generation)
    }

    pub(super) fn keep_final(&mut self, peer: PeerId, last: Final, staged: &mut Staged) {
        staged.writes.push(Write::Final(peer, last.clone()));
        self.finals_by_age.insert((last.removed_at, peer));
        self.finals.insert(peer, last);
        while self.finals.len() > MAX_FINALS
            && let Some((_, oldest)) = self.finals_by_age.pop_first()
        {
            self.finals.remove(&oldest);
            staged.writes.push(Write::NoFinal(oldest));
        }
    }
}
