//! Stripe: whose account it is, how its webhook is known, which prices plans have there.

use std::time::Duration;

use secrecy::SecretString;

use super::HttpConfig;
use super::http::as_origin;
use super::reader::{REDACTED, Reader, is_placeholder, split};

/// The shape of what Stripe answers: a later version moves fields to other places.
const API_VERSION: &str = "2025-02-24.acacia";

#[derive(Debug, Clone)]
pub struct StripeConfig {
    /// None where payments are not configured; then there are no webhook secrets either.
    pub secret_key: Option<SecretString>,
    /// What the webhook's events are signed with: several while one replaces another.
    pub webhook_secrets: Vec<SecretString>,
    /// Scheme, host and port.
    pub api_base: String,
    pub api_version: String,
    /// How long one attempt of a call may take.
    pub timeout: Duration,
    /// How far an event's signature may be from now.
    pub webhook_tolerance: Duration,
    /// Whose pages people may be sent back to after paying; in lower case.
    pub redirect_hosts: Vec<String>,
    /// The price of `premium_monthly` where its row has none.
    pub monthly_price: Option<String>,
    /// The price of `premium_yearly` where its row has none.
    pub yearly_price: Option<String>,
}

impl StripeConfig {
    pub(super) fn read(reader: &mut Reader<'_>, debug: bool, http: &HttpConfig) -> Self {
        let secret_key = read_key(reader, debug);
        let webhook_secrets = reader.secrets("STRIPE_WEBHOOK_SECRET");
        match (&secret_key, webhook_secrets.is_empty()) {
            (Some(_), true) => reader.problem(
                "STRIPE_WEBHOOK_SECRET",
                "is needed with STRIPE_SECRET_KEY: without it nobody tells of payments",
            ),
            (None, false) if reader.given("STRIPE_SECRET_KEY").is_none() => reader.problem(
                "STRIPE_SECRET_KEY",
                "is needed with STRIPE_WEBHOOK_SECRET: what events tell of is read anew",
            ),
            _ => {}
        }
        Self {
            secret_key,
            webhook_secrets,
            api_base: reader.parse_with(
                "STRIPE_API_BASE",
                "https://api.stripe.com".to_owned(),
                "an origin over HTTPS, or over HTTP on this host, such as https://api.stripe.com",
                |text| {
                    let origin = as_origin(text)?;
                    (debug || keeps_a_secret(origin)).then(|| origin.to_owned())
                },
                String::clone,
            ),
            api_version: reader.parse_with(
                "STRIPE_API_VERSION",
                API_VERSION.to_owned(),
                "a version of Stripe's API such as 2025-02-24.acacia",
                |text| text.bytes().all(is_of_a_version).then(|| text.to_owned()),
                String::clone,
            ),
            timeout: reader.duration("STRIPE_TIMEOUT", Duration::from_secs(10)),
            webhook_tolerance: reader
                .duration("STRIPE_WEBHOOK_TOLERANCE", Duration::from_secs(300)),
            redirect_hosts: read_redirect_hosts(reader, http),
            monthly_price: reader.optional("STRIPE_MONTHLY_PRICE_ID"),
            yearly_price: reader.optional("STRIPE_YEARLY_PRICE_ID"),
        }
    }
}

/// A secret or restricted key. The value is not repeated when it is wrong.
fn read_key(reader: &mut Reader<'_>, debug: bool) -> Option<SecretString> {
    const NAME: &str = "STRIPE_SECRET_KEY";
    let given = reader.given(NAME);
    reader.note(NAME, given.map_or("", |_| REDACTED));
    let key = given?;
    let is_key = (key.starts_with("sk_") || key.starts_with("rk_"))
        && key.bytes().all(|byte| byte.is_ascii_graphic());
    if !is_key {
        reader.problem(NAME, "takes a key that begins with sk_ or rk_");
    } else if !debug && is_placeholder(key) {
        reader.problem(NAME, "is a placeholder; Stripe's dashboard has the key");
    }
    is_key.then(|| SecretString::from(key))
}

/// Where nothing is said, our own pages and those that may call us.
fn read_redirect_hosts(reader: &mut Reader<'_>, http: &HttpConfig) -> Vec<String> {
    let origins = std::iter::once(&http.public_url).chain(&http.cors_allowed_origins);
    let mut ours: Vec<_> = origins.filter_map(|origin| host_of(origin)).collect();
    ours.sort();
    ours.dedup();
    reader.parse_with(
        "CHECKOUT_REDIRECT_HOSTS",
        ours,
        "names of hosts such as app.example.org, without ports, separated by commas",
        |text| split(text).map(as_host).collect(),
        |hosts| hosts.join(","),
    )
}

fn host_of(origin: &str) -> Option<String> {
    let url = reqwest::Url::parse(origin).ok()?;
    url.host_str().map(str::to_owned)
}

/// As an address has it.
fn as_host(text: &str) -> Option<String> {
    let host = host_of(&format!("https://{text}"))?;
    host.eq_ignore_ascii_case(text).then_some(host)
}

const fn is_of_a_version(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.'
}

/// Whether the key can be sent there: encrypted, or not leaving this host.
fn keeps_a_secret(origin: &str) -> bool {
    let Some(plain) = origin.strip_prefix("http://") else {
        return true;
    };
    let host = plain.rsplit_once(':').map_or(plain, |(host, port)| {
        let is_port = port.bytes().all(|byte| byte.is_ascii_digit());
        if is_port { host } else { plain }
    });
    matches!(host, "localhost" | "127.0.0.1" | "[::1]")
}
