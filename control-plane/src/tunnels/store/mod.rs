//! Every statement over `connections` that is not about bytes.
//!
//! Locks are taken in one order (who shares a quota, nodes, connections, used quotas, rollups), and a change of a node's
//! peers takes the node's row: that puts the revisions into commit order, which "everything past R"
//! relies on. A statement stands alone; no transaction stays open over a round trip.

mod bounds;
mod entitlement;
mod lifecycle;
mod months;
mod node_log;
mod offers;
mod quota;
mod read;
mod sealed;

use std::net::IpAddr;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use diesel::result::Error;
use ipnet::IpNet;
use shared::protocol::Addresses;
use shared::wireguard::PublicKey;

pub(super) use bounds::{end_unfit, hold, renumber};
pub(super) use entitlement::{Entitlement, LiveConnection, entitlement};
pub(super) use lifecycle::{
    Due, Ended, Insertion, NewConnection, NewLease, abandon, ask_again, end, end_due, end_of,
    end_on, end_peer, end_used_up, insert, occupancy,
};
pub(super) use months::months;
pub(super) use node_log::{
    Acked, acknowledge, changes, fingerprint, revision, snapshot, unacknowledged,
};
pub(super) use offers::{
    accept, candidates, claim, conclude, end_moved, keep_used, offers_are_used,
};
#[cfg(test)]
pub(super) use quota::Rates;
pub(super) use quota::{
    Account, Desired, Limited, Stamp, accounts, live_under, out_of_step, write_limits,
};
pub use read::{LiveCount, MonthUsed, count_live};
pub(super) use read::{by_id, history, live_of, months_used, used_in};
pub use sealed::SEALED_PRESHARED_KEYS;

/// A key that was checked when it was stored, taken without checking it again.
fn key_from_row(text: &str) -> diesel::QueryResult<PublicKey> {
    let mut bytes = [0; 32];
    match BASE64_STANDARD.decode_slice(text, &mut bytes) {
        Ok(32) => Ok(PublicKey::from_bytes(bytes)),
        _ => Err(corrupt("a stored public key is none")),
    }
}

/// The addresses of a row that has them; `inet` columns hold single hosts.
fn addresses_from_row(v4: Option<IpNet>, v6: Option<IpNet>) -> Option<Addresses> {
    let v6 = match v6.map(|net| net.addr()) {
        Some(IpAddr::V6(v6)) => Some(v6),
        _ => None,
    };
    match v4?.addr() {
        IpAddr::V4(v4) => Some(Addresses { v4, v6 }),
        IpAddr::V6(_) => None,
    }
}

fn corrupt(what: &'static str) -> Error {
    Error::DeserializationError(what.into())
}
