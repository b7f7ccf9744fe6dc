//! What a token has to be, and what gets nobody in.

use rstest::rstest;

use super::*;

const SECRET: &str = "a secret for the tests of this module";

const SEED: [u8; 32] = [7; 32];

fn issuer(secret: &str) -> TokenIssuer {
    build(Algorithm::HS256, secret, SEED)
}

fn eddsa(seed: [u8; 32]) -> TokenIssuer {
    build(Algorithm::EdDSA, SECRET, seed)
}

fn build(algorithm: Algorithm, secret: &str, seed: [u8; 32]) -> TokenIssuer {
    let config = TokensConfig {
        secret: SecretString::from(secret),
        private_key: Zeroizing::new(seed).into(),
        algorithm,
        access_token_life: Duration::from_secs(60),
        refresh_token_life: Duration::from_secs(600),
    };
    TokenIssuer::new(&config).unwrap()
}

fn issued(issuer: &TokenIssuer) -> String {
    let (user, session) = (UserId::generate(), SessionId::generate());
    let token = issuer.issue(user, Role::User, session, Utc::now()).unwrap();
    token.token.expose_secret().to_owned()
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
fn a_token_that_was_good_is_not_good_for_ever() {
    let issuer = issuer(SECRET);
    let token = issued(&issuer);
    let claims = issuer.verify(&token).unwrap();
    assert_eq!(issuer.verify(&token).unwrap(), claims);
    let expires_at = Utc::now();
    let over = Claims {
        expires_at,
        ..claims
    };
    issuer.good.insert(token.as_bytes().into(), over);
    assert!(matches!(issuer.verify(&token), Err(TokenError::Expired)));
}

#[test]
fn what_is_no_token_is_not_remembered() {
    let issuer = issuer(SECRET);
    let token = issued(&issuer);
    let changed = format!("{token}A");
    for _ in 0..2 {
        assert!(matches!(issuer.verify(&changed), Err(TokenError::Invalid)));
    }
    issuer.verify(&token).unwrap();
    assert_eq!(issuer.good.len(), 1);
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

/// The first two parts of a token.
fn unsigned(header: &str, claims: &Value) -> String {
    let encode = |text: &str| BASE64_URL_SAFE_NO_PAD.encode(text);
    format!("{}.{}", encode(header), encode(&claims.to_string()))
}

fn ed25519_public(seed: [u8; 32]) -> Vec<u8> {
    let pair = Ed25519KeyPair::from_seed_unchecked(&seed).unwrap();
    pair.public_key().as_ref().to_vec()
}

fn ed25519_signed(header: &Header, seed: [u8; 32]) -> String {
    let der = [PKCS8_PREFIX.as_slice(), &seed].concat();
    jsonwebtoken::encode(header, &claims(), &EncodingKey::from_ed_der(&der)).unwrap()
}

#[test]
fn an_eddsa_token_is_checked_with_the_published_key_alone() {
    let issuer = eddsa(SEED);
    let token = issued(&issuer);
    assert!(issuer.verify(&token).is_ok());

    let jwks = issuer.jwks();
    let jwk: jsonwebtoken::jwk::JwkSet = serde_json::from_value(jwks.clone()).unwrap();
    let header = jsonwebtoken::decode_header(&token).unwrap();
    let jwk = jwk.find(header.kid.as_deref().unwrap()).unwrap();
    let key = DecodingKey::from_jwk(jwk).unwrap();
    assert!(jsonwebtoken::decode::<WireClaims>(&token, &key, &issuer.validation).is_ok());
    assert!(jwks["keys"][0].get("d").is_none(), "no private part");
}

/// The key, and its thumbprint, of RFC 8037's appendix A.
#[test]
fn a_key_is_named_by_its_thumbprint() {
    let seed = BASE64_URL_SAFE_NO_PAD.decode("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A");
    let issuer = eddsa(seed.unwrap().try_into().unwrap());
    let key = &issuer.jwks()["keys"][0];
    assert_eq!(key["x"], "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo");
    assert_eq!(key["kid"], "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
}

#[test]
fn a_shared_secret_publishes_nothing() {
    assert_eq!(issuer(SECRET).jwks(), json!({ "keys": [] }));
}

#[test]
fn the_public_key_is_no_secret() {
    let issuer = eddsa(SEED);
    let jwk = issuer.jwks()["keys"][0].to_string();
    let x = issuer.jwks()["keys"][0]["x"].as_str().unwrap().to_owned();
    for secret in [ed25519_public(SEED), x.into_bytes(), jwk.into_bytes()] {
        let key = EncodingKey::from_secret(&secret);
        let mut header = Header::new(Algorithm::HS256);
        header.kid.clone_from(&issuer.header.kid);
        let token = jsonwebtoken::encode(&header, &claims(), &key).unwrap();
        assert!(matches!(issuer.verify(&token), Err(TokenError::Invalid)));
        // The same signature under a header that says what is expected.
        let (_, rest) = token.split_once('.').unwrap();
        let relabelled = serde_json::to_string(&issuer.header).unwrap();
        let token = format!("{}.{rest}", BASE64_URL_SAFE_NO_PAD.encode(relabelled));
        assert!(matches!(issuer.verify(&token), Err(TokenError::Invalid)));
    }
}

#[test]
fn neither_algorithm_takes_the_others_tokens() {
    let (hs256, eddsa) = (issuer(SECRET), eddsa(SEED));
    for (issuer, token) in [(&hs256, issued(&eddsa)), (&eddsa, issued(&hs256))] {
        assert!(matches!(issuer.verify(&token), Err(TokenError::Invalid)));
    }
}

#[test]
fn another_key_or_key_id_is_refused() {
    let issuer = eddsa(SEED);
    assert!(issuer.verify(&ed25519_signed(&issuer.header, SEED)).is_ok());
    let mut header = issuer.header.clone();
    for kid in [None, Some("another".to_owned()), eddsa([8; 32]).header.kid] {
        header.kid = kid;
        let result = issuer.verify(&ed25519_signed(&header, SEED));
        assert!(matches!(result, Err(TokenError::Invalid)), "{result:?}");
    }
    let result = issuer.verify(&ed25519_signed(&issuer.header, [8; 32]));
    assert!(matches!(result, Err(TokenError::Invalid)), "{result:?}");
}

#[rstest]
fn the_header_chooses_nothing(
    #[values("none", "None", "RS256", "ES256", "PS256", "HS384", "bogus")] algorithm: &str,
    #[values(Algorithm::HS256, Algorithm::EdDSA)] pinned: Algorithm,
) {
    let issuer = build(pinned, SECRET, SEED);
    let mut header = json!({ "alg": algorithm, "typ": "JWT" });
    if let Some(kid) = &issuer.header.kid {
        header["kid"] = kid.as_str().into();
    }
    let token = issued(&issuer);
    let (_, signature) = token.rsplit_once('.').unwrap();
    for signature in ["", signature] {
        let forged = format!("{}.{signature}", unsigned(&header.to_string(), &claims()));
        assert!(matches!(issuer.verify(&forged), Err(TokenError::Invalid)));
    }
}
