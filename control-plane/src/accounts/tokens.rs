//! Access tokens: signed, short-lived, read without a query.
//!
//! The algorithm and the key are pinned by the configuration. A token's own header is compared with
//! them and never followed, so that neither `none` nor a public key used as a secret gets anybody in.
//! Under EdDSA the public key is published, and whoever has it can check a token without asking.

use std::fmt;
use std::time::Duration;

use aws_lc_rs::error::KeyRejected;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use chrono::{DateTime, Utc};
use foldhash::fast::RandomState;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use quick_cache::UnitWeighter;
use quick_cache::sync::{Cache, DefaultLifecycle};
use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use shared::ids::UserId;
use uuid::Uuid;

use super::{Role, SessionId};
use crate::config::TokensConfig;
use crate::error::{ApiError, Code};

const ISSUER: &str = "prime-vpn";
const AUDIENCE: &str = "prime-vpn-api";
/// Tokens of which is remembered that they were found good: some 25 MB.
const REMEMBERED: u16 = 50_000;

/// PKCS#8's framing of an Ed25519 seed (RFC 8410).
const PKCS8_PREFIX: [u8; 16] = [
    0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
];

/// What a valid access token says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    pub user: UserId,
    pub role: Role,
    pub session: SessionId,
    pub token: Uuid,
    pub expires_at: DateTime<Utc>,
}

/// A token just signed.
#[derive(Debug)]
pub struct AccessToken {
    pub token: SecretString,
    pub life: Duration,
}

#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    #[error("the token has expired")]
    Expired,
    #[error("the token is not valid")]
    Invalid,
    #[error("the token could not be signed")]
    Signing(#[source] jsonwebtoken::errors::Error),
    #[error("the signing key cannot be used")]
    Key(#[from] KeyRejected),
}

impl From<TokenError> for ApiError {
    fn from(error: TokenError) -> Self {
        match error {
            TokenError::Expired => Self::new(Code::TokenExpired),
            TokenError::Invalid => Self::new(Code::Unauthorized),
            TokenError::Signing(_) | TokenError::Key(_) => Self::internal(error),
        }
    }
}

/// Signs and verifies access tokens.
pub struct TokenIssuer {
    header: Header,
    validation: Validation,
    signing: EncodingKey,
    verifying: DecodingKey,
    /// What anybody may know of the key.
    public: Option<Value>,
    life: Duration,
    /// Good tokens: reading one costs many times what finding it here does. They are kept as they are, for
    /// hashing one costs more than the finding, and whoever reads this memory has the signing key as well.
    good: Cache<Box<[u8]>, Claims, UnitWeighter, RandomState>,
}

impl TokenIssuer {
    pub fn new(config: &TokensConfig) -> Result<Self, TokenError> {
        let mut validation = Validation::new(config.algorithm);
        validation.leeway = 0;
        validation.set_issuer(&[ISSUER]);
        validation.set_audience(&[AUDIENCE]);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        let keys = match config.algorithm {
            Algorithm::EdDSA => Keys::ed25519(config.private_key.expose())?,
            _ => Keys::shared(config.secret.expose_secret().as_bytes()),
        };
        let mut header = Header::new(config.algorithm);
        header.kid = keys.id;
        Ok(Self {
            header,
            validation,
            signing: keys.signing,
            verifying: keys.verifying,
            public: keys.public,
            life: config.access_token_life,
            good: Cache::with(
                REMEMBERED.into(),
                REMEMBERED.into(),
                UnitWeighter,
                RandomState::default(),
                DefaultLifecycle::default(),
            ),
        })
    }

    /// The public key as a JWK set (RFC 7517); empty where tokens are signed with a shared secret.
    #[must_use]
    pub fn jwks(&self) -> Value {
        json!({ "keys": self.public.iter().collect::<Vec<_>>() })
    }

    pub fn issue(
        &self,
        user: UserId,
        role: Role,
        session: SessionId,
        now: DateTime<Utc>,
    ) -> Result<AccessToken, TokenError> {
        let claims = WireClaims {
            iss: ISSUER.to_owned(),
            aud: AUDIENCE.to_owned(),
            sub: user,
            jti: Uuid::new_v4(),
            role,
            sid: session,
            iat: now.timestamp(),
            exp: (now + self.life).timestamp(),
        };
        let token = jsonwebtoken::encode(&self.header, &claims, &self.signing)
            .map_err(TokenError::Signing)?;
        Ok(AccessToken {
            token: SecretString::from(token),
            life: self.life,
        })
    }

    pub fn verify(&self, token: &(impl AsRef<[u8]> + ?Sized)) -> Result<Claims, TokenError> {
        let token = token.as_ref();
        if let Some(claims) = self.good.get(token) {
            return if claims.expires_at > Utc::now() {
                Ok(claims)
            } else {
                Err(TokenError::Expired)
            };
        }
        let claims = self.read(token)?;
        self.good.insert(token.into(), claims.clone());
        Ok(claims)
    }

    fn read(&self, token: &[u8]) -> Result<Claims, TokenError> {
        let read = jsonwebtoken::decode::<WireClaims>(token, &self.verifying, &self.validation)
            .map_err(|error| match error.kind() {
                ErrorKind::ExpiredSignature => TokenError::Expired,
                _ => TokenError::Invalid,
            })?;
        if read.header.kid != self.header.kid {
            return Err(TokenError::Invalid);
        }
        let claims = read.claims;
        Ok(Claims {
            user: claims.sub,
            role: claims.role,
            session: claims.sid,
            token: claims.jti,
            expires_at: DateTime::from_timestamp(claims.exp, 0).ok_or(TokenError::Invalid)?,
        })
    }
}

impl fmt::Debug for TokenIssuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenIssuer")
            .field("algorithm", &self.header.alg)
            .field("life", &self.life)
            .finish_non_exhaustive()
    }
}

/// One key in the forms in which it is needed.
struct Keys {
    id: Option<String>,
    signing: EncodingKey,
    verifying: DecodingKey,
    public: Option<Value>,
}

impl Keys {
    fn shared(secret: &[u8]) -> Self {
        Self {
            id: None,
            signing: EncodingKey::from_secret(secret),
            verifying: DecodingKey::from_secret(secret),
            public: None,
        }
    }

    fn ed25519(seed: &[u8; 32]) -> Result<Self, KeyRejected> {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed)?;
        let public = pair.public_key().as_ref();
        let x = BASE64_URL_SAFE_NO_PAD.encode(public);
        let id = thumbprint(&x);
        let jwk = json!({
            "kty": "OKP", "crv": "Ed25519", "x": x, "kid": id, "alg": "EdDSA", "use": "sig",
        });
        let der = Zeroizing::new([PKCS8_PREFIX.as_slice(), seed].concat());
        Ok(Self {
            id: Some(id),
            signing: EncodingKey::from_ed_der(&der),
            verifying: DecodingKey::from_ed_der(public),
            public: Some(jwk),
        })
    }
}

/// RFC 7638: the hash of the key's required members in their order.
fn thumbprint(x: &str) -> String {
    let members = format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#);
    BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(members))
}

#[derive(Serialize, Deserialize)]
struct WireClaims {
    iss: String,
    aud: String,
    sub: UserId,
    jti: Uuid,
    role: Role,
    sid: SessionId,
    iat: i64,
    exp: i64,
}

#[cfg(test)]
mod tests;
