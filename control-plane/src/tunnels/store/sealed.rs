//! The preshared keys, for a change of the key that seals them.

use crate::secrets::SealedColumn;
use crate::tunnels::psk;

/// `connections.sealed_psk`
pub const SEALED_PRESHARED_KEYS: SealedColumn = SealedColumn::new(psk::COLUMN);
