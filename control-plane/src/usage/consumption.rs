//! What nodes say of quotas, between their frames and the database. Pure.
//!
//! What a peer consumed only grows, so that the largest report is the truth; lost, late and repeated ones
//! do no harm.

use std::collections::HashMap;

use shared::ids::PeerId;

/// A node's peers that have an allowance.
#[derive(Debug, Default)]
pub(super) struct Consumptions(HashMap<PeerId, Consumption>);

#[derive(Debug, Clone, Copy, Default)]
struct Consumption {
    latest: u64,
    stored: Option<u64>,
    /// What it may come to before the person's quota is shared anew, as far as that is known.
    share_at: Option<u64>,
    misses: u8,
}

impl Consumptions {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn latest(&self, peer: PeerId) -> Option<u64> {
        self.0.get(&peer).map(|it| it.latest)
    }

    /// Takes a report. A peer that is not known yet needs `room`; says whether it was taken.
    pub(super) fn observe(&mut self, peer: PeerId, consumed: u64, room: bool) -> bool {
        if !room && !self.0.contains_key(&peer) {
            return false;
        }
        let known = self.0.entry(peer).or_default();
        known.latest = known.latest.max(consumed);
        true
    }

    /// What the database does not have.
    pub(super) fn unstored(&self) -> impl Iterator<Item = (PeerId, u64)> {
        let moved = |it: &Consumption| it.stored.is_none_or(|stored| stored < it.latest);
        let unstored = self.0.iter().filter(move |(_, it)| moved(it));
        unstored.map(|(peer, it)| (*peer, it.latest))
    }

    /// The same of one peer.
    pub(super) fn unstored_of(&self, peer: PeerId) -> Option<u64> {
        let known = self.0.get(&peer)?;
        let is_news = known.stored.is_none_or(|stored| stored < known.latest);
        is_news.then_some(known.latest)
    }

    /// Whether the database has to know at once: the quota may have to be shared anew.
    pub(super) fn is_due(&self, peer: PeerId) -> bool {
        self.0.get(&peer).is_some_and(|it| {
            it.stored.is_none_or(|stored| stored < it.latest)
                && it.share_at.is_none_or(|at| it.latest >= at)
        })
    }

    /// The quota was shared anew: until the database says it, nobody knows how far the peer's part goes.
    pub(super) fn reshared(&mut self, peer: PeerId) {
        if let Some(known) = self.0.get_mut(&peer) {
            known.share_at = None;
        }
    }

    /// The database has this much, and shares the quota anew at `share_at`.
    pub(super) fn stored(&mut self, peer: PeerId, consumed: u64, share_at: u64) {
        if let Some(known) = self.0.get_mut(&peer) {
            known.stored = known.stored.max(Some(consumed));
            known.share_at = Some(share_at);
            known.misses = 0;
        }
    }

    /// The database did not take it; one that it does not know is given up after `most` times.
    pub(super) fn missed(&mut self, peer: PeerId, most: u8) {
        if let Some(known) = self.0.get_mut(&peer) {
            known.misses += 1;
            if known.misses >= most {
                self.0.remove(&peer);
            }
        }
    }

    pub(super) fn remove(&mut self, peer: PeerId) {
        self.0.remove(&peer);
    }

    /// Forgets those that are stored and for which `keep` does not speak.
    pub(super) fn forget_stored(&mut self, keep: impl Fn(PeerId) -> bool) {
        self.0
            .retain(|peer, it| it.stored.is_none_or(|stored| stored < it.latest) || keep(*peer));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: PeerId = PeerId(1);

    fn unstored(of: &Consumptions) -> Vec<u64> {
        of.unstored().map(|(_, consumed)| consumed).collect()
    }

    #[test]
    fn the_largest_report_counts_until_it_is_stored() {
        let mut of = Consumptions::default();
        for consumed in [10, 30, 20] {
            assert!(of.observe(PEER, consumed, true));
        }
        assert_eq!(unstored(&of), [30]);
        of.observe(PEER, 40, false);
        of.stored(PEER, 30, 100);
        assert_eq!(unstored(&of), [40]);
        of.stored(PEER, 40, 100);
        of.observe(PEER, 40, true);
        assert!(unstored(&of).is_empty());
        of.forget_stored(|_| false);
        assert!(of.is_empty());
    }

    #[test]
    fn a_part_that_is_used_or_unknown_is_due() {
        let mut of = Consumptions::default();
        of.observe(PEER, 10, true);
        assert!(of.is_due(PEER));
        of.stored(PEER, 10, 50);
        of.observe(PEER, 49, true);
        assert!(!of.is_due(PEER));
        of.observe(PEER, 50, true);
        assert!(of.is_due(PEER));
        of.stored(PEER, 50, 80);
        assert!(!of.is_due(PEER));
        of.observe(PEER, 60, true);
        of.reshared(PEER);
        assert!(of.is_due(PEER));
    }

    #[test]
    fn what_nobody_knows_is_given_up_and_room_is_bounded() {
        let mut of = Consumptions::default();
        assert!(!of.observe(PEER, 10, false));
        assert!(of.observe(PEER, 10, true));
        of.missed(PEER, 2);
        assert_eq!(of.len(), 1);
        of.missed(PEER, 2);
        assert_eq!(of.len(), 0);
    }
}
