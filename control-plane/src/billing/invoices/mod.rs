//! What people paid: our mirror of Stripe's invoices, and what they read of it.
//!
//! - A payment follows from what Stripe says of its invoice now, refunds included, as a subscription does:
//!   whatever tells of it leads to the same reading, and a reading that was overtaken is made again.
//! - What is given back whole takes what was paid for with it, where the operator wants that, however the money
//!   went back.
//! - A person sees their own payments alone. What our rows do not keep, an invoice's lines and pages, is read
//!   from Stripe when it is asked for.

mod end;
mod fold;
mod payment;
mod reading;
mod routes;
mod sealed;
mod store;
mod wire;

pub use end::end_given_back;
pub use fold::{Folded, gone, intent, invoice};
pub use payment::{Payment, PaymentStatus, Seen};
pub use routes::routes;
pub use sealed::{SEALED_INTENT_IDS, SEALED_INVOICE_IDS};
pub use store::{Stored, by_invoices, find, given_back, lock, unpaid};
