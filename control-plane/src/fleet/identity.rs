//! Who a node is: Biscuits signed by the plane's Ed25519 root key.
//!
//! Two kinds, told apart by their facts: an enrolment token, which is worth one enrolment, and a
//! node token, which opens sessions until it expires or the node's token epoch grows. Both can be
//! attenuated by their holder; a fact in an attenuation is never believed. Pure: the time comes in.

use std::fmt;
use std::time::SystemTime;

use biscuit_auth::builder::{Algorithm, AuthorizerBuilder, BiscuitBuilder};
use biscuit_auth::macros::{authorizer, biscuit};
use biscuit_auth::{Authorizer, AuthorizerLimits, Biscuit, KeyPair, PrivateKey, PublicKey, error};
use chrono::{DateTime, Duration, Utc};
use shared::ids::ServerId;
use shared::protocol::NodeToken;
use uuid::Uuid;

use crate::config::NodesConfig;
use crate::error::{ApiError, Code};

/// Longest enrolment token life that is signed.
pub const MAX_ENROLMENT_LIFE: Duration = Duration::hours(24);
/// Our own tokens have about 400 characters; more than this was not worth parsing.
const MAX_TOKEN_LENGTH: usize = 4_096;
/// The library's default of one millisecond denies valid tokens on a busy host.
const MAX_EVALUATION: std::time::Duration = std::time::Duration::from_millis(50);

/// The authority that signs and reads tokens.
pub struct Identity {
    root: KeyPair,
    /// Former roots, whose tokens are still read.
    old_roots: Vec<PublicKey>,
    node_token_life: Duration,
}

/// An enrolment token's content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Enrolment {
    pub id: Uuid,
    /// The only host that may use it, where it is bound to one.
    pub hostname: Option<String>,
}

/// A node token's content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeIdentity {
    pub server: ServerId,
    pub epoch: i32,
}

/// Why a token is not accepted.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error("this is not a token")]
    Malformed,
    #[error("the token is signed by another authority")]
    Forged,
    #[error("the token has expired")]
    Expired,
    #[error("the token is of another kind")]
    WrongKind,
    #[error("a restriction that the token carries does not hold")]
    Restricted,
    /// The host was too busy to decide; the token may be good.
    #[error("the token could not be checked in time")]
    Undecided,
    #[error("the token cannot be made: {0}")]
    Signing(error::Token),
}

impl From<IdentityError> for ApiError {
    fn from(error: IdentityError) -> Self {
        let code = match error {
            IdentityError::Undecided => Code::Unavailable,
            IdentityError::Signing(_) => Code::Internal,
            _ => Code::Unauthorized,
        };
        Self::new(code).with_source(error)
    }
}

impl Identity {
    /// Takes the keys and how long node tokens shall live from the configuration.
    pub fn new(config: &NodesConfig) -> Result<Self, IdentityError> {
        Ok(Self {
            root: key_pair(config.root_key())?,
            old_roots: config
                .old_root_keys()
                .map(|seed| Ok(key_pair(seed)?.public()))
                .collect::<Result<_, IdentityError>>()?,
            node_token_life: Duration::from_std(config.token_ttl).unwrap_or(Duration::days(1)),
        })
    }

    /// Signs a token for one enrolment.
    pub fn enrolment_token(
        &self,
        enrolment: &Enrolment,
        expires_at: DateTime<Utc>,
    ) -> Result<String, IdentityError> {
        let id = enrolment.id.to_string();
        let mut token = expiring(biscuit!("enrolment({id});"), expires_at);
        if let Some(hostname) = &enrolment.hostname {
            let hostname = hostname.as_str();
            token = token.merge(biscuit_auth::macros::block!("hostname({hostname});"));
        }
        self.sign(token)
    }

    /// Signs a token for a node's sessions.
    pub fn node_token(
        &self,
        node: NodeIdentity,
        now: DateTime<Utc>,
    ) -> Result<NodeToken, IdentityError> {
        let (server, epoch) = (node.server.to_string(), i64::from(node.epoch));
        let expires_at = now + self.node_token_life;
        let token = expiring(
            biscuit!("node({server}); token_epoch({epoch});"),
            expires_at,
        );
        Ok(NodeToken {
            token: self.sign(token)?,
            expires_at,
        })
    }

    /// Reads an enrolment token. Whether it was used stands in the database.
    pub fn read_enrolment(
        &self,
        token: &str,
        now: DateTime<Utc>,
    ) -> Result<Enrolment, IdentityError> {
        let mut facts = self.authorize(token, now)?;
        let id: Vec<(String,)> = facts.query("data($id) <- enrolment($id)")?;
        let hostname: Vec<(String,)> = facts.query("data($name) <- hostname($name)")?;
        Ok(Enrolment {
            id: only(id)?.parse().map_err(|_| IdentityError::WrongKind)?,
            hostname: hostname.into_iter().next().map(|(name,)| name),
        })
    }

