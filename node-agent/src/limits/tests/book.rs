//! What was used, over removals, returns and sessions.

use std::net::Ipv4Addr;

use proptest::prelude::*;

use super::*;

fn addresses() -> Addresses {
    Addresses {
        v4: Ipv4Addr::new(10, 8, 0, 2),
        v6: None,
    }
}

fn allowance(bytes: u64) -> Limits {
    Limits {
        allowance: Some(bytes),
        ..Limits::default()
    }
}

fn told(book: &mut Book) -> Vec<Consumed> {
    let mut frames = Vec::new();
    book.report(5, &mut frames);
    frames.into_iter().flat_map(|it| it.consumed).collect()
}

#[test]
fn what_moved_is_told_once_and_again_in_a_new_session() {
    let mut book = Book::default();
    let (one, two) = (PeerId(1), PeerId(2));
    book.set(one, addresses(), allowance(100));
    book.set(two, addresses(), allowance(100));
    assert_eq!(told(&mut book), []);
    book.observe([(one, 10), (PeerId(9), 4)]);
    assert_eq!(told(&mut book), [(one, 10)]);
    book.observe([(one, 8)]);
    assert_eq!(told(&mut book), []);
    book.observe([(two, 3)]);
    assert!(!book.owes_last_words());
    assert_eq!(book.remove(two), 3);
    assert!(book.owes_last_words());
    assert_eq!(told(&mut book), [(two, 3)]);
    book.report_all_again();
    assert_eq!(told(&mut book), [(one, 10), (two, 3)]);
}

#[test]
fn a_peer_without_limits_is_in_no_book() {
    let mut book = Book::default();
    book.set(PeerId(1), addresses(), Limits::default());
    assert_eq!(book.limited().count(), 0);
    assert_eq!(book.to_limit(), []);
    assert_eq!(book.remove(PeerId(1)), 0);
    assert_eq!(book.to_clear(), []);
}

#[test]
fn losing_and_getting_limits_forgets_nothing() {
    let mut book = Book::default();
    let one = PeerId(1);
    book.set(one, addresses(), allowance(100));
    book.observe([(one, 40)]);
    book.all_settled();
    book.set(one, addresses(), Limits::default());
    assert_eq!(book.to_limit(), [one]);
    assert_eq!(book.wanted(one), None);
    book.settled(&[one]);
    book.set(one, addresses(), allowance(50));
    assert_eq!(book.wanted(one).expect("limited").consumed, 40);
    assert_eq!(book.remove(one), 40);
    assert_eq!(book.to_clear(), [one]);
    book.set(one, addresses(), allowance(50));
    assert_eq!(book.wanted(one).expect("limited").consumed, 40);
    assert_eq!(
        book.used_before(one),
        Some(Write::Consumed(vec![(one, 40)]))
    );
    assert_eq!(book.used_before(one), None);
    assert_eq!(book.unsaved(), []);
}

#[test]
fn frames_are_split_at_the_limit_and_shared_with_counters() {
    let mut book = Book::default();
    let count = u64::try_from(MAX_ENTRIES).expect("small") + 1;
    for peer in 0..count {
        book.set(PeerId(peer), addresses(), allowance(100));
        book.observe([(PeerId(peer), 1)]);
    }
    let mut frames = vec![CountersFrame {
        taken_at: 5,
        entries: Vec::new(),
        consumed: Vec::new(),
    }];
    book.report(5, &mut frames);
    let sizes: Vec<_> = frames.iter().map(|it| it.consumed.len()).collect();
    assert_eq!(sizes, [MAX_ENTRIES, 1]);
    for frame in frames {
        assert_eq!(
            CountersFrame::decode(&frame.encode()).expect("decodes"),
            frame
        );
    }
}

proptest! {
    /// Whatever is lost between, the largest value that was told is what was used, and what is on disk
    /// never runs ahead of it.
    #[test]
    fn nothing_used_is_forgotten(
        steps in proptest::collection::vec((0..6_u8, 0..4_u64, 1..100_u64, any::<bool>()), 1..80),
    ) {
        let mut book = Book::default();
        let mut truth = BTreeMap::<PeerId, u64>::new();
        let mut plane = BTreeMap::<PeerId, u64>::new();
        let mut disk = BTreeMap::<PeerId, u64>::new();
        let mut here = BTreeSet::new();
        for (step, peer, bytes, arrives) in steps {
            let peer = PeerId(peer);
            match step {
                0 | 1 => {
                    book.set(peer, addresses(), allowance(1_000_000));
                    here.insert(peer);
                }
                2 => {
                    let used = book.remove(peer);
                    if here.remove(&peer) {
                        prop_assert_eq!(used, truth.get(&peer).copied().unwrap_or_default());
                    }
                }
                3 if here.contains(&peer) => {
                    let used = truth.entry(peer).or_default();
                    *used += bytes;
                    book.observe([(peer, *used)]);
                }
                4 => book.report_all_again(),
                _ => disk.extend(book.unsaved()),
            }
            let frames = told(&mut book);
            if arrives {
                for (peer, consumed) in frames {
                    let known = plane.entry(peer).or_default();
                    *known = consumed.max(*known);
                }
            }
        }
        book.report_all_again();
        for (peer, consumed) in told(&mut book) {
            let known = plane.entry(peer).or_default();
            *known = consumed.max(*known);
        }
        disk.extend(book.unsaved());
        for (peer, used) in truth {
            prop_assert_eq!(plane.get(&peer), Some(&used));
            if here.contains(&peer) {
                prop_assert_eq!(disk.get(&peer), Some(&used));
            }
        }
    }
}
