//! What to do so that the interface becomes what it shall be. Pure: no I/O, no clock.
//!
//! What must hold: carrying the plan out leads from `actual` to `desired`; a peer that is right
//! already is not touched (design, invariants 2 and 3).

use std::collections::HashSet;

use foldhash::fast::RandomState;
use shared::wireguard::PublicKey;

use crate::wireguard::{PeerOp, PeerSpec, PeerStatus};

/// The peers that shall be in the interface. Compared in place: where nothing differs, nothing is
/// copied.
pub trait Desired {
    fn count(&self) -> usize;
    fn keys(&self) -> impl Iterator<Item = &PublicKey>;
    /// None for a key that shall not be there.
    fn spec(&self, key: &PublicKey) -> Option<PeerSpec>;
    /// How the peer stands to what shall be there.
    fn judge(&self, status: &PeerStatus) -> Verdict;
}

/// What a peer that is in the interface is to those that shall be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Right,
    /// It is there with another preshared key or other addresses.
    Differs,
    /// Its key is there, and belongs to another peer by now, which has to count from zero.
    Stale,
    /// It shall not be there.
    Surplus,
}

/// The smallest list of operations that turns `actual` into `desired`. Removals come first, so that
/// an address is free before its next holder gets it.
#[must_use]
pub fn plan(desired: &impl Desired, actual: &[PeerStatus]) -> Vec<PeerOp> {
    let mut operations = Vec::new();
    let mut updates = Vec::new();
    let mut gone = HashSet::<_, RandomState>::default();
    let mut present = 0;
    for status in actual {
        match desired.judge(status) {
            Verdict::Right => present += 1,
            Verdict::Differs => {
                present += 1;
                updates.extend(desired.spec(&status.public_key).map(PeerOp::Update));
            }
            Verdict::Stale | Verdict::Surplus => {
                gone.insert(status.public_key);
                operations.push(PeerOp::Remove(status.public_key));
            }
        }
    }
    operations.append(&mut updates);
    if present < desired.count() {
        let known = actual.iter().map(|status| status.public_key);
        let known: HashSet<_, RandomState> = known.filter(|key| !gone.contains(key)).collect();
        let missing = desired.keys().filter(|key| !known.contains(*key));
        operations.extend(missing.filter_map(|key| desired.spec(key)).map(PeerOp::Add));
    }
    operations
}

/// Whether a snapshot that removes so many of the peers must wait for an operator: more than half
/// and more than ten (design, invariant 4).
#[must_use]
pub fn must_be_held(peers: usize, removals: usize) -> bool {
    removals > 10 && removals > peers / 2
}

#[cfg(test)]
mod tests {
    use super::*;
    use ipnet::IpNet;
    use proptest::prelude::*;
    use rstest::rstest;
    use shared::wireguard::PresharedKey;
    use std::collections::BTreeMap;

    type Peers = BTreeMap<u8, (Option<u8>, Vec<IpNet>)>;

    fn spec(key: u8, psk: Option<u8>, allowed_ips: &[IpNet]) -> PeerSpec {
        PeerSpec {
            public_key: PublicKey::from_bytes([key; 32]),
            preshared_key: psk.map(|seed| PresharedKey::from_bytes([seed; 32])),
            allowed_ips: allowed_ips.to_vec(),
        }
    }

    struct Specs {
        peers: Vec<PeerSpec>,
        /// Other addresses are another peer's.
        addresses_tell: bool,
    }

    impl Specs {
        fn find(&self, key: &PublicKey) -> Option<&PeerSpec> {
            self.peers.iter().find(|spec| spec.public_key == *key)
        }
    }

    impl Desired for Specs {
        fn count(&self) -> usize {
            self.peers.len()
        }

        fn keys(&self) -> impl Iterator<Item = &PublicKey> {
            self.peers.iter().map(|spec| &spec.public_key)
        }

        fn spec(&self, key: &PublicKey) -> Option<PeerSpec> {
            self.find(key).cloned()
        }

