//! Buying a plan: from the wish to the subscription that is paid for.
//!
//! - A purchase is a row before Stripe hears of it, and the row's id is the key under which it is asked: however
//!   often somebody asks, and wherever a process dies, there is one Checkout session or one subscription.
//! - Nobody has two open purchases. Another wish gives the first up, at Stripe before here: what was given up can
//!   be paid by nobody.
//! - A purchase is done once the subscription's row says what was paid for. Only then can another one begin.

mod checkout;
mod claim;
mod give_up;
mod intent;
mod offer;
mod order;
mod pay;
mod routes;
mod settle;
mod store;
mod subscribe;
mod unpaid;
mod wire;

pub(super) use give_up::is_refused;
pub(super) use offer::customer;
pub use routes::{aliases, routes};
pub use settle::{settle, settle_old};
pub use store::SEALED_ORDERS;
pub use unpaid::{Unpaid, unpaid};
