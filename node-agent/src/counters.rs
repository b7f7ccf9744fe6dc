//! From dumps of the interface to what the plane is told about traffic.
//!
//! The interface counts from zero each time a peer is added to it; such a run is a *generation*.
//! Within one, totals are cumulative, so a lost or repeated report does no harm. What must hold
//! (design, invariant 6): a total never goes back within a generation, an ended generation is
//! reported in every session, and a dump is never booked on a peer that was added after the dump
//! began.

mod ended;

use foldhash::fast::RandomState;
use indexmap::IndexMap;
use shared::ids::{Generation, PeerId};
use shared::protocol::counters::{CountersFrame, MAX_ENTRIES};
use shared::protocol::{Addresses, PeerCounters};
use shared::wireguard::PublicKey;

use self::ended::Ended;
use crate::wireguard::{Hosts, Traffic};

/// Orders changes of the interface against dumps of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Sequence(pub u64);

/// Ended generations of one peer beyond which no further one is ended on purpose: the plane stores
/// them one after the other, and takes in only so many at once.
const MAX_ENDED_A_PEER: usize = 32;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Totals {
    sent: u64,
    received: u64,
    last_handshake: Option<u64>,
}

impl Totals {
    fn of(row: &Traffic) -> Self {
        Self {
            sent: row.rx_bytes,
            received: row.tx_bytes,
            last_handshake: row.last_handshake,
        }
    }

    fn counters(self, generation: Generation) -> PeerCounters {
        PeerCounters {
            generation,
            sent: self.sent,
            received: self.received,
            last_handshake: self.last_handshake,
        }
    }
}

/// What the interface counted for a peer in this generation, in the client's view.
#[must_use]
pub fn of(row: &Traffic, generation: Generation) -> PeerCounters {
    Totals::of(row).counters(generation)
}

/// Whom a key's traffic belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holder {
    pub peer: PeerId,
    pub generation: Generation,
    /// Traffic of a peer with others is an earlier holder's.
    pub addresses: Addresses,
}

impl Holder {
    fn has(&self, hosts: &Hosts, ended: &Ended) -> bool {
        match hosts.are_none() {
            true => ended.has(self.peer, self.generation),
            false => hosts.are(self.addresses),
        }
    }
}

#[derive(Debug)]
struct Entry {
    holder: Holder,
    since: Sequence,
    /// None until the first dump when an earlier run of the agent added the peer.
    seen: Option<Totals>,
    reported: Totals,
}

impl Entry {
    fn counters(&self) -> Option<PeerCounters> {
        self.seen.map(|seen| seen.counters(self.holder.generation))
    }
}

/// The counters of every peer in the interface, in the client's view: what the interface received,
/// the client sent.
#[derive(Debug, Default)]
pub struct Book {
    /// In the order in which the interface has them and frames name them, as long as peers come by their
    /// numbers: then a dump finds each behind the one before, and a frame has nothing to sort.
    entries: IndexMap<PublicKey, Entry, RandomState>,
    ended: Ended,
    /// When the newest dump that was booked began.
    newest: Sequence,
}

impl Book {
    /// A peer begins this generation in the interface after `since`, at zero. One that was followed
    /// under the same key before ends its generation.
    pub fn track(&mut self, key: PublicKey, holder: Holder, since: Sequence) {
        let entry = Entry {
            holder,
            since,
            seen: Some(Totals::default()),
            reported: Totals::default(),
        };
        let before = self.entries.insert(key, entry);
        if let Some(before) = before.filter(|before| before.holder.peer == holder.peer)
            && let Some(counters) = before.counters()
            && before.seen != Some(Totals::default())
        {
            self.end(holder.peer, counters);
        }
    }

    /// A peer is in this generation since before this agent started.
    pub fn resume(&mut self, key: PublicKey, holder: Holder) {
        let entry = Entry {
            holder,
            since: Sequence::default(),
            seen: None,
            reported: Totals::default(),
        };
        self.entries.insert(key, entry);
    }

    /// A generation ended while its peer lives on: it is reported next to the new one.
    pub fn end(&mut self, peer: PeerId, counters: PeerCounters) {
        self.ended.insert(peer, counters);
    }

    /// Whether a key with these hosts in the interface is its holder's, in the generation that is
    /// followed. Without any it is where that generation is about to end: they are taken away after
    /// that was written, and the next generation is written before the peer is replaced.
    #[must_use]
    pub fn is_holders(&self, key: &PublicKey, hosts: &Hosts) -> bool {
        let entry = self.entries.get(key);
        entry.is_some_and(|entry| entry.holder.has(hosts, &self.ended))
    }