    /// Reads a node token. Whether its epoch is the node's stands in the database.
    pub fn read_node(
        &self,
        token: &str,
        now: DateTime<Utc>,
    ) -> Result<NodeIdentity, IdentityError> {
        let mut facts = self.authorize(token, now)?;
        let server: Vec<(String,)> = facts.query("data($id) <- node($id)")?;
        let epoch: Vec<(i64,)> = facts.query("data($epoch) <- token_epoch($epoch)")?;
        Ok(NodeIdentity {
            server: only(server)?
                .parse()
                .map_err(|_| IdentityError::WrongKind)?,
            epoch: i32::try_from(only(epoch)?).map_err(|_| IdentityError::WrongKind)?,
        })
    }

    fn sign(&self, token: BiscuitBuilder) -> Result<String, IdentityError> {
        let token = token.build(&self.root).map_err(IdentityError::Signing)?;
        token.to_base64().map_err(IdentityError::Signing)
    }

    /// Checks the signature against the present root, then against former ones.
    fn verify(&self, token: &str) -> Result<Biscuit, IdentityError> {
        let verified = Biscuit::from_base64(token, self.root.public());
        let former = self.old_roots.iter();
        let verified = former.fold(verified, |verified, root| {
            verified.or_else(|error| Biscuit::from_base64(token, *root).map_err(|_| error))
        });
        Ok(verified?)
    }

    /// Checks signature and restrictions; what comes back answers for the authority's facts only.
    fn authorize(&self, token: &str, now: DateTime<Utc>) -> Result<Authorizer, IdentityError> {
        if token.len() > MAX_TOKEN_LENGTH {
            return Err(IdentityError::Malformed);
        }
        let token = self.verify(token)?;
        let time = SystemTime::from(now);
        let mut authorizer = limited(authorizer!("time({time}); allow if true;")).build(&token)?;
        match authorizer.authorize() {
            Ok(_) => Ok(authorizer),
            Err(error::Token::FailedLogic(_)) => {
                let expired: Vec<(i64,)> =
                    authorizer.query("data(1) <- expires_at($end), time($now), $now >= $end")?;
                Err(if expired.is_empty() {
                    IdentityError::Restricted
                } else {
                    IdentityError::Expired
                })
            }
            Err(error) => Err(error.into()),
        }
    }
}

fn key_pair(seed: &[u8; 32]) -> Result<KeyPair, IdentityError> {
    let key = PrivateKey::from_bytes(seed, Algorithm::Ed25519)
        .map_err(|error| IdentityError::Signing(error.into()))?;
    Ok(KeyPair::from(&key))
}

fn expiring(token: BiscuitBuilder, expires_at: DateTime<Utc>) -> BiscuitBuilder {
    let end = SystemTime::from(expires_at);
    token.merge(biscuit_auth::macros::block!(
        "expires_at({end}); check if time($now), $now < {end};"
    ))
}

fn limited(authorizer: AuthorizerBuilder) -> AuthorizerBuilder {
    authorizer.set_limits(AuthorizerLimits {
        max_time: MAX_EVALUATION,
        ..AuthorizerLimits::default()
    })
}

fn only<T>(facts: Vec<(T,)>) -> Result<T, IdentityError> {
    let mut facts = facts.into_iter();
    match (facts.next(), facts.next()) {
        (Some((fact,)), None) => Ok(fact),
        _ => Err(IdentityError::WrongKind),
    }
}

impl From<error::Token> for IdentityError {
    fn from(error: error::Token) -> Self {
        use error::Format;
        match error {
            error::Token::RunLimit(_) => Self::Undecided,
            error::Token::Format(
                Format::Signature(_) | Format::SealedSignature | Format::UnknownPublicKey,
            ) => Self::Forged,
            error::Token::Format(_) | error::Token::Base64(_) => Self::Malformed,
            _ => Self::Restricted,
        }
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Identity(redacted)")
    }
}

#[cfg(test)]
mod tests {
    use biscuit_auth::macros::block;
    use rstest::rstest;

    use super::*;
    use crate::config::Config;

    fn with(variables: &[(&str, &str)]) -> Identity {
        let common = [
            ("DEBUG", "true"),
            ("DATABASE_URL", "postgres://localhost/x"),
        ];
        let all = common.iter().chain(variables);
        let variables = all.map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let config = Config::read(&variables.collect()).expect("a configuration");
        Identity::new(&config.nodes).expect("seeds")
    }

    fn identity(seed: u8) -> Identity {
        with(&[("NODE_ROOT_KEY", &hex::encode([seed; 32]))])
    }

