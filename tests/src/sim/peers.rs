//! What a node holds: peers, addresses, counters. No IO.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{Ipv4Addr, Ipv6Addr};

use chrono::{DateTime, Utc};
use ipnet::{Ipv4Net, Ipv6Net};
use shared::ids::{ConnectionId, Generation, PeerId, Revision};
use shared::protocol::counters::{CountersFrame, MAX_ENTRIES};
use shared::protocol::{
    Addresses, Applied, Apply, Change, FailureReason, Limits, Outcome, Peer, PeerCounters,
    PeerResult, SnapshotPart, StateHash, Timings,
};
use shared::wireguard::{PresharedKey, PublicKey};

/// A peer in the imagined interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SimPeer {
    pub peer: PeerId,
    pub connection: ConnectionId,
    pub public_key: PublicKey,
    pub preshared_key: Option<PresharedKey>,
    pub addresses: Addresses,
    pub counters: PeerCounters,
    pub limits: Limits,
    pub not_after: Option<DateTime<Utc>>,
    /// Bytes that passed while there was an allowance.
    pub consumed: u64,
}

#[derive(Debug, Default)]
pub(super) struct Peers {
    held: BTreeMap<PeerId, SimPeer>,
    pool: Pool,
    revision: Revision,
    hash: StateHash,
    moved: BTreeSet<PeerId>,
    consumed: BTreeSet<PeerId>,
    /// Last counters of generations that ended while their peers lived on, and how many of these this
    /// session was told.
    ended: Vec<(PeerId, PeerCounters)>,
    ended_told: usize,
    /// Last counters of peers that are gone: a repeated removal is answered alike.
    finals: BTreeMap<PeerId, PeerCounters>,
    parts: Vec<Peer>,
    operations: u64,
    limit_changes: u64,
}

