//! The state under random histories, with crashes between ledger and interface.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, TimeDelta, Utc};
use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::StdRng;
use shared::ids::{ConnectionId, Generation, PeerId, Revision};
use shared::protocol::{Change, Limits, Outcome, Peer, PeerCounters};
use shared::wireguard::{PresharedKey, PublicKey};

use crate::counters::Sequence;
use crate::ipam::Pool;
use crate::ledger::{self, Write};
use crate::reconcile::plan::{Desired, plan};
use crate::reconcile::state::State;
use crate::wireguard::{PeerOp, PeerStatus, Traffic};

fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_800_000_000 + seconds, 0).expect("in range")
}

/// What is on disk after these writes.
fn write(ledger: &mut ledger::State, writes: &[Write]) {
    for write in writes.iter().cloned() {
        match write {
            Write::Peer(peer, record) => {
                ledger.quarantine.remove(&record.addresses.v4);
                ledger.peers.insert(peer, record);
            }
            Write::NoPeer(peer) => {
                ledger.peers.remove(&peer);
                ledger.consumed.remove(&peer);
            }
            Write::Quarantine(address, until) => {
                ledger.quarantine.insert(address, until);
            }
            Write::NoQuarantine(address) => {
                ledger.quarantine.remove(&address);
            }
            Write::Final(peer, last) => {
                ledger.finals.insert(peer, last);
            }
            Write::NoFinal(peer) => drop(ledger.finals.remove(&peer)),
            Write::Consumed(consumed) => ledger.consumed.extend(consumed),
            Write::Applied(revision) => ledger.applied = revision,
            other => panic!("not the state's: {other:?}"),
        }
    }
}

/// An interface that takes only operations that fit what is there.
#[derive(Debug, Default)]
struct Interface(BTreeMap<PublicKey, PeerStatus>);

impl Interface {
    fn carry_out(&mut self, operations: &[PeerOp]) {
        for operation in operations {
            match operation {
                PeerOp::Add(spec) => {
                    let status = PeerStatus {
                        public_key: spec.public_key,
                        preshared_key: spec.preshared_key.clone(),
                        allowed_ips: spec.allowed_ips.clone(),
                        rx_bytes: 0,
                        tx_bytes: 0,
                        last_handshake: None,
                    };
                    assert!(self.0.insert(spec.public_key, status).is_none());
                }
                PeerOp::Update(spec) => {
                    let status = self.0.get_mut(&spec.public_key).expect("there");
                    status.preshared_key.clone_from(&spec.preshared_key);
                    status.allowed_ips.clone_from(&spec.allowed_ips);
                }
                PeerOp::Remove(key) => drop(self.0.remove(key).expect("there")),
            }
        }
    }

    fn dump(&self) -> Vec<PeerStatus> {
        self.0.values().cloned().collect()
    }
}

fn restore(ledger: &ledger::State, now: i64) -> State {
    let subnet = "10.8.0.0/28".parse().expect("v4");
    let pool = Pool::new(subnet, None, TimeDelta::seconds(120)).expect("pool");
    State::restore(ledger.clone(), pool, at(now))
        .expect("fits")
        .0
}

/// Few peers and few keys, so that histories collide.
fn change() -> impl Strategy<Value = Change> {
    let peer = (0..8_u64, 0..6_u8, 0..2_u8, proptest::option::of(0..400_i64));
    prop_oneof![
        3 => peer.prop_map(|(id, key, psk, not_after)| Change::Upsert(Peer {
            peer: PeerId(id),
            connection: ConnectionId::from(uuid::Uuid::nil()),
            public_key: PublicKey::from_bytes([key; 32]),
            preshared_key: Some(PresharedKey::from_bytes([psk; 32])),
            addresses: None,
            not_after: not_after.map(at),
            limits: Limits::default(),
        })),
        2 => (0..8_u64).prop_map(|id| Change::Remove { peer: PeerId(id) }),
    ]
}

#[derive(Debug, Clone)]
enum Step {
    Apply(Vec<Change>),
    /// The agent dies after the ledger and before the interface.
    ApplyAndCrash(Vec<Change>),
    Expire(i64),
    Traffic(u8, u64),
}

fn step() -> impl Strategy<Value = Step> {
    let changes = || proptest::collection::vec(change(), 1..5);
    prop_oneof![
        4 => changes().prop_map(Step::Apply),
        1 => changes().prop_map(Step::ApplyAndCrash),
        1 => (1..100_i64).prop_map(Step::Expire),
        2 => (0..6_u8, 1..1000_u64).prop_map(|(key, bytes)| Step::Traffic(key, bytes)),
    ]
}

/// The state and everything that it must agree with.
struct World {
    state: State,
    ledger: ledger::State,
    interface: Interface,
    now: i64,
    rng: StdRng,
    revision: u64,
    /// What the clients sent, and what the plane was told of it.
    truth: BTreeMap<PeerId, u64>,
    told: BTreeMap<(PeerId, Generation), u64>,
}

impl World {
    fn new(seed: u64) -> Self {
        let ledger = ledger::State::default();
        Self {
            state: restore(&ledger, 0),
            ledger,
            interface: Interface::default(),
            now: 0,
            rng: StdRng::seed_from_u64(seed),
            revision: 0,
            truth: BTreeMap::new(),
            told: BTreeMap::new(),
        }
    }

    fn tell(&mut self, peer: PeerId, counters: PeerCounters) {
        let told = self.told.entry((peer, counters.generation)).or_default();
        *told = counters.sent.max(*told);
    }

