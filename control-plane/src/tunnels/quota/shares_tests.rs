//! The arithmetic alone, and against nodes that consume, answer late and repeat themselves.

use std::collections::VecDeque;

use proptest::prelude::*;
use rstest::rstest;

use super::*;

const MB: u64 = 1_000_000;

fn quota(bytes: u64, used: u64) -> Quota {
    Quota { bytes, used }
}

fn held(consumed: u64, allowance: u64) -> Lease {
    lease(consumed, allowance, allowance, 0)
}

fn shared(verdict: Verdict) -> Vec<Lease> {
    match verdict {
        Verdict::Shared(leases) => leases,
        Verdict::UsedUp => panic!("used up"),
    }
}

#[test]
fn one_alone_gets_everything_at_once() {
    let first = open(quota(50 * MB, 20 * MB), 0, 0).expect("something is left");
    assert_eq!((first.allowance, first.held), (30 * MB, 30 * MB));
    let again = shared(share(quota(50 * MB, 25 * MB), 0, &[held(5 * MB, 30 * MB)]));
    assert_eq!(again[0].allowance, 30 * MB, "nothing to exchange");
}

#[rstest]
#[case::plenty(50 * MB, 0, false)]
#[case::a_thousandth(50 * MB, 50 * MB - 50_000, true)]
#[case::everything(50 * MB, 50 * MB, true)]
#[case::more(50 * MB, 60 * MB, true)]
#[case::a_tiny_quota(1000, 0, true)]
fn nobody_begins_with_nothing(#[case] bytes: u64, #[case] used: u64, #[case] refused: bool) {
    assert_eq!(open(quota(bytes, used), 0, 0).is_none(), refused);
}

#[test]
fn a_further_one_starts_small_and_gets_its_half_in_two_steps() {
    let quota = quota(50 * MB, 0);
    let (first, second) = (
        held(0, 50 * MB),
        open(quota, 1, 50 * MB).expect("a starter"),
    );
    assert_eq!(second.allowance, MB / 2);
    let lowered = shared(share(quota, 0, &[first, second]));
    assert_eq!((lowered[0].allowance, lowered[0].held), (25 * MB, 50 * MB));
    assert_eq!(lowered[1].allowance, MB / 2, "not before the node said so");
    let acknowledged = Lease {
        held: lowered[0].allowance,
        ..lowered[0]
    };
    let raised = shared(share(quota, 0, &[acknowledged, lowered[1]]));
    assert_eq!(raised[1].allowance, 25 * MB);
}

#[test]
fn starters_come_to_an_end() {
    let quota = quota(100 * MB, 0);
    let mut outstanding = 100 * MB;
    for _ in 0..10 {
        outstanding += open(quota, 1, outstanding).expect("is left").allowance;
    }
    assert_eq!(outstanding, 104 * MB);
}

#[test]
fn what_ends_gives_back_what_it_did_not_use() {
    let quota = quota(50 * MB, 10 * MB);
    let waiting = shared(share(quota, 20 * MB, &[held(5 * MB, 25 * MB)]));
    assert_eq!(waiting[0].allowance, 25 * MB);
    let back = shared(share(quota, 0, &[held(5 * MB, 25 * MB)]));
    assert_eq!(back[0].allowance, 45 * MB);
}

#[test]
fn a_new_month_and_a_larger_plan_raise() {
    let again = shared(share(quota(50 * MB, 0), 0, &[held(50 * MB, 50 * MB)]));
    assert_eq!(again[0].allowance, 100 * MB);
}

#[test]
fn a_smaller_plan_lowers_and_waits_for_the_node() {
    let lowered = shared(share(quota(20 * MB, 0), 0, &[held(0, 50 * MB)]));
    assert_eq!((lowered[0].allowance, lowered[0].held), (20 * MB, 50 * MB));
}

#[test]
fn a_quota_where_there_was_none_counts_from_now() {
    let before = lease(7 * MB, UNLIMITED, UNLIMITED, UNLIMITED);
    let now = shared(share(quota(50 * MB, 0), 0, &[before]));
    assert_eq!((now[0].allowance, now[0].held), (57 * MB, 57 * MB));
}

