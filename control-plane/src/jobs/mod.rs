//! Work that a commit promises: a row written with the fact, done by a worker afterwards.
//!
//! - Whatever has an effect outside the database and belongs to a change of it is a job: it happens
//!   if and only if the change was committed, at least once, and survives a crash of every replica.
//! - A worker claims a job for a time, works without a transaction, and says how it ended. If it dies,
//!   the claim runs out and the next one works: a handler has to bear a second run.
//! - What failed is tried again later and later, until it was tried often enough.
//! - The payload is sealed, and erased when the job is done. One that failed keeps it for the time that it can
//!   be looked at, so that an operator can have it tried again.
//!
//! [`periodic`] is the other work beside the requests: what nobody asked for and time makes due.

mod backoff;
mod handler;
mod list;
mod routes;
mod runner;
mod store;

pub mod periodic;

pub use handler::{Failure, Handler, Handlers};
pub use list::{Backlog, backlog};
pub use routes::routes;
pub use runner::{Bell, run};
pub use store::{JobError, SEALED_PAYLOADS, enqueue, forget_ended, pretend};
