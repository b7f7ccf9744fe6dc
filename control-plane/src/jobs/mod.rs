//! Work that a commit promises: a row written with the fact, done by a worker afterwards.
//!
//! - Whatever has an effect outside the database and belongs to a change of it is a job: it happens
//!   if and only if the change was committed, at least once, and survives a crash of every replica.
//! - A worker claims a job for a time, works without a transaction, and says how it ended. If it dies,
//!   the claim runs out and the next one works: a handler has to bear a second run.
//! - What failed is tried again later and later, until it was tried often enough.
//! - The payload is sealed, and erased when the job has ended.
//!
//! [`periodic`] is the other work beside the requests: what nobody asked for and time makes due.

mod backoff;
mod handler;
mod runner;
mod store;

pub mod periodic;

pub use handler::{Failure, Handler, Handlers};
pub use runner::{Bell, run};
pub use store::{JobError, SEALED_PAYLOADS, enqueue, forget_ended, pretend};
