//! Links that prove an address: verification and password reset.
//!
//! - A link carries a token that works once, until it expires, for one purpose, and only while the
//!   account still has the address that it was sent to. We keep its hash.
//! - A new link voids the earlier ones of its purpose, and nobody can have us send more than one a
//!   minute to an account.
//! - Whoever asks for a link learns nothing of whether the account exists: neither from the answer nor
//!   from its time.
//! - Following a link changes nothing, because mail scanners follow links too; the page behind it
//!   has a button that does.

mod links;
mod pages;
mod reset;
mod routes;
mod store;
mod verification;

pub use links::send_verification;
pub use pages::pages;
pub use routes::routes;
pub use store::forget_expired;

use crate::mail::Letter;
use crate::secrets::SecretToken;

/// What a link is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    VerifyEmail,
    ResetPassword,
}

impl Purpose {
    const fn as_str(self) -> &'static str {
        match self {
            Self::VerifyEmail => "verify_email",
            Self::ResetPassword => "reset_password",
        }
    }

    fn letter(self, token: &SecretToken) -> Letter {
        let token = token.into();
        match self {
            Self::VerifyEmail => Letter::VerifyEmail { token },
            Self::ResetPassword => Letter::ResetPassword { token },
        }
    }
}
