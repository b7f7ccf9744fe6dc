//! The whole at a glance, for operators: put together from what the other rooms count.
//!
//! - However many dashboards look, a replica asks Postgres once a second for what moves and every five seconds for what
//!   has to be counted.
//! - What other replicas carry is what each said of itself in the last ten seconds ([`pulse`]).
//! - A stream ends with its token.

mod glance;
mod pulse;
mod routes;
mod store;
mod views;

pub use glance::Overview;
pub use pulse::run as report;
pub use routes::routes;
