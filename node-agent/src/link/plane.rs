//! Where the plane is, and whom to believe that it is the plane.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use reqwest::Url;
use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

/// Why a text is not the plane's address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlaneUrlError {
    #[error("it takes the plane's base address, such as https://vpn.example.com")]
    Malformed,
    #[error("it takes https:// or wss:// (or, on this host only, http:// or ws://)")]
    Scheme,
}

/// The plane's base address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlaneUrl(Url);

impl PlaneUrl {
    /// Whether what is said there can be read by others: neither encrypted nor within this host.
    #[must_use]
    pub fn is_exposed(&self) -> bool {
        let local = match self.0.host_str() {
            Some("localhost") => true,
            Some(host) => host
                .trim_matches(['[', ']'])
                .parse::<std::net::IpAddr>()
                .is_ok_and(|address| address.is_loopback()),
            None => false,
        };
        !self.is_encrypted() && !local
    }

    /// `path` below the base, for REST calls.
    #[must_use]
    pub fn http(&self, path: &str) -> String {
        let scheme = if self.is_encrypted() { "https" } else { "http" };
        self.with(scheme, path)
    }

    /// `path` below the base, for a WebSocket.
    #[must_use]
    pub fn websocket(&self, path: &str) -> String {
        let scheme = if self.is_encrypted() { "wss" } else { "ws" };
        self.with(scheme, path)
    }

    fn is_encrypted(&self) -> bool {
        matches!(self.0.scheme(), "https" | "wss")
    }

    fn with(&self, scheme: &str, path: &str) -> String {
        let host = self.0.host_str().unwrap_or_default();
        let port = self.0.port().map(|it| format!(":{it}")).unwrap_or_default();
        let base = self.0.path().trim_end_matches('/');
        format!("{scheme}://{host}{port}{base}{path}")
    }
}

impl fmt::Display for PlaneUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for PlaneUrl {
    type Err = PlaneUrlError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let url: Url = text.parse().map_err(|_| PlaneUrlError::Malformed)?;
        if !matches!(url.scheme(), "http" | "https" | "ws" | "wss") {
            return Err(PlaneUrlError::Scheme);
        }
        let bare = url.username().is_empty() && url.password().is_none() && url.query().is_none();
        if bare && url.has_host() && url.fragment().is_none() {
            Ok(Self(url))
        } else {
            Err(PlaneUrlError::Malformed)
        }
    }
}

/// Why certificates cannot be checked.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("PLANE_CA_FILE: {path} holds no certificate in PEM form: {detail}")]
    CaFile { path: PathBuf, detail: String },
    #[error("TLS: {0}")]
    Rustls(#[from] rustls::Error),
}

/// The public web's roots, and the operator's own besides.
pub fn tls(ca_file: Option<&Path>) -> Result<ClientConfig, TlsError> {
    let mut roots = RootCertStore {
        roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
    };
    if let Some(path) = ca_file {
        let bad = |detail: String| TlsError::CaFile {
            path: path.to_owned(),
            detail,
        };
        let certificates = CertificateDer::pem_file_iter(path)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(|error| bad(error.to_string()))?;
        if certificates.is_empty() {
            return Err(bad("the file has none".to_owned()));
        }
        for certificate in certificates {
            roots.add(certificate)?;
        }
    }
    let provider = Arc::new(aws_lc_rs::default_provider());
    Ok(ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("https://vpn.example.com", "wss://vpn.example.com/s", false)]
    #[case(
        "wss://vpn.example.com:8443/base/",
        "wss://vpn.example.com:8443/base/s",
        false
    )]
    #[case("http://127.0.0.1:8080", "ws://127.0.0.1:8080/s", false)]
    #[case("http://[::1]:8080/", "ws://[::1]:8080/s", false)]
    #[case("ws://localhost", "ws://localhost/s", false)]
    #[case("http://10.0.0.1", "ws://10.0.0.1/s", true)]
    #[case("http://localhost.example.com", "ws://localhost.example.com/s", true)]
    fn reads_addresses(#[case] text: &str, #[case] websocket: &str, #[case] exposed: bool) {
        let url: PlaneUrl = text.parse().expect("valid");
        assert_eq!(url.websocket("/s"), websocket);
        assert_eq!(url.http("/s"), websocket.replacen("ws", "http", 1));
        assert_eq!(url.is_exposed(), exposed);
    }

    #[rstest]
    #[case("vpn.example.com", PlaneUrlError::Malformed)]
    #[case("", PlaneUrlError::Malformed)]
    #[case("ftp://vpn.example.com", PlaneUrlError::Scheme)]
    #[case("https://user:secret@vpn.example.com", PlaneUrlError::Malformed)]
    #[case("https://vpn.example.com/?a=b", PlaneUrlError::Malformed)]
    fn refuses_what_is_none(#[case] text: &str, #[case] error: PlaneUrlError) {
        assert_eq!(text.parse::<PlaneUrl>(), Err(error));
    }

    #[test]
    fn a_ca_file_without_certificates_is_named() {
        let file = tempfile::NamedTempFile::new().expect("file");
        let error = tls(Some(file.path())).expect_err("refused").to_string();
        assert!(error.contains("PLANE_CA_FILE"), "{error}");
        assert!(tls(None).is_ok());
    }
}