impl Peers {
    pub(super) fn new(subnet: Ipv4Net, subnet_v6: Option<Ipv6Net>, capacity: u32) -> Self {
        Self {
            pool: Pool::new(subnet, subnet_v6, capacity),
            ..Self::default()
        }
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &SimPeer> {
        self.held.values()
    }

    pub(super) fn revision(&self) -> Revision {
        self.revision
    }

    pub(super) fn hash(&self) -> StateHash {
        self.hash
    }

    pub(super) fn operations(&self) -> u64 {
        self.operations
    }

    pub(super) fn limit_changes(&self) -> u64 {
        self.limit_changes
    }

    /// Whether a quota moved that was not reported yet.
    pub(super) fn has_consumed(&self) -> bool {
        !self.consumed.is_empty()
    }

    pub(super) fn pool_used(&self) -> u32 {
        self.pool.used
    }

    /// Applies a delta; none when it does not start here.
    pub(super) fn apply(&mut self, apply: Apply, fail: Option<FailureReason>) -> Option<Applied> {
        if apply.from != self.revision {
            return None;
        }
        let results = apply
            .changes
            .into_iter()
            .filter_map(|change| match change {
                Change::Upsert(peer) => Some(self.upsert(peer, fail)),
                Change::Remove { peer } => Some(self.remove(peer)),
                Change::Unknown => None,
            })
            .collect();
        self.revision = apply.to;
        Some(self.applied(results))
    }

    /// Collects a snapshot's parts; with the last one the held peers become its peers.
    pub(super) fn snapshot(
        &mut self,
        part: SnapshotPart,
        fail: Option<FailureReason>,
    ) -> Option<Applied> {
        if part.part == 0 {
            self.parts.clear();
        }
        self.parts.extend(part.peers);
        if !part.last {
            return None;
        }
        let wanted = std::mem::take(&mut self.parts);
        let names: BTreeSet<_> = wanted.iter().map(|peer| peer.peer).collect();
        let surplus: Vec<_> = self
            .held
            .keys()
            .filter(|peer| !names.contains(peer))
            .copied()
            .collect();
        let mut results: Vec<_> = surplus.into_iter().map(|peer| self.remove(peer)).collect();
        results.extend(wanted.into_iter().map(|peer| self.upsert(peer, fail)));
        self.revision = part.revision;
        Some(self.applied(results))
    }

    fn applied(&self, results: Vec<PeerResult>) -> Applied {
        Applied {
            revision: self.revision,
            state_hash: self.hash,
            results,
            timings: Timings::default(),
        }
    }

    fn upsert(&mut self, peer: Peer, fail: Option<FailureReason>) -> PeerResult {
        let id = peer.peer;
        let result = |outcome| PeerResult { peer: id, outcome };
        if let Some(held) = self.held.get_mut(&id) {
            if held.preshared_key != peer.preshared_key {
                held.preshared_key = peer.preshared_key;
                self.operations += 1;
            }
            if held.limits != peer.limits {
                held.limits = peer.limits;
                self.limit_changes += 1;
            }
            held.not_after = peer.not_after;
            let addresses = held.addresses;
            return result(Outcome::Active { addresses });
        }
        if let Some(reason) = fail {
            return result(Outcome::Failed { reason });
        }
        let Some(addresses) = self.pool.take(peer.addresses) else {
            let reason = FailureReason::PoolExhausted;
            return result(Outcome::Failed { reason });
        };
        self.hash.add(id, &peer.public_key);
        self.operations += 1;
        let counters = PeerCounters {
            generation: Generation(1),
            sent: 0,
            received: 0,
            last_handshake: None,
        };
        let held = SimPeer {
            peer: id,
            connection: peer.connection,
            public_key: peer.public_key,
            preshared_key: peer.preshared_key,
            addresses,
            counters,
            limits: peer.limits,
            not_after: peer.not_after,
            consumed: 0,
        };
        self.held.insert(id, held);
        result(Outcome::Active { addresses })
    }

    fn remove(&mut self, peer: PeerId) -> PeerResult {
        if let Some(held) = self.forget(peer) {
            self.operations += 1;
            self.finals.insert(peer, held.counters);
        }
        let counters = self.finals.get(&peer).copied();
        PeerResult {
            peer,
            outcome: Outcome::Removed { counters },
        }
    }

    pub(super) fn forget(&mut self, peer: PeerId) -> Option<SimPeer> {
        let held = self.held.remove(&peer)?;
        self.hash.remove(peer, &held.public_key);
        self.pool.free(held.addresses);
        self.moved.remove(&peer);
        self.consumed.remove(&peer);
        Some(held)
    }

    /// Lets through what the peer's allowance has room for, uploads first; says how much. None where
    /// there is no such peer.
    pub(super) fn add_traffic(
        &mut self,
        connection: ConnectionId,
        sent: u64,
        received: u64,
        now: u64,
    ) -> Option<u64> {
        let mut held = self.held.values();
        let peer = held.find(|peer| peer.connection == connection)?.peer;
        self.pass(peer, sent, received, now)
    }

    /// The same for every peer.
    pub(super) fn add_traffic_everywhere(&mut self, sent: u64, received: u64, now: u64) {
        let all: Vec<_> = self.held.keys().copied().collect();
        for peer in all {
            self.pass(peer, sent, received, now);
        }
    }

    fn pass(&mut self, peer: PeerId, sent: u64, received: u64, now: u64) -> Option<u64> {
        let peer = self.held.get_mut(&peer)?;
        let room = peer.limits.allowance.map_or(u64::MAX, |allowance| {
            allowance.saturating_sub(peer.consumed)
        });
        let sent = sent.min(room);
        let received = received.min(room - sent);
        peer.counters.sent += sent;
        peer.counters.received += received;
        peer.counters.last_handshake = Some(now);
        self.moved.insert(peer.peer);
        if peer.limits.allowance.is_some() && sent + received > 0 {
            peer.consumed += sent + received;
            self.consumed.insert(peer.peer);
        }
        Some(sent + received)
    }

    pub(super) fn next_generation(&mut self) {
        for peer in self.held.values_mut() {
            self.ended.push((peer.peer, peer.counters));
            peer.counters = PeerCounters {
                generation: Generation(peer.counters.generation.0 + 1),
                sent: 0,
                received: 0,
                last_handshake: None,
            };
        }
    }

    /// A new session: the plane may have missed any frame, so everything that moved counts as new.
    pub(super) fn report_all_again(&mut self) {
        self.ended_told = 0;
        let held = self.held.values();
        let moved = held.filter(|peer| peer.counters.last_handshake.is_some());
        self.moved = moved.map(|peer| peer.peer).collect();
        let consumed = self.held.values().filter(|peer| peer.consumed > 0);
        self.consumed = consumed.map(|peer| peer.peer).collect();
    }

    /// The ended generations that this session was not told of, each in a frame of its own. They go ahead of
    /// whatever newer ones and removals say.
    pub(super) fn take_ended(&mut self, now: u64) -> Vec<CountersFrame> {
        let untold = self.ended.iter().skip(self.ended_told);
        let frames = untold.map(|entry| CountersFrame {
            taken_at: now,
            entries: vec![*entry],
            consumed: Vec::new(),
        });
        let frames = frames.collect();
        self.ended_told = self.ended.len();
        frames
    }

    /// What moved since the last call.
    pub(super) fn take_counters(&mut self, now: u64) -> Option<CountersFrame> {
        let entries: Vec<_> = std::iter::from_fn(|| self.moved.pop_first())
            .filter_map(|peer| Some((peer, self.held.get(&peer)?.counters)))
            .take(MAX_ENTRIES)
            .collect();
        let consumed: Vec<_> = std::iter::from_fn(|| self.consumed.pop_first())
            .filter_map(|peer| Some((peer, self.held.get(&peer)?.consumed)))
            .take(MAX_ENTRIES)
            .collect();
        (!entries.is_empty() || !consumed.is_empty()).then_some(CountersFrame {
            taken_at: now,
            entries,
            consumed,
        })
    }
}

/// Addresses by their number in the subnet; a freed one goes to the end of the queue.
#[derive(Debug, Default)]
struct Pool {
    subnet: Ipv4Net,
    subnet_v6: Option<Ipv6Net>,
    capacity: u32,
    used: u32,
    /// Numbers from here on were never given out.
    next: u32,
    freed: VecDeque<u32>,
}

impl Pool {
    fn new(subnet: Ipv4Net, subnet_v6: Option<Ipv6Net>, capacity: u32) -> Self {
        Self {
            subnet,
            subnet_v6,
            capacity,
            used: 0,
            // Zero is the network, one the node itself.
            next: 2,
            freed: VecDeque::new(),
        }
    }

