//! Access tokens.

use std::time::Duration;

use jsonwebtoken::Algorithm;
use secrecy::SecretString;

use super::reader::Reader;

#[derive(Debug, Clone)]
pub struct TokensConfig {
    pub secret: SecretString,
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
            "HS256",
            |text| (text == "HS256").then_some(Algorithm::HS256),
            |algorithm| format!("{algorithm:?}"),
        );
        let minutes = reader.count("ACCESS_TOKEN_EXPIRE_MINUTES", 30);
        let days = reader.count("REFRESH_TOKEN_EXPIRE_DAYS", 30);
        Self {
            secret: reader.secret("JWT_SECRET_KEY", debug),
            algorithm,
            access_token_life: Duration::from_secs(u64::from(minutes) * 60),
            refresh_token_life: Duration::from_secs(u64::from(days) * 86_400),
        }
    }
}
