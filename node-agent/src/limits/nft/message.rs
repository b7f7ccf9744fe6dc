//! Requests to nf_tables, as bytes.
//!
//! Changes travel in batches: what is between a begin and an end message is one transaction. A batch is
//! one datagram, so it is bounded by bytes; a peer's changes are never split.

use std::net::IpAddr;

use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REQUEST};
use shared::ids::PeerId;

use super::structure::{Family, map_name};
use crate::limits::{Change, Kind, Object};

/// Where a batch ends: well under what a socket sends at once.
pub(super) const MAX_BATCH_BYTES: usize = 48 * 1024;

// <linux/netfilter/nfnetlink.h>, <linux/netfilter/nf_tables.h>
pub(super) const SUBSYSTEM: u8 = 10;
const NFNL_MSG_BATCH_BEGIN: u16 = 0x10;
const NFNL_MSG_BATCH_END: u16 = 0x11;
const NFPROTO_INET: u8 = 1;
const NFT_MSG_GETTABLE: u8 = 1;
const NFT_MSG_GETRULE: u8 = 7;
const NFT_MSG_NEWSETELEM: u8 = 12;
const NFT_MSG_GETSETELEM: u8 = 13;
const NFT_MSG_DELSETELEM: u8 = 14;
const NFT_MSG_NEWOBJ: u8 = 18;
const NFT_MSG_GETOBJ: u8 = 19;
const NFT_MSG_DELOBJ: u8 = 20;
const NFTA_TABLE_NAME: u16 = 1;
const NFTA_RULE_TABLE: u16 = 1;
const NFTA_OBJ_TABLE: u16 = 1;
const NFTA_OBJ_NAME: u16 = 2;
const NFTA_OBJ_TYPE: u16 = 3;
const NFTA_OBJ_DATA: u16 = 4;
pub(super) const NFT_OBJECT_QUOTA: u32 = 2;
pub(super) const NFT_OBJECT_LIMIT: u32 = 4;
const NFTA_LIMIT_RATE: u16 = 1;
const NFTA_LIMIT_UNIT: u16 = 2;
const NFTA_LIMIT_BURST: u16 = 3;
const NFTA_LIMIT_TYPE: u16 = 4;
const NFTA_LIMIT_FLAGS: u16 = 5;
const NFT_LIMIT_PKT_BYTES: u32 = 1;
const NFTA_QUOTA_BYTES: u16 = 1;
const NFTA_QUOTA_FLAGS: u16 = 2;
const NFTA_QUOTA_CONSUMED: u16 = 4;
/// Of limits and quotas: the rule goes on with what is over, and drops it.
const OVER: u32 = 1;
const NFTA_SET_ELEM_LIST_TABLE: u16 = 1;
const NFTA_SET_ELEM_LIST_SET: u16 = 2;
const NFTA_SET_ELEM_LIST_ELEMENTS: u16 = 3;
const NFTA_LIST_ELEM: u16 = 1;
const NFTA_SET_ELEM_KEY: u16 = 1;
const NFTA_SET_ELEM_OBJREF: u16 = 9;
const NFTA_DATA_VALUE: u16 = 1;
const NLA_F_NESTED: u16 = 0x8000;

/// The name of a peer's object.
pub(super) fn object_name(kind: Kind, peer: PeerId) -> String {
    let letter = match kind {
        Kind::Download => 'd',
        Kind::Upload => 'u',
        Kind::Quota => 'q',
    };
    format!("{letter}{}", peer.0)
}

/// Whose object this is, and of which kind; none for a name that is not ours.
pub(super) fn parse_name(name: &str) -> Option<(Kind, PeerId)> {
    let kind = match name.chars().next()? {
        'd' => Kind::Download,
        'u' => Kind::Upload,
        'q' => Kind::Quota,
        _ => return None,
    };
    let peer = PeerId(name.get(1..)?.parse().ok()?);
    (object_name(kind, peer) == name).then_some((kind, peer))
}

/// A request that changes nothing.
#[derive(Debug)]
pub(super) struct Question {
    kind: u8,
    flags: u16,
    attributes: Vec<u8>,
}

impl Question {
    fn one(kind: u8, attributes: Vec<u8>) -> Self {
        Self {
            kind,
            flags: NLM_F_REQUEST | NLM_F_ACK,
            attributes,
        }
    }

    fn many(kind: u8, attributes: Vec<u8>) -> Self {
        Self {
            kind,
            flags: NLM_F_REQUEST | NLM_F_DUMP,
            attributes,
        }
    }

    /// Whether the table is there.
    pub(super) fn table(table: &str) -> Self {
        let mut attributes = Vec::new();
        text(&mut attributes, NFTA_TABLE_NAME, table);
        Self::one(NFT_MSG_GETTABLE, attributes)
    }

    pub(super) fn rules(table: &str) -> Self {
        let mut attributes = Vec::new();
        text(&mut attributes, NFTA_RULE_TABLE, table);
        Self::many(NFT_MSG_GETRULE, attributes)
    }

