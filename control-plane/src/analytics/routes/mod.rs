//! `/analytics/*`.

mod people;
mod plans;
mod series;
mod servers;
mod views;

use utoipa_actix_web::service_config::ServiceConfig;

pub fn routes(config: &mut ServiceConfig<'_>) {
    config
        .service(series::usage)
        .service(series::connections)
        .service(series::bandwidth)
        .service(servers::status)
        .service(servers::load)
        .service(servers::usage)
        .service(people::top)
        .service(plans::plans);
}
