//! `/auth/*` and `/users/*`.

mod credentials;
mod login;
mod me;
mod register;
mod views;

use utoipa_actix_web::service_config::ServiceConfig;

pub fn routes(config: &mut ServiceConfig<'_>) {
    config
        .service(register::register)
        .service(login::login)
        .service(me::me);
}

/// What the first API had without a version in its path.
pub fn aliases(config: &mut ServiceConfig<'_>) {
    config.service(me::me);
}
