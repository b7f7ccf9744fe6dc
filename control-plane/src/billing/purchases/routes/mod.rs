//! The routes that lead to a subscription.

mod payments;
mod subscribe;

use utoipa_actix_web::service_config::ServiceConfig;

pub fn routes(config: &mut ServiceConfig<'_>) {
    config
        .service(payments::create_checkout)
        .service(payments::create_intent)
        .service(payments::confirm_payment)
        .service(subscribe::subscribe_to_plan);
}

/// What the first API had without a version in its path.
pub fn aliases(config: &mut ServiceConfig<'_>) {
    config.service(payments::create_checkout);
}
