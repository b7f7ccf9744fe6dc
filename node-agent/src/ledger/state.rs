//! What the ledger holds, and how a change of it is taken in.

use std::collections::{BTreeMap, HashMap};
use std::net::Ipv4Addr;

use chrono::{DateTime, Utc};
use foldhash::fast::RandomState;
use serde::{Deserialize, Serialize};
use shared::ids::{ConnectionId, Generation, PeerId, Revision, ServerId};
use shared::protocol::{Addresses, Limits, NodeToken, PeerCounters, Settings};
use shared::wireguard::{PresharedKey, PublicKey};
use uuid::Uuid;

/// Who this node is to the plane.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    pub server_id: ServerId,
    pub token: NodeToken,
    /// When the token was received; with its end this gives the time to renew it.
    pub received_at: DateTime<Utc>,
}

/// A peer that this node holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerRecord {
    pub connection: ConnectionId,
    pub public_key: PublicKey,
    pub preshared_key: Option<PresharedKey>,
    pub addresses: Addresses,
    pub not_after: Option<DateTime<Utc>>,
    pub generation: Generation,
    pub limits: Limits,
}

/// A peer that is gone: kept for a while, so that a repeated removal is answered with the same
/// counters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Final {
    pub generation: Generation,
    /// What the interface knew it by. A crash may have left it there, counting on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tunnel: Option<Tunnel>,
    /// None when they were never read.
    pub counters: Option<PeerCounters>,
    /// What it had used of its allowance.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub consumed: u64,
    pub removed_at: DateTime<Utc>,
}

/// Two peers, one after the other, can have had the same key; none has had the same addresses too
/// without a rest between.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Tunnel {
    pub public_key: PublicKey,
    pub addresses: Addresses,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_zero(value: &u64) -> bool {
    *value == 0
}

/// The interface as this agent last saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    pub boot_id: Uuid,
    pub index: u32,
    pub epoch: Uuid,
}

/// The key that the interface will have next; its private half lies in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedKey {
    /// The time that the plane named: which plan this is.
    pub asked: DateTime<Utc>,
    /// When the key takes over.
    pub at: DateTime<Utc>,
    pub public_key: PublicKey,
}

/// The peers by their names: hashed as the node hashes them, which takes them over whole.
pub type Peers = HashMap<PeerId, PeerRecord, RandomState>;

/// Everything that the ledger holds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct State {
    pub identity: Option<Identity>,
    pub applied: Revision,
    pub interface: Option<Interface>,
    /// Asked on this host.
    pub draining: bool,
    /// What the plane asked last.
    pub settings: Settings,
    pub planned_key: Option<PlannedKey>,
    /// The plan that was carried out last, by the time that the plane named.
    pub rotated: Option<DateTime<Utc>>,
    pub peers: Peers,
    pub quarantine: HashMap<Ipv4Addr, DateTime<Utc>>,
    pub consumed: HashMap<PeerId, u64>,
    pub finals: HashMap<PeerId, Final>,
    /// What generations had counted when they ended, or when they were about to.
    pub ended: BTreeMap<(PeerId, Generation), PeerCounters>,
}

/// One change of the ledger. Those of one commit are carried out in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// The peer's address leaves quarantine, if it was in it.
    Peer(PeerId, PeerRecord),
    NoPeer(PeerId),
    /// What peers have used of their allowances.
    Consumed(Vec<(PeerId, u64)>),
    Quarantine(Ipv4Addr, DateTime<Utc>),
    NoQuarantine(Ipv4Addr),
    Final(PeerId, Final),
    NoFinal(PeerId),
    Ended(PeerId, PeerCounters),
    NoEnded(PeerId, Generation),
    Applied(Revision),
    Interface(Interface),
    Draining(bool),
    Settings(Settings),
    PlannedKey(PlannedKey),
    NoPlannedKey,
    Rotated(DateTime<Utc>),
    Identity(Identity),
}

impl State {
    /// Takes one change in.
    pub(super) fn take(&mut self, write: Write) {
        match write {
            Write::Peer(peer, record) => {
                self.quarantine.remove(&record.addresses.v4);
                self.peers.insert(peer, record);
            }
            Write::NoPeer(peer) => {
                self.peers.remove(&peer);
                self.consumed.remove(&peer);
            }
            Write::Consumed(consumed) => self.consumed.extend(consumed),
            Write::Quarantine(address, until) => {
                self.quarantine.insert(address, until);
            }
            Write::NoQuarantine(address) => {
                self.quarantine.remove(&address);
            }
            Write::Final(peer, last) => {
                self.finals.insert(peer, last);
            }
            Write::NoFinal(peer) => {
                self.finals.remove(&peer);
            }
            Write::Ended(peer, counters) => {
                self.ended.insert((peer, counters.generation), counters);
            }
            Write::NoEnded(peer, generation) => {
                self.ended.remove(&(peer, generation));
            }
            Write::Applied(revision) => self.applied = revision,
            Write::Interface(interface) => self.interface = Some(interface),
            Write::Draining(draining) => self.draining = draining,
            Write::Settings(settings) => self.settings = settings,
            Write::PlannedKey(planned) => self.planned_key = Some(planned),
            Write::NoPlannedKey => self.planned_key = None,
            Write::Rotated(asked) => self.rotated = Some(asked),
            Write::Identity(identity) => self.identity = Some(identity),
        }
    }

    /// The changes that lead here from nothing.
    pub(super) fn into_writes(self) -> impl Iterator<Item = Write> {
        let once = [
            self.identity.map(Write::Identity),
            Some(Write::Applied(self.applied)),
            self.interface.map(Write::Interface),
            Some(Write::Draining(self.draining)),
            Some(Write::Settings(self.settings)),
            self.planned_key.map(Write::PlannedKey),
            self.rotated.map(Write::Rotated),
        ];
        let peers = self.peers.into_iter();
        let quarantine = self.quarantine.into_iter();
        let consumed = self.consumed.into_iter();
        let finals = self.finals.into_iter();
        let ended = self.ended.into_iter();
        once.into_iter()
            .flatten()
            .chain(peers.map(|(peer, record)| Write::Peer(peer, record)))
            .chain(quarantine.map(|(address, until)| Write::Quarantine(address, until)))
            .chain(consumed.map(|entry| Write::Consumed(vec![entry])))
            .chain(finals.map(|(peer, last)| Write::Final(peer, last)))
            .chain(ended.map(|((peer, _), counters)| Write::Ended(peer, counters)))
    }
}
