//! What nf_tables tells: rules, objects and elements, as far as they concern us.

use std::collections::BTreeMap;
use std::net::IpAddr;

use netlink_packet_core::DecodeError;
use shared::ids::PeerId;

use super::message::{NFT_OBJECT_LIMIT, NFT_OBJECT_QUOTA, parse_name};
use crate::limits::{Content, Object};
use crate::netfilter::SUBSYSTEM;
use crate::netlink::{attributes, exactly, find, text};

// <linux/netfilter/nf_tables.h>
const NFT_MSG_NEWRULE: u8 = 6;
const NFT_MSG_NEWSETELEM: u8 = 12;
const NFT_MSG_NEWOBJ: u8 = 18;
const NFTA_RULE_CHAIN: u16 = 2;
const NFTA_OBJ_NAME: u16 = 2;
const NFTA_OBJ_TYPE: u16 = 3;
const NFTA_OBJ_DATA: u16 = 4;
const NFTA_LIMIT_RATE: u16 = 1;
const NFTA_LIMIT_BURST: u16 = 3;
const NFTA_QUOTA_BYTES: u16 = 1;
const NFTA_QUOTA_CONSUMED: u16 = 4;
const NFTA_SET_ELEM_LIST_ELEMENTS: u16 = 3;
const NFTA_SET_ELEM_KEY: u16 = 1;
const NFTA_SET_ELEM_OBJREF: u16 = 9;
const NFTA_DATA_VALUE: u16 = 1;

/// What was read so far of the answers to one question.
#[derive(Debug, Default)]
pub(super) struct Reading {
    /// How many rules a chain has.
    pub(super) rules: BTreeMap<String, usize>,
    /// Objects with names of ours.
    pub(super) content: Content,
    /// Elements of one map; none for what leads to no object of ours.
    pub(super) elements: Vec<(IpAddr, Option<PeerId>)>,
}

impl Reading {
    /// Reads one message's attributes.
    pub(super) fn read(&mut self, kind: u16, message: &[u8]) -> Result<(), DecodeError> {
        match kind.to_be_bytes() {
            [SUBSYSTEM, NFT_MSG_NEWRULE] => {
                if let Some(chain) = find(message, NFTA_RULE_CHAIN)? {
                    *self.rules.entry(text(chain).to_owned()).or_default() += 1;
                }
                Ok(())
            }
            [SUBSYSTEM, NFT_MSG_NEWOBJ] => self.object(message),
            [SUBSYSTEM, NFT_MSG_NEWSETELEM] => {
                let Some(list) = find(message, NFTA_SET_ELEM_LIST_ELEMENTS)? else {
                    return Ok(());
                };
                for element in attributes(list) {
                    self.element(element?.1)?;
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn object(&mut self, message: &[u8]) -> Result<(), DecodeError> {
        let (mut name, mut of, mut data) = (None, 0, [].as_slice());
        for attribute in attributes(message) {
            match attribute? {
                (NFTA_OBJ_NAME, value) => name = parse_name(text(value)),
                (NFTA_OBJ_TYPE, value) => of = u32::from_be_bytes(exactly(value)?),
                (NFTA_OBJ_DATA, value) => data = value,
                _ => {}
            }
        }
        let object = match of {
            NFT_OBJECT_LIMIT => Object::Rate {
                bytes_per_second: long(data, NFTA_LIMIT_RATE)?,
                burst: match find(data, NFTA_LIMIT_BURST)? {
                    Some(value) => u32::from_be_bytes(exactly(value)?),
                    None => 0,
                },
            },
            NFT_OBJECT_QUOTA => Object::Quota {
                bytes: long(data, NFTA_QUOTA_BYTES)?,
                consumed: long(data, NFTA_QUOTA_CONSUMED)?,
            },
            _ => return Ok(()),
        };
        if let Some((kind, peer)) = name {
            self.content.put_object(kind, peer, object);
        }
        Ok(())
    }

    fn element(&mut self, element: &[u8]) -> Result<(), DecodeError> {
        let Some(key) = find(element, NFTA_SET_ELEM_KEY)? else {
            return Ok(());
        };
        let value = find(key, NFTA_DATA_VALUE)?.unwrap_or_default();
        let address = match value.len() {
            4 => IpAddr::from(exactly::<4>(value)?),
            _ => IpAddr::from(exactly::<16>(value)?),
        };
        let object = find(element, NFTA_SET_ELEM_OBJREF)?.map(text);
        let owner = object.and_then(parse_name).map(|(_, peer)| peer);
        self.elements.push((address, owner));
        Ok(())
    }
}

fn long(bytes: &[u8], wanted: u16) -> Result<u64, DecodeError> {
    let value = find(bytes, wanted)?.ok_or("an object without its numbers")?;
    exactly(value).map(u64::from_be_bytes)
}
