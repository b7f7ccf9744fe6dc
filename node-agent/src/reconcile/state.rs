//! The node's state in memory, and how a message from the plane changes it. Pure: time and
//! randomness are passed in, and nothing here waits for the disk or the interface.
//!
//! Every change comes out as a [`Staged`]: what to write to the ledger, then what to do to the
//! interface, then what to tell the plane. The state is ahead of both until the caller has carried
//! that out, in this order. What must hold: the ledger's peers and quarantine are exactly those of
//! the state, one public key belongs to one peer, and a peer's generation grows whenever it is added
//! to the interface again.

mod desired;
mod finals;
mod limits;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::OnceLock;

use chrono::{DateTime, Utc};
use foldhash::fast::RandomState;
use indexmap::IndexMap;
use rand::Rng;
use shared::ids::{Generation, PeerId, Revision};
use shared::protocol::{
    Addresses, Change, FailureReason, Outcome, Peer, PeerResult, Settings, StateHash,
};
use shared::wireguard::PublicKey;
use tracing::warn;

use self::desired::spec;
use super::plan::plan;
use crate::counters::{Book, Holder, Sequence};
use crate::ipam::{Pool, PoolError};
use crate::ledger::{self, Final, PeerRecord, Peers, Tunnel, Write};
use crate::wireguard::{Hosts, PeerOp, PeerSpec, PeerStatus};

/// What a change asks of the world, in this order.
#[derive(Debug, Default)]
pub(super) struct Staged {
    pub(super) writes: Vec<Write>,
    pub(super) operations: Vec<PeerOp>,
    pub(super) results: Vec<PeerResult>,
}

/// Peers, addresses and counters of one node.
#[derive(Debug)]
pub(super) struct State {
    pub(super) pool: Pool,
    pub(super) book: Book,
    pub(super) limits: crate::limits::Book,
    pub(super) applied: Revision,
    /// Asked on this host.
    pub(super) draining: bool,
    pub(super) settings: Settings,
    peers: Peers,
    by_key: HashMap<PublicKey, PeerId, RandomState>,
    /// Once somebody has asked for it.
    hash: OnceLock<StateHash>,
    expiries: BTreeSet<(DateTime<Utc>, PeerId)>,
    finals: HashMap<PeerId, Final>,
    finals_by_age: BTreeSet<(DateTime<Utc>, PeerId)>,
    sequence: Sequence,
}

impl State {
    /// What the ledger remembers, and what it may forget. Fails when the pool is not the one that
    /// the ledger's addresses came from.
    pub(super) fn restore(
        stored: ledger::State,
        pool: Pool,
        now: DateTime<Utc>,
    ) -> Result<(Self, Vec<Write>), PoolError> {
        let mut state = Self {
            pool,
            book: Book::default(),
            limits: crate::limits::Book::default(),
            applied: stored.applied,
            draining: stored.draining,
            settings: stored.settings,
            peers: Peers::default(),
            by_key: HashMap::default(),
            hash: OnceLock::new(),
            expiries: BTreeSet::new(),
            finals: HashMap::new(),
            finals_by_age: BTreeSet::new(),
            sequence: Sequence::default(),
        };
        let mut forgotten = Vec::new();
        state.restore_peers(stored.peers, &stored.consumed)?;
        for (address, until) in stored.quarantine {
            if until <= now || state.pool.quarantine(address, until).is_err() {
                forgotten.push(Write::NoQuarantine(address));
            }
        }
        forgotten.extend(state.restore_finals(stored.finals, now));
        for ((peer, _), counters) in stored.ended {
            state.book.end(peer, counters);
        }
        Ok((state, forgotten))
    }

    /// Ten thousand of them before the node serves: each is hashed by its key once a map, and the map that the
    /// ledger has read is kept.
    fn restore_peers(
        &mut self,
        peers: Peers,
        consumed: &HashMap<PeerId, u64>,
    ) -> Result<(), PoolError> {
        self.pool.make_room(peers.len());
        self.by_key.reserve(peers.len());
        self.book.reserve(peers.len());
        for (peer, record) in &peers {
            self.pool.reserve(record.addresses)?;
            self.book.resume(record.public_key, holder(*peer, record));
            if let Some(used) = consumed.get(peer) {
                self.limits.resume(*peer, record.addresses, *used);
            }
            self.note(*peer, record);
        }
        let expiring = peers.iter();
        let expiring = expiring.filter_map(|(peer, record)| Some((record.not_after?, *peer)));
        self.expiries = expiring.collect();
        self.peers = peers;
        Ok(())
    }

