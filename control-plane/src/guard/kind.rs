//! What windows are kept for, and how they are named.

use std::net::IpAddr;

use aws_lc_rs::hmac;

use super::Subject;
use super::group::Group;
use super::limiter::Key;

#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    /// All of an address.
    Address,
    /// One group of an address.
    Group(Group),
    /// One group of a user.
    User(Group),
    /// All who show no token.
    Strangers,
    /// Tries of one account's password at one place.
    Tries,
    /// Tries of one account's password at all places that it does not know.
    StrangersTries,
}

pub(super) fn key(kind: Kind, whose: [u8; 16]) -> Key {
    let (kind, group) = match kind {
        Kind::Address => (b'a', None),
        Kind::Group(group) => (b'g', Some(group)),
        Kind::User(group) => (b'u', Some(group)),
        Kind::Strangers => (b's', None),
        Kind::Tries => (b't', None),
        Kind::StrangersTries => (b'n', None),
    };
    let mut key = [0; 18];
    key[0] = kind;
    key[1] = group.map_or(b'-', Group::letter);
    key[2..].copy_from_slice(&whose);
    Key(key)
}

/// What tells a subject from others: the address itself, so nothing to keep.
pub(super) fn octets(subject: Subject) -> [u8; 16] {
    match subject.network().addr() {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}

/// As much of a hash as names something.
pub(super) fn short(tag: hmac::Tag) -> [u8; 16] {
    tag.as_ref().first_chunk().copied().unwrap_or_default()
}
