//! The variables as an operator reads about them.

/// Each variable with its meaning; a test holds the list to what is read.
pub const VARIABLES: &[(&str, &str)] = &[
    ("APP_NAME", "the service's name [Prime VPN]"),
    ("DEBUG", "allows missing and weak secrets [false]"),
    (
        "SECRET_KEY",
        "at least 32 characters; keys without a variable are derived from it",
    ),
    (
        "SECRET_KEYS_OLD",
        "what SECRET_KEY was before, the latest first; read until `admin rotate-keys` has run",
    ),
    (
        "JWT_SECRET_KEY",
        "at least 32 characters; signs access tokens",
    ),
    (
        "JWT_ALGORITHM",
        "HS256, or EdDSA with a public key at /.well-known/jwks.json [HS256]",
    ),
    (
        "JWT_PRIVATE_KEY",
        "64 hexadecimal digits; EdDSA's key [derived from JWT_SECRET_KEY]",
    ),
    (
        "ACCESS_TOKEN_EXPIRE_MINUTES",
        "life of an access token [30]",
    ),
    (
        "REFRESH_TOKEN_EXPIRE_DAYS",
        "a session that is not refreshed for so many days ends [30]",
    ),
    (
        "REQUIRE_VERIFIED_EMAIL",
        "a login needs a verified address [false]",
    ),
    ("VERIFICATION_TTL", "life of a verification link [2d]"),
    ("PASSWORD_RESET_TTL", "life of a password reset link [1h]"),
    ("AUDIT_RETENTION", "how long the audit log is kept [365d]"),
    (
        "MAIL_FROM",
        "sender of mails [Prime VPN <noreply@localhost>]",
    ),
    (
        "MAIL_DIR",
        "without SMTP_HOST each mail becomes a file here [mail]",
    ),
    ("SMTP_HOST", "the server that takes our mail"),
    ("SMTP_SECURITY", "starttls, tls or none [starttls]"),
    ("SMTP_PORT", "[587, 465 or 25, as SMTP_SECURITY has it]"),
    (
        "SMTP_USER",
        "with SMTP_PASSWORD, where the server asks for them",
    ),
    ("SMTP_PASSWORD", ""),
    (
        "NODE_ROOT_KEY",
        "64 hexadecimal digits; signs node tokens [derived from SECRET_KEY]",
    ),
    ("NODE_TOKEN_TTL", "life of a node token [24h]"),
    (
        "DATABASE_URL",
        "postgresql://user:password@host:5432/database",
    ),
    ("DATABASE_POOL_SIZE", "connections to Postgres at most [20]"),
    (
        "REDIS_URL",
        "redis://host:6379/0, instead of REDIS_HOST and REDIS_PORT",
    ),
    ("REDIS_HOST", "[127.0.0.1]"),
    ("REDIS_PORT", "[6379]"),
    ("REDIS_POOL_SIZE", "connections to Redis at most [10]"),
    ("HOST", "address of the API [127.0.0.1]"),
    ("PORT", "port of the API [8000]"),
    ("METRICS_HOST", "address for Prometheus [127.0.0.1]"),
    ("METRICS_PORT", "port for Prometheus [9000]"),
    (
        "ALLOWED_HOSTS",
        "host names that are ours; * for any, .example.org for its subdomains [localhost,127.0.0.1,::1]",
    ),
    (
        "PUBLIC_URL",
        "where people reach the service; in links and tokens [http://localhost:8000]",
    ),
    (
        "CORS_ALLOWED_ORIGINS",
        "origins whose pages may call the API []",
    ),
    (
        "HTTPS_ONLY",
        "plain HTTP is turned away; behind a proxy, with TRUSTED_PROXIES [false]",
    ),
    (
        "TRUSTED_PROXIES",
        "networks whose X-Forwarded-* headers are believed []",
    ),
    (
        "TLS_CERT_FILE",
        "PEM file; with TLS_KEY_FILE the API speaks HTTPS",
    ),
    ("TLS_KEY_FILE", "PEM file"),
    (
        "WEB_CONCURRENCY",
        "threads that serve requests [one a core]",
    ),
    (
        "START_TIMEOUT",
        "how long a start waits for Postgres and Redis [60s]",
    ),
    (
        "SHUTDOWN_TIMEOUT",
        "how long a stop waits for requests [10s]",
    ),
    ("AUTO_MIGRATE", "a start runs pending migrations [false]"),
    (
        "VPN_DNS",
        "resolvers that clients are given [1.1.1.1,1.0.0.1]",
    ),
    (
        "CONNECT_ACK_TIMEOUT_MS",
        "how long a connect waits for one node [2000]",
    ),
    (
        "CONNECTION_IDLE_TIMEOUT",
        "a connection without a handshake for so long ends [30m]",
    ),
    (
        "OFFER_LIFETIME",
        "a replacement that its client does not use ends after so long [5m]",
    ),
    (
        "OFFER_AFTER_SILENCE",
        "clients of a node that is silent for so long are offered another server [15s]",
    ),
    ("LOG_FORMAT", "text or json [text]"),
    (
        "RUST_LOG",
        "what is logged, such as info,control_plane=debug [info]",
    ),
];

/// The list as a text, a line a variable.
#[must_use]
pub fn help() -> String {
    let lines = VARIABLES
        .iter()
        .map(|(name, meaning)| format!("  {name:<28}{meaning}"));
    let lines: Vec<_> = lines.collect();
    format!(
        "Variables, from the environment or `.env`:\n{}",
        lines.join("\n")
    )
}
