//! The fleet's queries.

mod catalogue;
mod enrolment;
mod leases;
mod managed;
mod tokens;

pub(super) use catalogue::read_fleet;
pub(super) use enrolment::{Place, Redemption, insert_token, redeem};
pub(super) use leases::{
    Beat, Lease, Standing, heartbeat, keep_next_key, release_lease, settings, standings,
    take_lease, token_epoch,
};
pub(super) use managed::{
    Edit, NewServer, ServerFilter, delete_server, described, edit, insert_server, lock_server,
    managed, managed_page, revoke, server_named, set_drain, set_rotation, set_status,
};
pub(super) use tokens::{TokenRow, TokenState, delete_token, lock_token, tokens};
