//! The listeners: the API, its TLS and the metrics.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use super::reader::{Reader, as_network, split};

#[derive(Debug, Clone)]
pub struct HttpConfig {
    pub host: IpAddr,
    /// 0 lets the system choose.
    pub port: u16,
    pub metrics_host: IpAddr,
    pub metrics_port: u16,
    /// Host names that a request may ask for; `*` allows any, `.example.org` its subdomains.
    pub allowed_hosts: Vec<String>,
    pub tls: Option<TlsFiles>,
    /// Where people reach the service: links in mails and the name of the token issuer.
    pub public_url: String,
    /// The origins whose pages may call the API, such as `https://app.example.org`; none by default.
    pub cors_allowed_origins: Vec<String>,
    /// Whether plain HTTP is turned away, as it has to be behind a proxy that ends TLS.
    pub https_only: bool,
    /// Whose `X-Forwarded-*` headers are believed.
    pub trusted_proxies: Vec<IpNet>,
    pub workers: usize,
    /// How long a stop waits for requests and background tasks.
    pub shutdown_timeout: Duration,
}

/// PEM files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl HttpConfig {
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        let address = "an IP address such as 127.0.0.1 or 0.0.0.0";
        let port = "a port number";
        let origin = "an origin such as https://app.example.org, without a path";
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            host: reader.parse("HOST", IpAddr::from([127, 0, 0, 1]), address),
            port: reader.parse("PORT", 8000, port),
            metrics_host: reader.parse("METRICS_HOST", IpAddr::from([127, 0, 0, 1]), address),
            metrics_port: reader.parse("METRICS_PORT", 9000, port),
            allowed_hosts: reader
                .list("ALLOWED_HOSTS", "localhost,127.0.0.1,::1")
                .into_iter()
                .map(|host| host.to_ascii_lowercase())
                .collect(),
            tls: read_tls(reader),
            public_url: reader.parse_with(
                "PUBLIC_URL",
                "http://localhost:8000".to_owned(),
                origin,
                |text| as_origin(text).map(str::to_owned),
                String::clone,
            ),
            cors_allowed_origins: reader.parse_with(
                "CORS_ALLOWED_ORIGINS",
                Vec::new(),
                "origins such as https://app.example.org, separated by commas",
                |text| {
                    split(text)
                        .map(|it| as_origin(it).map(str::to_owned))
                        .collect()
                },
                |origins| origins.join(","),
            ),
            https_only: reader.flag("HTTPS_ONLY", false),
            trusted_proxies: reader.parse_with(
                "TRUSTED_PROXIES",
                Vec::new(),
                "addresses and networks such as 10.0.0.0/8, separated by commas",
                |text| split(text).map(as_network).collect(),
                |networks| {
                    let texts: Vec<_> = networks.iter().map(IpNet::to_string).collect();
                    texts.join(",")
                },
            ),
            workers: reader.parse_with(
                "WEB_CONCURRENCY",
                cores,
                "a whole number from 1",
                |text| text.parse().ok().filter(|workers| *workers > 0),
                usize::to_string,
            ),
            shutdown_timeout: reader.duration("SHUTDOWN_TIMEOUT", Duration::from_secs(10)),
        }
    }
}

/// Scheme, host and port, as a browser sends them: no path, no trailing slash.
pub(super) fn as_origin(text: &str) -> Option<&str> {
    let text = text.strip_suffix('/').unwrap_or(text);
    let rest = text
        .strip_prefix("https://")
        .or_else(|| text.strip_prefix("http://"))?;
    let is_host = !rest.is_empty()
        && rest
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b".-:[]".contains(&byte));
    is_host.then_some(text)
}

fn read_tls(reader: &mut Reader<'_>) -> Option<TlsFiles> {
    let certificate = reader.optional("TLS_CERT_FILE");
    let key = reader.optional("TLS_KEY_FILE");
    match (certificate, key) {
        (Some(certificate), Some(key)) => Some(TlsFiles {
            certificate: certificate.into(),
            key: key.into(),
        }),
        (None, None) => None,
        (Some(_), None) => {
            reader.problem(
                "TLS_KEY_FILE",
                "is needed with TLS_CERT_FILE: the key's PEM file",
            );
            None
        }
        (None, Some(_)) => {
            reader.problem(
                "TLS_CERT_FILE",
                "is needed with TLS_KEY_FILE: the certificate's PEM file",
            );
            None
        }
    }
}