        fn judge(&self, status: &PeerStatus) -> Verdict {
            let Some(spec) = self.find(&status.public_key) else {
                return Verdict::Surplus;
            };
            if spec.allowed_ips != status.allowed_ips && self.addresses_tell {
                Verdict::Stale
            } else if spec.preshared_key == status.preshared_key
                && spec.allowed_ips == status.allowed_ips
            {
                Verdict::Right
            } else {
                Verdict::Differs
            }
        }
    }

    fn status(spec: PeerSpec) -> PeerStatus {
        PeerStatus {
            public_key: spec.public_key,
            preshared_key: spec.preshared_key,
            allowed_ips: spec.allowed_ips,
            rx_bytes: 1,
            tx_bytes: 1,
            last_handshake: None,
        }
    }

    /// An interface that, like WireGuard, takes an address from its holder when another gets it, and
    /// that accepts only operations that fit what is there.
    fn carry_out(actual: &mut Vec<PeerStatus>, operations: &[PeerOp]) {
        for operation in operations {
            let (key, spec) = match operation {
                PeerOp::Add(spec) => (spec.public_key, Some(spec)),
                PeerOp::Update(spec) => (spec.public_key, Some(spec)),
                PeerOp::Remove(key) => (*key, None),
            };
            let known = actual.iter().any(|peer| peer.public_key == key);
            assert_eq!(known, !matches!(operation, PeerOp::Add(_)), "{operation:?}");
            actual.retain(|peer| peer.public_key != key);
            if let Some(spec) = spec {
                for peer in &mut *actual {
                    peer.allowed_ips
                        .retain(|net| !spec.allowed_ips.contains(net));
                }
                actual.push(status(spec.clone()));
            }
        }
    }

    /// Peers with distinct addresses, as the pool gives them out.
    fn peers() -> impl Strategy<Value = Peers> {
        proptest::collection::vec((0..12_u8, proptest::option::of(0..2_u8)), 0..12).prop_map(
            |list| {
                list.into_iter()
                    .zip(0_u8..)
                    .map(|((key, psk), host)| {
                        (
                            key,
                            (
                                psk,
                                vec![IpNet::from(std::net::IpAddr::from([10, 8, 0, host]))],
                            ),
                        )
                    })
                    .collect()
            },
        )
    }

    fn specs(peers: &Peers, addresses_tell: bool) -> Specs {
        let specs = peers.iter();
        Specs {
            peers: specs
                .map(|(key, (psk, nets))| spec(*key, *psk, nets))
                .collect(),
            addresses_tell,
        }
    }

    proptest! {
        #[test]
        fn carried_out_it_leads_to_the_desired_state_and_to_rest(
            desired in peers(),
            actual in peers(),
            addresses_tell in any::<bool>(),
        ) {
            let desired = specs(&desired, addresses_tell);
            let before: Vec<_> = specs(&actual, addresses_tell).peers.into_iter().map(status).collect();
            let mut after = before.clone();
            let operations = plan(&desired, &before);
            carry_out(&mut after, &operations);
            prop_assert_eq!(plan(&desired, &after), vec![]);
            after.sort_by_key(|peer| peer.public_key);
            prop_assert_eq!(after.len(), desired.count());
            for (spec, peer) in desired.peers.iter().zip(&after) {
                prop_assert_eq!(spec.public_key, peer.public_key);
                prop_assert_eq!(desired.judge(peer), Verdict::Right);
            }
            let right = before.iter().filter(|peer| desired.judge(peer) == Verdict::Right).count();
            prop_assert!(operations.len() <= before.len() + desired.count() - 2 * right);
        }
    }

    #[rstest]
    #[case::nothing(0, 0, false)]
    #[case::ten_of_ten(10, 10, false)]
    #[case::eleven_of_eleven(11, 11, true)]
    #[case::half(30, 15, false)]
    #[case::more_than_half(30, 16, true)]
    #[case::half_of_odd(31, 15, false)]
    #[case::more_than_half_of_odd(31, 16, true)]
    fn the_guard_holds_large_removals(
        #[case] peers: usize,
        #[case] removals: usize,
        #[case] held: bool,
    ) {
        assert_eq!(must_be_held(peers, removals), held);
    }
}
