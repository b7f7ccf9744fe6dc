//! A stateful server with Stripe's API, for tests and for a newcomer's first purchase.
//!
//! Two processes. **localstripe** (PyPI, GPL-3.0, of which nothing is shipped) keeps customers,
//! cards, products and the books of money, which are charges and refunds: how often somebody was
//! charged is counted by a program that is not ours. **`stripe-server`** stands before it as the
//! one address that `STRIPE_API_BASE` names, and what it keeps itself is what localstripe has not
//! or has otherwise than Stripe: prices; payment and setup intents (confirmation with a card, 3-D
//! Secure, failures in Stripe's shape); subscriptions (trials, renewals, proration, an end at the
//! period's end); invoices with their pages; Checkout and the billing portal; events, webhooks and
//! idempotency keys; lists as Stripe sorts and pages them, `expand`, refunds bounded by the charge.
//!
//! What must hold:
//!
//! - Requests are served one at a time: each sees all that the one before did.
//! - A parameter that the server would ignore is refused, so nothing is tested that is not there.
//! - An object's shape is Stripe's. Where the API of 2025 moved a field (a subscription's period
//!   to its items, an invoice's intent to its payments), it stands at both places.
//! - Only what a test asks for under `/_control` differs from Stripe: time, declines, lost answers.
//! - Neither process listens beyond loopback.
#![expect(
    clippy::indexing_slicing,
    reason = "a JSON value is null where there is nothing, and its own objects are written to"
)]

mod behind;
mod changes;
mod checkout;
mod control;
mod desk;
mod events;
mod failure;
pub mod form;
mod harness;
mod intents;
mod invoices;
mod list;
mod money;
mod pages;
mod people;
mod portal;
mod prices;
mod routes;
mod server;
mod setup;
mod store;
mod subscriptions;
mod terms;
mod visitors;

pub use control::Wish;
pub use events::{Target, payload, signature};
pub use harness::{CARD, StripeServer};
pub use server::{Settings, serve};
