//! Calls to Stripe. What must hold:
//!
//! - Every call that makes something or moves money has an idempotency key made of a row that is committed, so that
//!   it has its effect once however often it is made, by whichever replica, before and after a crash. Where Stripe's
//!   object itself allows no second time (an intent is paid once) or the call sets a state, the key is one request's.
//! - No call is made inside an open transaction.
//! - A call ends: each attempt has `STRIPE_TIMEOUT`, there are few, and while Stripe fails nobody waits for it.
//! - Answers are read leniently, by what we need of them: a field that another version of the API lacks must
//!   not fail a call that moved money.

mod answers;
mod breaker;
mod error;
mod expandable;
mod form;
mod list;
mod retry;
mod transport;

pub mod checkouts;
pub mod customers;
pub mod events;
pub mod intents;
pub mod invoices;
pub mod methods;
pub mod portals;
pub mod prices;
pub mod refunds;
pub mod subscriptions;

pub use answers::moment;
pub use error::{Refusal, StripeError};
pub use expandable::{Expandable, Whole};
pub use form::Form;
pub use list::{List, Listed, Pages};
pub use transport::{IdempotencyKey, Stripe, StripeSetupError};

use answers::or_default;
use expandable::whole;
