//! `/auth/refresh`, `/auth/logout*` and `/auth/sessions`.

mod list;
mod logout;
mod refresh;

use utoipa_actix_web::service_config::ServiceConfig;

pub fn routes(config: &mut ServiceConfig<'_>) {
    config
        .service(refresh::refresh)
        .service(logout::logout)
        .service(logout::logout_all)
        .service(list::list_sessions)
        .service(logout::end);
}