    /// Whether this host or the plane wants no new clients here.
    #[must_use]
    pub(super) fn is_draining(&self) -> bool {
        self.draining || self.settings.draining
    }

    #[must_use]
    pub(super) fn len(&self) -> usize {
        self.peers.len()
    }

    #[must_use]
    pub(super) fn hash(&self) -> StateHash {
        let keys = self.peers.iter();
        let keys = keys.map(|(peer, record)| (*peer, &record.public_key));
        *self.hash.get_or_init(|| keys.collect())
    }

    /// A dump begins: its place in the order of changes and dumps.
    pub(super) fn begin_dump(&mut self) -> Sequence {
        self.sequence.0 += 1;
        self.sequence
    }

    /// What the interface lacks.
    #[must_use]
    pub(super) fn repairs(&self, actual: &[PeerStatus]) -> Vec<PeerOp> {
        plan(self, actual)
    }

    fn record(&self, key: &PublicKey) -> Option<&PeerRecord> {
        self.peers.get(self.by_key.get(key)?)
    }

    fn is_own(&self, status: &PeerStatus) -> bool {
        let hosts = Hosts::of(&status.allowed_ips);
        self.book.is_holders(&status.public_key, &hosts)
    }

    /// When the next peer expires.
    #[must_use]
    pub(super) fn next_expiry(&self) -> Option<DateTime<Utc>> {
        self.expiries.first().map(|(at, _)| *at)
    }

    /// The peers that are not in a snapshot.
    #[must_use]
    pub(super) fn surplus_to(&self, snapshot: &[Peer]) -> Vec<PeerId> {
        let wanted = snapshot.iter().map(|peer| peer.peer);
        let wanted: HashSet<PeerId, RandomState> = wanted.collect();
        let held = self.peers.keys().copied();
        held.filter(|peer| !wanted.contains(peer)).collect()
    }

    /// Whether carrying these changes out takes a peer from the interface, so that its counters
    /// should be read first.
    #[must_use]
    pub(super) fn removes_any(&self, changes: &[Change], now: DateTime<Utc>) -> bool {
        changes.iter().any(|change| match change {
            Change::Remove { peer } => self.peers.contains_key(peer),
            Change::Upsert(peer) => {
                let holder = self.by_key.get(&peer.public_key);
                holder.is_some_and(|holder| *holder != peer.peer)
                    || self.peers.get(&peer.peer).is_some_and(|known| {
                        known.public_key != peer.public_key || has_expired(peer.not_after, now)
                    })
            }
            Change::Unknown => false,
        })
    }

    /// Takes the changes in. `to` is the revision that they lead to.
    pub(super) fn stage(
        &mut self,
        changes: Vec<Change>,
        to: Revision,
        now: DateTime<Utc>,
        rng: &mut impl Rng,
    ) -> Staged {
        self.sequence.0 += 1;
        let mut staged = Staged::default();
        let mut outcomes =
            IndexMap::with_capacity_and_hasher(changes.len(), RandomState::default());
        for change in changes {
            let (peer, outcome) = match change {
                Change::Upsert(peer) => (peer.peer, self.upsert(peer, now, rng, &mut staged)),
                Change::Remove { peer } => (peer, self.remove(peer, now, &mut staged)),
                Change::Unknown => continue,
            };
            outcomes.insert(peer, outcome);
        }
        staged.results = outcomes
            .into_iter()
            .map(|(peer, outcome)| self.result(peer, outcome))
            .collect();
        if self.applied != to {
            self.applied = to;
            staged.writes.push(Write::Applied(to));
        }
        staged
    }

    /// Takes out the peers whose time has passed.
    pub(super) fn expire(&mut self, now: DateTime<Utc>) -> Staged {
        let mut staged = Staged::default();
        while let Some((_, peer)) = self.expiries.first().filter(|(at, _)| *at <= now) {
            self.remove(*peer, now, &mut staged);
        }
        staged
    }

    /// The interface did not take these peers: they are given up, and their addresses rest.
    pub(super) fn withdraw(&mut self, keys: &HashSet<PublicKey>, now: DateTime<Utc>) -> Vec<Write> {
        let mut staged = Staged::default();
        for peer in keys
            .iter()
            .filter_map(|key| self.by_key.get(key).copied())
            .collect::<Vec<_>>()
        {
            self.remove(peer, now, &mut staged);
        }
        staged.writes
    }

