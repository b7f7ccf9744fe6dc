//! Work that a commit promises: a row written with the fact, done by a worker afterwards.
//!
//! Whatever has an effect outside the database and belongs to a change of it is a job: it happens if
//! and only if the change was committed, at least once, and survives a crash of every replica.

mod store;

pub use store::{JobError, SealedPayloads, enqueue};
