//! The smallest changes that bring the table to what peers may use. Pure.
//!
//! What must hold: a limit that is right already is not touched, so its bucket and what was used of it
//! stay; what replaces a quota starts at what is known to be used of it.

use std::collections::BTreeSet;
use std::net::IpAddr;

use shared::ids::PeerId;
use shared::protocol::{Addresses, Limits};

use super::{Change, Content, Kind, Object};

/// The kernel's bucket holds a second's worth at the least, full at first: with the rate itself a
/// measurement of ten seconds would show a tenth more than the plan says. With this much of it, any
/// measurement of ten seconds or more shows between 92 and 106 parts of a hundred.
const PERCENT: u64 = 96;
/// Beyond this the kernel's arithmetic overflows.
const MAX_BITS_PER_SECOND: u64 = 100_000_000_000;
/// What the bucket must hold so that every packet fits, however slow the rate: segments that were
/// put together on receipt pass as one packet of up to 64 KiB.
const LARGEST_PACKETS: u64 = 128 * 1024;
/// The largest quota that the kernel takes.
const MAX_BYTES: u64 = i64::MAX.unsigned_abs();

/// What a peer may use, and what it has used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    pub addresses: Addresses,
    pub limits: Limits,
    pub consumed: u64,
}

impl Wanted {
    fn object(&self, kind: Kind) -> Option<Object> {
        match kind {
            Kind::Download => self.limits.download_bps.map(rate),
            Kind::Upload => self.limits.upload_bps.map(rate),
            Kind::Quota => self.limits.allowance.map(|bytes| Object::Quota {
                bytes: bytes.min(MAX_BYTES),
                consumed: self.consumed,
            }),
        }
    }

    fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        let v6 = self.addresses.v6.map(IpAddr::V6);
        std::iter::once(IpAddr::V4(self.addresses.v4)).chain(v6)
    }
}

fn rate(bits_per_second: u64) -> Object {
    let bytes_per_second = bits_per_second.min(MAX_BITS_PER_SECOND) * PERCENT / 800;
    let missing = LARGEST_PACKETS.saturating_sub(bytes_per_second);
    let burst = match bits_per_second {
        // The kernel has no rate of zero: a bucket that no packet fits in.
        0 => 0,
        _ => u32::try_from(missing).unwrap_or_default(),
    };
    Object::Rate {
        bytes_per_second: bytes_per_second.max(1),
        burst,
    }
}

/// For each of `peers` that differs, its changes in order. None is wanted of a peer that is to have no
/// limits. A peer's changes are meant to be carried out as one.
#[must_use]
pub fn plan(
    peers: impl IntoIterator<Item = (PeerId, Option<Wanted>)>,
    content: &Content,
) -> Vec<Vec<Change>> {
    let mut removed = BTreeSet::new();
    peers
        .into_iter()
        .map(|(peer, wanted)| of_peer(peer, wanted, content, &mut removed))
        .filter(|changes| !changes.is_empty())
        .collect()
}

/// The removal of elements that lead to nothing of ours.
#[must_use]
pub(super) fn foreign(content: &Content) -> Vec<Change> {
    Kind::ALL
        .into_iter()
        .flat_map(|kind| {
            let addresses = content.addresses(kind, None);
            addresses.map(move |address| Change::RemoveElement(kind, address))
        })
        .collect()
}

/// What becomes of an object.
enum Fate {
    Stays,
    Resized(u64),
    Goes,
    Comes(Object),
    Replaced(Object),
}

/// `removed` are the elements whose removal is planned already.
fn of_peer(
    peer: PeerId,
    wanted: Option<Wanted>,
    content: &Content,
    removed: &mut BTreeSet<(Kind, IpAddr)>,
) -> Vec<Change> {
    let mut changes = Vec::new();
    for kind in Kind::ALL {
        let fate = fate(
            content.object(kind, peer),
            wanted.and_then(|it| it.object(kind)),
        );
        let anew = matches!(fate, Fate::Goes | Fate::Comes(_) | Fate::Replaced(_));
        let leading: BTreeSet<IpAddr> = content.addresses(kind, Some(peer)).collect();
        let limited = wanted.filter(|it| it.object(kind).is_some());
        let right: BTreeSet<IpAddr> = limited.iter().flat_map(Wanted::addresses).collect();
        for address in &leading {
            if (anew || !right.contains(address)) && removed.insert((kind, *address)) {
                changes.push(Change::RemoveElement(kind, *address));
            }
        }
        match fate {
            Fate::Stays => {}
            Fate::Resized(bytes) => changes.push(Change::SetAllowance(peer, bytes)),
            Fate::Goes => changes.push(Change::RemoveObject(kind, peer)),
            Fate::Comes(object) => changes.push(Change::AddObject(kind, peer, object)),
            Fate::Replaced(object) => changes.extend([
                Change::RemoveObject(kind, peer),
                Change::AddObject(kind, peer, object),
            ]),
        }
        for address in right {
            if !anew && leading.contains(&address) {
                continue;
            }
            // An earlier holder of the address, or somebody else's doing.
            let other = content.owner(kind, address).is_some();
            if other && removed.insert((kind, address)) {
                changes.push(Change::RemoveElement(kind, address));
            }
            changes.push(Change::AddElement(kind, address, peer));
        }
    }
    changes
}

fn fate(held: Option<Object>, wanted: Option<Object>) -> Fate {
    match (held, wanted) {
        (None, None) => Fate::Stays,
        (Some(_), None) => Fate::Goes,
        (None, Some(object)) => Fate::Comes(startable(object, 0)),
        (
            Some(Object::Quota { bytes, consumed }),
            Some(Object::Quota {
                bytes: allowance,
                consumed: known,
            }),
        ) => {
            let used_up = consumed >= bytes;
            // Somebody reset it. A quota that is used up tells no more than its size.
            let went_back = consumed < known.min(bytes);
            let object = Object::Quota {
                bytes: allowance,
                consumed: known,
            };
            if went_back || (used_up && allowance > bytes) {
                // In the kernel a used-up quota has counted what it dropped, too.
                Fate::Replaced(startable(object, consumed))
            } else if allowance == bytes {
                Fate::Stays
            } else {
                Fate::Resized(allowance)
            }
        }
        (Some(held), Some(wanted)) if held == wanted => Fate::Stays,
        (Some(_), Some(wanted)) => Fate::Replaced(startable(wanted, 0)),
    }
}

/// As the kernel takes it: no quota begins beyond its end.
fn startable(object: Object, at_least: u64) -> Object {
    match object {
        Object::Quota { bytes, consumed } => Object::Quota {
            bytes,
            consumed: consumed.max(at_least).min(bytes),
        },
        rate @ Object::Rate { .. } => rate,
    }
}

#[cfg(test)]
#[path = "tests/plan.rs"]
mod tests;
