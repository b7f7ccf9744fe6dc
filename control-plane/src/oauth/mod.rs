//! OAuth 2.1 for mobile apps: authorization code with PKCE, refresh, revocation.

mod routes;

pub use routes::routes;
