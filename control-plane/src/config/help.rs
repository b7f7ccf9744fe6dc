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
        "PROXY_PROTOCOL",
        "connections come from TRUSTED_PROXIES alone and begin with a PROXY header, version 1 or 2 [false]",
    ),
    (
        "MAX_CONNECTIONS",
        "connections of all clients of one process at once [25000, or what descriptors allow]",
    ),
    (
        "CONNECTIONS_PER_ADDRESS",
        "of one address at once, except TRUSTED_PROXIES and DDOS_WHITELIST_IPS [200]",
    ),
    (
        "REQUEST_HEAD_TIMEOUT",
        "how long a client may take for a handshake, a PROXY header or a request's head [10s]",
    ),
    (
        "REQUEST_BODY_TIMEOUT",
        "how long it may take for a request's body [10s]",
    ),
    (
        "SEND_TIMEOUT",
        "a connection whose other side takes nothing for so long ends [30s]",
    ),
    ("RATE_LIMIT_ENABLED", "limits the rate of requests [true]"),
    (
        "RATE_LIMIT_LOGIN",
        "requests/window+burst of one address and of one user [5/5m+2]",
    ),
    ("RATE_LIMIT_REGISTER", "the same for new accounts [3/1h+1]"),
    (
        "RATE_LIMIT_PASSWORD_RESET",
        "the same for whatever sends a mail on request [3/1h+1]",
    ),
    ("RATE_LIMIT_CONNECT", "the same for connecting [20/1m+5]"),
    (
        "RATE_LIMIT_DISCONNECT",
        "the same for disconnecting [30/1m+10]",
    ),
    ("RATE_LIMIT_PAYMENTS", "the same for payments [10/5m+3]"),
    (
        "RATE_LIMIT_WEBSOCKET",
        "the same for opening a WebSocket [5/1m+2]",
    ),
    (
        "RATE_LIMIT_DEFAULT",
        "the same for everything else [60/1m+20]",
    ),
    ("RATE_LIMIT_NODE", "the budget of one VPN host [120/1m+60]"),
    (
        "RATE_LIMIT_WEBHOOK",
        "the budget of Stripe's webhook [1200/1m+300]",
    ),
    (
        "RATE_LIMIT_HEALTH",
        "the budget of health checks [600/1m+100]",
    ),
    (
        "RATE_LIMIT_ACCOUNT_LOGIN",
        "tries of one account's password from one address [10/15m]",
    ),
    (
        "RATE_LIMIT_ACCOUNT_STRANGERS",
        "the same from all addresses together where it never logged in [50/1h]",
    ),
    (
        "RATE_LIMIT_ADAPTIVE",
        "limits tighten by steps while the host is loaded [true]",
    ),
    (
        "RATE_LIMIT_REDIS_TIMEOUT_MS",
        "how long a request waits for Redis before its process decides alone [50]",
    ),
    (
        "IP_RATE_LIMIT",
        "requests a minute of one address over all endpoints [100]",
    ),
    (
        "GLOBAL_RATE_LIMIT",
        "requests a minute of all callers together who show no valid token [1000]",
    ),
    (
        "DDOS_PROTECTION_ENABLED",
        "bans floods and guessing, and keeps bans [true]",
    ),
    (
        "DDOS_THRESHOLD",
        "requests a minute beyond which an address is banned [500]",
    ),
    ("DDOS_BAN_DURATION", "for how long [1h]"),
    (
        "DDOS_WHITELIST_IPS",
        "addresses and networks that are neither limited, banned nor refused by country [127.0.0.1,::1]",
    ),
    (
        "SUSPICIOUS_ACTIVITY_THRESHOLD",
        "failures of an address beyond which it is banned [50]",
    ),
    ("SUSPICIOUS_ACTIVITY_WINDOW", "within this time [5m]"),
    ("SUSPICIOUS_ACTIVITY_BAN", "for how long [30m]"),
    (
        "COUNTRY_DB_FILE",
        "MMDB file that knows the countries of addresses; with COUNTRY_DENY or COUNTRY_ALLOW",
    ),
    (
        "COUNTRY_DENY",
        "codes of the countries that are refused, such as KP,IR",
    ),
    (
        "COUNTRY_ALLOW",
        "codes of the only countries that are not refused",
    ),
    (
        "COUNTRY_UNKNOWN",
        "allow or deny: addresses whose country the file does not know [allow]",
    ),
    (
        "ALERT_EMAILS",
        "operators who get a mail when an attack begins, separated by commas []",
    ),
    (
        "ALERT_REFUSED_PER_MINUTE",
        "refusals by limits, of one process, beyond which it is an attack [600]",
    ),
    (
        "STRIPE_SECRET_KEY",
        "the account's secret or restricted key; without it there are no payments",
    ),
    (
        "STRIPE_WEBHOOK_SECRET",
        "what /payments/webhook's events are signed with; several while one replaces another",
    ),
    (
        "STRIPE_MONTHLY_PRICE_ID",
        "Stripe's price of premium_monthly where the plan has none",
    ),
    (
        "STRIPE_YEARLY_PRICE_ID",
        "Stripe's price of premium_yearly where the plan has none",
    ),
    (
        "STRIPE_API_BASE",
        "where Stripe is called [https://api.stripe.com]",
    ),
    (
        "STRIPE_API_VERSION",
        "the version of Stripe's API that is asked for [2025-02-24.acacia]",
    ),
    (
        "STRIPE_TIMEOUT",
        "how long one attempt of a call to Stripe may take [10s]",
    ),
    (
        "CHECKOUT_REDIRECT_HOSTS",
        "hosts to which people may be sent back after paying, separated by commas [those of PUBLIC_URL and CORS_ALLOWED_ORIGINS]",
    ),
    (
        "RECONCILE_AT",
        "when everything is compared with Stripe each day, in UTC [03:00]",
    ),
    (
        "REFUND_WINDOW_DAYS",
        "how many days after a payment its payer may have it back [14]",
    ),
    (
        "REFUND_ENDS_ACCESS",
        "a plan ends when all that was paid for its period is given back [true]",
    ),
    (
        "STRIPE_WEBHOOK_TOLERANCE",
        "how far an event's signature may be from now [5m]",
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
    (
        "PAST_DUE_GRACE_DAYS",
        "days that a plan stays after a renewal was not paid [7]",
    ),
    (
        "PAST_DUE_THROTTLE_MBPS",
        "rate in each direction meanwhile [the plan's]",
    ),
    (
        "USAGE_HOURS_RETENTION",
        "how long usage is kept by hours, in whole months [90d]",
    ),
    (
        "USAGE_DAYS_RETENTION",
        "how long it is kept by days, in whole months [760d]",
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
