//! The server's certificate and key, and what replaces them while it runs.
//!
//! The pair that is served changes when both files are read whole and belong together, and not before.
//! Connections that are open keep the pair that they began with.

use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::config::TlsFiles;
use crate::files::{Content, Followed, Source, Words};

#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("TLS_CERT_FILE or TLS_KEY_FILE cannot be read")]
    Unreadable(#[source] io::Error),
    #[error("TLS_CERT_FILE is no chain of certificates")]
    Certificate(#[source] pem::Error),
    #[error("TLS_KEY_FILE is no private key")]
    Key(#[source] pem::Error),
    #[error("TLS_CERT_FILE and TLS_KEY_FILE cannot be used together")]
    Pair(#[from] rustls::Error),
    #[error("no cryptography is installed")]
    NoProvider,
}

/// Whether the files can be served with.
pub fn check(files: &TlsFiles) -> Result<(), TlsError> {
    files.read().map(drop)
}

/// The pair that new connections get.
pub(super) type Certificate = Followed<TlsFiles, 2>;

/// TLS 1.2 and 1.3 with whatever pair is served at the time of a handshake.
pub(super) fn server_config(certificate: Arc<Certificate>) -> ServerConfig {
    ServerConfig::builder()
        .with_no_client_auth()
        .with_cert_resolver(certificate)
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.current()))
    }
}

impl Source<2> for TlsFiles {
    type Made = CertifiedKey;
    type Error = TlsError;
    const WORDS: Words = Words {
        counter: "tls_certificates_total",
        taken: "served",
        news: "a new certificate is served",
        stays: "the earlier certificate stays",
    };

    fn paths(&self) -> [&Path; 2] {
        [&self.certificate, &self.key]
    }

    /// What the files serve with, if they belong together.
    fn make(files: io::Result<[Content; 2]>) -> Result<CertifiedKey, TlsError> {
        let [certificate, key] = files.map_err(TlsError::Unreadable)?;
        let chain = CertificateDer::pem_slice_iter(&certificate)
            .collect::<Result<Vec<_>, _>>()
            .map_err(TlsError::Certificate)?;
        let key = PrivateKeyDer::from_pem_slice(&key).map_err(TlsError::Key)?;
        let provider = CryptoProvider::get_default().ok_or(TlsError::NoProvider)?;
        Ok(CertifiedKey::from_der(chain, key, provider)?)
    }
}
