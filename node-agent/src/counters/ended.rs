//! Generations that ended while their peer lived on.
//!
//! Nothing acknowledges a report, so an ended generation is told in every session until one session
//! has lived on for long after telling: by then the plane has it in its database.

use std::collections::BTreeMap;

use shared::ids::{Generation, PeerId};
use shared::protocol::PeerCounters;

/// How many are kept at most. Beyond it one that was told goes, if there is one.
const MAX: usize = 65_536;

#[derive(Debug)]
struct Entry {
    counters: PeerCounters,
    /// When this session's plane was told, in Unix seconds.
    told: Option<u64>,
}

#[derive(Debug, Default)]
pub(super) struct Ended {
    entries: BTreeMap<(PeerId, Generation), Entry>,
    /// How many of the entries were not told yet.
    untold: usize,
}

impl Ended {
    pub(super) fn insert(&mut self, peer: PeerId, counters: PeerCounters) {
        let entry = Entry {
            counters,
            told: None,
        };
        let before = self.entries.insert((peer, counters.generation), entry);
        self.untold += usize::from(before.is_none_or(|before| before.told.is_some()));
        if self.entries.len() > MAX {
            let told = self.entries.iter().find(|(_, entry)| entry.told.is_some());
            let given_up = told.or_else(|| self.entries.first_key_value());
            if let Some(key) = given_up.map(|(key, _)| *key) {
                self.remove(key);
            }
        }
    }

    /// What this session's plane has not heard of: each peer's generations in their order, and as
    /// many peers as possible in a row, since a frame takes each peer once.
    pub(super) fn tell(&mut self, now: u64) -> Vec<(PeerId, PeerCounters)> {
        if self.untold == 0 {
            return Vec::new();
        }
        self.untold = 0;
        let untold = self.entries.iter_mut().filter(|(_, it)| it.told.is_none());
        let mut told: Vec<_> = untold
            .map(|((peer, _), entry)| {
                entry.told = Some(now);
                (*peer, entry.counters)
            })
            .collect();
        told.sort_unstable_by_key(|(peer, counters)| (counters.generation, *peer));
        told
    }

    /// A new session: everything is to be told again.
    pub(super) fn tell_again(&mut self) {
        for entry in self.entries.values_mut() {
            entry.told = None;
        }
        self.untold = self.entries.len();
    }

    /// Forgets those that were told up to `before`, and names them.
    pub(super) fn settle(&mut self, before: u64) -> Vec<(PeerId, Generation)> {
        let settled = self.entries.iter();
        let settled = settled.filter(|(_, entry)| entry.told.is_some_and(|told| told <= before));
        let settled: Vec<_> = settled.map(|(key, _)| *key).collect();
        for key in &settled {
            self.remove(*key);
        }
        settled
    }

    pub(super) fn has(&self, peer: PeerId, generation: Generation) -> bool {
        self.entries.contains_key(&(peer, generation))
    }

    pub(super) fn untold(&self) -> usize {
        self.untold
    }

    /// How many of this peer are kept.
    pub(super) fn of(&self, peer: PeerId) -> usize {
        let all = (peer, Generation(0))..=(peer, Generation(u32::MAX));
        self.entries.range(all).count()
    }

    /// Whether many more can be kept without losing one.
    pub(super) fn has_room(&self) -> bool {
        self.entries.len() < MAX / 2
    }

    fn remove(&mut self, key: (PeerId, Generation)) {
        if let Some(entry) = self.entries.remove(&key) {
            self.untold -= usize::from(entry.told.is_none());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counters(generation: u32) -> PeerCounters {
        PeerCounters {
            generation: Generation(generation),
            sent: 1,
            received: 1,
            last_handshake: None,
        }
    }

    #[test]
    fn an_entry_is_told_once_a_session_and_forgotten_long_after() {
        let mut ended = Ended::default();
        ended.insert(PeerId(1), counters(1));
        assert_eq!(ended.untold(), 1);
        assert_eq!(ended.tell(100).len(), 1);
        assert_eq!((ended.tell(101).len(), ended.untold()), (0, 0));
        assert_eq!(ended.settle(99), []);
        ended.tell_again();
        // Whoever was told before may have crashed since.
        assert_eq!((ended.settle(1000), ended.untold()), (vec![], 1));
        ended.tell(200);
        assert_eq!(ended.settle(200), [(PeerId(1), Generation(1))]);
        assert_eq!((ended.untold(), ended.has_room()), (0, true));
    }

    #[test]
    fn one_that_was_told_makes_room_first() {
        let mut ended = Ended::default();
        ended.insert(PeerId(9), counters(1));
        ended.tell(100);
        for peer in 10..10 + u64::try_from(MAX).expect("small") {
            ended.insert(PeerId(peer), counters(1));
        }
        assert_eq!((ended.of(PeerId(9)), ended.of(PeerId(10))), (0, 1));
        assert_eq!((ended.untold(), ended.has_room()), (MAX, false));
        ended.insert(PeerId(1), counters(1));
        assert_eq!((ended.untold(), ended.of(PeerId(1))), (MAX, 0));
    }
}