#[test]
fn the_end_is_when_nothing_is_left() {
    let alone = held(50 * MB - 2_000, 50 * MB);
    let left = quota(50 * MB, 50 * MB - 2_000);
    assert!(matches!(share(left, 0, &[alone]), Verdict::Shared(_)));
    assert_eq!(
        share(quota(50 * MB, 50 * MB - 1_000), 0, &[alone]),
        Verdict::UsedUp
    );
    // Of several, the one that starves is not kept waiting for another's dregs.
    let (starving, idle) = (held(30 * MB, 30 * MB), held(19_990_000, 20 * MB));
    let dregs = quota(50 * MB, 50 * MB - 10_000);
    assert_eq!(share(dregs, 0, &[starving, idle]), Verdict::UsedUp);
}

/// A connection, as its node and as the plane know it.
#[derive(Debug)]
struct Connection {
    lease: Lease,
    revision: u64,
    is_live: bool,
    is_gone: bool,
    /// At the node: what passed and what may pass.
    passed: u64,
    cap: u64,
    /// To the node: allowances with their revisions, none for the removal.
    down: VecDeque<(u64, Option<u64>)>,
    /// To the plane: what passed, and the revision where it is an acknowledgement.
    up: VecDeque<(u64, Option<u64>)>,
}

#[derive(Debug)]
struct World {
    quota: Quota,
    connections: Vec<Connection>,
    revision: u64,
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Connect,
    End(usize),
    Pass(usize, u64),
    Report(usize),
    NodeHears(usize),
    /// Whether the message is kept and comes again.
    PlaneHears(usize, bool),
    Share,
}

impl World {
    fn new(bytes: u64) -> Self {
        Self {
            quota: quota(bytes, 0),
            connections: Vec::new(),
            revision: 0,
        }
    }

    fn live(&self) -> impl Iterator<Item = &Connection> {
        self.connections.iter().filter(|it| it.is_live)
    }

    fn pinned(&self) -> u64 {
        let ending = self
            .connections
            .iter()
            .filter(|it| !it.is_live && !it.is_gone);
        sum(ending.map(|it| it.lease.outstanding()))
    }

    fn outstanding(&self) -> u64 {
        sum(self.live().map(|it| it.lease.outstanding())) + self.pinned()
    }

    fn connect(&mut self) {
        let others = self.live().count();
        if others >= 5 {
            return;
        }
        let Some(lease) = open(self.quota, others, self.outstanding()) else {
            return;
        };
        self.revision += 1;
        self.connections.push(Connection {
            lease,
            revision: self.revision,
            is_live: true,
            is_gone: false,
            passed: 0,
            cap: 0,
            down: VecDeque::from([(self.revision, Some(lease.allowance))]),
            up: VecDeque::new(),
        });
    }

    fn end(&mut self, of: impl Fn(usize) -> bool) {
        for (index, it) in self.connections.iter_mut().enumerate() {
            if it.is_live && of(index) {
                self.revision += 1;
                (it.is_live, it.revision) = (false, self.revision);
                it.down.push_back((self.revision, None));
            }
        }
    }

    fn share(&mut self) {
        let leases: Vec<_> = self.live().map(|it| it.lease).collect();
        if leases.is_empty() {
            return;
        }
        match share(self.quota, self.pinned(), &leases) {
            Verdict::UsedUp => self.end(|_| true),
            Verdict::Shared(leases) => {
                let live = self.connections.iter_mut().filter(|it| it.is_live);
                for (it, lease) in live.zip(leases) {
                    if lease.allowance != it.lease.allowance {
                        self.revision += 1;
                        it.revision = self.revision;
                        it.down.push_back((self.revision, Some(lease.allowance)));
                    }
                    it.lease = lease;
                }
            }
        }
    }

    fn node_hears(&mut self, index: usize) {
        let it = &mut self.connections[index];
        if let Some((revision, cap)) = it.down.pop_front() {
            it.cap = cap.unwrap_or(0);
            // It says what passed before it says that it has the new allowance.
            it.up.push_back((it.passed, None));
            it.up.push_back((it.passed, Some(revision)));
        }
    }

