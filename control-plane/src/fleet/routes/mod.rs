//! The fleet's routes: servers for people, enrolment and sessions for nodes.

mod admin;
mod caller;
mod enrol;
mod list;
mod recommended;
mod session;
mod show;
mod views;

use utoipa_actix_web::service_config::ServiceConfig;

/// For people, below the API's version.
pub fn routes(config: &mut ServiceConfig<'_>) {
    config
        .service(list::list_servers)
        .service(recommended::recommended)
        .service(show::show);
    admin::routes(config);
}

/// For node agents, at the root.
pub fn node_routes(config: &mut ServiceConfig<'_>) {
    config.service(enrol::enrol).service(session::session);
}
