//! Messages to nf_tables, as bytes.

use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST};

// <linux/netfilter/nfnetlink.h>, <linux/netfilter/nf_tables.h>
pub(crate) const SUBSYSTEM: u8 = 10;
pub(crate) const NFPROTO_INET: u8 = 1;
const NFT_MSG_GETTABLE: u8 = 1;
const NFT_MSG_GETCHAIN: u8 = 4;
const NFT_MSG_GETRULE: u8 = 7;
const NFT_MSG_GETSET: u8 = 10;
const NFT_MSG_GETSETELEM: u8 = 13;
const NFT_MSG_GETGEN: u8 = 16;
/// Of a table, and of the table that anything else is in.
pub(crate) const NFTA_TABLE: u16 = 1;
pub(crate) const NFTA_SET_ELEM_LIST_SET: u16 = 2;
const NLA_F_NESTED: u16 = 0x8000;

/// A request that changes nothing.
#[derive(Debug)]
pub(crate) struct Question {
    kind: u8,
    flags: u16,
    attributes: Vec<u8>,
}

impl Question {
    pub(crate) fn one(kind: u8, attributes: Vec<u8>) -> Self {
        Self {
            kind,
            flags: NLM_F_REQUEST | NLM_F_ACK,
            attributes,
        }
    }

    pub(crate) fn many(kind: u8, attributes: Vec<u8>) -> Self {
        Self {
            kind,
            flags: NLM_F_REQUEST | NLM_F_DUMP,
            attributes,
        }
    }

    /// The number of the ruleset's present state.
    pub(crate) fn generation() -> Self {
        Self::one(NFT_MSG_GETGEN, Vec::new())
    }

    /// Whether the table is there.
    pub(crate) fn table(table: &str) -> Self {
        Self::one(NFT_MSG_GETTABLE, within(table))
    }

    pub(crate) fn chains(table: &str) -> Self {
        Self::many(NFT_MSG_GETCHAIN, within(table))
    }

    pub(crate) fn rules(table: &str) -> Self {
        Self::many(NFT_MSG_GETRULE, within(table))
    }

    pub(crate) fn sets(table: &str) -> Self {
        Self::many(NFT_MSG_GETSET, within(table))
    }

    pub(crate) fn elements(table: &str, set: &str) -> Self {
        let mut attributes = within(table);
        text(&mut attributes, NFTA_SET_ELEM_LIST_SET, set);
        Self::many(NFT_MSG_GETSETELEM, attributes)
    }

    pub(crate) fn encode(&self, sequence: u32) -> Vec<u8> {
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

/// The attributes of a question about what is in this table.
pub(crate) fn within(table: &str) -> Vec<u8> {
    let mut attributes = Vec::new();
    text(&mut attributes, NFTA_TABLE, table);
    attributes
}

/// Bytes of a netlink header and nfnetlink's behind it.
pub(crate) const HEADERS_BYTES: usize = 20;

pub(crate) fn nf_tables(kind: u8) -> u16 {
    u16::from_be_bytes([SUBSYSTEM, kind])
}

/// Appends a message; the header is kind, flags and sequence number.
pub(crate) fn message(
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

pub(crate) fn nested(bytes: &mut Vec<u8>, kind: u16, body: impl FnOnce(&mut Vec<u8>)) {
    let start = bytes.len();
    attribute(bytes, kind | NLA_F_NESTED, &[]);
    body(bytes);
    let length = u16::try_from(bytes.len() - start).unwrap_or(u16::MAX);
    patch(bytes, start, &length.to_ne_bytes());
}

pub(crate) fn attribute(bytes: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
    bytes.extend_from_slice(&length.to_ne_bytes());
    bytes.extend_from_slice(&kind.to_ne_bytes());
    bytes.extend_from_slice(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

pub(crate) fn text(bytes: &mut Vec<u8>, kind: u16, value: &str) {
    attribute(bytes, kind, &[value.as_bytes(), &[0]].concat());
}

pub(crate) fn number(bytes: &mut Vec<u8>, kind: u16, value: u32) {
    attribute(bytes, kind, &value.to_be_bytes());
}

pub(crate) fn long(bytes: &mut Vec<u8>, kind: u16, value: u64) {
    attribute(bytes, kind, &value.to_be_bytes());
}

fn patch(bytes: &mut [u8], start: usize, value: &[u8]) {
    if let Some(place) = bytes.get_mut(start..start + value.len()) {
        place.copy_from_slice(value);
    }
}
