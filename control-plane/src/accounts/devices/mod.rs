//! Devices: a name and a WireGuard public key, as many as the plan allows.

mod routes;

pub use routes::routes;
