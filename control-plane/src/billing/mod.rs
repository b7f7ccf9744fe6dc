//! Money: plans, who has which, and what Stripe says of it.
//!
//! - Stripe is the truth about money, our database about access. Whatever says that something may have
//!   changed leads to the same act: what Stripe says now is folded into our row.
//! - Nobody has two running subscriptions, and everybody has one: the free plan's where nothing is paid for.
//! - What a subscription gives is said in one place, the view `entitlements`; connect, devices and the
//!   limits on nodes read it there.
//! - No call leaves inside an open transaction.
//! - No id of Stripe's is stored in plain.

pub mod customers;
pub mod invoices;
mod methods;
pub mod money;
mod payments;
pub mod plans;
mod portal;
pub mod prices;
pub mod purchases;
pub mod reconcile;
mod redirect;
pub mod reference;
pub mod refunds;
mod renewal;
pub mod stripe;
pub mod subscription;
pub mod superseded;
pub mod sync;
pub mod webhook;

use utoipa_actix_web::service_config::ServiceConfig;

pub use payments::Payments;
pub use plans::SEALED_PRICES;
pub use purchases::SEALED_ORDERS;
pub use subscription::SEALED_SUBSCRIPTION_IDS;

pub fn routes(config: &mut ServiceConfig<'_>) {
    plans::routes(config);
    purchases::routes(config);
    renewal::routes(config);
    methods::routes(config);
    portal::routes(config);
    subscription::routes(config);
    invoices::routes(config);
    refunds::routes(config);
    reconcile::routes(config);
    webhook::routes(config);
}

/// What the first API had without a version in its path.
pub fn aliases(config: &mut ServiceConfig<'_>) {
    purchases::aliases(config);
    subscription::aliases(config);
    refunds::aliases(config);
    webhook::aliases(config);
}
