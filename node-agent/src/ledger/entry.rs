//! Changes of the ledger as bytes, one entry behind the other.
//!
//! ```text
//! kind (1) | bytes of the content (4) | content
//! ```
//!
//! Numbers are little-endian. A peer's content is its record; what is written seldom is JSON. Kinds that
//! this version does not know belong to a later one and are passed over.

use std::net::Ipv4Addr;

use chrono::DateTime;
use serde::Serialize;
use serde::de::DeserializeOwned;
use shared::ids::{Generation, PeerId, Revision};
use zeroize::Zeroizing;

use super::record::{self, RecordError, take};
use super::{State, Write};

const PEER: u8 = 1;
const NO_PEER: u8 = 2;
const CONSUMED: u8 = 3;
const QUARANTINE: u8 = 4;
const NO_QUARANTINE: u8 = 5;
const FINAL: u8 = 6;
const NO_FINAL: u8 = 7;
const ENDED: u8 = 8;
const NO_ENDED: u8 = 9;
const APPLIED: u8 = 10;
const INTERFACE: u8 = 11;
const DRAINING: u8 = 12;
const SETTINGS: u8 = 13;
const PLANNED_KEY: u8 = 14;
const NO_PLANNED_KEY: u8 = 15;
const ROTATED: u8 = 16;
const IDENTITY: u8 = 17;

/// Bytes of an entry's kind and length.
const HEAD_BYTES: usize = 5;
/// More than any entry but a token's or a list's takes.
const USUAL_BYTES: usize = 512;

