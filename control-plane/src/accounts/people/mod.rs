//! People as an administrator sees them.

mod routes;

pub use routes::routes;