    /// These peers begin a new generation, because the interface counts them from zero again.
    pub(super) fn begin_generation<'a>(
        &mut self,
        keys: impl Iterator<Item = &'a PublicKey>,
    ) -> Vec<Write> {
        self.sequence.0 += 1;
        let mut writes = Vec::new();
        for (key, peer) in keys.filter_map(|key| Some((key, self.by_key.get(key)?))) {
            let counted = self.book.counted(key);
            writes.extend(counted.map(|(peer, counters)| Write::Ended(peer, counters)));
            if let Some(record) = self.peers.get_mut(peer) {
                record.generation = next(record.generation);
                let holder = holder(*peer, record);
                self.book.track(record.public_key, holder, self.sequence);
                writes.push(Write::Peer(*peer, record.clone()));
            }
        }
        writes
    }

    /// The peer that holds this key.
    #[must_use]
    pub(super) fn holder(&self, key: &PublicKey) -> Option<PeerId> {
        self.by_key.get(key).copied()
    }

    /// These peers' generations are about to end: what they have counted is kept as if they had. From
    /// now on a peer of theirs without addresses is known as theirs.
    pub(super) fn begin_to_end<'a>(
        &mut self,
        keys: impl Iterator<Item = &'a PublicKey>,
    ) -> Vec<Write> {
        let counted: Vec<_> = keys.filter_map(|key| self.book.counted(key)).collect();
        for (peer, counters) in &counted {
            self.book.end(*peer, *counters);
        }
        let writes = counted.into_iter();
        writes
            .map(|(peer, counters)| Write::Ended(peer, counters))
            .collect()
    }

    /// The peer of this key as it shall be in the interface, if its generation may end now.
    #[must_use]
    pub(super) fn scrubbable(&self, key: &PublicKey) -> Option<PeerSpec> {
        let peer = self.by_key.get(key)?;
        let may = self.book.can_end(*peer);
        self.peers.get(peer).filter(|_| may).map(spec)
    }

    /// Forgets ended generations that were reported up to `before`, in Unix seconds.
    pub(super) fn settle_ended(&mut self, before: u64) -> Vec<Write> {
        let settled = self.book.settle(before).into_iter();
        settled
            .map(|(peer, generation)| Write::NoEnded(peer, generation))
            .collect()
    }

    /// The addresses of those of these peers that are here.
    #[must_use]
    pub(super) fn addresses(&self, peers: &[PeerId]) -> Vec<(PeerId, Addresses)> {
        let known = peers.iter().filter_map(|id| self.peers.get_key_value(id));
        known.map(|(id, record)| (*id, record.addresses)).collect()
    }

    /// How it stands at the end of the message: a later change may have taken the peer's key.
    fn result(&self, peer: PeerId, outcome: Outcome) -> PeerResult {
        let displaced =
            matches!(outcome, Outcome::Active { .. }) && !self.peers.contains_key(&peer);
        let outcome = if displaced { self.gone(peer) } else { outcome };
        PeerResult { peer, outcome }
    }

    fn upsert(
        &mut self,
        peer: Peer,
        now: DateTime<Utc>,
        rng: &mut impl Rng,
        staged: &mut Staged,
    ) -> Outcome {
        if has_expired(peer.not_after, now) {
            self.remove(peer.peer, now, staged);
            return failed(FailureReason::Expired);
        }
        if let Some(other) = self.by_key.get(&peer.public_key).copied()
            && other != peer.peer
        {
            self.remove(other, now, staged);
        }
        match self.peers.get(&peer.peer).cloned() {
            Some(known) if known.public_key == peer.public_key => self.change(&known, peer, staged),
            // Another client, whatever its id: nothing of the old one's tunnel is kept.
            Some(_) => {
                self.remove(peer.peer, now, staged);
                self.admit(peer, now, rng, staged)
            }
            None => self.admit(peer, now, rng, staged),
        }
    }

    /// A peer that is held already keeps its addresses.
    fn change(&mut self, known: &PeerRecord, peer: Peer, staged: &mut Staged) -> Outcome {
        let id = peer.peer;
        let record = record(peer, known.addresses, known.generation);
        let addresses = record.addresses;
        if record != *known {
            if record.preshared_key != known.preshared_key {
                staged.operations.push(PeerOp::Update(spec(&record)));
            }
            self.forget(id);
            self.index(id, record.clone());
            staged.writes.push(Write::Peer(id, record));
        }
        Outcome::Active { addresses }
    }

    fn admit(
        &mut self,
        peer: Peer,
        now: DateTime<Utc>,
        rng: &mut impl Rng,
        staged: &mut Staged,
    ) -> Outcome {
        let given = match peer.addresses {
            Some(named) => self.pool.reserve(named),
            None if self.is_draining() => return failed(FailureReason::Draining),
            None => self.pool.allocate(now, rng),
        };
        let addresses = match given {
            Ok(addresses) => addresses,
            Err(error) => {
                warn!(event = "no_address", peer = peer.peer.0, %error);
                return failed(FailureReason::PoolExhausted);
            }
        };
        let id = peer.peer;
        let generation = self.revive(id, staged);
        let record = record(peer, addresses, generation);
        staged.operations.push(PeerOp::Add(spec(&record)));
        self.insert(id, record.clone());
        staged.writes.push(Write::Peer(id, record));
        staged.writes.extend(self.limits.used_before(id));
        Outcome::Active { addresses }
    }

    fn remove(&mut self, peer: PeerId, now: DateTime<Utc>, staged: &mut Staged) -> Outcome {
        let Some(record) = self.forget(peer) else {
            return self.gone(peer);
        };
        let counters = self.book.forget(&record.public_key);
        staged.operations.push(PeerOp::Remove(record.public_key));
        staged.writes.push(Write::NoPeer(peer));
        match self.pool.release(record.addresses, now) {
            Ok(until) => staged
                .writes
                .push(Write::Quarantine(record.addresses.v4, until)),
            Err(error) => warn!(event = "address_not_released", peer = peer.0, %error),
        }
        let last = Final {
            generation: record.generation,
            tunnel: Some(Tunnel {
                public_key: record.public_key,
                addresses: record.addresses,
            }),
            counters,
            consumed: self.limits.remove(peer),
            removed_at: now,
        };
        self.keep_final(peer, last, staged);
        Outcome::Removed { counters }
    }

    /// Takes a peer in that is, or will be, in the interface since now.
    fn insert(&mut self, peer: PeerId, record: PeerRecord) {
        self.book
            .track(record.public_key, holder(peer, &record), self.sequence);
        self.index(peer, record);
    }

    fn index(&mut self, peer: PeerId, record: PeerRecord) {
        self.note(peer, &record);
        if let Some(at) = record.not_after {
            self.expiries.insert((at, peer));
        }
        self.peers.insert(peer, record);
    }

    fn note(&mut self, peer: PeerId, record: &PeerRecord) {
        self.by_key.insert(record.public_key, peer);
        if let Some(hash) = self.hash.get_mut() {
            hash.add(peer, &record.public_key);
        }
        self.limits.set(peer, record.addresses, record.limits);
    }

    fn forget(&mut self, peer: PeerId) -> Option<PeerRecord> {
        let record = self.peers.remove(&peer)?;
        self.by_key.remove(&record.public_key);
        if let Some(hash) = self.hash.get_mut() {
            hash.remove(peer, &record.public_key);
        }
        if let Some(at) = record.not_after {
            self.expiries.remove(&(at, peer));
        }
        Some(record)
    }
}

/// The changes that take these peers out and lead to those of the snapshot.
pub(super) fn changes_to(snapshot: Vec<Peer>, surplus: Vec<PeerId>) -> Vec<Change> {
    surplus
        .into_iter()
        .map(|peer| Change::Remove { peer })
        .chain(snapshot.into_iter().map(Change::Upsert))
        .collect()
}

fn holder(peer: PeerId, record: &PeerRecord) -> Holder {
    Holder {
        peer,
        generation: record.generation,
        addresses: record.addresses,
    }
}

fn record(peer: Peer, addresses: Addresses, generation: Generation) -> PeerRecord {
    PeerRecord {
        connection: peer.connection,
        public_key: peer.public_key,
        preshared_key: peer.preshared_key,
        addresses,
        not_after: peer.not_after,
        generation,
        limits: peer.limits,
    }
}

fn has_expired(not_after: Option<DateTime<Utc>>, now: DateTime<Utc>) -> bool {
    not_after.is_some_and(|at| at <= now)
}

fn next(generation: Generation) -> Generation {
    Generation(generation.0.saturating_add(1))
}

fn failed(reason: FailureReason) -> Outcome {
    Outcome::Failed { reason }
}
