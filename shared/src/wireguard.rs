//! WireGuard keys. Private material is zeroed on drop and never printed.

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rand::RngCore;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::text;

/// Length of every WireGuard key in bytes.
pub const KEY_LEN: usize = 32;

/// Why a text is not a WireGuard key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not base64 of exactly 32 bytes, in its canonical form of 44 characters.
    #[error("a WireGuard key is 44 characters of base64 (32 bytes)")]
    Malformed,
    /// The all-zero key, or another point of small order: no handshake with it can succeed.
    #[error("this key cannot be used: it is a point of small order")]
    SmallOrder,
}

fn decode(text: &str) -> Result<[u8; KEY_LEN], KeyError> {
    let mut bytes = Zeroizing::new([0; KEY_LEN]);
    match STANDARD.decode_slice(text, bytes.as_mut_slice()) {
        Ok(KEY_LEN) => Ok(*bytes),
        _ => Err(KeyError::Malformed),
    }
}

/// Every encoding of a point whose order divides eight, on the curve or its twist: any clamped secret
/// is a multiple of eight and so gives zero with it. There are seven of five points, because X25519
/// takes coordinates that are not reduced; it ignores the highest bit. A list and not a trial, because
/// a snapshot has thousands of keys.
const SMALL_ORDER: [[u8; KEY_LEN]; 7] = [
    small(0),
    small(1),
    [
        0xe0, 0xeb, 0x7a, 0x7c, 0x3b, 0x41, 0xb8, 0xae, 0x16, 0x56, 0xe3, 0xfa, 0xf1, 0x9f, 0xc4,
        0x6a, 0xda, 0x09, 0x8d, 0xeb, 0x9c, 0x32, 0xb1, 0xfd, 0x86, 0x62, 0x05, 0x16, 0x5f, 0x49,
        0xb8, 0x00,
    ],
    [
        0x5f, 0x9c, 0x95, 0xbc, 0xa3, 0x50, 0x8c, 0x24, 0xb1, 0xd0, 0xb1, 0x55, 0x9c, 0x83, 0xef,
        0x5b, 0x04, 0x44, 0x5c, 0xc4, 0x58, 0x1c, 0x8e, 0x86, 0xd8, 0x22, 0x4e, 0xdd, 0xd0, 0x9f,
        0x11, 0x57,
    ],
    near_the_prime(0xec),
    near_the_prime(0xed),
    near_the_prime(0xee),
];

const fn small(number: u8) -> [u8; KEY_LEN] {
    let mut point = [0; KEY_LEN];
    point[0] = number;
    point
}

/// The prime 2^255 - 19 ends in `0xed`.
const fn near_the_prime(lowest: u8) -> [u8; KEY_LEN] {
    let mut point = [0xff; KEY_LEN];
    point[0] = lowest;
    point[KEY_LEN - 1] = 0x7f;
    point
}

fn has_small_order(mut point: [u8; KEY_LEN]) -> bool {
    point[KEY_LEN - 1] &= 0x7f;
    SMALL_ORDER.contains(&point)
}

/// A peer's Curve25519 public key; its text form is the 44 characters that `wg` prints.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey([u8; KEY_LEN]);

impl PublicKey {
    /// Takes a key as the kernel reports it, without judging it.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; KEY_LEN]) -> Self {
        Self(bytes)
    }

    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; KEY_LEN] {
        &self.0
    }

    /// The key in base64.
    #[must_use]
    pub fn to_base64(&self) -> String {
        STANDARD.encode(self.0)
    }
}

impl FromStr for PublicKey {
    type Err = KeyError;

    /// Reads a key that came from outside; refuses points with which no handshake can succeed.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bytes = decode(text)?;
        if has_small_order(bytes) {
            return Err(KeyError::SmallOrder);
        }
        Ok(Self(bytes))
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_base64())
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

impl Serialize for PublicKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PublicKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text::read(deserializer, str::parse)
    }
}

