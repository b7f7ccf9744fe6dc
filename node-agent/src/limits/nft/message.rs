//! Changes of the table of limits, and questions about it, as bytes.
//!
//! Changes travel in batches: what is between a begin and an end message is one transaction. A batch is
//! one datagram, so it is bounded by bytes; a peer's changes are never split.

use std::net::IpAddr;

use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST};
use shared::ids::PeerId;

use super::structure::{Family, map_name};
use crate::limits::{Change, Kind, Object};
use crate::netfilter::{
    HEADERS_BYTES, NFPROTO_INET, NFTA_SET_ELEM_LIST_SET, NFTA_TABLE, Question, SUBSYSTEM,
    Sequences, attribute, long, message, nested, nf_tables, number, text, within,
};

/// Where a batch ends: well under what a socket sends at once.
pub(super) const MAX_BATCH_BYTES: usize = 48 * 1024;

// <linux/netfilter/nfnetlink.h>, <linux/netfilter/nf_tables.h>
const NFNL_MSG_BATCH_BEGIN: u16 = 0x10;
const NFNL_MSG_BATCH_END: u16 = 0x11;
const NFT_MSG_NEWSETELEM: u8 = 12;
const NFT_MSG_DELSETELEM: u8 = 14;
const NFT_MSG_NEWOBJ: u8 = 18;
const NFT_MSG_GETOBJ: u8 = 19;
const NFT_MSG_DELOBJ: u8 = 20;
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
const NFTA_SET_ELEM_LIST_ELEMENTS: u16 = 3;
const NFTA_LIST_ELEM: u16 = 1;
const NFTA_SET_ELEM_KEY: u16 = 1;
const NFTA_SET_ELEM_OBJREF: u16 = 9;
const NFTA_DATA_VALUE: u16 = 1;

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

/// What asks for the table's objects.
pub(super) fn objects(table: &str) -> Question {
    Question::many(NFT_MSG_GETOBJ, within(table))
}

pub(super) fn quotas(table: &str) -> Question {
    let mut attributes = within(table);
    number(&mut attributes, NFTA_OBJ_TYPE, NFT_OBJECT_QUOTA);
    Question::many(NFT_MSG_GETOBJ, attributes)
}

pub(super) fn one_object(table: &str, kind: Kind, peer: PeerId) -> Question {
    let mut attributes = Vec::new();
    object(&mut attributes, table, kind, peer);
    Question::one(NFT_MSG_GETOBJ, attributes)
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
    text(bytes, NFTA_TABLE, table);
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
    text(bytes, NFTA_TABLE, table);
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
