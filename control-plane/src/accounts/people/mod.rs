//! People as an administrator sees them.
//!
//! Whoever changes somebody else's account stands above them; nobody changes their own. What was
//! refused is on record as much as what was done.

mod change;
mod decision;
mod routes;
mod store;
mod views;

pub use routes::routes;
pub use store::{PeopleCount, count};
