//! People: their accounts, passwords and access tokens.
//!
//! An e-mail address is stored trimmed and in lower case and is unique without regard to case. An
//! unknown address and a wrong password cannot be told apart, neither by the answer nor by its time.
//! Whoever has an account has exactly one running subscription from its first moment.

pub mod passwords;
pub mod registration;
pub mod tokens;

mod email;
mod login;
mod profile;
mod role;
mod routes;
mod store;
mod tier;

pub use email::{Email, InvalidEmail};
pub use profile::{Device, Profile, Subscription};
pub use role::{Role, UnknownRole};
pub use routes::{aliases, routes};
pub use tier::tier;
