//! The plan against a table that takes only what the kernel's would take.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use proptest::prelude::*;
use rstest::rstest;

use super::*;

fn wanted(host: u8, limits: Limits, consumed: u64) -> Wanted {
    Wanted {
        addresses: Addresses {
            v4: Ipv4Addr::new(10, 8, 0, host),
            v6: host
                .is_multiple_of(2)
                .then(|| format!("fd00::{host}").parse().unwrap()),
        },
        limits,
        consumed,
    }
}

fn allowance(bytes: u64) -> Limits {
    Limits {
        allowance: Some(bytes),
        ..Limits::default()
    }
}

/// What the kernel has in a quota whose two numbers are these.
fn quota(bytes: u64, consumed: u64) -> Content {
    let mut content = Content::default();
    content.put_object(Kind::Quota, PeerId(1), Object::Quota { bytes, consumed });
    content.put_element(Kind::Quota, [10, 8, 0, 1].into(), Some(PeerId(1)));
    content
}

fn planned(content: &Content, wanted: Option<Wanted>) -> Vec<Change> {
    plan([(PeerId(1), wanted)], content).concat()
}

/// Carries the changes out, and holds each against what is there.
fn carry_out(content: &mut Content, changes: &[Change]) {
    for change in changes {
        match *change {
            Change::RemoveElement(kind, address) => {
                assert!(content.owner(kind, address).is_some(), "{change:?}");
            }
            Change::RemoveObject(kind, peer) => {
                assert!(content.object(kind, peer).is_some(), "{change:?}");
                let mut leading = content.addresses(kind, Some(peer));
                assert_eq!(leading.next(), None, "{change:?}");
            }
            Change::AddObject(kind, peer, object) => {
                assert_eq!(content.object(kind, peer), None, "{change:?}");
                if let Object::Quota { bytes, consumed } = object {
                    assert!(consumed <= bytes, "{change:?}");
                }
            }
            Change::SetAllowance(peer, _) => {
                assert!(content.object(Kind::Quota, peer).is_some(), "{change:?}");
            }
            Change::AddElement(kind, address, peer) => {
                assert_eq!(content.owner(kind, address), None, "{change:?}");
                assert!(content.object(kind, peer).is_some(), "{change:?}");
            }
        }
        content.carry_out(change);
    }
}

#[rstest]
#[case::right_already(quota(50, 10), 50, 10, vec![])]
#[case::moved_on(quota(50, 20), 50, 10, vec![])]
#[case::raised(quota(50, 10), 80, 10, vec![Change::SetAllowance(PeerId(1), 80)])]
#[case::lowered(quota(50, 10), 5, 10, vec![Change::SetAllowance(PeerId(1), 5)])]
#[case::used_up_and_right(quota(50, 50), 50, 50, vec![])]
#[case::used_up_and_lowered(quota(50, 50), 30, 50, vec![Change::SetAllowance(PeerId(1), 30)])]
fn a_quota_is_kept_or_resized(
    #[case] held: Content,
    #[case] bytes: u64,
    #[case] known: u64,
    #[case] expected: Vec<Change>,
) {
    let changes = planned(&held, Some(wanted(1, allowance(bytes), known)));
    assert_eq!(changes, expected);
}

#[rstest]
// The kernel goes on counting what it drops: only a new quota knows what really passed.
#[case::used_up_and_raised(quota(50, 50), 80, 50, 50)]
#[case::used_up_after_it_was_lowered(quota(30, 30), 80, 40, 40)]
#[case::somebody_reset_it(quota(50, 1), 50, 40, 40)]
#[case::reset_and_lowered(quota(50, 1), 30, 40, 30)]
fn a_quota_is_replaced_by_one_that_knows_what_was_used(
    #[case] held: Content,
    #[case] bytes: u64,
    #[case] known: u64,
    #[case] consumed: u64,
) {
    let (peer, address) = (PeerId(1), [10, 8, 0, 1].into());
    let changes = planned(&held, Some(wanted(1, allowance(bytes), known)));
    let expected = [
        Change::RemoveElement(Kind::Quota, address),
        Change::RemoveObject(Kind::Quota, peer),
        Change::AddObject(Kind::Quota, peer, Object::Quota { bytes, consumed }),
        Change::AddElement(Kind::Quota, address, peer),
    ];
    assert_eq!(changes, expected);
}

#[rstest]
#[case::ten_megabits(10_000_000, 1_200_000, 0)]
#[case::slow(256_000, 30_720, 100_352)]
#[case::nothing(0, 1, 0)]
#[case::crawling(1, 1, 131_072)]
#[case::beyond_the_kernel(u64::MAX, 12_000_000_000, 0)]
fn rates_are_what_the_kernel_takes(
    #[case] bits_per_second: u64,
    #[case] bytes_per_second: u64,
    #[case] burst: u32,
) {
    assert_eq!(
        rate(bits_per_second),
        Object::Rate {
            bytes_per_second,
            burst
        }
    );
    // The kernel's own arithmetic.
    let bucket = bytes_per_second + u64::from(burst);
    assert!(bucket.checked_mul(1_000_000_000).is_some());
}

