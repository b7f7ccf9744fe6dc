//! Access tokens.

use std::time::Duration;

use jsonwebtoken::Algorithm;
use secrecy::SecretString;

use super::Seed;
use super::keys::derive;
use super::reader::Reader;

/// Names the use of the derived key. Changing it ends every access token.
const SIGNING_KEY_LABEL: &[u8] = b"prime-vpn access token key v1";

#[derive(Debug, Clone)]
pub struct TokensConfig {
    /// HS256's.
    pub secret: SecretString,
    /// EdDSA's: the seed of an Ed25519 key.
    pub private_key: Seed,
    /// The one algorithm that is signed and accepted; a token's header never chooses.
    pub algorithm: Algorithm,
    pub access_token_life: Duration,
    /// A session that is not refreshed for so long ends.
    pub refresh_token_life: Duration,
}

impl TokensConfig {
    pub(super) fn read(reader: &mut Reader<'_>, debug: bool) -> Self {
        let algorithm = reader.parse_with(
            "JWT_ALGORITHM",
            Algorithm::HS256,
            "HS256 or EdDSA",
            |text| match text {
                "HS256" => Some(Algorithm::HS256),
                "EdDSA" => Some(Algorithm::EdDSA),
                _ => None,
            },
            |algorithm| format!("{algorithm:?}"),
        );
        let secret = reader.secret("JWT_SECRET_KEY", debug);
        let derived = derive(&secret, SIGNING_KEY_LABEL);
        let minutes = reader.count("ACCESS_TOKEN_EXPIRE_MINUTES", 30);
        let days = reader.count("REFRESH_TOKEN_EXPIRE_DAYS", 30);
        Self {
            private_key: Seed::read(reader, "JWT_PRIVATE_KEY", "JWT_SECRET_KEY", derived),
            secret,
            algorithm,
            access_token_life: Duration::from_secs(u64::from(minutes) * 60),
            refresh_token_life: Duration::from_secs(u64::from(days) * 86_400),
        }
    }
}