    pub(super) fn objects(table: &str) -> Self {
        let mut attributes = Vec::new();
        text(&mut attributes, NFTA_OBJ_TABLE, table);
        Self::many(NFT_MSG_GETOBJ, attributes)
    }

    pub(super) fn quotas(table: &str) -> Self {
        let mut question = Self::objects(table);
        number(&mut question.attributes, NFTA_OBJ_TYPE, NFT_OBJECT_QUOTA);
        question
    }

    pub(super) fn object(table: &str, kind: Kind, peer: PeerId) -> Self {
        let mut attributes = Vec::new();
        object(&mut attributes, table, kind, peer);
        Self::one(NFT_MSG_GETOBJ, attributes)
    }

    pub(super) fn elements(table: &str, map: &str) -> Self {
        let mut attributes = Vec::new();
        text(&mut attributes, NFTA_SET_ELEM_LIST_TABLE, table);
        text(&mut attributes, NFTA_SET_ELEM_LIST_SET, map);
        Self::many(NFT_MSG_GETSETELEM, attributes)
    }

    pub(super) fn encode(&self, sequence: u32) -> Vec<u8> {
        let mut bytes = Vec::new();
        let kind = nf_tables(self.kind);
        message(
            &mut bytes,
            (kind, self.flags, sequence),
            NFPROTO_INET,
            0,
            |bytes| {
                bytes.extend_from_slice(&self.attributes);
            },
        );
        bytes
    }
}

/// Changes that are one transaction: the messages between begin and end, without sequence numbers.
#[derive(Debug, Default)]
pub(super) struct Batch {
    messages: Vec<Draft>,
    bytes: usize,
}

#[derive(Debug)]
struct Draft {
    kind: u8,
    flags: u16,
    attributes: Vec<u8>,
}

/// The sequence numbers of a batch's answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sequences {
    /// Of the begin: an error with this number is about the batch as a whole.
    pub(super) begin: u32,
    /// Of all changes but the last.
    pub(super) middle: u32,
    /// Of the last change, which is answered in any case.
    pub(super) last: u32,
}

impl Batch {
    /// The changes of all peers in order, in as few batches as their bytes allow.
    pub(super) fn pack(table: &str, peers: &[Vec<Change>]) -> Vec<Self> {
        let mut batches: Vec<Self> = Vec::new();
        for changes in peers {
            let drafts: Vec<_> = changes.iter().map(|it| Draft::new(table, it)).collect();
            let bytes: usize = drafts.iter().map(Draft::bytes).sum();
            let room = batches
                .last_mut()
                .filter(|batch| batch.bytes + bytes <= MAX_BATCH_BYTES);
            match room {
                Some(batch) => {
                    batch.messages.extend(drafts);
                    batch.bytes += bytes;
                }
                None => batches.push(Self {
                    messages: drafts,
                    bytes,
                }),
            }
        }
        batches.retain(|batch| !batch.messages.is_empty());
        batches
    }

    pub(super) fn encode(&self, sequences: Sequences) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.bytes + 64);
        let subsystem = u16::from(SUBSYSTEM);
        let begin = (NFNL_MSG_BATCH_BEGIN, NLM_F_REQUEST, sequences.begin);
        message(&mut bytes, begin, 0, subsystem, |_| {});
        let last = self.messages.len().saturating_sub(1);
        for (index, draft) in self.messages.iter().enumerate() {
            let (sequence, ack) = if index == last {
                (sequences.last, NLM_F_ACK)
            } else {
                (sequences.middle, 0)
            };
            let header = (nf_tables(draft.kind), draft.flags | ack, sequence);
            message(&mut bytes, header, NFPROTO_INET, 0, |bytes| {
                bytes.extend_from_slice(&draft.attributes);
            });
        }
        let end = (NFNL_MSG_BATCH_END, NLM_F_REQUEST, sequences.last);
        message(&mut bytes, end, 0, subsystem, |_| {});
        bytes
    }
}

impl Draft {
    fn new(table: &str, change: &Change) -> Self {
        let mut attributes = Vec::new();
        let (kind, flags) = match *change {
            Change::RemoveElement(kind, address) => {
                element(&mut attributes, table, kind, address, None);
                (NFT_MSG_DELSETELEM, 0)
            }
            Change::RemoveObject(kind, peer) => {
                object(&mut attributes, table, kind, peer);
                (NFT_MSG_DELOBJ, 0)
            }
            Change::AddObject(kind, peer, it) => {
                object(&mut attributes, table, kind, peer);
                data(&mut attributes, it);
                (NFT_MSG_NEWOBJ, NLM_F_CREATE | NLM_F_EXCL)
            }
            Change::SetAllowance(peer, bytes) => {
                object(&mut attributes, table, Kind::Quota, peer);
                // The kernel takes the size over and leaves its own count as it is.
                data(&mut attributes, Object::Quota { bytes, consumed: 0 });
                (NFT_MSG_NEWOBJ, 0)
            }
            Change::AddElement(kind, address, peer) => {
                element(&mut attributes, table, kind, address, Some(peer));
                (NFT_MSG_NEWSETELEM, NLM_F_CREATE | NLM_F_EXCL)
            }
        };
        Self {
            kind,
            flags: flags | NLM_F_REQUEST,
            attributes,
        }
    }

