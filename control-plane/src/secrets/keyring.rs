//! Columns that nobody reads without the key: AES-256-GCM under a ring of keys.
//!
//! A sealed value names the key that sealed it, so that it stays readable after `SECRET_KEY` changed,
//! as long as the former one stands in `SECRET_KEYS_OLD`. It is bound to its place: a value copied to
//! another row or column does not open. Layout: version, key id (4), nonce (12), ciphertext, tag (16).
//!
//! What has to be found by its value as well has a *fingerprint* beside it: a keyed hash. Since it
//! changes with the key, a look-up takes all that the value may have.

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::hmac;
use secrecy::zeroize::Zeroizing;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::config::MasterKeys;
use crate::error::ApiError;

const LABEL: &[u8] = b"prime-vpn sealed columns v1";
const FINGERPRINT_LABEL: &[u8] = b"prime-vpn fingerprints v1";
const VERSION: u8 = 1;
const ID_LEN: usize = 4;
const HEADER_LEN: usize = 1 + ID_LEN + NONCE_LEN;

/// Where a sealed value lives.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    /// `table.column`
    pub column: &'static str,
    pub row: Uuid,
}

#[derive(Debug, thiserror::Error)]
pub enum SealError {
    #[error("the value is not a sealed one")]
    Malformed,
    #[error("the key that sealed the value is not in SECRET_KEY or SECRET_KEYS_OLD")]
    UnknownKey,
    #[error("the value does not open: it was changed, or belongs to another place")]
    Refused,
    #[error("the key cannot be used")]
    Key,
}

impl From<SealError> for ApiError {
    fn from(error: SealError) -> Self {
        Self::internal(error)
    }
}

/// The key in force and those before it.
pub struct KeyRing {
    current: Key,
    old: Vec<Key>,
}

struct Key {
    id: [u8; ID_LEN],
    key: RandomizedNonceKey,
    fingerprint: hmac::Key,
}

impl KeyRing {
    pub fn new(keys: &MasterKeys) -> Result<Self, SealError> {
        let old = keys.derive_old(LABEL);
        let old = old.zip(keys.derive_old(FINGERPRINT_LABEL));
        Ok(Self {
            current: Key::new(&keys.derive(LABEL), &keys.derive(FINGERPRINT_LABEL))?,
            old: old
                .map(|(key, fingerprint)| Key::new(&key, &fingerprint))
                .collect::<Result<_, _>>()?,
        })
    }

    /// Seals under the key in force.
    pub fn seal(&self, place: Place, plain: &[u8]) -> Result<Vec<u8>, SealError> {
        let Key { id, key, .. } = &self.current;
        let mut body = plain.to_vec();
        let nonce = key.seal_in_place_append_tag(place.aad(), &mut body)?;
        let parts: [&[u8]; 4] = [&[VERSION], id, nonce.as_ref(), &body];
        Ok(parts.concat())
    }

    pub fn open(&self, place: Place, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealError> {
        let (id, nonce, body) = split(sealed)?;
        let key = self.key(id).ok_or(SealError::UnknownKey)?;
        let mut body = Zeroizing::new(body.to_vec());
        let opened = key.open_in_place(nonce, place.aad(), &mut body)?.len();
        body.truncate(opened);
        Ok(body)
    }

    /// What the value is found by, under the key in force.
    #[must_use]
    pub fn fingerprint(&self, plain: &[u8]) -> Vec<u8> {
        self.current.fingerprint(plain)
    }

    /// What a row with the value may be found by, whichever key it was written under; the one in force first.
    #[must_use]
    pub fn fingerprints(&self, plain: &[u8]) -> Vec<Vec<u8>> {
        let all = std::iter::once(&self.current).chain(&self.old);
        all.map(|key| key.fingerprint(plain)).collect()
    }

    /// Whether the value was sealed under the key in force.
    #[must_use]
    pub fn is_current(&self, sealed: &[u8]) -> bool {
        split(sealed).is_ok_and(|(id, ..)| id == self.current.id)
    }

    /// How a value sealed under the key in force begins: what a query can compare.
    #[must_use]
    pub fn current_prefix(&self) -> Vec<u8> {
        let parts: [&[u8]; 2] = [&[VERSION], &self.current.id];
        parts.concat()
    }

    fn key(&self, id: [u8; ID_LEN]) -> Option<&RandomizedNonceKey> {
        let mut all = std::iter::once(&self.current).chain(&self.old);
        all.find(|key| key.id == id).map(|key| &key.key)
    }
}

impl Key {
    fn new(key: &[u8; 32], fingerprint: &[u8; 32]) -> Result<Self, SealError> {
        let [a, b, c, d, ..]: [u8; 32] = Sha256::digest(key).into();
        Ok(Self {
            id: [a, b, c, d],
            key: RandomizedNonceKey::new(&AES_256_GCM, key).map_err(|_| SealError::Key)?,
            fingerprint: hmac::Key::new(hmac::HMAC_SHA256, fingerprint),
        })
    }

