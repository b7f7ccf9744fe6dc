//! A fingerprint of a node's set of peers, for noticing that two sides disagree.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};

use crate::ids::PeerId;
use crate::text;
use crate::wireguard::PublicKey;

/// Order-independent sum over the peers; adding and removing a peer are O(1) and exact inverses.
/// It tells drift from agreement; it is no protection against a hostile node.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct StateHash(u128);

impl StateHash {
    fn of(peer: PeerId, key: &PublicKey) -> u128 {
        let mut hasher = Sha256::new();
        hasher.update(peer.0.to_be_bytes());
        hasher.update(key.as_bytes());
        let digest: [u8; 32] = hasher.finalize().into();
        digest
            .iter()
            .take(16)
            .fold(0, |sum, byte| (sum << 8) | u128::from(*byte))
    }

    pub fn add(&mut self, peer: PeerId, key: &PublicKey) {
        self.0 = self.0.wrapping_add(Self::of(peer, key));
    }

    pub fn remove(&mut self, peer: PeerId, key: &PublicKey) {
        self.0 = self.0.wrapping_sub(Self::of(peer, key));
    }
}

impl<'a> FromIterator<(PeerId, &'a PublicKey)> for StateHash {
    fn from_iter<I: IntoIterator<Item = (PeerId, &'a PublicKey)>>(peers: I) -> Self {
        let mut hash = Self::default();
        for (peer, key) in peers {
            hash.add(peer, key);
        }
        hash
    }
}

impl fmt::Display for StateHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for StateHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StateHash({self})")
    }
}

impl Serialize for StateHash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for StateHash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text::read(deserializer, |text| {
            let digits = Some(text).filter(|it| it.len() == 32);
            let hash = digits.and_then(|it| u128::from_str_radix(it, 16).ok());
            hash.map(Self).ok_or("a state hash is 32 hex digits")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key(seed: u8) -> PublicKey {
        PublicKey::from_bytes([seed; 32])
    }

    proptest! {
        #[test]
        fn order_does_not_matter_and_removal_undoes(
            mut peers in proptest::collection::vec((any::<u64>(), any::<u8>()), 0..20),
            extra in (any::<u64>(), any::<u8>()),
        ) {
            let hash = |peers: &[(u64, u8)]| {
                let mut sum = StateHash::default();
                for (peer, seed) in peers {
                    sum.add(PeerId(*peer), &key(*seed));
                }
                sum
            };
            let before = hash(&peers);
            peers.reverse();
            prop_assert_eq!(before, hash(&peers));

            let mut changed = before;
            changed.add(PeerId(extra.0), &key(extra.1));
            prop_assert_ne!(changed, before);
            changed.remove(PeerId(extra.0), &key(extra.1));
            prop_assert_eq!(changed, before);
        }
    }

    #[test]
    fn text_form_round_trips() {
        let mut hash = StateHash::default();
        hash.add(PeerId(7), &key(3));
        let json = serde_json::to_string(&hash).expect("serialises");
        assert_eq!(
            serde_json::from_str::<StateHash>(&json).expect("parses"),
            hash
        );
    }
}