    /// What this key's peer has counted so far in its generation; none while it has counted nothing.
    #[must_use]
    pub fn counted(&self, key: &PublicKey) -> Option<(PeerId, PeerCounters)> {
        let entry = self.entries.get(key)?;
        let seen = entry.seen.filter(|seen| *seen != Totals::default())?;
        let Holder {
            peer, generation, ..
        } = entry.holder;
        Some((peer, seen.counters(generation)))
    }

    /// Whether ended generations wait to be reported. What a newer generation of the same peer says
    /// must not overtake them: the plane ignores an older one after a newer.
    #[must_use]
    pub fn owes_ended(&self) -> bool {
        self.ended.untold() > 0
    }

    /// Whether a generation of this peer can end on purpose without another's being lost.
    #[must_use]
    pub fn can_end(&self, peer: PeerId) -> bool {
        self.ended.has_room() && self.ended.of(peer) < MAX_ENDED_A_PEER
    }

    /// Forgets the ended generations that this session reported up to `before` (Unix seconds), and
    /// names them.
    pub fn settle(&mut self, before: u64) -> Vec<(PeerId, Generation)> {
        self.ended.settle(before)
    }

    /// The peer left the interface for good: its last counters, if they were ever read.
    pub fn forget(&mut self, key: &PublicKey) -> Option<PeerCounters> {
        self.entries.swap_remove(key)?.counters()
    }

    /// Makes room for so many more.
    pub fn reserve(&mut self, peers: usize) {
        self.entries.reserve(peers);
    }

    /// Books a dump that began when the interface stood at `began`; one that a newer dump overtook
    /// is passed over. Returns the peers whose counters went back: something else removed and added
    /// them, a generation has ended unseen.
    pub fn observe(
        &mut self,
        dump: impl IntoIterator<Item = Traffic>,
        began: Sequence,
    ) -> Vec<PublicKey> {
        let mut restarted = Vec::new();
        if began < self.newest {
            return restarted;
        }
        self.newest = began;
        let mut next = 0;
        for row in dump {
            let place = match self.entries.get_index(next) {
                Some((key, _)) if *key == row.public_key => Some(next),
                _ => self.entries.get_index_of(&row.public_key),
            };
            let found = place.and_then(|place| self.entries.get_index_mut(place));
            let Some((_, entry)) = found else {
                continue;
            };
            next = place.map_or(next, |place| place + 1);
            if entry.since > began {
                continue;
            }
            if !entry.holder.has(&row.hosts, &self.ended) {
                continue;
            }
            let now = Totals::of(&row);
            let seen = entry.seen.unwrap_or_default();
            if now.sent < seen.sent || now.received < seen.received {
                restarted.push(row.public_key);
            } else {
                entry.seen = Some(now);
            }
        }
        restarted
    }

    /// What moved since the frames before, in as many frames as it takes. A frame without entries is
    /// never made.
    pub fn frames(&mut self, taken_at: u64) -> Vec<CountersFrame> {
        let ended = self.ended.tell(taken_at);
        let peer = |entry: &Entry| entry.holder.peer;
        if !self.entries.values().is_sorted_by_key(peer) {
            self.entries.sort_by_key(|_, entry| peer(entry));
        }
        let moved = self.entries.values_mut().filter_map(|entry| {
            let seen = entry.seen.filter(|seen| *seen != entry.reported)?;
            entry.reported = seen;
            Some((peer(entry), seen.counters(entry.holder.generation)))
        });
        split(taken_at, ended.into_iter().chain(moved))
    }

    /// A new session: the plane may have missed any frame, so everything counts as moved.
    pub fn report_all_again(&mut self) {
        for entry in self.entries.values_mut() {
            entry.reported = Totals::default();
        }
        self.ended.tell_again();
    }
}

/// A new frame starts where one is full, and where the order by peer would break.
fn split(
    taken_at: u64,
    entries: impl Iterator<Item = (PeerId, PeerCounters)>,
) -> Vec<CountersFrame> {
    let mut frames: Vec<CountersFrame> = Vec::new();
    for (peer, counters) in entries {
        let fits = frames.last().is_some_and(|frame| {
            frame.entries.len() < MAX_ENTRIES
                && frame.entries.last().is_none_or(|(last, _)| *last < peer)
        });
        if !fits {
            frames.push(CountersFrame {
                taken_at,
                entries: Vec::new(),
                consumed: Vec::new(),
            });
        }
        if let Some(frame) = frames.last_mut() {
            frame.entries.push((peer, counters));
        }
    }
    frames
}

