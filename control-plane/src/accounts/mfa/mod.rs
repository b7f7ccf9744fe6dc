//! The second factor: time-based codes, and recovery codes for when the authenticator is lost.
//!
//! - A factor is in force from its first right code on, and then every login needs one.
//! - A code works once, and so does a recovery code, whoever sends it how often at once.
//! - Ten wrong ones in a row lock the factor for a quarter of an hour.
//! - The secret is sealed; recovery codes are stored as hashes.

mod code;
mod factor;
mod otp;
mod routes;
mod store;

pub use factor::verify;
pub use routes::routes;
pub use store::SEALED_SECRETS;

/// The sealed column of this room.
const SECRET_COLUMN: &str = "totp_factors.sealed_secret";
