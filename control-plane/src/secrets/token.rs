//! Random tokens that are stored as a hash: whoever reads the table cannot use one.

use std::fmt;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use rand::RngCore;
use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};

const BYTES: usize = 32;

/// 256 random bits in URL-safe base64. Too many to guess, so that a plain hash of it is enough.
#[derive(Debug, Clone)]
pub struct SecretToken(SecretString);

/// SHA-256 of a token: what is stored and looked up.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TokenHash([u8; 32]);

impl SecretToken {
    #[must_use]
    pub fn generate() -> Self {
        let mut bytes = Zeroizing::new([0; BYTES]);
        rand::rng().fill_bytes(bytes.as_mut_slice());
        Self(BASE64_URL_SAFE_NO_PAD.encode(*bytes).into())
    }

    #[must_use]
    pub fn hash(&self) -> TokenHash {
        TokenHash::of(self.0.expose_secret())
    }
}

impl ExposeSecret<str> for SecretToken {
    fn expose_secret(&self) -> &str {
        self.0.expose_secret()
    }
}

impl TokenHash {
    /// The hash of whatever was presented as a token.
    #[must_use]
    pub fn of(presented: &str) -> Self {
        Self(Sha256::digest(presented.as_bytes()).into())
    }

    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenHash")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_differ_and_hash_to_what_is_looked_up() {
        let (one, two) = (SecretToken::generate(), SecretToken::generate());
        assert_ne!(one.hash(), two.hash());
        assert_eq!(one.hash(), TokenHash::of(one.expose_secret()));
        assert_eq!(one.expose_secret().len(), 43);
        assert!(!format!("{one:?} {:?}", one.hash()).contains(one.expose_secret()));
    }
}
