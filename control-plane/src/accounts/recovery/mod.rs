//! Links that prove an address: verification and password reset.

mod routes;

pub use routes::routes;
