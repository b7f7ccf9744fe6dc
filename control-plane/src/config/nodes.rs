//! The nodes' identity: the root key that signs their tokens.

use std::fmt;
use std::time::Duration;

use hkdf::Hkdf;
use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret, SecretBox, SecretString};
use sha2::Sha256;

use super::reader::{REDACTED, Reader};

/// Names the use of the derived key. Changing it revokes every node.
const ROOT_KEY_LABEL: &[u8] = b"prime-vpn node root key v1";

#[derive(Clone)]
pub struct NodesConfig {
    root_key: SecretBox<RootSeed>,
    pub token_ttl: Duration,
}

#[derive(Clone)]
struct RootSeed([u8; 32]);

impl secrecy::zeroize::Zeroize for RootSeed {
    fn zeroize(&mut self) {
        self.0.zeroize();
    }
}

impl secrecy::CloneableSecret for RootSeed {}

impl NodesConfig {
    /// The seed of the Ed25519 root key.
    #[must_use]
    pub fn root_key(&self) -> &[u8; 32] {
        &self.root_key.expose_secret().0
    }

    pub(super) fn read(reader: &mut Reader<'_>, secret_key: &SecretString) -> Self {
        let name = "NODE_ROOT_KEY";
        let seed = match reader.given(name) {
            None => {
                reader.note(name, "derived from SECRET_KEY");
                derive(secret_key)
            }
            Some(text) => {
                reader.note(name, REDACTED);
                decode(text).unwrap_or_else(|| {
                    reader.problem(
                        name,
                        "takes the 64 hexadecimal digits of an Ed25519 seed; make one with `openssl rand -hex 32`",
                    );
                    derive(secret_key)
                })
            }
        };
        Self {
            root_key: SecretBox::new(Box::new(RootSeed(*seed))),
            token_ttl: reader.duration("NODE_TOKEN_TTL", Duration::from_secs(24 * 3600)),
        }
    }
}

impl fmt::Debug for NodesConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodesConfig")
            .field("root_key", &REDACTED)
            .field("token_ttl", &self.token_ttl)
            .finish()
    }
}

fn decode(text: &str) -> Option<Zeroizing<[u8; 32]>> {
    let mut seed = Zeroizing::new([0; 32]);
    hex::decode_to_slice(text, seed.as_mut_slice()).ok()?;
    Some(seed)
}

#[expect(
    clippy::expect_used,
    reason = "32 bytes are far below the limit of HKDF-SHA256"
)]
fn derive(secret: &SecretString) -> Zeroizing<[u8; 32]> {
    let mut seed = Zeroizing::new([0; 32]);
    Hkdf::<Sha256>::new(None, secret.expose_secret().as_bytes())
        .expand(ROOT_KEY_LABEL, seed.as_mut_slice())
        .expect("a length that HKDF can give");
    seed
}
