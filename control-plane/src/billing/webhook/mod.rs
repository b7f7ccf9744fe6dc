//! Stripe's webhook: what it tells is stored, then acted on by reading anew what it is about.
//!
//! - Nothing is believed before its signature was checked, over the bytes as they came.
//! - Whoever is answered 200 has told us: the event and the job that acts on it are committed. Anything else makes
//!   Stripe tell it again, for days.
//! - An event is stored once by its id. Of what it says only what it is about is used, so that events may come
//!   twice, late, in any order, or never.
//! - What fails for good is parked: it is in `GET /admin/billing/events`, and an operator has it tried again.

mod about;
mod admin;
mod event;
mod intake;
mod job;
mod money;
mod routes;
mod signature;
mod store;

pub use event::{EventStatus, StoredEvent};
pub use job::EventJobs;
pub use routes::{aliases, routes};
pub use signature::{SignatureError, Verifier};
pub use store::{SEALED_EVENTS, forget};