    fn report(&mut self) {
        self.observe();
        for frame in self.state.book.frames(0) {
            for (peer, counters) in frame.entries {
                self.tell(peer, counters);
            }
        }
    }

    fn send(&mut self, key: &PublicKey, bytes: u64) {
        if let Some(peer) = self.interface.0.get_mut(key) {
            peer.rx_bytes += bytes;
            let holder = self.state.holder(key).expect("no orphan");
            *self.truth.entry(holder).or_default() += bytes;
        }
    }

    fn apply(&mut self, changes: Vec<Change>, reaches_plane: bool) {
        self.observe();
        self.revision += 1;
        let named: BTreeSet<_> = changes
            .iter()
            .filter_map(|change| match change {
                Change::Upsert(peer) => Some(peer.peer),
                Change::Remove { peer } => Some(*peer),
                Change::Unknown => None,
            })
            .collect();
        let revision = Revision(self.revision);
        let staged = self
            .state
            .stage(changes, revision, at(self.now), &mut self.rng);
        write(&mut self.ledger, &staged.writes);
        if reaches_plane {
            self.interface.carry_out(&staged.operations);
        }
        let mut answered = BTreeSet::new();
        for result in staged.results {
            assert!(answered.insert(result.peer), "one result a peer");
            if let Outcome::Removed {
                counters: Some(last),
            } = result.outcome
                && reaches_plane
            {
                self.tell(result.peer, last);
            }
            let record = self.ledger.peers.get(&result.peer);
            match result.outcome {
                Outcome::Active { addresses } => {
                    assert_eq!(record.map(|it| it.addresses), Some(addresses));
                }
                _ => assert_eq!(record, None),
            }
        }
        assert_eq!(answered, named);
    }

    fn restart(&mut self) {
        self.state = restore(&self.ledger, self.now);
        self.observe();
        let dump = self.interface.dump();
        let operations = self.state.repairs(&dump);
        let added: Vec<_> = operations
            .iter()
            .filter_map(|operation| match operation {
                PeerOp::Add(spec) => Some(spec.public_key),
                _ => None,
            })
            .collect();
        let writes = self.state.begin_generation(added.iter());
        write(&mut self.ledger, &writes);
        self.interface.carry_out(&operations);
    }

    fn expire(&mut self) {
        self.observe();
        let staged = self.state.expire(at(self.now));
        write(&mut self.ledger, &staged.writes);
        self.interface.carry_out(&staged.operations);
    }

    fn observe(&mut self) {
        let dump = self.interface.dump();
        let restarted = self
            .state
            .book
            .observe(dump.iter().map(Traffic::from), Sequence(u64::MAX));
        assert_eq!(restarted, [], "counters went back");
    }

    fn check(&self) {
        assert_eq!(plan(&self.state, &self.interface.dump()), [], "interface");
        let restored = restore(&self.ledger, self.now);
        assert_eq!(restored.hash(), self.state.hash());
        assert_eq!(restored.len(), self.state.len());
        assert_eq!(restored.applied, self.state.applied);
        assert_eq!(restored.next_expiry(), self.state.next_expiry());
        let desired = self.state.keys().filter_map(|key| self.state.spec(key));
        let desired: Vec<_> = desired.collect();
        let keys: BTreeSet<_> = desired.iter().map(|spec| spec.public_key).collect();
        let nets: BTreeSet<_> = desired.iter().flat_map(|spec| &spec.allowed_ips).collect();
        assert_eq!(keys.len(), desired.len(), "a key with two holders");
        assert_eq!(nets.len(), desired.len(), "an address with two holders");
        let resting = |address| self.ledger.quarantine.contains_key(address);
        let mut held = self.ledger.peers.values();
        assert!(!held.any(|record| resting(&record.addresses.v4)));
    }
}

proptest! {
    #[test]
    fn ledger_interface_and_memory_agree_after_any_history(
        seed in any::<u64>(),
        steps in proptest::collection::vec(step(), 1..40),
    ) {
        let mut world = World::new(seed);
        let crashes = steps.iter().any(|step| matches!(step, Step::ApplyAndCrash(_)));
        let mut generations = BTreeMap::new();
        for step in steps {
            match step {
                Step::Apply(changes) => world.apply(changes, true),
                Step::ApplyAndCrash(changes) => {
                    world.apply(changes, false);
                    world.restart();
                }
                Step::Expire(seconds) => {
                    world.now += seconds;
                    world.expire();
                }
                Step::Traffic(key, bytes) => {
                    world.send(&PublicKey::from_bytes([key; 32]), bytes);
                    if bytes % 2 == 0 {
                        world.report();
                    }
                }
            }
            world.check();
            for (peer, record) in &world.ledger.peers {
                let last = generations.insert(*peer, record.generation);
                prop_assert!(last <= Some(record.generation), "a generation went back");
            }
        }
        world.apply((0..8).map(|id| Change::Remove { peer: PeerId(id) }).collect(), true);
        world.report();
        for (peer, sent) in &world.truth {
            let told = world.told.range((*peer, Generation(0))..=(*peer, Generation(u32::MAX)));
            let told: u64 = told.map(|(_, sent)| sent).sum();
            prop_assert!(told <= *sent, "counted twice");
            // What a peer that comes back counted before is told by memory alone.
            prop_assert!(crashes || told == *sent, "lost");
        }
    }
}
