//! The catalogue: what a plan costs and what it allows.
//!
//! - `free` is what everybody has who pays for nothing: it costs nothing and cannot be withdrawn.
//! - A plan is withdrawn, never deleted: who has it keeps it.
//! - A change of what a plan allows reaches everybody who is connected under it.
//! - A plan's type never changes, because subscriptions repeat it.

mod admin;
mod catalogue;
mod plan;
mod prices;
mod routes;
mod store;
mod wire;

use utoipa_actix_web::service_config::ServiceConfig;

pub use plan::{Period, Plan, Terms};
pub use prices::{Price, SEALED_PRICES, prices};
pub use store::{by_id, offered};

pub fn routes(config: &mut ServiceConfig<'_>) {
    config
        .service(routes::list_plans)
        .service(admin::list_all_plans)
        .service(admin::create_plan)
        .service(admin::edit_plan)
        .service(admin::withdraw_plan);
}
