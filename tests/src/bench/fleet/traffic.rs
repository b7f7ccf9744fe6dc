//! What the peers of a node count: a table whose totals are known beforehand. Pure.

use shared::ids::{Generation, PeerId};
use shared::protocol::PeerCounters;
use shared::protocol::counters::{CountersFrame, MAX_ENTRIES};

/// Seconds between two handshakes of a client that is there.
const HANDSHAKE_EVERY: u64 = 120;

/// The peers of a node and what they counted so far.
#[derive(Debug)]
pub struct Traffic {
    frame: CountersFrame,
    gone: Vec<(PeerId, PeerCounters)>,
}

impl Default for Traffic {
    fn default() -> Self {
        Self {
            frame: CountersFrame {
                taken_at: 0,
                entries: Vec::new(),
                consumed: Vec::new(),
            },
            gone: Vec::new(),
        }
    }
}

impl Traffic {
    #[must_use]
    pub fn len(&self) -> usize {
        self.frame.entries.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.frame.entries.is_empty()
    }

    /// The peer counts from now on. A repetition changes nothing; false where a frame has no room.
    pub fn add(&mut self, peer: PeerId) -> bool {
        let Err(at) = self.place(peer) else {
            return true;
        };
        let counters = PeerCounters {
            generation: Generation(1),
            sent: 0,
            received: 0,
            last_handshake: None,
        };
        self.frame.entries.insert(at, (peer, counters));
        self.len() <= MAX_ENTRIES
    }

    /// The peer's last word, with what it moved since it was told of; none where it is not there.
    pub fn remove(&mut self, peer: PeerId) -> Option<PeerCounters> {
        let at = self.place(peer).ok()?;
        let (_, mut counters) = self.frame.entries.remove(at);
        count(peer, &mut counters, self.frame.taken_at);
        self.gone.push((peer, counters));
        Some(counters)
    }

    /// A second passes in which every peer moves; gives the frame that says so. `now` in Unix seconds.
    pub fn tick(&mut self, now: u64) -> Vec<u8> {
        self.frame.taken_at = now;
        for (peer, counters) in &mut self.frame.entries {
            count(*peer, counters, now);
        }
        self.frame.encode()
    }

    /// Of every peer that was ever there, by id.
    #[must_use]
    pub fn into_totals(self) -> Vec<(PeerId, PeerCounters)> {
        let mut all = self.frame.entries;
        all.extend(self.gone);
        all.sort_unstable_by_key(|(peer, _)| *peer);
        all
    }

    fn place(&self, peer: PeerId) -> Result<usize, usize> {
        self.frame
            .entries
            .binary_search_by_key(&peer, |(peer, _)| *peer)
    }
}

/// What the peer's client uploads in a second, in bytes, and what it downloads.
#[must_use]
pub const fn moved_in_a_second(peer: PeerId) -> (u64, u64) {
    (1_009 + peer.0 % 977 * 64, 20_011 + peer.0 % 499 * 1_024)
}

fn count(peer: PeerId, counters: &mut PeerCounters, now: u64) {
    let (sent, received) = moved_in_a_second(peer);
    counters.sent += sent;
    counters.received += received;
    counters.last_handshake = Some(now - (now + peer.0) % HANDSHAKE_EVERY);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn totals(traffic: Traffic) -> Vec<(u64, u64, u64)> {
        let totals = traffic.into_totals().into_iter();
        totals
            .map(|(peer, counters)| (peer.0, counters.sent, counters.received))
            .collect()
    }

    #[test]
    fn frames_say_what_the_totals_are() {
        let mut traffic = Traffic::default();
        for peer in [9, 4, 9] {
            assert!(traffic.add(PeerId(peer)));
        }
        traffic.tick(1_000);
        let frame = CountersFrame::decode(&traffic.tick(1_001)).expect("decodes");
        let said: Vec<_> = frame
            .entries
            .iter()
            .map(|(peer, counters)| (peer.0, counters.sent, counters.received))
            .collect();
        let expected = [4, 9].map(|peer| {
            let (sent, received) = moved_in_a_second(PeerId(peer));
            (peer, 2 * sent, 2 * received)
        });
        assert_eq!(said, expected);
        assert_eq!(totals(traffic), expected);
    }

    #[test]
    fn who_leaves_moved_a_last_time() {
        let mut traffic = Traffic::default();
        traffic.add(PeerId(1));
        traffic.tick(1_000);
        let last = traffic.remove(PeerId(1)).expect("there");
        assert_eq!(traffic.remove(PeerId(1)), None);
        assert!(traffic.is_empty());
        let (sent, received) = moved_in_a_second(PeerId(1));
        assert_eq!((last.sent, last.received), (2 * sent, 2 * received));
        assert_eq!(totals(traffic), [(1, last.sent, last.received)]);
    }
}
