//! What an operator token says, and what it allows: Biscuits signed by a key of the plane.
//!
//! The signed part names the operator, the rights and the expiry. Whoever holds a token can append
//! restrictions without asking anybody; they are checks over facts that only the plane states
//! (`operation`, `resource`, `time`), and a fact in an appended part is never believed. Pure: the
//! time comes in.

use std::collections::BTreeSet;
use std::fmt;
use std::time::SystemTime;

use biscuit_auth::builder::{Algorithm, AuthorizerBuilder, BlockBuilder, Term};
use biscuit_auth::macros::{authorizer, biscuit, block};
use biscuit_auth::{
    AuthorizerLimits, Biscuit, KeyPair, PrivateKey, PublicKey, UnverifiedBiscuit, error,
};
use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::config::MasterKeys;
use crate::error::{ApiError, Code};

/// Names the use of the derived key. Changing it revokes every operator token.
const KEY_LABEL: &[u8] = b"prime-vpn operator token key v1";
/// A token with some attenuations; more than this is not worth parsing.
const MAX_TOKEN_LENGTH: usize = 8_192;
/// The library's default of one millisecond denies valid tokens on a busy host.
const MAX_EVALUATION: std::time::Duration = std::time::Duration::from_millis(50);

/// The authority that signs and reads operator tokens.
pub struct Authority {
    key: KeyPair,
    /// Former keys, whose tokens are still read.
    old_keys: Vec<PublicKey>,
}

/// What a token is made for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    pub id: Uuid,
    pub name: String,
    pub rights: BTreeSet<String>,
    pub expires_at: DateTime<Utc>,
}

/// What somebody wants to do.
#[derive(Debug, Clone, Copy)]
pub struct Wish<'a> {
    pub right: &'a str,
    /// The id of what it is done to, where that is one thing.
    pub resource: Option<Uuid>,
    pub now: DateTime<Utc>,
}

/// What a holder takes away from their token before handing it on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Restriction {
    /// Only these, where there are any.
    pub rights: BTreeSet<String>,
    pub expires_at: Option<DateTime<Utc>>,
    /// Only what concerns this one.
    pub resource: Option<Uuid>,
}

/// Why a token does not allow something.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    #[error("this is not an operator token")]
    Malformed,
    #[error("the token is signed by another authority")]
    Forged,
    #[error("the token has expired")]
    Expired,
    #[error("the token does not allow this")]
    Denied,
    /// The host was too busy to decide; the token may be good.
    #[error("the token could not be checked in time")]
    Undecided,
    #[error("the token cannot be made: {0}")]
    Making(error::Token),
}

impl From<TokenError> for ApiError {
    fn from(error: TokenError) -> Self {
        let code = match error {
            TokenError::Undecided => Code::Unavailable,
            TokenError::Making(_) => Code::Internal,
            TokenError::Denied => Code::Forbidden,
            TokenError::Expired => Code::TokenExpired,
            TokenError::Malformed | TokenError::Forged => Code::Unauthorized,
        };
        Self::new(code).with_source(error)
    }
}

impl From<error::Token> for TokenError {
    fn from(error: error::Token) -> Self {
        use error::Format;
        match error {
            error::Token::RunLimit(_) => Self::Undecided,
            error::Token::Format(
                Format::Signature(_) | Format::SealedSignature | Format::UnknownPublicKey,
            ) => Self::Forged,
            error::Token::Format(_) | error::Token::Base64(_) => Self::Malformed,
            _ => Self::Denied,
        }
    }
}

impl Authority {
    /// Derives the keys from the master keys.
    pub fn new(keys: &MasterKeys) -> Result<Self, TokenError> {
        Ok(Self {
            key: key_pair(&keys.derive(KEY_LABEL))?,
            old_keys: keys
                .derive_old(KEY_LABEL)
                .map(|seed| Ok(key_pair(&seed)?.public()))
                .collect::<Result<_, TokenError>>()?,
        })
    }

    /// Signs a token.
    pub fn mint(&self, grant: &Grant) -> Result<String, TokenError> {
        let id = grant.id.to_string();
        let name = grant.name.as_str();
        let end = SystemTime::from(grant.expires_at);
        let mut token = biscuit!(
            "operator({id}); name({name}); expires_at({end}); check if time($now), $now < {end};"
        );
        for right in &grant.rights {
            let right = right.as_str();
            token = token.merge(block!("right({right});"));
        }
        let token = token.build(&self.key).map_err(TokenError::Making)?;
        token.to_base64().map_err(TokenError::Making)
    }