    /// The given addresses, or some of its own choice; none when the pool is used up.
    fn take(&mut self, wanted: Option<Addresses>) -> Option<Addresses> {
        if let Some(wanted) = wanted {
            let number = u32::from(wanted.v4).wrapping_sub(u32::from(self.subnet.network()));
            while self.next <= number && self.subnet.contains(&wanted.v4) {
                self.freed.push_back(self.next);
                self.next += 1;
            }
            self.freed.retain(|free| *free != number);
            self.used += 1;
            return Some(wanted);
        }
        if self.used >= self.capacity {
            return None;
        }
        let last = u32::from(self.subnet.broadcast()) - u32::from(self.subnet.network());
        let number = if self.next < last {
            self.next += 1;
            self.next - 1
        } else {
            self.freed.pop_front()?
        };
        self.used += 1;
        let v4 = Ipv4Addr::from(u32::from(self.subnet.network()) + number);
        let v6 = self
            .subnet_v6
            .map(|net| Ipv6Addr::from(u128::from(net.network()) + u128::from(number)));
        Some(Addresses { v4, v6 })
    }

    fn free(&mut self, addresses: Addresses) {
        self.used = self.used.saturating_sub(1);
        let number = u32::from(addresses.v4).wrapping_sub(u32::from(self.subnet.network()));
        self.freed.push_back(number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::wireguard::PrivateKey;

    fn peers(capacity: u32) -> Peers {
        Peers::new(
            Ipv4Net::new_assert([10, 0, 0, 0].into(), 29),
            None,
            capacity,
        )
    }

    fn peer(id: u64) -> Peer {
        Peer {
            peer: PeerId(id),
            connection: ConnectionId::generate(),
            public_key: PrivateKey::generate().public_key(),
            preshared_key: None,
            addresses: None,
            not_after: None,
            limits: Limits::default(),
        }
    }

    fn delta(from: u64, to: u64, changes: Vec<Change>) -> Apply {
        Apply {
            from: Revision(from),
            to: Revision(to),
            changes,
        }
    }

    #[test]
    fn a_repeated_upsert_answers_alike_and_costs_nothing() {
        let mut peers = peers(5);
        let change = Change::Upsert(peer(1));
        let first = peers.apply(delta(0, 1, vec![change.clone()]), None);
        let second = peers.apply(delta(1, 1, vec![change]), None);
        assert_eq!(first, second);
        assert_eq!(peers.operations(), 1);
    }

    #[test]
    fn limits_change_without_an_operation_and_an_allowance_ends() {
        let mut peers = peers(5);
        let mut wanted = peer(1);
        peers.apply(delta(0, 1, vec![Change::Upsert(wanted.clone())]), None);
        let (connection, operations) = (wanted.connection, peers.operations());
        assert_eq!(peers.add_traffic(connection, 10, 10, 1), Some(20));
        wanted.limits.allowance = Some(50);
        peers.apply(delta(1, 2, vec![Change::Upsert(wanted)]), None);
        assert_eq!((peers.operations(), peers.limit_changes()), (operations, 1));
        assert_eq!(peers.add_traffic(connection, 30, 30, 1), Some(50));
        assert_eq!(peers.add_traffic(connection, 30, 30, 1), Some(0));
        let frame = peers.take_counters(2).expect("a frame");
        assert_eq!(frame.consumed, [(PeerId(1), 50)]);
        assert_eq!(peers.take_counters(3), None);
    }

    #[test]
    fn a_new_session_and_a_repeated_removal_are_told_everything_again() {
        let mut peers = peers(5);
        let wanted = peer(1);
        peers.apply(delta(0, 1, vec![Change::Upsert(wanted.clone())]), None);
        peers.add_traffic(wanted.connection, 10, 20, 1);
        peers.next_generation();
        peers.add_traffic(wanted.connection, 1, 2, 2);
        let told = |peers: &mut Peers| {
            let frames = peers
                .take_ended(3)
                .into_iter()
                .chain(peers.take_counters(3));
            let entries = frames.flat_map(|frame| frame.entries);
            let sent = entries.map(|(_, it)| (it.generation.0, it.sent));
            sent.collect::<Vec<_>>()
        };
        assert_eq!(told(&mut peers), [(1, 10), (2, 1)]);
        assert_eq!(told(&mut peers), []);
        peers.report_all_again();
        assert_eq!(told(&mut peers), [(1, 10), (2, 1)]);
        let removal = Change::Remove { peer: PeerId(1) };
        let first = peers.apply(delta(1, 2, vec![removal.clone()]), None);
        assert_eq!(first, peers.apply(delta(2, 2, vec![removal]), None));
    }

    #[test]
    fn removal_undoes_and_a_gap_is_refused() {
        let mut peers = peers(5);
        peers.apply(delta(0, 1, vec![Change::Upsert(peer(1))]), None);
        assert_eq!(peers.apply(delta(7, 8, vec![]), None), None);
        peers.apply(delta(1, 2, vec![Change::Remove { peer: PeerId(1) }]), None);
        assert_eq!(peers.hash(), StateHash::default());
        assert_eq!(peers.pool_used(), 0);
    }

    #[test]
    fn no_address_twice_and_none_past_the_pool() {
        let mut peers = peers(6);
        let changes = (1..=7).map(|id| Change::Upsert(peer(id))).collect();
        let applied = peers.apply(delta(0, 7, changes), None).expect("applies");
        let failed = applied
            .results
            .iter()
            .filter(|result| matches!(result.outcome, Outcome::Failed { .. }))
            .count();
        // Of eight addresses, the network, the node and the broadcast are not given out.
        assert_eq!(failed, 2);
        let addresses: BTreeSet<_> = peers.all().map(|peer| peer.addresses.v4).collect();
        assert_eq!(addresses.len(), 5);
    }

    #[test]
    fn a_snapshot_replaces_what_is_held() {
        let mut peers = peers(5);
        let kept = peer(1);
        let changes = vec![Change::Upsert(kept.clone()), Change::Upsert(peer(2))];
        peers.apply(delta(0, 2, changes), None);
        let part = |part, last, peers| SnapshotPart {
            revision: Revision(9),
            part,
            last,
            peers,
        };
        assert_eq!(peers.snapshot(part(0, false, vec![kept]), None), None);
        let applied = peers.snapshot(part(1, true, vec![peer(3)]), None);
        assert_eq!(applied.expect("the last part applies").results.len(), 3);
        let held: Vec<_> = peers.all().map(|peer| peer.peer.0).collect();
        assert_eq!(held, [1, 3]);
    }
}
