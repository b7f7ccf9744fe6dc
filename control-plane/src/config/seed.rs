//! Seeds of Ed25519 keys: given in hexadecimal, or derived from a secret.

use std::fmt;

use secrecy::zeroize::Zeroizing;
use secrecy::{CloneableSecret, ExposeSecret, SecretBox, zeroize::Zeroize};

use super::reader::{REDACTED, Reader};

#[derive(Clone)]
pub struct Seed(SecretBox<Bytes>);

#[derive(Clone)]
struct Bytes([u8; 32]);

impl Zeroize for Bytes {
    fn zeroize(&mut self) {
        self.0.zeroize();
    }
}

impl CloneableSecret for Bytes {}

impl Seed {
    #[must_use]
    pub fn expose(&self) -> &[u8; 32] {
        &self.0.expose_secret().0
    }

    /// The variable's, or the one derived from the secret of that name.
    pub(super) fn read(
        reader: &mut Reader<'_>,
        name: &'static str,
        from: &str,
        derived: Zeroizing<[u8; 32]>,
    ) -> Self {
        let Some(text) = reader.given(name) else {
            reader.note(name, format!("derived from {from}"));
            return derived.into();
        };
        reader.note(name, REDACTED);
        let given = decode(text);
        if given.is_none() {
            reader.problem(
                name,
                "takes the 64 hexadecimal digits of an Ed25519 seed; make one with `openssl rand -hex 32`",
            );
        }
        given.unwrap_or(derived).into()
    }
}

impl From<Zeroizing<[u8; 32]>> for Seed {
    fn from(seed: Zeroizing<[u8; 32]>) -> Self {
        Self(SecretBox::new(Box::new(Bytes(*seed))))
    }
}

impl fmt::Debug for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(REDACTED)
    }
}

fn decode(text: &str) -> Option<Zeroizing<[u8; 32]>> {
    let mut seed = Zeroizing::new([0; 32]);
    hex::decode_to_slice(text, seed.as_mut_slice()).ok()?;
    Some(seed)
}
