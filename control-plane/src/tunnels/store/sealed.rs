//! The preshared keys, for a change of the key that seals them.

use crate::secrets::SealedColumn;
use crate::tunnels::psk;

/// `connections.sealed_psk`
#[derive(Debug, Clone, Copy)]
pub struct SealedPresharedKeys;

impl SealedColumn for SealedPresharedKeys {
    fn name(&self) -> &'static str {
        psk::COLUMN
    }

    fn stale_sql(&self) -> &'static str {
        "
            SELECT id, sealed_psk AS sealed FROM connections
            WHERE id > $2 AND substring(sealed_psk FOR octet_length($1)) <> $1
            ORDER BY id LIMIT $3"
    }

    fn replace_sql(&self) -> &'static str {
        "
            UPDATE connections c SET sealed_psk = changed.new
            FROM unnest($1, $2, $3, $4) AS changed (id, old, new, hash)
            WHERE c.id = changed.id AND c.sealed_psk = changed.old"
    }
}
