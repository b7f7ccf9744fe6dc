//! The second factor: time-based codes, and recovery codes for when the authenticator is lost.

mod routes;

pub use routes::routes;
