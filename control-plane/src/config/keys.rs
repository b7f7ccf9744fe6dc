//! The secrets from which keys are derived, the present one first.

use std::fmt;

use hkdf::Hkdf;
use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret, SecretString};
use sha2::Sha256;

use super::reader::Reader;

/// `SECRET_KEY` and what it was before. A key of 32 bytes is derived for each use, so that no two
/// uses share one.
#[derive(Clone)]
pub struct MasterKeys {
    current: SecretString,
    old: Vec<SecretString>,
}

impl MasterKeys {
    pub(super) fn read(reader: &mut Reader<'_>, debug: bool) -> Self {
        Self {
            current: reader.secret("SECRET_KEY", debug),
            old: reader.secrets("SECRET_KEYS_OLD"),
        }
    }

    /// The key for this use.
    #[must_use]
    pub fn derive(&self, label: &[u8]) -> Zeroizing<[u8; 32]> {
        derive(&self.current, label)
    }

    /// The keys for this use that were in force before, the latest first.
    pub fn derive_old(&self, label: &[u8]) -> impl Iterator<Item = Zeroizing<[u8; 32]>> {
        self.old.iter().map(move |secret| derive(secret, label))
    }
}

impl fmt::Debug for MasterKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MasterKeys")
            .field("old", &self.old.len())
            .finish_non_exhaustive()
    }
}

/// The key of this secret for this use.
#[expect(
    clippy::expect_used,
    reason = "32 bytes are far below the limit of HKDF-SHA256"
)]
pub(super) fn derive(secret: &SecretString, label: &[u8]) -> Zeroizing<[u8; 32]> {
    let mut key = Zeroizing::new([0; 32]);
    Hkdf::<Sha256>::new(None, secret.expose_secret().as_bytes())
        .expand(label, key.as_mut_slice())
        .expect("a length that HKDF can give");
    key
}
