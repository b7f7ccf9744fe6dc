//! Secrets that we keep or hand out, so that a copy of the database opens nothing.
//!
//! What has to be read again is sealed under a key ring ([`KeyRing`]); what only has to be recognised
//! is stored as its hash ([`SecretToken`]). [`rotation`] seals everything again under another key.

pub mod rotation;

mod keyring;
mod token;

pub use keyring::{KeyRing, Place, SealError};
pub use rotation::SealedColumn;
pub use token::{SecretToken, TokenHash};
