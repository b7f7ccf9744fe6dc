//! `/analytics/*`.

mod people;
mod plans;
mod series;
mod servers;
mod views;

use utoipa_actix_web::service_config::ServiceConfig;

pub(crate) use views::Figures;

pub fn routes(config: &mut ServiceConfig<'_>) {
    config
        .service(series::usage)
        .service(series::connection_usage)
        .service(series::bandwidth_usage)
        .service(servers::server_status)
        .service(servers::server_load)
        .service(servers::server_usage)
        .service(people::top_users)
        .service(plans::plan_usage);
}