#[test]
fn an_address_moves_to_its_new_holder_in_one_transaction() {
    let mut content = quota(50, 10);
    let new = wanted(1, allowance(9), 0);
    let changes = plan([(PeerId(2), Some(new)), (PeerId(1), None)], &content);
    let expected: [&[Change]; 2] = [
        &[
            Change::AddObject(
                Kind::Quota,
                PeerId(2),
                Object::Quota {
                    bytes: 9,
                    consumed: 0,
                },
            ),
            Change::RemoveElement(Kind::Quota, [10, 8, 0, 1].into()),
            Change::AddElement(Kind::Quota, [10, 8, 0, 1].into(), PeerId(2)),
        ],
        &[Change::RemoveObject(Kind::Quota, PeerId(1))],
    ];
    assert_eq!(changes, expected);
    carry_out(&mut content, &changes.concat());
}

type Peers = BTreeMap<u64, Wanted>;

/// Peers with distinct addresses, as the pool gives them out.
fn peers() -> impl Strategy<Value = Peers> {
    let number = || proptest::option::of(prop::sample::select(vec![0_u64, 8_000, 9_000_000]));
    let limits = (
        number(),
        number(),
        proptest::option::of(0..100_u64),
        0..120_u64,
    );
    proptest::collection::vec((0..8_u64, limits), 0..8).prop_map(|list| {
        let hosts = list.into_iter().zip(1_u8..);
        hosts
            .map(
                |((peer, (download_bps, upload_bps, allowance, consumed)), host)| {
                    let limits = Limits {
                        download_bps,
                        upload_bps,
                        allowance,
                    };
                    (peer, wanted(host, limits, consumed))
                },
            )
            .collect()
    })
}

fn all(wanted: &Peers, content: &Content) -> Vec<(PeerId, Option<Wanted>)> {
    let mut known = content.peers();
    known.extend(wanted.keys().map(|peer| PeerId(*peer)));
    let of = |peer: PeerId| wanted.get(&peer.0).copied();
    known.into_iter().map(|peer| (peer, of(peer))).collect()
}

proptest! {
    #[test]
    fn carried_out_it_leads_to_the_wanted_state_and_to_rest(
        before in peers(),
        after in peers(),
        used in proptest::collection::btree_map(0..8_u64, 0..120_u64, 0..8),
    ) {
        let mut content = Content::default();
        let changes = plan(all(&before, &content), &content).concat();
        carry_out(&mut content, &changes);
        let used: Vec<_> = used.into_iter().map(|(peer, bytes)| {
            let size = before.get(&peer).and_then(|it| it.limits.allowance);
            (PeerId(peer), bytes.min(size.unwrap_or(0)))
        }).collect();
        content.observe(&used);
        // What is known is never less than what the table says.
        let quotas: BTreeMap<_, _> = content.quotas().collect();
        let after: Peers = after.into_iter().map(|(peer, mut it)| {
            let held = quotas.get(&PeerId(peer)).copied().unwrap_or_default();
            it.consumed = it.consumed.max(held);
            (peer, it)
        }).collect();

        let held = content.clone();
        let changes = plan(all(&after, &content), &content);
        carry_out(&mut content, &changes.concat());
        prop_assert_eq!(plan(all(&after, &content), &content), Vec::<Vec<Change>>::new());
        let limited: Vec<_> = after.iter().filter(|(_, it)| !it.limits.are_none()).collect();
        prop_assert_eq!(content.peers().len(), limited.len());
        for (peer, wanted) in limited {
            let peer = PeerId(*peer);
            for kind in Kind::ALL {
                let object = content.object(kind, peer);
                prop_assert_eq!(object.is_some(), wanted.object(kind).is_some());
                for address in wanted.addresses() {
                    let owner = object.map(|_| Some(peer));
                    prop_assert_eq!(content.owner(kind, address), owner);
                }
                if let Some(Object::Quota { bytes, consumed }) = object {
                    prop_assert_eq!(Some(bytes), wanted.limits.allowance);
                    prop_assert!(consumed >= wanted.consumed.min(bytes), "a quota went back");
                }
                // What was right stays as it was, bucket and all.
                if held.object(kind, peer) == wanted.object(kind) && object.is_some() {
                    let touched = changes.iter().flatten().any(|change| matches!(
                        change,
                        Change::RemoveObject(k, p) | Change::AddObject(k, p, _)
                            if (*k, *p) == (kind, peer)
                    ));
                    prop_assert!(!touched);
                }
            }
        }
    }
}
