//! Who has which plan: the rules are in [`machine`], here they meet the rows.
//!
//! - A change is one transaction that holds the person's row: the subscription, the audit row, the letter
//!   and the limits of live connections commit together.
//! - Of two subscriptions of one person one runs: the one that gives rights, and the later one of two such.
//! - Rights end by the clock, in whatever state we are; a sweep notices it and tells.

mod change;
mod known;
mod lapse;
pub mod machine;
mod reference;
mod routes;
mod store;

pub use change::{Applied, apply, policy};
pub use known::Known;
pub use lapse::run;
pub use machine::{Policy, Seen, Status, StripeStatus, Subscription, entitles, fold};
pub use reference::{Billed, Reference, SEALED_SUBSCRIPTION_IDS, billed, is_new};
pub use routes::{StatusView, aliases, current, routes};
pub use store::{AtStripe, PlanCount, all_at_stripe, at_stripe, count, row_of};
