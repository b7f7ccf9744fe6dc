//! A peer as the ledger keeps it: bytes at fixed places, because a start reads ten thousand of them
//! before the node serves, and a text takes ten times as long.
//!
//! ```text
//! 1 | what is present (bits) | connection (16) | public key (32) | IPv4 (4) | generation (4)
//!   | preshared key (32) | IPv6 (16) | not_after: seconds (8), nanoseconds (4)
//!   | download, upload (8 each, bits a second) | allowance (8, bytes)
//! ```
//!
//! Numbers are little-endian; the fields behind the generation are there where their bit says so. Bytes behind
//! the last belong to a later version and are passed over.

use std::net::{Ipv4Addr, Ipv6Addr};

use chrono::DateTime;
use shared::ids::{ConnectionId, Generation};
use shared::protocol::{Addresses, Limits};
use shared::wireguard::{PresharedKey, PublicKey};
use uuid::Uuid;

use super::PeerRecord;

const FORMAT: u8 = 1;
const HAS_PRESHARED_KEY: u8 = 1;
const HAS_V6: u8 = 2;
const HAS_NOT_AFTER: u8 = 4;
const HAS_DOWNLOAD: u8 = 8;
const HAS_UPLOAD: u8 = 16;
const HAS_ALLOWANCE: u8 = 32;

/// Longest record: room that is reserved at once leaves no copy of a key behind.
pub(super) const MAX_BYTES: usize = 2 + 16 + 32 + 4 + 4 + 32 + 16 + 12 + 3 * 8;

/// Why bytes are not a peer.
#[derive(Debug, thiserror::Error)]
pub(super) enum RecordError {
    #[error("a peer's record is cut short")]
    Short,
    #[error("a peer's record has the unknown format {0}")]
    Format(u8),
    #[error("a peer's end is out of range")]
    Time,
}

/// Writes the record behind what is there.
pub(super) fn encode(record: &PeerRecord, bytes: &mut Vec<u8>) {
    // Every field is named: one that is forgotten does not compile.
    let PeerRecord {
        connection,
        public_key,
        preshared_key,
        addresses: Addresses { v4, v6 },
        not_after,
        generation,
        limits:
            Limits {
                download_bps,
                upload_bps,
                allowance,
            },
    } = record;
    let bit = |present: bool, bit: u8| if present { bit } else { 0 };
    let present = bit(preshared_key.is_some(), HAS_PRESHARED_KEY)
        | bit(v6.is_some(), HAS_V6)
        | bit(not_after.is_some(), HAS_NOT_AFTER)
        | bit(download_bps.is_some(), HAS_DOWNLOAD)
        | bit(upload_bps.is_some(), HAS_UPLOAD)
        | bit(allowance.is_some(), HAS_ALLOWANCE);
    bytes.extend_from_slice(&[FORMAT, present]);
    bytes.extend_from_slice(connection.0.as_bytes());
    bytes.extend_from_slice(public_key.as_bytes());
    bytes.extend_from_slice(&v4.octets());
    bytes.extend_from_slice(&generation.0.to_le_bytes());
    if let Some(key) = preshared_key {
        bytes.extend_from_slice(key.expose_bytes());
    }
    if let Some(v6) = v6 {
        bytes.extend_from_slice(&v6.octets());
    }
    if let Some(at) = not_after {
        bytes.extend_from_slice(&at.timestamp().to_le_bytes());
        bytes.extend_from_slice(&at.timestamp_subsec_nanos().to_le_bytes());
    }
    for limit in [download_bps, upload_bps, allowance].into_iter().flatten() {
        bytes.extend_from_slice(&limit.to_le_bytes());
    }
}

