//! The nodes' identity: the root key that signs their tokens.

use std::fmt;
use std::time::Duration;

use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret, SecretBox};

use super::MasterKeys;
use super::reader::{REDACTED, Reader};

/// Names the use of the derived key. Changing it revokes every node.
const ROOT_KEY_LABEL: &[u8] = b"prime-vpn node root key v1";

#[derive(Clone)]
pub struct NodesConfig {
    root_key: SecretBox<RootSeed>,
    old_root_keys: Vec<SecretBox<RootSeed>>,
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

    /// The seeds whose tokens are still accepted: a node takes a new token within its next session.
    pub fn old_root_keys(&self) -> impl Iterator<Item = &[u8; 32]> {
        self.old_root_keys.iter().map(|key| &key.expose_secret().0)
    }

    pub(super) fn read(reader: &mut Reader<'_>, keys: &MasterKeys) -> Self {
        let name = "NODE_ROOT_KEY";
        let seed = match reader.given(name) {
            None => {
                reader.note(name, "derived from SECRET_KEY");
                keys.derive(ROOT_KEY_LABEL)
            }
            Some(text) => {
                reader.note(name, REDACTED);
                decode(text).unwrap_or_else(|| {
                    reader.problem(
                        name,
                        "takes the 64 hexadecimal digits of an Ed25519 seed; make one with `openssl rand -hex 32`",
                    );
                    keys.derive(ROOT_KEY_LABEL)
                })
            }
        };
        let sealed = |seed: Zeroizing<[u8; 32]>| SecretBox::new(Box::new(RootSeed(*seed)));
        Self {
            root_key: sealed(seed),
            old_root_keys: keys.derive_old(ROOT_KEY_LABEL).map(sealed).collect(),
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
