//! The binary frame in which an agent reports counters, once a second.
//!
//! It names only peers whose counters moved, with cumulative totals, so that a lost or repeated
//! frame does no harm. Layout, every number a LEB128 varint:
//!
//! ```text
//! kind (one byte, 1) | taken_at (Unix seconds) | count
//! count × ( peer − previous peer | generation | sent | received | handshake )
//! count | count × ( peer − previous peer | consumed )      since version 2, absent where there are none
//! ```
//!
//! Entries are sorted by peer, the first counts from zero. `handshake` is zero for "never", else one
//! plus the seconds between the last handshake and `taken_at`. A busy peer costs about 14 bytes, and
//! another 7 where its quota is counted. Bytes behind the last entry belong to a later version and are
//! ignored.

use integer_encoding::VarInt;

use super::{DecodeError, MAX_FRAME_BYTES, PeerCounters};
use crate::ids::{Generation, PeerId};

const KIND: u8 = 1;
/// A frame that holds this many entries of the largest size stays under the frame limit.
pub const MAX_ENTRIES: usize = 5_000;

/// The counters of the peers that moved since the frame before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CountersFrame {
    /// Unix time in seconds at which the interface was read.
    pub taken_at: u64,
    /// Sorted by peer, each once, at most [`MAX_ENTRIES`].
    pub entries: Vec<(PeerId, PeerCounters)>,
    /// What peers with an allowance have used of it, in the allowance's unit. Sorted by peer, each
    /// once, at most [`MAX_ENTRIES`].
    pub consumed: Vec<(PeerId, u64)>,
}

impl CountersFrame {
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut frame = Vec::with_capacity(16 + self.entries.len() * 16);
        frame.push(KIND);
        put(&mut frame, self.taken_at);
        put(
            &mut frame,
            u64::try_from(self.entries.len()).unwrap_or(u64::MAX),
        );
        let mut previous = 0;
        for (peer, counters) in &self.entries {
            put(&mut frame, peer.0.wrapping_sub(previous));
            previous = peer.0;
            put(&mut frame, u64::from(counters.generation.0));
            put(&mut frame, counters.sent);
            put(&mut frame, counters.received);
            put(
                &mut frame,
                counters
                    .last_handshake
                    .map_or(0, |at| self.taken_at.saturating_sub(at).saturating_add(1)),
            );
        }
        self.put_consumed(&mut frame);
        frame
    }

    fn put_consumed(&self, frame: &mut Vec<u8>) {
        if self.consumed.is_empty() {
            return;
        }
        put(
            frame,
            u64::try_from(self.consumed.len()).unwrap_or(u64::MAX),
        );
        let mut previous = 0;
        for (peer, consumed) in &self.consumed {
            put(frame, peer.0.wrapping_sub(previous));
            previous = peer.0;
            put(frame, *consumed);
        }
    }

    /// Reads one binary frame. Never allocates more than the frame's own length allows.
    pub fn decode(frame: &[u8]) -> Result<Self, DecodeError> {
        if frame.len() > MAX_FRAME_BYTES {
            return Err(DecodeError::TooLarge(frame.len()));
        }
        let mut rest = frame
            .strip_prefix(&[KIND])
            .ok_or(DecodeError::Counters("unknown kind"))?;
        let taken_at = take(&mut rest)?;
        let mut entries = Vec::new();
        let mut peers = Peers::begin(&mut rest)?;
        while let Some(peer) = peers.next(&mut rest)? {
            let generation = u32::try_from(take(&mut rest)?)
                .map_err(|_| DecodeError::Counters("generation out of range"))?;
            let (sent, received) = (take(&mut rest)?, take(&mut rest)?);
            let last_handshake = match take(&mut rest)? {
                0 => None,
                age => Some(taken_at.saturating_sub(age - 1)),
            };
            let counters = PeerCounters {
                generation: Generation(generation),
                sent,
                received,
                last_handshake,
            };
            entries.push((peer, counters));
        }
        let mut consumed = Vec::new();
        if !rest.is_empty() {
            let mut peers = Peers::begin(&mut rest)?;
            while let Some(peer) = peers.next(&mut rest)? {
                consumed.push((peer, take(&mut rest)?));
            }
        }
        Ok(Self {
            taken_at,
            entries,
            consumed,
        })
    }
}

/// Reads the peers of a list, each as its distance to the one before.
struct Peers {
    left: usize,
    previous: Option<u64>,
}

impl Peers {
    fn begin(rest: &mut &[u8]) -> Result<Self, DecodeError> {
        let left = usize::try_from(take(rest)?)
            .ok()
            .filter(|count| *count <= MAX_ENTRIES)
            .ok_or(DecodeError::Counters("too many entries"))?;
        let previous = None;
        Ok(Self { left, previous })
    }

