//! `/oauth/*` and what clients discover it by.

mod authorize;
mod form;
mod metadata;
mod revoke;
mod token;

use utoipa_actix_web::service_config::ServiceConfig;

pub fn routes(config: &mut ServiceConfig<'_>) {
    config
        .service(authorize::authorize_page)
        .service(authorize::authorize)
        .service(token::token)
        .service(revoke::revoke);
}

/// The same at the root, where the metadata says that they are.
pub fn aliases(config: &mut ServiceConfig<'_>) {
    routes(config);
}

/// Has to be at the root (RFC 8615).
pub fn well_known(config: &mut ServiceConfig<'_>) {
    config.service(metadata::metadata).service(metadata::jwks);
}
