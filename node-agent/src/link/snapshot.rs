//! Puts a snapshot together from its parts. Pure.

use shared::ids::Revision;
use shared::protocol::{Peer, SnapshotPart};

/// Why parts do not make a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum SnapshotError {
    #[error("part {got} of a snapshot came where part {expected} was due")]
    OutOfOrder { expected: u32, got: u32 },
    #[error("a snapshot with more than the {0} peers that this node can hold")]
    TooLarge(usize),
}

/// The parts so far. Never holds more than `limit` peers.
#[derive(Debug)]
pub(super) struct Assembler {
    limit: usize,
    revision: Revision,
    due: u32,
    peers: Vec<Peer>,
}

impl Assembler {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit,
            revision: Revision::default(),
            due: 0,
            peers: Vec::new(),
        }
    }

    /// Takes one part in; the whole when it was the last. A first part begins a new snapshot.
    pub(super) fn push(
        &mut self,
        part: SnapshotPart,
    ) -> Result<Option<(Revision, Vec<Peer>)>, SnapshotError> {
        if part.part == 0 {
            self.peers.clear();
            self.due = 0;
            self.revision = part.revision;
        }
        if part.part != self.due || part.revision != self.revision {
            return Err(SnapshotError::OutOfOrder {
                expected: self.due,
                got: part.part,
            });
        }
        if self.peers.len().saturating_add(part.peers.len()) > self.limit {
            return Err(SnapshotError::TooLarge(self.limit));
        }
        self.due = self.due.saturating_add(1);
        self.peers.extend(part.peers);
        if !part.last {
            return Ok(None);
        }
        self.due = 0;
        Ok(Some((self.revision, std::mem::take(&mut self.peers))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::ids::{ConnectionId, PeerId};
    use shared::protocol::Limits;
    use shared::wireguard::PublicKey;

    fn part(revision: u64, part: u32, last: bool, peers: &[u64]) -> SnapshotPart {
        SnapshotPart {
            revision: Revision(revision),
            part,
            last,
            peers: peers
                .iter()
                .map(|id| Peer {
                    peer: PeerId(*id),
                    connection: ConnectionId::generate(),
                    public_key: PublicKey::from_bytes([9; 32]),
                    preshared_key: None,
                    addresses: None,
                    not_after: None,
                    limits: Limits::default(),
                })
                .collect(),
        }
    }

    fn ids(whole: Option<(Revision, Vec<Peer>)>) -> Option<(u64, Vec<u64>)> {
        whole.map(|(revision, peers)| (revision.0, peers.iter().map(|it| it.peer.0).collect()))
    }

    #[test]
    fn the_whole_comes_with_the_last_part() {
        let mut parts = Assembler::new(10);
        assert_eq!(parts.push(part(7, 0, false, &[1, 2])), Ok(None));
        let whole = parts.push(part(7, 1, true, &[3])).expect("in order");
        assert_eq!(ids(whole), Some((7, vec![1, 2, 3])));
        let whole = parts.push(part(8, 0, true, &[])).expect("in order");
        assert_eq!(ids(whole), Some((8, vec![])));
    }

    #[test]
    fn a_first_part_begins_anew() {
        let mut parts = Assembler::new(10);
        assert_eq!(parts.push(part(7, 0, false, &[1, 2])), Ok(None));
        let whole = parts.push(part(8, 0, true, &[4])).expect("in order");
        assert_eq!(ids(whole), Some((8, vec![4])));
    }

    #[test]
    fn gaps_mixtures_and_floods_are_refused() {
        let out = |expected, got| Err(SnapshotError::OutOfOrder { expected, got });
        let mut parts = Assembler::new(3);
        assert_eq!(parts.push(part(7, 1, true, &[])), out(0, 1));
        assert_eq!(parts.push(part(7, 0, false, &[1])), Ok(None));
        assert_eq!(parts.push(part(7, 2, true, &[])), out(1, 2));
        assert_eq!(parts.push(part(8, 1, true, &[])), out(1, 1));
        assert_eq!(
            parts.push(part(7, 1, false, &[2, 3, 4])),
            Err(SnapshotError::TooLarge(3))
        );
    }
}
