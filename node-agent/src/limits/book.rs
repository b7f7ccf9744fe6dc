//! Which peers are limited and what they have used. Pure.
//!
//! What must hold: what a peer has used only grows, also over its removal and return; the plane is
//! told each new value, and everything again in a new session.

use std::collections::{BTreeMap, BTreeSet};

use shared::ids::PeerId;
use shared::protocol::counters::{CountersFrame, MAX_ENTRIES};
use shared::protocol::{Addresses, Limits};

use super::{Consumed, Wanted};
use crate::ledger::Write;

/// Removed peers whose last value is kept at most; beyond it the oldest peer's is dropped.
const MAX_ENDED: usize = 10_000;

#[derive(Debug, Clone, Copy)]
struct Entry {
    addresses: Addresses,
    limits: Limits,
    consumed: u64,
    /// The value that the plane was told last in this session.
    told: u64,
    /// The value on disk.
    stored: u64,
}

/// Every peer that has limits, or has used some of a quota.
#[derive(Debug, Default)]
pub struct Book {
    peers: BTreeMap<PeerId, Entry>,
    /// Peers that left: what they had used, and whether this session's plane was told.
    ended: BTreeMap<PeerId, (u64, bool)>,
    /// Peers whose limits are not what they were when the table was last brought to the book.
    dirty: BTreeSet<PeerId>,
}

impl Book {
    /// A peer is here with these limits.
    pub fn set(&mut self, peer: PeerId, addresses: Addresses, limits: Limits) {
        let consumed = self.ended.remove(&peer).map_or(0, |(consumed, _)| consumed);
        let known = self.peers.get(&peer);
        if limits.are_none() && consumed == 0 && known.is_none_or(|it| it.consumed == 0) {
            if self.peers.remove(&peer).is_some() {
                self.dirty.insert(peer);
            }
            return;
        }
        let entry = self.peers.entry(peer).or_insert(Entry {
            addresses,
            limits: Limits::default(),
            consumed,
            told: 0,
            stored: 0,
        });
        if (entry.addresses, entry.limits) != (addresses, limits) {
            (entry.addresses, entry.limits) = (addresses, limits);
            self.dirty.insert(peer);
        }
    }

    /// What a peer that is here had used when that was last written down.
    pub fn resume(&mut self, peer: PeerId, addresses: Addresses, consumed: u64) {
        if consumed == 0 {
            return;
        }
        let entry = self.peers.entry(peer).or_insert(Entry {
            addresses,
            limits: Limits::default(),
            consumed,
            told: 0,
            stored: 0,
        });
        (entry.consumed, entry.stored) = (consumed, consumed);
    }

    /// The peer leaves; returns what it has used.
    pub fn remove(&mut self, peer: PeerId) -> u64 {
        let Some(entry) = self.peers.remove(&peer) else {
            return 0;
        };
        self.dirty.insert(peer);
        self.end(peer, entry.consumed, entry.told == entry.consumed);
        entry.consumed
    }

    /// What a peer that has just come back used when it was here before, to be written down with it.
    pub fn used_before(&mut self, peer: PeerId) -> Option<Write> {
        let entry = self.peers.get_mut(&peer)?;
        let unsaved = entry.consumed != entry.stored;
        entry.stored = entry.consumed;
        unsaved.then(|| Write::Consumed(vec![(peer, entry.consumed)]))
    }

    /// A peer that left before this agent started.
    pub fn left(&mut self, peer: PeerId, consumed: u64) {
        self.end(peer, consumed, false);
    }

    fn end(&mut self, peer: PeerId, consumed: u64, told: bool) {
        if consumed > 0 {
            self.ended.insert(peer, (consumed, told));
        }
        if self.ended.len() > MAX_ENDED {
            self.ended.pop_first();
        }
    }