#[cfg(test)]
mod tests {
    use super::*;
    use ipnet::Ipv4Net;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn key(n: u16) -> PublicKey {
        let mut bytes = [7; 32];
        bytes[..2].copy_from_slice(&n.to_be_bytes());
        PublicKey::from_bytes(bytes)
    }

    fn addresses(n: u16) -> Addresses {
        let [high, low] = n.to_be_bytes();
        Addresses {
            v4: [10, 8, high, low].into(),
            v6: None,
        }
    }

    /// Who has the key and the addresses of this number.
    fn holder(n: u16, peer: u64, generation: u32) -> Holder {
        Holder {
            peer: PeerId(peer),
            generation: Generation(generation),
            addresses: addresses(n),
        }
    }

    fn status(n: u16, rx_bytes: u64, tx_bytes: u64) -> Traffic {
        Traffic {
            public_key: key(n),
            hosts: Hosts::of(&[Ipv4Net::from(addresses(n).v4).into()]),
            rx_bytes,
            tx_bytes,
            last_handshake: Some(50),
        }
    }

    fn book(peers: u16) -> Book {
        let mut book = Book::default();
        for n in 0..peers {
            book.track(key(n), holder(n, n.into(), 1), Sequence(0));
        }
        book
    }

    #[test]
    fn only_what_moved_is_reported_in_the_clients_view() {
        let mut book = book(3);
        assert!(book.frames(60).is_empty());
        book.observe([status(2, 10, 20), status(0, 1, 0)], Sequence(0));
        let frames = book.frames(60);
        assert_eq!(frames.len(), 1);
        let sums: Vec<_> = frames[0]
            .entries
            .iter()
            .map(|(peer, counters)| (peer.0, counters.sent, counters.received))
            .collect();
        assert_eq!(sums, [(0, 1, 0), (2, 10, 20)]);
        assert!(book.frames(61).is_empty());
        book.report_all_again();
        assert_eq!(book.frames(62)[0].entries, frames[0].entries);
    }

    #[test]
    fn peers_are_booked_and_named_whatever_came_and_went() {
        let mut book = book(6);
        book.forget(&key(1));
        book.track(key(9), holder(9, 9, 1), Sequence(0));
        book.track(key(7), holder(7, 7, 1), Sequence(0));
        // As the interface has them, with somebody that nobody follows.
        let dump = [0, 2, 1, 3, 5, 4, 9, 7].map(|n| status(n, n.into(), 1));
        book.observe(dump, Sequence(0));
        let sums = |frames: Vec<CountersFrame>| -> Vec<_> {
            let entries = frames.into_iter().flat_map(|frame| frame.entries);
            entries.map(|(peer, it)| (peer.0, it.sent)).collect()
        };
        let all = [(0, 0), (2, 2), (3, 3), (4, 4), (5, 5), (7, 7), (9, 9)];
        assert_eq!(sums(book.frames(60)), all);
        book.forget(&key(0));
        book.observe([status(9, 10, 1), status(2, 3, 1)], Sequence(0));
        assert_eq!(sums(book.frames(61)), [(2, 3), (9, 10)]);
    }

    #[test]
    fn frames_are_split_at_the_limit() {
        let count = u16::try_from(MAX_ENTRIES + 1).expect("small");
        let mut book = book(count);
        let dump: Vec<_> = (0..count).map(|n| status(n, 1, 1)).collect();
        book.observe(dump, Sequence(0));
        let sizes: Vec<_> = book.frames(60).iter().map(|f| f.entries.len()).collect();
        assert_eq!(sizes, [MAX_ENTRIES, 1]);
    }

    #[test]
    fn a_dump_from_before_an_addition_is_not_booked_on_it() {
        let mut book = book(1);
        book.observe([status(0, 100, 100)], Sequence(0));
        book.forget(&key(0));
        book.track(key(0), holder(0, 9, 1), Sequence(1));
        book.observe([status(0, 150, 150)], Sequence(0));
        assert!(book.frames(60).is_empty());
        book.observe([status(0, 5, 5)], Sequence(1));
        assert_eq!(book.frames(60)[0].entries[0].1.sent, 5);
    }

