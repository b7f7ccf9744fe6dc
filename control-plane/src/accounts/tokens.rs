//! Access tokens: signed, short-lived, read without a query.
//!
//! The algorithm is pinned by the configuration. A token's own header is compared with it and never
//! followed, so that neither `none` nor a public key used as a secret gets anybody in.

use std::fmt;
use std::time::Duration;

use chrono::{DateTime, Utc};
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{DecodingKey, EncodingKey, Header, Validation};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use shared::ids::UserId;
use uuid::Uuid;

use super::{Role, SessionId};
use crate::config::TokensConfig;
use crate::error::{ApiError, Code};

const ISSUER: &str = "prime-vpn";
const AUDIENCE: &str = "prime-vpn-api";

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
}

impl From<TokenError> for ApiError {
    fn from(error: TokenError) -> Self {
        match error {
            TokenError::Expired => Self::new(Code::TokenExpired),
            TokenError::Invalid => Self::new(Code::Unauthorized),
            TokenError::Signing(_) => Self::internal(error),
        }
    }
}

/// Signs and verifies access tokens.
pub struct TokenIssuer {
    header: Header,
    validation: Validation,
    signing: EncodingKey,
    verifying: DecodingKey,
    life: Duration,
}

impl TokenIssuer {
    #[must_use]
    pub fn new(config: &TokensConfig) -> Self {
        let secret = config.secret.expose_secret().as_bytes();
        let mut validation = Validation::new(config.algorithm);
        validation.leeway = 0;
        validation.set_issuer(&[ISSUER]);
        validation.set_audience(&[AUDIENCE]);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        Self {
            header: Header::new(config.algorithm),
            validation,
            signing: EncodingKey::from_secret(secret),
            verifying: DecodingKey::from_secret(secret),
            life: config.access_token_life,
        }
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

    pub fn verify(&self, token: &str) -> Result<Claims, TokenError> {
        let claims = jsonwebtoken::decode::<WireClaims>(token, &self.verifying, &self.validation)
            .map_err(|error| match error.kind() {
                ErrorKind::ExpiredSignature => TokenError::Expired,
                _ => TokenError::Invalid,
            })?
            .claims;
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
mod tests {
    use base64::Engine;
    use base64::prelude::BASE64_URL_SAFE_NO_PAD;
    use jsonwebtoken::Algorithm;
    use rstest::rstest;
    use serde_json::{Value, json};

    use super::*;

    const SECRET: &str = "a secret for the tests of this module";

    fn issuer(secret: &str) -> TokenIssuer {
        TokenIssuer::new(&TokensConfig {
            secret: SecretString::from(secret),
            algorithm: Algorithm::HS256,
            access_token_life: Duration::from_secs(60),
            refresh_token_life: Duration::from_secs(600),
        })
    }

    fn claims() -> Value {
        json!({
            "iss": ISSUER, "aud": AUDIENCE, "sub": Uuid::nil(), "jti": Uuid::nil(), "role": "user", "sid": Uuid::nil(),
            "iat": Utc::now().timestamp(), "exp": Utc::now().timestamp() + 60,
        })
    }

    fn signed(claims: &Value, algorithm: Algorithm) -> String {
        let key = EncodingKey::from_secret(SECRET.as_bytes());
        jsonwebtoken::encode(&Header::new(algorithm), claims, &key).unwrap()
    }

    #[test]
    fn what_was_issued_comes_back() {
        let issuer = issuer(SECRET);
        let user = UserId::generate();
        let now = Utc::now();
        let session = SessionId::generate();
        let token = issuer.issue(user, Role::Admin, session, now).unwrap().token;
        let claims = issuer.verify(token.expose_secret()).unwrap();
        assert_eq!(
            (claims.user, claims.role, claims.session),
            (user, Role::Admin, session)
        );
        assert_eq!(claims.expires_at.timestamp(), now.timestamp() + 60);
    }

    #[test]
    fn the_hand_made_token_of_these_tests_is_good() {
        assert!(
            issuer(SECRET)
                .verify(&signed(&claims(), Algorithm::HS256))
                .is_ok()
        );
    }

    #[test]
    fn two_tokens_differ() {
        let issue = || {
            let token = issuer(SECRET).issue(
                UserId::generate(),
                Role::User,
                SessionId::generate(),
                Utc::now(),
            );
            issuer(SECRET)
                .verify(token.unwrap().token.expose_secret())
                .unwrap()
                .token
        };
        assert_ne!(issue(), issue());
    }

    #[test]
    fn an_old_token_has_expired() {
        let issuer = issuer(SECRET);
        let long_ago = Utc::now() - Duration::from_secs(61);
        let token = issuer
            .issue(
                UserId::generate(),
                Role::User,
                SessionId::generate(),
                long_ago,
            )
            .unwrap()
            .token;
        assert!(matches!(
            issuer.verify(token.expose_secret()),
            Err(TokenError::Expired)
        ));
    }

    #[test]
    fn another_key_is_refused() {
        let token = issuer("another secret").issue(
            UserId::generate(),
            Role::User,
            SessionId::generate(),
            Utc::now(),
        );
        let result = issuer(SECRET).verify(token.unwrap().token.expose_secret());
        assert!(matches!(result, Err(TokenError::Invalid)));
    }

    #[rstest]
    #[case::issuer("iss", json!("somebody-else"))]
    #[case::audience("aud", json!("another-api"))]
    #[case::subject("sub", json!("not-a-uuid"))]
    #[case::role("role", json!("emperor"))]
    #[case::session("sid", json!("not-a-uuid"))]
    #[case::expiry("exp", Value::Null)]
    #[case::no_end("exp", json!(i64::MAX))]
    fn a_wrong_claim_is_refused(#[case] name: &str, #[case] value: Value) {
        let mut claims = claims();
        claims[name] = value;
        let result = issuer(SECRET).verify(&signed(&claims, Algorithm::HS256));
        assert!(matches!(result, Err(TokenError::Invalid)), "{result:?}");
    }

    #[rstest]
    fn a_missing_claim_is_refused(
        #[values("iss", "aud", "sub", "jti", "role", "sid", "exp")] name: &str,
    ) {
        let mut claims = claims();
        claims.as_object_mut().unwrap().remove(name);
        let result = issuer(SECRET).verify(&signed(&claims, Algorithm::HS256));
        assert!(matches!(result, Err(TokenError::Invalid)), "{result:?}");
    }

    #[test]
    fn another_algorithm_of_the_same_family_is_refused() {
        let result = issuer(SECRET).verify(&signed(&claims(), Algorithm::HS512));
        assert!(matches!(result, Err(TokenError::Invalid)));
    }

    #[rstest]
    #[case(r#"{"alg":"none","typ":"JWT"}"#)]
    #[case(r#"{"alg":"None"}"#)]
    #[case(r#"{"typ":"JWT"}"#)]
    fn an_unsigned_token_is_refused(#[case] header: &str) {
        let encode = |text: &str| BASE64_URL_SAFE_NO_PAD.encode(text);
        let token = format!("{}.{}.", encode(header), encode(&claims().to_string()));
        assert!(matches!(
            issuer(SECRET).verify(&token),
            Err(TokenError::Invalid)
        ));
    }

    #[rstest]
    #[case("")]
    #[case("a.b.c")]
    #[case("...")]
    fn noise_is_refused(#[case] token: &str) {
        assert!(matches!(
            issuer(SECRET).verify(token),
            Err(TokenError::Invalid)
        ));
    }

    #[test]
    fn no_key_is_shown() {
        assert!(!format!("{:?}", issuer(SECRET)).contains("secret"));
    }
}
