//! OAuth 2.1 for mobile apps: authorization code with PKCE, refresh, revocation.

mod expiry_store;
mod routes;

pub use expiry_store::forget_expired;
pub use routes::routes;