    #[test]
    fn what_a_key_moves_with_other_addresses_is_not_its_holders() {
        let mut book = book(1);
        let foreign = Traffic {
            hosts: status(1, 0, 0).hosts,
            ..status(0, 100, 100)
        };
        let bare = Traffic {
            hosts: Hosts::default(),
            ..status(0, 100, 100)
        };
        book.observe([foreign, bare], Sequence(0));
        assert!(book.frames(60).is_empty());
        book.observe([status(0, 7, 7)], Sequence(0));
        let (peer, counters) = book.counted(&key(0)).expect("followed");
        // About to end: its addresses are being taken away.
        book.end(peer, counters);
        book.observe(
            [Traffic {
                rx_bytes: 9,
                ..bare
            }],
            Sequence(0),
        );
        assert_eq!(book.counted(&key(0)).expect("followed").1.sent, 9);
    }

    #[test]
    fn a_dump_that_was_overtaken_is_no_restart() {
        let mut book = book(1);
        assert_eq!(book.observe([status(0, 100, 1)], Sequence(2)), []);
        assert_eq!(book.observe([status(0, 90, 1)], Sequence(1)), []);
        assert_eq!(book.frames(60)[0].entries[0].1.sent, 100);
    }

    #[test]
    fn an_ended_generation_is_reported_next_to_the_new_one() {
        let mut book = book(1);
        book.observe([status(0, 100, 1)], Sequence(0));
        assert_eq!(book.observe([status(0, 3, 1)], Sequence(0)), [key(0)]);
        book.track(key(0), holder(0, 0, 2), Sequence(1));
        book.observe([status(0, 4, 1)], Sequence(1));
        let reported = |frames: Vec<CountersFrame>| -> Vec<_> {
            frames
                .iter()
                .flat_map(|frame| &frame.entries)
                .map(|(_, counters)| (counters.generation.0, counters.sent))
                .collect()
        };
        assert_eq!(reported(book.frames(60)), [(1, 100), (2, 4)]);
        assert!(book.frames(61).is_empty());
        book.report_all_again();
        assert_eq!(reported(book.frames(62)), [(1, 100), (2, 4)]);
        assert_eq!(book.forget(&key(0)).expect("followed").sent, 4);
        // The plane may not have heard of it: told again, whatever became of the peer.
        book.report_all_again();
        assert_eq!(reported(book.frames(63)), [(1, 100)]);
    }

    proptest! {
        /// Whatever is lost between, the sum over generations of the largest total that was reported
        /// is the traffic.
        #[test]
        fn no_byte_is_lost_or_counted_twice(
            steps in proptest::collection::vec((0..4_u8, 0..4_u16, 1..1000_u64), 1..100),
        ) {
            let mut book = book(4);
            let mut interface = [(0_u64, 1_u32); 4];
            let mut truth = [0_u64; 4];
            let mut plane: BTreeMap<(PeerId, Generation), u64> = BTreeMap::new();
            for (step, n, bytes) in steps {
                let index = usize::from(n);
                match step {
                    0 | 1 => {
                        interface[index].0 += bytes;
                        truth[index] += bytes;
                        book.observe([status(n, interface[index].0, 0)], Sequence(0));
                    }
                    2 => {
                        interface[index] = (0, interface[index].1 + 1);
                        book.track(key(n), holder(n, n.into(), interface[index].1), Sequence(0));
                    }
                    _ => book.report_all_again(),
                }
                if bytes % 2 == 0 {
                    receive(&mut plane, &book.frames(60));
                }
            }
            book.report_all_again();
            receive(&mut plane, &book.frames(60));
            for (n, expected) in (0_u64..).zip(truth) {
                let sum: u64 = plane.range((PeerId(n), Generation(0))..=(PeerId(n), Generation(u32::MAX)))
                    .map(|(_, sent)| sent)
                    .sum();
                prop_assert_eq!(sum, expected);
            }
        }
    }

    fn receive(plane: &mut BTreeMap<(PeerId, Generation), u64>, frames: &[CountersFrame]) {
        for frame in frames {
            let read = CountersFrame::decode(&frame.encode()).expect("decodes");
            for (peer, counters) in read.entries {
                let sent = plane.entry((peer, counters.generation)).or_default();
                *sent = counters.sent.max(*sent);
            }
        }
    }
}
