//! People: their accounts, passwords, sessions and devices.
//!
//! An e-mail address is stored trimmed and in lower case and is unique without regard to case. An
//! unknown address and a wrong password cannot be told apart, neither by the answer nor by its time.
//! Whoever has an account has exactly one running subscription from its first moment.

pub mod deletion;
pub mod devices;
pub mod import;
pub mod mfa;
pub mod passwords;
pub mod people;
pub mod places;
pub mod recovery;
pub mod registration;
pub mod sessions;
pub mod tokens;

mod confirmation;
mod email;
mod export;
mod guessing;
pub(crate) mod login;
mod password_change;
mod profile;
mod profile_change;
mod role;
mod routes;
mod store;
mod tier;

pub use email::{Email, InvalidEmail};
pub use profile::{Device, Profile, Subscription};
pub use role::{Role, UnknownRole};
pub use routes::{aliases, routes};
pub use sessions::SessionId;
pub use tier::{Tier, hold, tier};
