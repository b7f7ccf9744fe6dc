//! The listeners: the API, its TLS and the metrics.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::reader::Reader;

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