    #[test]
    fn a_token_outlives_its_root_key() {
        let (old, new) = ("the secret key of last year", "the secret key of this year");
        let node = NodeIdentity {
            server: ServerId::generate(),
            epoch: 1,
        };
        let token = with(&[("SECRET_KEY", old)])
            .node_token(node, now())
            .unwrap();
        let rotated = with(&[("SECRET_KEY", new), ("SECRET_KEYS_OLD", old)]);
        assert_eq!(rotated.read_node(&token.token, now()).unwrap(), node);
        let forgotten = with(&[("SECRET_KEY", new)]).read_node(&token.token, now());
        assert!(
            matches!(forgotten, Err(IdentityError::Forged)),
            "{forgotten:?}"
        );
        let renewed = rotated.node_token(node, now()).unwrap();
        let read = with(&[("SECRET_KEY", new)]).read_node(&renewed.token, now());
        assert_eq!(read.unwrap(), node);
    }

    fn now() -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000, 0).expect("a time")
    }

    fn node() -> NodeIdentity {
        NodeIdentity {
            server: ServerId(Uuid::from_u128(7)),
            epoch: 3,
        }
    }

    fn node_token(seed: u8) -> String {
        identity(seed)
            .node_token(node(), now())
            .expect("signs")
            .token
    }

    fn enrolment() -> Enrolment {
        Enrolment {
            id: Uuid::from_u128(9),
            hostname: Some("fra1.example.net".to_owned()),
        }
    }

    fn enrolment_token() -> String {
        let end = now() + Duration::minutes(10);
        identity(1)
            .enrolment_token(&enrolment(), end)
            .expect("signs")
    }

    fn attenuated(token: &str, block: biscuit_auth::builder::BlockBuilder) -> String {
        let token = Biscuit::from_base64(token, identity(1).root.public()).expect("ours");
        token
            .append(block)
            .and_then(|token| token.to_base64())
            .expect("attenuates")
    }

    #[test]
    fn reads_what_it_signed() {
        let read = identity(1).read_node(&node_token(1), now());
        assert_eq!(read.expect("valid"), node());
        let read = identity(1).read_enrolment(&enrolment_token(), now());
        assert_eq!(read.expect("valid"), enrolment());
    }

    #[test]
    fn an_unbound_enrolment_names_no_host() {
        let unbound = Enrolment {
            hostname: None,
            ..enrolment()
        };
        let token = identity(1).enrolment_token(&unbound, now() + Duration::minutes(1));
        let read = identity(1).read_enrolment(&token.expect("signs"), now());
        assert_eq!(read.expect("valid"), unbound);
    }

    #[test]
    fn a_node_token_ends_after_its_life() {
        let last = now() + Duration::days(1) - Duration::seconds(1);
        assert!(identity(1).read_node(&node_token(1), last).is_ok());
        let over = identity(1).read_node(&node_token(1), now() + Duration::days(1));
        assert!(matches!(over, Err(IdentityError::Expired)));
    }

    #[test]
    fn an_attenuation_restricts_and_grants_nothing() {
        let token = attenuated(&node_token(1), block!("check if token_epoch(3);"));
        assert_eq!(identity(1).read_node(&token, now()).expect("valid"), node());

        let token = attenuated(&node_token(1), block!("check if token_epoch(4);"));
        let read = identity(1).read_node(&token, now());
        assert!(matches!(read, Err(IdentityError::Restricted)), "{read:?}");

        let other = Uuid::from_u128(8).to_string();
        let token = attenuated(&node_token(1), block!("node({other}); token_epoch(9);"));
        assert_eq!(identity(1).read_node(&token, now()).expect("valid"), node());
    }

    #[rstest]
    #[case::empty(String::new(), "Malformed")]
    #[case::garbage("garbage".to_owned(), "Malformed")]
    #[case::not_base64("ä".repeat(40), "Malformed")]
    #[case::huge("A".repeat(MAX_TOKEN_LENGTH + 1), "Malformed")]
    #[case::cut_short(node_token(1)[..100].to_owned(), "Malformed")]
    #[case::forged(node_token(2), "Forged")]
    #[case::wrong_kind(enrolment_token(), "WrongKind")]
    fn refuses(#[case] token: String, #[case] reason: &str) {
        let error = identity(1).read_node(&token, now()).expect_err("refused");
        assert_eq!(format!("{error:?}"), reason);
    }

    #[test]
    fn a_node_token_does_not_enrol() {
        let error = identity(1).read_enrolment(&node_token(1), now());
        assert!(matches!(error, Err(IdentityError::WrongKind)));
    }

    #[test]
    fn a_flipped_signature_is_never_accepted() {
        let token = node_token(1);
        let flipped: String = token
            .char_indices()
            .map(|(at, c)| match (at, c) {
                (60, 'A') => 'B',
                (60, _) => 'A',
                (_, c) => c,
            })
            .collect();
        assert!(identity(1).read_node(&flipped, now()).is_err());
    }

    #[test]
    fn the_key_is_not_printed() {
        assert_eq!(format!("{:?}", identity(1)), "Identity(redacted)");
    }
}