    /// The id of the token, if it allows the wish. Whether it was revoked stands in the database.
    pub fn authorize(&self, token: &str, wish: Wish<'_>) -> Result<Uuid, TokenError> {
        if token.len() > MAX_TOKEN_LENGTH {
            return Err(TokenError::Malformed);
        }
        let token = self.verify(token)?;
        let (right, time) = (wish.right, SystemTime::from(wish.now));
        let mut asked = authorizer!(
            "time({time}); operation({right}); allow if operation($right), right($right);"
        );
        if let Some(resource) = wish.resource {
            let resource = resource.to_string();
            asked = asked.merge(authorizer!("resource({resource});"));
        }
        let mut authorizer = limited(asked).build(&token)?;
        match authorizer.authorize() {
            Ok(_) => {
                let ids: Vec<(String,)> = authorizer.query("data($id) <- operator($id)")?;
                only(ids)?.parse().map_err(|_| TokenError::Malformed)
            }
            Err(error::Token::FailedLogic(_)) => {
                // Attenuations say it of themselves: lying makes a token worth less, not more.
                let ended: Vec<(i64,)> = authorizer
                    .query_all("data(1) <- expires_at($end), time($now), $now >= $end")?;
                Err(if ended.is_empty() {
                    TokenError::Denied
                } else {
                    TokenError::Expired
                })
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Checks the signature against the present key, then against former ones.
    fn verify(&self, token: &str) -> Result<Biscuit, TokenError> {
        let verified = Biscuit::from_base64(token, self.key.public());
        let former = self.old_keys.iter();
        let verified = former.fold(verified, |verified, key| {
            verified.or_else(|error| Biscuit::from_base64(token, *key).map_err(|_| error))
        });
        Ok(verified?)
    }
}

/// Restricts a token. Needs no key: whoever holds a token can.
pub fn attenuate(token: &str, restriction: &Restriction) -> Result<String, TokenError> {
    let mut block = BlockBuilder::new();
    if !restriction.rights.is_empty() {
        let rights: BTreeSet<Term> = restriction
            .rights
            .iter()
            .map(|right| Term::Str(right.clone()))
            .collect();
        block = block.merge(block!(
            "check if operation($right), {rights}.contains($right);"
        ));
    }
    if let Some(end) = restriction.expires_at {
        let end = SystemTime::from(end);
        block = block.merge(block!(
            "expires_at({end}); check if time($now), $now < {end};"
        ));
    }
    if let Some(resource) = restriction.resource {
        let resource = resource.to_string();
        block = block.merge(block!("check if resource({resource});"));
    }
    let token = UnverifiedBiscuit::from_base64(token)?;
    let token = token.append(block).map_err(TokenError::Making)?;
    token.to_base64().map_err(TokenError::Making)
}

/// What the token says, part by part, without asking whether it is genuine.
pub fn inspect(token: &str) -> Result<Vec<String>, TokenError> {
    let token = UnverifiedBiscuit::from_base64(token)?;
    let parts = 0..token.block_count();
    Ok(parts
        .map(|part| token.print_block_source(part))
        .collect::<Result<_, _>>()?)
}

fn key_pair(seed: &[u8; 32]) -> Result<KeyPair, TokenError> {
    let key = PrivateKey::from_bytes(seed, Algorithm::Ed25519)
        .map_err(|error| TokenError::Making(error.into()))?;
    Ok(KeyPair::from(&key))
}

fn limited(authorizer: AuthorizerBuilder) -> AuthorizerBuilder {
    authorizer.set_limits(AuthorizerLimits {
        max_time: MAX_EVALUATION,
        ..AuthorizerLimits::default()
    })
}

fn only(ids: Vec<(String,)>) -> Result<String, TokenError> {
    let mut ids = ids.into_iter();
    match (ids.next(), ids.next()) {
        (Some((id,)), None) => Ok(id),
        _ => Err(TokenError::Malformed),
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Authority(redacted)")
    }
}

#[cfg(test)]
#[path = "token_tests.rs"]
mod tests;