pub(super) fn decode(bytes: &[u8]) -> Result<PeerRecord, RecordError> {
    let mut rest = bytes;
    match take::<1>(&mut rest)? {
        [FORMAT] => {}
        [other] => return Err(RecordError::Format(other)),
    }
    let [present] = take(&mut rest)?;
    let has = |bit: u8| present & bit != 0;
    let connection = ConnectionId(Uuid::from_bytes(take(&mut rest)?));
    let public_key = PublicKey::from_bytes(take(&mut rest)?);
    let v4 = Ipv4Addr::from(take::<4>(&mut rest)?);
    let generation = Generation(u32::from_le_bytes(take(&mut rest)?));
    let preshared_key = if has(HAS_PRESHARED_KEY) {
        Some(PresharedKey::from_bytes(take(&mut rest)?))
    } else {
        None
    };
    let v6 = if has(HAS_V6) {
        Some(Ipv6Addr::from(take::<16>(&mut rest)?))
    } else {
        None
    };
    let not_after = if has(HAS_NOT_AFTER) {
        let seconds = i64::from_le_bytes(take(&mut rest)?);
        let nanos = u32::from_le_bytes(take(&mut rest)?);
        Some(DateTime::from_timestamp(seconds, nanos).ok_or(RecordError::Time)?)
    } else {
        None
    };
    let mut limit = |bit| -> Result<Option<u64>, RecordError> {
        let bytes = has(bit).then(|| take(&mut rest)).transpose()?;
        Ok(bytes.map(u64::from_le_bytes))
    };
    let limits = Limits {
        download_bps: limit(HAS_DOWNLOAD)?,
        upload_bps: limit(HAS_UPLOAD)?,
        allowance: limit(HAS_ALLOWANCE)?,
    };
    Ok(PeerRecord {
        connection,
        public_key,
        preshared_key,
        addresses: Addresses { v4, v6 },
        not_after,
        generation,
        limits,
    })
}

pub(super) fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], RecordError> {
    let (taken, after) = rest.split_first_chunk().ok_or(RecordError::Short)?;
    *rest = after;
    Ok(*taken)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    prop_compose! {
        fn records()(
            connection in any::<u128>(),
            key in any::<[u8; 32]>(),
            psk in proptest::option::of(any::<[u8; 32]>()),
            v4 in any::<u32>(),
            v6 in proptest::option::of(any::<u128>()),
            not_after in proptest::option::of((-8_000_000_000_i64..200_000_000_000, 0..1_000_000_000_u32)),
            generation in any::<u32>(),
            (download_bps, upload_bps, allowance) in any::<(Option<u64>, Option<u64>, Option<u64>)>(),
        ) -> PeerRecord {
            PeerRecord {
                connection: ConnectionId(Uuid::from_u128(connection)),
                public_key: PublicKey::from_bytes(key),
                preshared_key: psk.map(PresharedKey::from_bytes),
                addresses: Addresses { v4: v4.into(), v6: v6.map(Ipv6Addr::from) },
                not_after: not_after.map(|(seconds, nanos)| {
                    DateTime::from_timestamp(seconds, nanos).unwrap()
                }),
                generation: Generation(generation),
                limits: Limits { download_bps, upload_bps, allowance },
            }
        }
    }

    proptest! {
        #[test]
        fn records_come_back_whole(record in records(), later in any::<Vec<u8>>()) {
            let mut bytes = Vec::new();
            encode(&record, &mut bytes);
            prop_assert!(bytes.len() <= MAX_BYTES);
            prop_assert_eq!(&decode(&bytes).unwrap(), &record);
            bytes.extend(later);
            prop_assert_eq!(decode(&bytes).unwrap(), record);
        }

        #[test]
        fn every_cut_is_noticed(record in records(), cut in 1_usize..60) {
            let mut bytes = Vec::new();
            encode(&record, &mut bytes);
            prop_assert!(decode(&bytes[..bytes.len() - cut.min(bytes.len())]).is_err());
        }

        #[test]
        fn garbage_is_never_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..150)) {
            let _ = decode(&bytes);
        }
    }

    #[test]
    fn an_unknown_format_is_refused() {
        assert!(matches!(decode(&[7; 90]), Err(RecordError::Format(7))));
    }
}
