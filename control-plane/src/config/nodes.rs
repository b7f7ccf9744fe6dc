//! The nodes' identity: the root key that signs their tokens.

use std::time::Duration;

use super::reader::Reader;
use super::{MasterKeys, Seed};

/// Names the use of the derived key. Changing it revokes every node.
const ROOT_KEY_LABEL: &[u8] = b"prime-vpn node root key v1";

#[derive(Debug, Clone)]
pub struct NodesConfig {
    root_key: Seed,
    old_root_keys: Vec<Seed>,
    pub token_ttl: Duration,
}

impl NodesConfig {
    /// The seed of the Ed25519 root key.
    #[must_use]
    pub fn root_key(&self) -> &[u8; 32] {
        self.root_key.expose()
    }

    /// The seeds whose tokens are still accepted: a node takes a new token within its next session.
    pub fn old_root_keys(&self) -> impl Iterator<Item = &[u8; 32]> {
        self.old_root_keys.iter().map(Seed::expose)
    }

    pub(super) fn read(reader: &mut Reader<'_>, keys: &MasterKeys) -> Self {
        let derived = keys.derive(ROOT_KEY_LABEL);
        Self {
            root_key: Seed::read(reader, "NODE_ROOT_KEY", "SECRET_KEY", derived),
            old_root_keys: keys.derive_old(ROOT_KEY_LABEL).map(Seed::from).collect(),
            token_ttl: reader.duration("NODE_TOKEN_TTL", Duration::from_secs(24 * 3600)),
        }
    }
}
