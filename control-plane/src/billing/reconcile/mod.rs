//! Comparing what we keep with what Stripe has, and repairing what differs.
//!
//! - Stripe's lists only show where to look: what looks different is read again and folded by the same act that
//!   an event leads to. So a comparison may run beside everything else, and twice.
//! - Every night one replica does it; an advisory lock keeps any second one out, the command line's too.
//! - What fails is counted and left to the next run. The report says what was looked at, repaired and left.

mod alone;
mod drift;
mod known;
mod nightly;
mod passes;
mod report;
mod routes;
mod run;
mod store;

pub use alone::Alone;
pub use nightly::nightly;
pub use report::{Count, Report};
pub use routes::routes;
pub use run::{ReconcileError, reconcile};
pub use store::{Latest, latest};