    fn bytes(&self) -> usize {
        HEADERS_BYTES + self.attributes.len()
    }
}

fn object(bytes: &mut Vec<u8>, table: &str, kind: Kind, peer: PeerId) {
    text(bytes, NFTA_OBJ_TABLE, table);
    text(bytes, NFTA_OBJ_NAME, &object_name(kind, peer));
    number(bytes, NFTA_OBJ_TYPE, object_type(kind));
}

fn object_type(kind: Kind) -> u32 {
    match kind {
        Kind::Download | Kind::Upload => NFT_OBJECT_LIMIT,
        Kind::Quota => NFT_OBJECT_QUOTA,
    }
}

fn data(bytes: &mut Vec<u8>, object: Object) {
    nested(bytes, NFTA_OBJ_DATA, |bytes| match object {
        Object::Rate {
            bytes_per_second,
            burst,
        } => {
            long(bytes, NFTA_LIMIT_RATE, bytes_per_second);
            long(bytes, NFTA_LIMIT_UNIT, 1);
            number(bytes, NFTA_LIMIT_BURST, burst);
            number(bytes, NFTA_LIMIT_TYPE, NFT_LIMIT_PKT_BYTES);
            number(bytes, NFTA_LIMIT_FLAGS, OVER);
        }
        Object::Quota {
            bytes: size,
            consumed,
        } => {
            long(bytes, NFTA_QUOTA_BYTES, size);
            number(bytes, NFTA_QUOTA_FLAGS, OVER);
            long(bytes, NFTA_QUOTA_CONSUMED, consumed);
        }
    });
}

fn element(bytes: &mut Vec<u8>, table: &str, kind: Kind, address: IpAddr, to: Option<PeerId>) {
    let family = match address {
        IpAddr::V4(_) => Family::V4,
        IpAddr::V6(_) => Family::V6,
    };
    text(bytes, NFTA_SET_ELEM_LIST_TABLE, table);
    text(bytes, NFTA_SET_ELEM_LIST_SET, &map_name(kind, family));
    nested(bytes, NFTA_SET_ELEM_LIST_ELEMENTS, |bytes| {
        nested(bytes, NFTA_LIST_ELEM, |bytes| {
            nested(bytes, NFTA_SET_ELEM_KEY, |bytes| match address {
                IpAddr::V4(address) => attribute(bytes, NFTA_DATA_VALUE, &address.octets()),
                IpAddr::V6(address) => attribute(bytes, NFTA_DATA_VALUE, &address.octets()),
            });
            if let Some(peer) = to {
                text(bytes, NFTA_SET_ELEM_OBJREF, &object_name(kind, peer));
            }
        });
    });
}

/// Bytes of a netlink header and nfnetlink's behind it.
pub(super) const HEADERS_BYTES: usize = 20;

fn nf_tables(kind: u8) -> u16 {
    u16::from_be_bytes([SUBSYSTEM, kind])
}

/// Appends a message; the header is kind, flags and sequence number.
fn message(
    bytes: &mut Vec<u8>,
    (kind, flags, sequence): (u16, u16, u32),
    family: u8,
    resource: u16,
    body: impl FnOnce(&mut Vec<u8>),
) {
    let start = bytes.len();
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(&kind.to_ne_bytes());
    bytes.extend_from_slice(&flags.to_ne_bytes());
    bytes.extend_from_slice(&sequence.to_ne_bytes());
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(&[family, 0]);
    bytes.extend_from_slice(&resource.to_be_bytes());
    body(bytes);
    let length = u32::try_from(bytes.len() - start).unwrap_or(u32::MAX);
    patch(bytes, start, &length.to_ne_bytes());
}

fn nested(bytes: &mut Vec<u8>, kind: u16, body: impl FnOnce(&mut Vec<u8>)) {
    let start = bytes.len();
    attribute(bytes, kind | NLA_F_NESTED, &[]);
    body(bytes);
    let length = u16::try_from(bytes.len() - start).unwrap_or(u16::MAX);
    patch(bytes, start, &length.to_ne_bytes());
}

fn attribute(bytes: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
    bytes.extend_from_slice(&length.to_ne_bytes());
    bytes.extend_from_slice(&kind.to_ne_bytes());
    bytes.extend_from_slice(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

fn text(bytes: &mut Vec<u8>, kind: u16, value: &str) {
    attribute(bytes, kind, &[value.as_bytes(), &[0]].concat());
}

fn number(bytes: &mut Vec<u8>, kind: u16, value: u32) {
    attribute(bytes, kind, &value.to_be_bytes());
}

fn long(bytes: &mut Vec<u8>, kind: u16, value: u64) {
    attribute(bytes, kind, &value.to_be_bytes());
}

fn patch(bytes: &mut [u8], start: usize, value: &[u8]) {
    if let Some(place) = bytes.get_mut(start..start + value.len()) {
        place.copy_from_slice(value);
    }
}
