//! `/auth/*` and `/users/*`.

mod credentials;
mod deletion;
mod export;
mod login;
mod me;
mod password;
mod profile;
mod register;
pub(super) mod views;

use utoipa_actix_web::service_config::ServiceConfig;

pub fn routes(config: &mut ServiceConfig<'_>) {
    config
        .service(me::me)
        .service(register::register)
        .service(login::login)
        .service(profile::update_profile)
        .service(password::change_password)
        .service(deletion::delete_account)
        .service(export::export_account);
}

/// What the first API had without a version in its path.
pub fn aliases(config: &mut ServiceConfig<'_>) {
    config.service(me::me);
}