    fn next(&mut self, rest: &mut &[u8]) -> Result<Option<PeerId>, DecodeError> {
        let Some(left) = self.left.checked_sub(1) else {
            return Ok(None);
        };
        let step = take(rest)?;
        if self.previous.is_some() && step == 0 {
            return Err(DecodeError::Counters("peers out of order"));
        }
        let peer = self
            .previous
            .unwrap_or(0)
            .checked_add(step)
            .ok_or(DecodeError::Counters("peer out of range"))?;
        (self.left, self.previous) = (left, Some(peer));
        Ok(Some(PeerId(peer)))
    }
}

fn put(frame: &mut Vec<u8>, value: u64) {
    let mut buffer = [0; 10];
    let length = value.encode_var(&mut buffer);
    frame.extend_from_slice(buffer.get(..length).unwrap_or_default());
}

fn take(rest: &mut &[u8]) -> Result<u64, DecodeError> {
    let (value, length) = u64::decode_var(rest).ok_or(DecodeError::Counters("cut short"))?;
    *rest = rest.get(length..).unwrap_or_default();
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entries() -> impl Strategy<Value = Vec<(PeerId, PeerCounters)>> {
        proptest::collection::btree_map(
            any::<u64>(),
            (
                any::<u32>(),
                any::<u64>(),
                any::<u64>(),
                proptest::option::of(0..2_000_000_000_u64),
            ),
            0..50,
        )
        .prop_map(|map| {
            map.into_iter()
                .map(|(peer, (generation, sent, received, last_handshake))| {
                    let counters = PeerCounters {
                        generation: Generation(generation),
                        sent,
                        received,
                        last_handshake,
                    };
                    (PeerId(peer), counters)
                })
                .collect()
        })
    }

    proptest! {
        #[test]
        fn frames_round_trip(
            entries in entries(),
            consumed in proptest::collection::btree_map(any::<u64>(), any::<u64>(), 0..50),
        ) {
            let consumed = consumed.into_iter().map(|(peer, bytes)| (PeerId(peer), bytes)).collect();
            let frame = CountersFrame { taken_at: 2_000_000_000, entries, consumed };
            prop_assert_eq!(CountersFrame::decode(&frame.encode()).expect("decodes"), frame);
        }

        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = CountersFrame::decode(&bytes);
            let mut framed = vec![KIND];
            framed.extend(&bytes);
            let _ = CountersFrame::decode(&framed);
        }

        #[test]
        fn every_cut_is_noticed(entries in entries(), cut in 1_usize..8) {
            prop_assume!(!entries.is_empty());
            let bytes = CountersFrame { taken_at: 2_000_000_000, entries, consumed: vec![] }.encode();
            prop_assert!(CountersFrame::decode(&bytes[..bytes.len() - cut.min(bytes.len())]).is_err());
        }
    }

    #[test]
    fn a_busy_peer_costs_at_most_sixteen_bytes() {
        let taken_at = 1_800_000_000;
        let entries: Vec<_> = (0..1000_u64)
            .map(|n| {
                let counters = PeerCounters {
                    generation: Generation(2),
                    sent: 5_000_000_000 + n,
                    received: 80_000_000_000 + n,
                    last_handshake: Some(taken_at - 100),
                };
                (PeerId(1_000_000 + n * 3), counters)
            })
            .collect();
        let consumed = Vec::new();
        let bytes = CountersFrame {
            taken_at,
            entries,
            consumed,
        }
        .encode();
        assert!(bytes.len() <= 16 * 1000, "{} bytes", bytes.len());
    }

    #[test]
    fn a_full_frame_fits_the_limit() {
        let mut peer = u64::MAX;
        let mut entries: Vec<_> = (0..MAX_ENTRIES)
            .map(|_| {
                peer -= 10_000_000;
                let counters = PeerCounters {
                    generation: Generation(u32::MAX),
                    sent: u64::MAX,
                    received: u64::MAX,
                    last_handshake: Some(1),
                };
                (PeerId(peer), counters)
            })
            .collect();
        entries.reverse();
        let consumed = entries.iter().map(|(peer, _)| (*peer, u64::MAX)).collect();
        let frame = CountersFrame {
            taken_at: 2_000_000_000,
            entries,
            consumed,
        };
        assert!(frame.encode().len() <= MAX_FRAME_BYTES);
    }

    #[test]
    fn later_versions_may_append() {
        let frame = CountersFrame {
            taken_at: 5,
            entries: vec![],
            consumed: vec![(PeerId(1), 2)],
        };
        let mut bytes = frame.encode();
        bytes.extend([9, 9, 9]);
        assert_eq!(CountersFrame::decode(&bytes).expect("decodes"), frame);
    }
}
