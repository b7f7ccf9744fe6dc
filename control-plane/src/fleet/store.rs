//! The fleet's queries.

mod catalogue;

pub(super) use catalogue::read_fleet;
