//! `/vpn/*` and `/connection/*`.

mod config;
mod connect;
mod disconnect;
mod input;
mod statistics;
mod status;
mod views;

use utoipa_actix_web::service_config::ServiceConfig;

pub use config::configuration;
pub use views::ConnectView;

pub fn routes(config: &mut ServiceConfig<'_>) {
    config
        .service(connect::vpn_connect)
        .service(connect::connection_connect)
        .service(disconnect::vpn_disconnect)
        .service(disconnect::vpn_disconnect_one)
        .service(disconnect::connection_disconnect)
        .service(status::status)
        .service(statistics::statistics)
        .service(config::config_text)
        .service(config::config_file)
        .service(config::qr_svg)
        .service(config::qr_png);
}

/// What the first API had without a version in its path.
pub fn aliases(config: &mut ServiceConfig<'_>) {
    config
        .service(connect::vpn_connect)
        .service(disconnect::vpn_disconnect)
        .service(disconnect::vpn_disconnect_one);
}
