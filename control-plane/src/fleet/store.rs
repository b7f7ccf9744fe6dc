//! The fleet's queries.

mod catalogue;
mod enrolment;
mod leases;

pub(super) use catalogue::read_fleet;
pub(super) use enrolment::{Place, Redemption, insert_token, redeem};
pub(super) use leases::{
    Beat, Lease, desired_revisions, heartbeat, release_lease, take_lease, token_epoch,
};