    fn plane_hears(&mut self, index: usize, again: bool) {
        let it = &mut self.connections[index];
        let Some((passed, revision)) = it.up.pop_front() else {
            return;
        };
        if again {
            it.up.push_back((passed, revision));
        }
        self.quota.used += passed.saturating_sub(it.lease.consumed);
        it.lease.consumed = it.lease.consumed.max(passed);
        if revision.is_some_and(|revision| revision >= it.revision) {
            it.lease.held = it.lease.allowance;
            it.is_gone = !it.is_live;
        }
    }

    fn step(&mut self, step: Step) {
        let count = self.connections.len();
        let within = |index: usize| index.checked_rem(count);
        match step {
            Step::Connect => self.connect(),
            Step::Share => self.share(),
            Step::End(index) => self.end(|it| Some(it) == within(index)),
            Step::Pass(index, bytes) => {
                if let Some(it) = within(index).map(|index| &mut self.connections[index]) {
                    it.passed = it.passed.max(it.cap.min(it.passed + bytes));
                }
            }
            Step::Report(index) => {
                if let Some(it) = within(index).map(|index| &mut self.connections[index]) {
                    it.up.push_back((it.passed, None));
                }
            }
            Step::NodeHears(index) => {
                if let Some(index) = within(index) {
                    self.node_hears(index);
                }
            }
            Step::PlaneHears(index, again) => {
                if let Some(index) = within(index) {
                    self.plane_hears(index, again);
                }
            }
        }
    }

    fn settle(&mut self) {
        for it in &mut self.connections {
            it.up.push_back((it.passed, None));
        }
        for _ in 0..20 {
            self.share();
            for index in 0..self.connections.len() {
                while !self.connections[index].down.is_empty() {
                    self.node_hears(index);
                }
                while !self.connections[index].up.is_empty() {
                    self.plane_hears(index, false);
                }
            }
        }
    }
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        1 => Just(Step::Connect),
        1 => (0_usize..8).prop_map(Step::End),
        6 => (0_usize..8, 0..20 * MB).prop_map(|(index, bytes)| Step::Pass(index, bytes)),
        3 => (0_usize..8).prop_map(Step::Report),
        6 => (0_usize..8).prop_map(Step::NodeHears),
        6 => (0_usize..8, any::<bool>()).prop_map(|(index, again)| Step::PlaneHears(index, again)),
        4 => Just(Step::Share),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn never_more_than_the_quota_and_the_starters(
        bytes in 100_000..100 * MB,
        steps in proptest::collection::vec(step(), 0..200),
    ) {
        let mut world = World::new(bytes);
        for step in steps {
            world.step(step);
            let passed: u64 = world.connections.iter().map(|it| it.passed).sum();
            prop_assert!(passed <= bytes + bytes / 100 * 4, "{passed} of {bytes}: {world:?}");
            prop_assert!(world.quota.used <= passed);
        }
    }

    #[test]
    fn nobody_starves_while_something_is_left(
        bytes in 100_000..100 * MB,
        steps in proptest::collection::vec(step(), 0..100),
    ) {
        let mut world = World::new(bytes);
        for step in steps {
            world.step(step);
        }
        world.settle();
        let fair = world.quota.left() / count(world.live().count()).max(1);
        for it in world.live() {
            let rest = it.cap - it.passed;
            prop_assert!(rest + fair / 8 + 8 >= fair, "{rest} of {fair}: {world:?}");
        }
    }

    #[test]
    fn a_round_never_gives_out_more_than_is_left(
        bytes in 1_000..100 * MB,
        used in 0..100 * MB,
        pinned in 0..50 * MB,
        figures in proptest::collection::vec((0..50 * MB, 0..50 * MB, 0..50 * MB), 1..6),
    ) {
        let leases: Vec<_> = figures
            .into_iter()
            .map(|(consumed, rest, more)| lease(consumed, consumed + rest, consumed + rest + more, 0))
            .collect();
        let quota = quota(bytes, used);
        let outstanding = |leases: &[Lease]| sum(leases.iter().map(|it| it.outstanding())) + pinned;
        let before = outstanding(&leases);
        if let Verdict::Shared(after) = share(quota, pinned, &leases) {
            prop_assert!(outstanding(&after) <= before.max(quota.left()));
            for (was, is) in leases.iter().zip(&after) {
                prop_assert!(is.held >= was.held && is.held >= is.allowance);
            }
        }
    }
}
