use std::collections::BTreeSet;
use std::time::Duration;

use rstest::rstest;
use secrecy::ExposeSecret;

use super::*;

const SECRET: &str = "0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a69788796a5b4c3d2e1f0";

fn minimal() -> Variables {
    variables(&[
        ("DATABASE_URL", "postgresql+asyncpg://vpn:hunter2@db/vpn"),
        ("SECRET_KEY", SECRET),
        ("JWT_SECRET_KEY", SECRET),
    ])
}

fn variables(pairs: &[(&str, &str)]) -> Variables {
    pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

fn with(extra: &[(&str, &str)]) -> Variables {
    let mut all = minimal();
    all.extend(variables(extra));
    all
}

fn problems(variables: &Variables) -> Vec<String> {
    let error = Config::read(variables).expect_err("must be refused");
    error
        .problems()
        .iter()
        .map(|problem| problem.name.clone())
        .collect()
}

#[test]
fn three_variables_are_enough() {
    let config = Config::read(&minimal()).unwrap();
    assert_eq!(
        config.database.url.expose_secret(),
        "postgresql://vpn:hunter2@db/vpn"
    );
    assert_eq!(config.redis.url.expose_secret(), "redis://127.0.0.1:6379/0");
    assert_eq!(config.http.port, 8000);
    assert_eq!(config.vpn.dns.len(), 2);
    assert_eq!(config.vpn.connect_ack_timeout, Duration::from_secs(2));
    assert_eq!(config.nodes.token_ttl, Duration::from_secs(86_400));
    assert_eq!(config.tokens.access_token_life, Duration::from_secs(1800));
}

#[test]
fn every_given_value_is_used() {
    let config = Config::read(&with(&[
        ("APP_NAME", "Other"),
        ("HOST", "::"),
        ("PORT", "0"),
        ("ALLOWED_HOSTS", r#"["Api.Example.org", ".example.net"]"#),
        ("REDIS_HOST", "cache"),
        ("REDIS_PORT", "6380"),
        ("VPN_DNS", "10.0.0.1, fd00::1"),
        ("CONNECT_ACK_TIMEOUT_MS", "750"),
        ("CONNECTION_IDLE_TIMEOUT", "180"),
        ("NODE_TOKEN_TTL", "12h"),
        ("ACCESS_TOKEN_EXPIRE_MINUTES", "5"),
        ("LOG_FORMAT", "json"),
        ("WEB_CONCURRENCY", "3"),
    ]))
    .unwrap();
    assert_eq!(config.app.name, "Other");
    assert_eq!(config.http.host, "::".parse::<std::net::IpAddr>().unwrap());
    assert_eq!(config.http.port, 0);
    assert_eq!(
        config.http.allowed_hosts,
        ["api.example.org", ".example.net"]
    );
    assert_eq!(config.http.workers, 3);
    assert_eq!(config.redis.url.expose_secret(), "redis://cache:6380/0");
    assert_eq!(config.vpn.dns.last().unwrap().to_string(), "fd00::1");
    assert_eq!(config.vpn.connect_ack_timeout, Duration::from_millis(750));
    assert_eq!(config.vpn.connection_idle_timeout, Duration::from_secs(180));
    assert_eq!(config.nodes.token_ttl, Duration::from_secs(12 * 3600));
    assert_eq!(config.tokens.access_token_life, Duration::from_secs(300));
    assert_eq!(config.logging.format, LogFormat::Json);
}

#[rstest]
#[case("DEBUG", "perhaps")]
#[case("DATABASE_URL", "mysql://root@db/vpn")]
#[case("REDIS_URL", "http://cache")]
#[case("REDIS_PORT", "70000")]
#[case("DATABASE_POOL_SIZE", "0")]
#[case("HOST", "localhost")]
#[case("PORT", "-1")]
#[case("METRICS_PORT", "x")]
#[case("JWT_ALGORITHM", "none")]
#[case("JWT_ALGORITHM", "RS256")]
#[case("ACCESS_TOKEN_EXPIRE_MINUTES", "0")]
#[case("VPN_DNS", "1.1.1.1,dns.example.org")]
#[case("CONNECT_ACK_TIMEOUT_MS", "0")]
#[case("CONNECTION_IDLE_TIMEOUT", "soon")]
#[case("REFRESH_TOKEN_EXPIRE_DAYS", "0")]
#[case("PUBLIC_URL", "vpn.example.org")]
#[case("PUBLIC_URL", "https://vpn.example.org/app")]
#[case("CORS_ALLOWED_ORIGINS", "*")]
#[case("CORS_ALLOWED_ORIGINS", "https://a.example.org,null")]
#[case("TRUSTED_PROXIES", "10.0.0.0/33")]
#[case("HTTPS_ONLY", "maybe")]
#[case("PROXY_PROTOCOL", "v2")]
#[case("MAX_CONNECTIONS", "0")]
#[case("CONNECTIONS_PER_ADDRESS", "many")]
#[case("REQUEST_HEAD_TIMEOUT", "0")]
#[case("REQUEST_BODY_TIMEOUT", "soon")]
#[case("SEND_TIMEOUT", "-1s")]
#[case("MAIL_FROM", "nobody")]
#[case("STRIPE_SECRET_KEY", "pk_live_0")]
#[case("STRIPE_SECRET_KEY", "sk_your-key")]
#[case("STRIPE_API_BASE", "api.stripe.com")]
#[case("STRIPE_API_BASE", "http://api.stripe.com")]
#[case("STRIPE_API_BASE", "http://127.0.0.1.example.org:80")]
#[case("STRIPE_API_VERSION", "2025 acacia")]
#[case("STRIPE_TIMEOUT", "0")]
#[case("STRIPE_WEBHOOK_TOLERANCE", "soon")]
#[case("CHECKOUT_REDIRECT_HOSTS", "https://app.example.org")]
#[case("CHECKOUT_REDIRECT_HOSTS", "app.example.org:8443")]
#[case("SMTP_SECURITY", "ssl3")]
#[case("SMTP_PORT", "smtp")]
#[case("AUDIT_RETENTION", "0")]
#[case("USAGE_HOURS_RETENTION", "0")]
#[case("USAGE_DAYS_RETENTION", "always")]
#[case("NODE_ROOT_KEY", "abcd")]
#[case("NODE_TOKEN_TTL", "1 fortnight")]
#[case("LOG_FORMAT", "xml")]
#[case("WEB_CONCURRENCY", "0")]
#[case("SECRET_KEY", "short")]
#[case("SECRET_KEY", "your-secret-key-of-more-than-32-characters")]
#[case("JWT_SECRET_KEY", "00000000000000000000000000000000")]
#[case("JWT_SECRET_KEY", "")]
fn a_wrong_value_is_named(#[case] name: &str, #[case] value: &str) {
    let mut all = with(&[(name, value)]);
    if name == "STRIPE_SECRET_KEY" {
        all.extend(variables(&[("STRIPE_WEBHOOK_SECRET", "whsec_0")]));
    }
    assert_eq!(problems(&all), [name]);
}

#[rstest]
#[case("STRIPE_SECRET_KEY", "STRIPE_WEBHOOK_SECRET")]
#[case("STRIPE_WEBHOOK_SECRET", "STRIPE_SECRET_KEY")]
fn half_of_payments_is_refused(#[case] given: &str, #[case] missing: &str) {
    assert_eq!(problems(&with(&[(given, "sk_live_0")])), [missing]);
}

#[test]
fn payments_are_read() {
    let config = Config::read(&with(&[
        ("STRIPE_SECRET_KEY", "sk_live_0"),
        ("STRIPE_WEBHOOK_SECRET", "whsec_1, whsec_2"),
        ("STRIPE_API_BASE", "http://127.0.0.1:12111/"),
        ("STRIPE_MONTHLY_PRICE_ID", "price_1"),
        ("STRIPE_WEBHOOK_TOLERANCE", "60"),
    ]))
    .unwrap();
    let stripe = config.stripe;
    assert_eq!(stripe.secret_key.unwrap().expose_secret(), "sk_live_0");
    assert_eq!(stripe.webhook_secrets.len(), 2);
    assert_eq!(stripe.api_base, "http://127.0.0.1:12111");
    assert_eq!(stripe.monthly_price.as_deref(), Some("price_1"));
    assert_eq!(stripe.yearly_price, None);
    assert_eq!(stripe.webhook_tolerance, Duration::from_secs(60));
}

#[rstest]
#[case("TLS_CERT_FILE", "TLS_KEY_FILE")]
#[case("TLS_KEY_FILE", "TLS_CERT_FILE")]
fn half_of_tls_is_refused(#[case] given: &str, #[case] missing: &str) {
    assert_eq!(problems(&with(&[(given, "/etc/x.pem")])), [missing]);
}

#[rstest]
#[case("SMTP_USER", "SMTP_PASSWORD")]
#[case("SMTP_PASSWORD", "SMTP_USER")]
fn half_of_a_mail_login_is_refused(#[case] given: &str, #[case] missing: &str) {
    assert_eq!(problems(&with(&[(given, "x")])), [missing]);
}

#[test]
fn a_proxy_header_is_believed_of_named_proxies_only() {
    let on = ("PROXY_PROTOCOL", "true");
    assert_eq!(problems(&with(&[on])), ["TRUSTED_PROXIES"]);
    let config = Config::read(&with(&[on, ("TRUSTED_PROXIES", "10.0.0.0/8")]));
    assert!(config.unwrap().listener.proxy_protocol);
}

#[test]
fn origins_and_proxies_are_read() {
    let config = Config::read(&with(&[
        ("PUBLIC_URL", "https://vpn.example.org/"),
        (
            "CORS_ALLOWED_ORIGINS",
            "https://app.example.org, http://localhost:3000",
        ),
        ("TRUSTED_PROXIES", "10.0.0.0/8,::1"),
    ]))
    .unwrap();
    assert_eq!(config.http.public_url, "https://vpn.example.org");
    assert_eq!(
        config.http.cors_allowed_origins,
        ["https://app.example.org", "http://localhost:3000"]
    );
    assert_eq!(config.http.trusted_proxies.len(), 2);
    assert_eq!(
        config.stripe.redirect_hosts,
        ["app.example.org", "localhost", "vpn.example.org"]
    );
    let named = ("CHECKOUT_REDIRECT_HOSTS", "Pay.example.org, localhost");
    let config = Config::read(&with(&[named])).unwrap();
    assert_eq!(
        config.stripe.redirect_hosts,
        ["pay.example.org", "localhost"]
    );
}

#[test]
fn everything_wrong_is_named_at_once() {
    let named = problems(&variables(&[("PORT", "x"), ("LOG_FORMAT", "x")]));
    assert_eq!(
        named,
        [
            "SECRET_KEY",
            "DATABASE_URL",
            "PORT",
            "JWT_SECRET_KEY",
            "LOG_FORMAT"
        ]
    );
}

#[test]
fn debug_runs_without_secrets() {
    let config = Config::read(&variables(&[
        ("DEBUG", "true"),
        ("DATABASE_URL", "postgres://postgres@localhost/vpn"),
    ]));
    assert!(config.unwrap().app.debug);
}

#[test]
fn no_secret_is_shown() {
    let seed = "aa".repeat(32);
    let config = Config::read(&with(&[
        ("NODE_ROOT_KEY", &seed),
        ("REDIS_URL", "redis://:hunter2@cache/0"),
        ("SECRET_KEYS_OLD", "hunter2"),
        ("SMTP_HOST", "mail"),
        ("SMTP_USER", "anna"),
        ("SMTP_PASSWORD", "hunter2"),
        ("STRIPE_SECRET_KEY", "sk_live_hunter2"),
        ("STRIPE_WEBHOOK_SECRET", "whsec_hunter2"),
    ]))
    .unwrap();
    let shown = format!("{config:?} {:?}", config.settings());
    for secret in [SECRET, "hunter2", &seed, "170, 170"] {
        assert!(!shown.contains(secret), "{secret} in {shown}");
    }
}

#[test]
fn a_wrong_secret_is_not_repeated_in_the_message() {
    let error = Config::read(&with(&[
        ("DATABASE_URL", "mysql://root:hunter2@db/vpn"),
        ("NODE_ROOT_KEY", "hunter2"),
        ("JWT_PRIVATE_KEY", "hunter2"),
        ("SECRET_KEY", "hunter2"),
        ("REDIS_URL", "http://:hunter2@cache"),
        ("STRIPE_SECRET_KEY", "hunter2"),
    ]))
    .expect_err("must be refused");
    assert!(!error.to_string().contains("hunter2"), "{error}");
}

#[test]
fn the_root_key_follows_the_secret_unless_given() {
    let key = |extra: &[(&str, &str)]| *Config::read(&with(extra)).unwrap().nodes.root_key();
    let other = "f".repeat(31) + "e0f1d2";
    assert_eq!(key(&[]), key(&[]));
    assert_ne!(key(&[]), key(&[("SECRET_KEY", &other)]));
    assert_eq!(key(&[("NODE_ROOT_KEY", &"07".repeat(32))]), [7; 32]);
}

#[test]
fn the_signing_key_follows_its_secret_unless_given() {
    let key = |extra: &[(&str, &str)]| {
        *Config::read(&with(extra))
            .unwrap()
            .tokens
            .private_key
            .expose()
    };
    let other = "f".repeat(31) + "e0f1d2";
    assert_eq!(key(&[]), key(&[]));
    assert_ne!(key(&[]), key(&[("JWT_SECRET_KEY", &other)]));
    assert_eq!(key(&[("JWT_PRIVATE_KEY", &"07".repeat(32))]), [7; 32]);
}

#[test]
fn the_help_names_what_is_read() {
    let read = |variables: &Variables| -> BTreeSet<&str> {
        let config = Config::read(variables).unwrap();
        config
            .settings()
            .iter()
            .map(|setting| setting.name)
            .collect()
    };
    let by_url = with(&[("REDIS_URL", "redis://cache")]);
    let read: BTreeSet<_> = read(&minimal()).union(&read(&by_url)).copied().collect();
    let named: BTreeSet<_> = VARIABLES.iter().map(|(name, _)| *name).collect();
    assert_eq!(read, named);
    assert_eq!(named.len(), VARIABLES.len(), "one is named twice");
}
