//! A connection's preshared key: made here, told to its client and its node, sealed at rest.
//!
//! The client gets it over TLS with a post-quantum key exchange, so that whoever records the tunnel
//! today cannot read it with what breaks Curve25519 tomorrow. It is forgotten when the connection ends.

use shared::ids::ConnectionId;
use shared::wireguard::PresharedKey;

use crate::secrets::{KeyRing, Place, SealError};

pub(super) const COLUMN: &str = "connections.sealed_psk";

const fn place(connection: ConnectionId) -> Place {
    Place {
        column: COLUMN,
        row: connection.0,
    }
}

pub(super) fn seal(
    keys: &KeyRing,
    connection: ConnectionId,
    key: &PresharedKey,
) -> Result<Vec<u8>, SealError> {
    keys.seal(place(connection), key.expose_bytes())
}

pub(super) fn open(
    keys: &KeyRing,
    connection: ConnectionId,
    sealed: &[u8],
) -> Result<PresharedKey, SealError> {
    let plain = keys.open(place(connection), sealed)?;
    let bytes = <[u8; 32]>::try_from(plain.as_slice()).map_err(|_| SealError::Malformed)?;
    Ok(PresharedKey::from_bytes(bytes))
}
