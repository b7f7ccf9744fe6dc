//! Who did what to whom: a row for every sensitive act, written in the commit of the act itself.
//!
//! A row holds ids and no addresses: neither a person's e-mail address nor where a request came
//! from. It outlives what it speaks of, for `AUDIT_RETENTION`.

mod entry;
mod event;
mod routes;
mod store;

pub use entry::Entry;
pub use event::{Action, Actor, Event, Subject};
pub use routes::routes;
pub use store::{about, forget, record};