macro_rules! secret_key {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Zeroize, ZeroizeOnDrop)]
        pub struct $name([u8; KEY_LEN]);

        impl $name {
            #[must_use]
            pub const fn from_bytes(bytes: [u8; KEY_LEN]) -> Self {
                Self(bytes)
            }

            /// The secret itself. The caller answers for where it goes.
            #[must_use]
            pub const fn expose_bytes(&self) -> &[u8; KEY_LEN] {
                &self.0
            }

            /// The secret in base64. The caller answers for where it goes.
            #[must_use]
            pub fn expose_base64(&self) -> zeroize::Zeroizing<String> {
                zeroize::Zeroizing::new(STANDARD.encode(self.0))
            }
        }

        impl FromStr for $name {
            type Err = KeyError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                decode(text).map(Self)
            }
        }

        impl PartialEq for $name {
            fn eq(&self, other: &Self) -> bool {
                self.0.ct_eq(&other.0).into()
            }
        }

        impl Eq for $name {}

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($name), "(redacted)"))
            }
        }
    )*};
}

secret_key! {
    /// A Curve25519 private key.
    PrivateKey;
    /// A symmetric key that a peer mixes into its handshake.
    PresharedKey;
}

impl PrivateKey {
    /// A new key from the system's randomness, clamped as `wg genkey` does.
    #[must_use]
    pub fn generate() -> Self {
        let mut bytes = [0; KEY_LEN];
        rand::rng().fill_bytes(&mut bytes);
        bytes[0] &= 248;
        bytes[31] = (bytes[31] & 127) | 64;
        Self(bytes)
    }

    #[must_use]
    pub fn public_key(&self) -> PublicKey {
        let secret = x25519_dalek::StaticSecret::from(self.0);
        PublicKey(x25519_dalek::PublicKey::from(&secret).to_bytes())
    }
}

impl PresharedKey {
    /// A new key from the system's randomness.
    #[must_use]
    pub fn generate() -> Self {
        let mut bytes = [0; KEY_LEN];
        rand::rng().fill_bytes(&mut bytes);
        Self(bytes)
    }
}

impl Serialize for PresharedKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.expose_base64())
    }
}

impl<'de> Deserialize<'de> for PresharedKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text::read(deserializer, str::parse)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;

    // RFC 7748, section 6.1.
    const ALICE_PRIVATE: &str = "dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=";
    const ALICE_PUBLIC: &str = "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=";

    #[test]
    fn derives_the_public_key_of_the_standard() {
        let private: PrivateKey = ALICE_PRIVATE.parse().expect("valid");
        assert_eq!(private.public_key().to_string(), ALICE_PUBLIC);
    }

    #[rstest]
    #[case::empty("", KeyError::Malformed)]
    #[case::not_base64("hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTm!=", KeyError::Malformed)]
    #[case::short("hSDwCYkwp1R0i33ctD73Wg==", KeyError::Malformed)]
    #[case::unpadded("hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo", KeyError::Malformed)]
    #[case::trailing("hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=\n", KeyError::Malformed)]
    #[case::zero("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", KeyError::SmallOrder)]
    #[case::one("AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", KeyError::SmallOrder)]
    fn refuses_bad_keys(#[case] text: &str, #[case] error: KeyError) {
        assert_eq!(text.parse::<PublicKey>(), Err(error));
    }

    fn gives_zero(point: [u8; KEY_LEN]) -> bool {
        let probe = x25519_dalek::StaticSecret::from([1; KEY_LEN]);
        let shared = probe.diffie_hellman(&x25519_dalek::PublicKey::from(point));
        !shared.was_contributory()
    }

    #[test]
    fn the_list_of_small_orders_holds_what_a_trial_finds() {
        for point in SMALL_ORDER {
            for top in [0, 0x80] {
                let mut point = point;
                point[KEY_LEN - 1] |= top;
                assert!(gives_zero(point) && has_small_order(point), "{point:?}");
                for step in 1..20 {
                    let mut near = point;
                    near[0] = point[0].wrapping_add(step);
                    assert_eq!(gives_zero(near), has_small_order(near), "{near:?}");
                }
            }
        }
    }

    proptest! {
        #[test]
        fn the_list_agrees_with_a_trial(point in any::<[u8; KEY_LEN]>()) {
            prop_assert_eq!(has_small_order(point), gives_zero(point));
        }
    }

    #[test]
    fn generated_pairs_survive_their_text_form() {
        let private = PrivateKey::generate();
        let public = private.public_key();
        assert_eq!(public.to_string().parse(), Ok(public));
        assert_eq!(private.expose_base64().parse(), Ok(private));
    }

    #[test]
    fn secrets_are_not_printed() {
        let key = PrivateKey::generate();
        let psk = PresharedKey::generate();
        assert_eq!(format!("{key:?}"), "PrivateKey(redacted)");
        assert_eq!(format!("{psk:?}"), "PresharedKey(redacted)");
    }
}
