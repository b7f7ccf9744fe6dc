//! OAuth 2.1 for mobile apps: authorization code with PKCE, refresh, revocation.
//!
//! - Every client is public and every code needs a PKCE verifier by S256.
//! - A person is sent back to a place that was registered for the app, letter by letter, and to no
//!   other; a request that names another ends on a page of ours.
//! - A code works once within a minute. One that comes again was copied and ends its session.
//! - An app acts as a person without any role, whoever the person is.
//! - The login page is stateless: no cookies, and what the form brings is checked like the first request.

mod authorization;
mod client;
mod clients;
mod code;
mod grant;
mod pkce;
mod redirect_uri;
mod refusal;
mod routes;
mod store;

pub use client::{Client, InvalidClient};
pub use clients::{AddClientError, add_client, list_clients};
pub use redirect_uri::{InvalidRedirectUri, RedirectUri};
pub use routes::{aliases, routes, well_known};
pub use store::{forget_expired, void_codes};