    /// Takes in what the table says. An older value does no harm.
    pub fn observe(&mut self, quotas: impl IntoIterator<Item = Consumed>) {
        for (peer, consumed) in quotas {
            if let Some(entry) = self.peers.get_mut(&peer) {
                entry.consumed = entry.consumed.max(consumed);
            }
        }
    }

    /// What the table shall hold of a peer.
    #[must_use]
    pub fn wanted(&self, peer: PeerId) -> Option<Wanted> {
        let entry = self.peers.get(&peer)?;
        (!entry.limits.are_none()).then_some(Wanted {
            addresses: entry.addresses,
            limits: entry.limits,
            consumed: entry.consumed,
        })
    }

    /// Every peer that has limits.
    pub fn limited(&self) -> impl Iterator<Item = PeerId> + '_ {
        let limited = self.peers.iter().filter(|(_, it)| !it.limits.are_none());
        limited.map(|(peer, _)| *peer)
    }

    #[must_use]
    pub fn allowance(&self, peer: PeerId) -> Option<u64> {
        self.peers.get(&peer)?.limits.allowance
    }

    /// Whether any peer has an allowance.
    #[must_use]
    pub fn counts_any(&self) -> bool {
        self.peers.values().any(|it| it.limits.allowance.is_some())
    }

    /// Peers that are here and whose limits the table does not hold yet.
    #[must_use]
    pub fn to_limit(&self) -> Vec<PeerId> {
        self.dirty_where(|it| self.peers.contains_key(it))
    }

    /// Peers that left, or lost their limits, and may still be in the table.
    #[must_use]
    pub fn to_clear(&self) -> Vec<PeerId> {
        self.dirty_where(|it| !self.peers.contains_key(it))
    }

    fn dirty_where(&self, is: impl Fn(&PeerId) -> bool) -> Vec<PeerId> {
        self.dirty.iter().copied().filter(|it| is(it)).collect()
    }

    /// The table holds what the book says of these peers.
    pub fn settled(&mut self, peers: &[PeerId]) {
        for peer in peers {
            self.dirty.remove(peer);
        }
    }

    /// The table holds all that the book says.
    pub fn all_settled(&mut self) {
        self.dirty.clear();
    }

    /// Whether the plane was not told yet what a peer that left had used.
    #[must_use]
    pub fn owes_last_words(&self) -> bool {
        self.ended.values().any(|(_, told)| !told)
    }

    /// What moved since it was told last, put on `frames`; further ones where it takes them.
    pub fn report(&mut self, taken_at: u64, frames: &mut Vec<CountersFrame>) {
        let mut moved = Vec::new();
        for (peer, (consumed, told)) in &mut self.ended {
            if !std::mem::replace(told, true) {
                moved.push((*peer, *consumed));
            }
        }
        for (peer, entry) in &mut self.peers {
            if entry.told != entry.consumed {
                entry.told = entry.consumed;
                moved.push((*peer, entry.consumed));
            }
        }
        moved.sort_unstable();
        for (index, part) in moved.chunks(MAX_ENTRIES).enumerate() {
            match frames.get_mut(index) {
                Some(frame) => frame.consumed = part.to_vec(),
                None => frames.push(CountersFrame {
                    taken_at,
                    entries: Vec::new(),
                    consumed: part.to_vec(),
                }),
            }
        }
    }

    /// A new session: the plane may have missed any frame.
    pub fn report_all_again(&mut self) {
        for entry in self.peers.values_mut() {
            entry.told = 0;
        }
        for (_, told) in self.ended.values_mut() {
            *told = false;
        }
    }

    /// What moved since it was last written down, and is to be written down now.
    pub fn unsaved(&mut self) -> Vec<Consumed> {
        let moved = self.peers.iter_mut().filter_map(|(peer, entry)| {
            let moved = entry.stored != entry.consumed;
            entry.stored = entry.consumed;
            moved.then_some((*peer, entry.consumed))
        });
        moved.collect()
    }
}

#[cfg(test)]
#[path = "tests/book.rs"]
mod tests;