    fn fingerprint(&self, plain: &[u8]) -> Vec<u8> {
        hmac::sign(&self.fingerprint, plain).as_ref().to_vec()
    }
}

impl Place {
    fn aad(self) -> Aad<Vec<u8>> {
        Aad::from([self.column.as_bytes(), self.row.as_bytes()].concat())
    }
}

type Parts<'a> = ([u8; ID_LEN], Nonce, &'a [u8]);

fn split(sealed: &[u8]) -> Result<Parts<'_>, SealError> {
    let (header, body) = sealed
        .split_at_checked(HEADER_LEN)
        .ok_or(SealError::Malformed)?;
    let (version, rest) = header.split_first().ok_or(SealError::Malformed)?;
    let (id, nonce) = rest
        .split_first_chunk::<ID_LEN>()
        .ok_or(SealError::Malformed)?;
    if *version != VERSION {
        return Err(SealError::Malformed);
    }
    let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| SealError::Malformed)?;
    Ok((*id, nonce, body))
}

impl From<Unspecified> for SealError {
    fn from(_: Unspecified) -> Self {
        Self::Refused
    }
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyRing")
            .field("old", &self.old.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::Config;

    fn ring(current: &str, old: &str) -> KeyRing {
        let variables = [
            ("DEBUG", "true"),
            ("DATABASE_URL", "postgres://localhost/x"),
            ("SECRET_KEY", current),
            ("SECRET_KEYS_OLD", old),
        ];
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let config = Config::read(&variables.into()).expect("a configuration");
        KeyRing::new(&config.app.keys).expect("keys")
    }

    const PLACE: Place = Place {
        column: "totp_factors.sealed_secret",
        row: Uuid::from_u128(1),
    };

    #[test]
    fn a_retired_key_still_opens_and_is_told_apart() {
        let sealed = ring("first", "").seal(PLACE, b"secret").unwrap();
        let rotated = ring("second", "zeroth,first");
        assert_eq!(rotated.open(PLACE, &sealed).unwrap().as_slice(), b"secret");
        assert!(!rotated.is_current(&sealed));
        let again = rotated.seal(PLACE, b"secret").unwrap();
        assert!(rotated.is_current(&again));
        assert!(again.starts_with(&rotated.current_prefix()));
        let forgotten = ring("second", "").open(PLACE, &sealed);
        assert!(
            matches!(forgotten, Err(SealError::UnknownKey)),
            "{forgotten:?}"
        );
    }

    #[test]
    fn a_fingerprint_is_found_after_its_key_was_retired() {
        let written = ring("first", "").fingerprint(b"value");
        let rotated = ring("second", "zeroth,first");
        let all = rotated.fingerprints(b"value");
        assert_eq!(all.len(), 3);
        assert_eq!(all[0], rotated.fingerprint(b"value"));
        assert!(all.contains(&written) && all[0] != written);
        assert!(!rotated.fingerprints(b"other").contains(&written));
    }

    #[test]
    fn a_value_opens_in_its_place_only() {
        let ring = ring("first", "");
        let sealed = ring.seal(PLACE, b"secret").unwrap();
        let elsewhere = [
            Place {
                row: Uuid::from_u128(2),
                ..PLACE
            },
            Place {
                column: "jobs.sealed",
                ..PLACE
            },
        ];
        for place in elsewhere {
            assert!(matches!(ring.open(place, &sealed), Err(SealError::Refused)));
        }
    }

    #[test]
    fn the_same_value_is_never_sealed_alike() {
        let ring = ring("first", "");
        assert_ne!(
            ring.seal(PLACE, b"secret").unwrap(),
            ring.seal(PLACE, b"secret").unwrap()
        );
    }

    proptest! {
        #[test]
        fn what_is_sealed_comes_back(plain in proptest::collection::vec(any::<u8>(), 0..200)) {
            let ring = ring("first", "");
            let sealed = ring.seal(PLACE, &plain).unwrap();
            prop_assert_eq!(ring.open(PLACE, &sealed).unwrap().to_vec(), plain);
        }

        #[test]
        fn a_changed_value_never_opens(at in 0_usize..100, bit in 0_u8..8, cut in 0_usize..100) {
            let ring = ring("first", "");
            let sealed = ring.seal(PLACE, &[7; 60]).unwrap();
            let mut changed = sealed.clone();
            let at = at % changed.len();
            changed[at] ^= 1 << bit;
            prop_assert!(ring.open(PLACE, &changed).is_err());
            prop_assert!(ring.open(PLACE, &sealed[..cut % sealed.len()]).is_err());
        }
    }
}
