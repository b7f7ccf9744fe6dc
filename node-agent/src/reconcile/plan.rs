//! What to do so that the interface becomes what it shall be. Pure: no I/O, no clock.
//!
//! What must hold: carrying the plan out leads from `actual` to `desired`; a peer that is right
//! already is not touched (design, invariants 2 and 3).

use std::collections::HashMap;

use shared::wireguard::PublicKey;

use crate::wireguard::{PeerOp, PeerSpec, PeerStatus};

/// The smallest list of operations that turns `actual` into `desired`. Removals come first, so that
/// an address is free before its next holder gets it.
#[must_use]
pub fn plan(desired: &[PeerSpec], actual: &[PeerStatus]) -> Vec<PeerOp> {
    let mut wanted: HashMap<PublicKey, &PeerSpec> =
        desired.iter().map(|spec| (spec.public_key, spec)).collect();
    let mut operations = Vec::new();
    let mut updates = Vec::new();
    for status in actual {
        match wanted.remove(&status.public_key) {
            None => operations.push(PeerOp::Remove(status.public_key)),
            Some(spec) if !agrees(spec, status) => updates.push(PeerOp::Update(spec.clone())),
            Some(_) => {}
        }
    }
    operations.append(&mut updates);
    operations.extend(
        desired
            .iter()
            .filter(|spec| wanted.contains_key(&spec.public_key))
            .map(|spec| PeerOp::Add(spec.clone())),
    );
    operations
}

fn agrees(spec: &PeerSpec, status: &PeerStatus) -> bool {
    spec.preshared_key == status.preshared_key && spec.allowed_ips == status.allowed_ips
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

    fn specs(peers: &Peers) -> Vec<PeerSpec> {
        peers
            .iter()
            .map(|(key, (psk, nets))| spec(*key, *psk, nets))
            .collect()
    }

    proptest! {
        #[test]
        fn carried_out_it_leads_to_the_desired_state_and_to_rest(
            desired in peers(),
            actual in peers(),
        ) {
            let desired = specs(&desired);
            let before: Vec<_> = specs(&actual).into_iter().map(status).collect();
            let mut after = before.clone();
            let operations = plan(&desired, &before);
            carry_out(&mut after, &operations);
            prop_assert_eq!(plan(&desired, &after), vec![]);
            after.sort_by_key(|peer| peer.public_key);
            prop_assert_eq!(after.len(), desired.len());
            for (spec, peer) in desired.iter().zip(&after) {
                prop_assert_eq!(spec.public_key, peer.public_key);
                prop_assert!(agrees(spec, peer));
            }
            let right = desired
                .iter()
                .filter(|spec| before.iter().any(|peer| {
                    peer.public_key == spec.public_key && agrees(spec, peer)
                }))
                .count();
            prop_assert!(operations.len() <= before.len() + desired.len() - 2 * right);
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
