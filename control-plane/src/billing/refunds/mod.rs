//! Money that goes back.
//!
//! - A refund is a row before Stripe is called, committed with the job that sees it through and the audit row;
//!   its id is the call's idempotency key and stands beside the refund at Stripe. So a refund that was asked
//!   for happens, and once, whatever dies in between.
//! - What stands for a payment never adds up to more than was paid: it is checked while the payment is held.
//! - The payer may have a payment back whole, once and within `REFUND_WINDOW_DAYS`; operators give back what they
//!   like of what is left.
//! - What somebody gives back at Stripe itself becomes a row when it is read.

mod carry;
mod job;
mod refund;
mod request;
mod routes;
mod rules;
mod store;
mod wire;

pub use carry::carry_out;
pub use job::RefundJobs;
pub use refund::{Refund, RefundStatus};
pub use routes::{aliases, routes};
pub use store::{SEALED_REFUND_IDS, fold, of_payments, states, unfinished};
pub use wire::RefundView;
