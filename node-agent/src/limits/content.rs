//! What the table holds, as a value.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use shared::ids::PeerId;

use super::Consumed;

/// One thing that is limited. Each has its own maps from client addresses to limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    Download,
    Upload,
    Quota,
}

impl Kind {
    pub const ALL: [Self; 3] = [Self::Download, Self::Upload, Self::Quota];
}

/// A named object of the table. A client's IPv4 and IPv6 address lead to the same one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Object {
    /// A token bucket. The kernel's holds one second of the rate, and the burst on top of it.
    Rate { bytes_per_second: u64, burst: u32 },
    /// Nothing passes beyond `bytes`. The kernel goes on counting what it drops and never tells more
    /// than `bytes`: a quota whose two numbers are equal is used up.
    Quota { bytes: u64, consumed: u64 },
}

/// One change of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    RemoveElement(Kind, IpAddr),
    /// Nothing leads to the object any more.
    RemoveObject(Kind, PeerId),
    AddObject(Kind, PeerId, Object),
    /// Another size for a quota, which keeps what was counted.
    SetAllowance(PeerId, u64),
    AddElement(Kind, IpAddr, PeerId),
}

/// The table's objects, and the elements of its maps.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Content {
    objects: BTreeMap<(PeerId, Kind), Object>,
    /// None for an element that leads to an object which is not ours.
    elements: BTreeMap<(Kind, IpAddr), Option<PeerId>>,
    by_owner: BTreeSet<(Option<PeerId>, Kind, IpAddr)>,
}

impl Content {
    pub fn put_object(&mut self, kind: Kind, peer: PeerId, object: Object) {
        self.objects.insert((peer, kind), object);
    }

    pub fn put_element(&mut self, kind: Kind, address: IpAddr, owner: Option<PeerId>) {
        self.drop_element(kind, address);
        self.elements.insert((kind, address), owner);
        self.by_owner.insert((owner, kind, address));
    }

    fn drop_element(&mut self, kind: Kind, address: IpAddr) {
        if let Some(owner) = self.elements.remove(&(kind, address)) {
            self.by_owner.remove(&(owner, kind, address));
        }
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty() && self.elements.is_empty()
    }

    #[must_use]
    pub fn object(&self, kind: Kind, peer: PeerId) -> Option<Object> {
        self.objects.get(&(peer, kind)).copied()
    }

    /// Whose limit an address is subject to.
    #[must_use]
    pub fn owner(&self, kind: Kind, address: IpAddr) -> Option<Option<PeerId>> {
        self.elements.get(&(kind, address)).copied()
    }

    /// The addresses that lead to this peer's limit, or to no peer's.
    pub fn addresses(
        &self,
        kind: Kind,
        owner: Option<PeerId>,
    ) -> impl Iterator<Item = IpAddr> + '_ {
        let first = (owner, kind, IpAddr::from([0; 4]));
        self.by_owner
            .range(first..)
            .take_while(move |(of, under, _)| (*of, *under) == (owner, kind))
            .map(|(_, _, address)| *address)
    }

    /// Every peer that the table knows in any way.
    #[must_use]
    pub fn peers(&self) -> BTreeSet<PeerId> {
        let owners = self.by_owner.iter().filter_map(|(owner, _, _)| *owner);
        let named = self.objects.keys().map(|(peer, _)| *peer);
        owners.chain(named).collect()
    }

    pub fn quotas(&self) -> impl Iterator<Item = Consumed> + '_ {
        self.objects
            .iter()
            .filter_map(|((peer, _), object)| match object {
                Object::Quota { consumed, .. } => Some((*peer, *consumed)),
                Object::Rate { .. } => None,
            })
    }

    /// What was used as somebody has read it since. An older value does no harm.
    pub fn observe(&mut self, quotas: &[Consumed]) {
        for (peer, now) in quotas {
            if let Some(Object::Quota { consumed, .. }) =
                self.objects.get_mut(&(*peer, Kind::Quota))
            {
                *consumed = (*consumed).max(*now);
            }
        }
    }

    /// The content after a change that the table took.
    pub fn carry_out(&mut self, change: &Change) {
        match *change {
            Change::RemoveElement(kind, address) => self.drop_element(kind, address),
            Change::RemoveObject(kind, peer) => drop(self.objects.remove(&(peer, kind))),
            Change::AddObject(kind, peer, object) => self.put_object(kind, peer, object),
            Change::SetAllowance(peer, allowance) => {
                if let Some(Object::Quota { bytes, consumed }) =
                    self.objects.get_mut(&(peer, Kind::Quota))
                {
                    *bytes = allowance;
                    *consumed = allowance.min(*consumed);
                }
            }
            Change::AddElement(kind, address, peer) => self.put_element(kind, address, Some(peer)),
        }
    }
}
