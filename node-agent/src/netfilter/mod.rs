//! The kernel's nf_tables over netlink: a socket, and the words that are spoken over it.
//!
//! `nft` makes tables, because its language is the one that people read. What is done often, or must
//! be quick, is done here without starting a program.

mod message;
mod socket;

use std::io;

pub(crate) use self::message::{
    HEADERS_BYTES, NFPROTO_INET, NFTA_SET_ELEM_LIST_SET, NFTA_TABLE, Question, SUBSYSTEM,
    attribute, long, message, nested, nf_tables, number, text, within,
};
pub(crate) use self::socket::{Connection, Ended, Sequences};

/// Why nf_tables was not read or changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("nf_tables: {0}")]
    Netlink(#[from] io::Error),
    #[error("nf_tables answered what was not understood: {0}")]
    Malformed(String),
    #[error("nf_tables changed during every attempt to read it")]
    Restless,
}

impl Error {
    /// Whether there is no such table or part of one.
    pub(crate) fn is_absent(&self) -> bool {
        matches!(self, Self::Netlink(error) if error.kind() == io::ErrorKind::NotFound)
    }
}