/// Why an entry cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub(super) enum EntryError {
    #[error("a record cannot be read or written: {0}")]
    Json(#[from] serde_json::Error),
    #[error(transparent)]
    Peer(#[from] RecordError),
    #[error("an entry is too long")]
    Long,
    #[error("a time is out of range")]
    Time,
}

/// At least the bytes that the entry takes: room that is reserved at once leaves no copy of a key behind.
pub(super) fn room(write: &Write) -> usize {
    HEAD_BYTES
        + match write {
            Write::Peer(..) => 8 + record::MAX_BYTES,
            Write::Consumed(consumed) => 16 * consumed.len(),
            Write::Identity(identity) => USUAL_BYTES + identity.token.token.len(),
            _ => USUAL_BYTES,
        }
}

/// Writes the entry behind what is there.
pub(super) fn encode(write: &Write, bytes: &mut Vec<u8>) -> Result<(), EntryError> {
    match write {
        Write::Peer(peer, record) => entry(bytes, PEER, |bytes| {
            bytes.extend_from_slice(&peer.0.to_le_bytes());
            record::encode(record, bytes);
        }),
        Write::NoPeer(peer) => plain(bytes, NO_PEER, &[&peer.0.to_le_bytes()]),
        Write::Consumed(consumed) => entry(bytes, CONSUMED, |bytes| {
            for (peer, used) in consumed {
                bytes.extend_from_slice(&peer.0.to_le_bytes());
                bytes.extend_from_slice(&used.to_le_bytes());
            }
        }),
        Write::Quarantine(address, until) => {
            let until = until.timestamp_millis().to_le_bytes();
            plain(bytes, QUARANTINE, &[&address.octets(), &until])
        }
        Write::NoQuarantine(address) => plain(bytes, NO_QUARANTINE, &[&address.octets()]),
        Write::Final(peer, last) => json(bytes, FINAL, &(peer, last)),
        Write::NoFinal(peer) => plain(bytes, NO_FINAL, &[&peer.0.to_le_bytes()]),
        Write::Ended(peer, counters) => json(bytes, ENDED, &(peer, counters)),
        Write::NoEnded(peer, generation) => {
            let generation = generation.0.to_le_bytes();
            plain(bytes, NO_ENDED, &[&peer.0.to_le_bytes(), &generation])
        }
        Write::Applied(revision) => plain(bytes, APPLIED, &[&revision.0.to_le_bytes()]),
        Write::Interface(interface) => json(bytes, INTERFACE, interface),
        Write::Draining(draining) => json(bytes, DRAINING, draining),
        Write::Settings(settings) => json(bytes, SETTINGS, settings),
        Write::PlannedKey(planned) => json(bytes, PLANNED_KEY, planned),
        Write::NoPlannedKey => plain(bytes, NO_PLANNED_KEY, &[]),
        Write::Rotated(asked) => json(bytes, ROTATED, asked),
        Write::Identity(identity) => json(bytes, IDENTITY, identity),
    }
}

/// Takes the changes in, in order.
pub(super) fn decode(mut bytes: &[u8], state: &mut State) -> Result<(), EntryError> {
    while !bytes.is_empty() {
        let [kind] = take(&mut bytes)?;
        let length = u32::from_le_bytes(take(&mut bytes)?);
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let (content, rest) = bytes.split_at_checked(length).ok_or(RecordError::Short)?;
        bytes = rest;
        if let Some(write) = read(kind, content)? {
            state.take(write);
        }
    }
    Ok(())
}

fn read(kind: u8, mut content: &[u8]) -> Result<Option<Write>, EntryError> {
    let rest = &mut content;
    Ok(Some(match kind {
        PEER => {
            let peer = peer_id(rest)?;
            Write::Peer(peer, record::decode(rest)?)
        }
        NO_PEER => Write::NoPeer(peer_id(rest)?),
        CONSUMED => {
            let mut consumed = Vec::with_capacity(rest.len() / 16);
            while !rest.is_empty() {
                consumed.push((peer_id(rest)?, u64::from_le_bytes(take(rest)?)));
            }
            Write::Consumed(consumed)
        }
        QUARANTINE => {
            let address = Ipv4Addr::from(take::<4>(rest)?);
            let until = i64::from_le_bytes(take(rest)?);
            let until = DateTime::from_timestamp_millis(until).ok_or(EntryError::Time)?;
            Write::Quarantine(address, until)
        }
        NO_QUARANTINE => Write::NoQuarantine(Ipv4Addr::from(take::<4>(rest)?)),
        FINAL => {
            let (peer, last) = text(rest)?;
            Write::Final(peer, last)
        }
        NO_FINAL => Write::NoFinal(peer_id(rest)?),
        ENDED => {
            let (peer, counters) = text(rest)?;
            Write::Ended(peer, counters)
        }
        NO_ENDED => {
            let peer = peer_id(rest)?;
            Write::NoEnded(peer, Generation(u32::from_le_bytes(take(rest)?)))
        }
        APPLIED => Write::Applied(Revision(u64::from_le_bytes(take(rest)?))),
        INTERFACE => Write::Interface(text(rest)?),
        DRAINING => Write::Draining(text(rest)?),
        SETTINGS => Write::Settings(text(rest)?),
        PLANNED_KEY => Write::PlannedKey(text(rest)?),
        NO_PLANNED_KEY => Write::NoPlannedKey,
        ROTATED => Write::Rotated(text(rest)?),
        IDENTITY => Write::Identity(text(rest)?),
        _ => return Ok(None),
    }))
}

fn peer_id(rest: &mut &[u8]) -> Result<PeerId, EntryError> {
    Ok(PeerId(u64::from_le_bytes(take(rest)?)))
}

fn text<T: DeserializeOwned>(content: &[u8]) -> Result<T, EntryError> {
    Ok(serde_json::from_slice(content)?)
}

fn json<T: Serialize>(bytes: &mut Vec<u8>, kind: u8, value: &T) -> Result<(), EntryError> {
    let text = serde_json::to_vec(value).map(Zeroizing::new)?;
    plain(bytes, kind, &[&text])
}

fn plain(bytes: &mut Vec<u8>, kind: u8, parts: &[&[u8]]) -> Result<(), EntryError> {
    entry(bytes, kind, |bytes| {
        parts.iter().for_each(|it| bytes.extend_from_slice(it));
    })
}

/// Writes an entry whose content `write` writes.
fn entry(
    bytes: &mut Vec<u8>,
    kind: u8,
    write: impl FnOnce(&mut Vec<u8>),
) -> Result<(), EntryError> {
    let begin = bytes.len() + 1;
    bytes.extend_from_slice(&[kind, 0, 0, 0, 0]);
    let content = bytes.len();
    write(bytes);
    let length = u32::try_from(bytes.len() - content).map_err(|_| EntryError::Long)?;
    if let Some(place) = bytes.get_mut(begin..content) {
        place.copy_from_slice(&length.to_le_bytes());
    }
    Ok(())
}
