//! The server's certificate and key, and what replaces them while it runs.
//!
//! Whoever renews a certificate writes two files, one after the other and not always whole at once.
//! The pair that is served changes when both files are read whole and belong together, and not
//! before. Connections that are open keep the pair that they began with.

use std::sync::Arc;
use std::time::Duration;
use std::{fmt, fs, io};

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest, Sha256};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use crate::config::TlsFiles;

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

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
    pair(Content::read(files)).map(drop)
}

/// The pair that new connections get.
pub(super) struct Certificate {
    files: TlsFiles,
    /// What was found in the files at the start.
    first: Fingerprint,
    served: ArcSwap<CertifiedKey>,
}

impl Certificate {
    pub(super) fn load(files: &TlsFiles) -> Result<Arc<Self>, TlsError> {
        let content = Content::read(files);
        Ok(Arc::new(Self {
            files: files.clone(),
            first: content.fingerprint(),
            served: ArcSwap::from_pointee(pair(content)?),
        }))
    }

    /// TLS 1.2 and 1.3 with whatever pair is served at the time of a handshake.
    pub(super) fn server_config(self: &Arc<Self>) -> ServerConfig {
        ServerConfig::builder()
            .with_no_client_auth()
            .with_cert_resolver(self.clone())
    }

    /// Serves what the files hold from now on, whenever that changes.
    pub(super) async fn follow(self: Arc<Self>, stop: CancellationToken) {
        let mut tick = tokio::time::interval(LOOK_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut seen = self.first;
        while stop.run_until_cancelled(tick.tick()).await.is_some() {
            let this = Arc::clone(&self);
            match tokio::task::spawn_blocking(move || this.look(seen)).await {
                Ok(now) => seen = now,
                Err(error) => tracing::error!(%error, "the certificate could not be looked at"),
            }
        }
    }

    /// Tries to serve what the files hold if it is not what was `seen`; one content is tried and
    /// told of once. Answers what it found.
    fn look(&self, seen: Fingerprint) -> Fingerprint {
        let content = Content::read(&self.files);
        let found = content.fingerprint();
        if found == seen {
            return seen;
        }
        let result = match pair(content) {
            Ok(pair) => {
                self.served.store(Arc::new(pair));
                tracing::info!("a new certificate is served");
                "served"
            }
            Err(error) => {
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                tracing::warn!(%error, cause, "the earlier certificate stays");
                "refused"
            }
        };
        metrics::counter!("tls_certificates_total", "result" => result).increment(1);
        found
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.served.load_full())
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate")
            .field("files", &self.files)
            .finish_non_exhaustive()
    }
}

type Fingerprint = [u8; 32];

/// The two files at one moment, or why they cannot be read.
struct Content(Result<(Vec<u8>, Zeroizing<Vec<u8>>), io::Error>);

impl Content {
    fn read(files: &TlsFiles) -> Self {
        let certificate = fs::read(&files.certificate);
        Self(certificate.and_then(|certificate| {
            let key = fs::read(&files.key)?;
            Ok((certificate, Zeroizing::new(key)))
        }))
    }

    /// Tells one content from another without keeping the key.
    fn fingerprint(&self) -> Fingerprint {
        let mut digest = Sha256::new();
        match &self.0 {
            Ok((certificate, key)) => {
                digest.update(Sha256::digest(certificate));
                digest.update(Sha256::digest(key.as_slice()));
            }
            Err(error) => digest.update(error.to_string()),
        }
        digest.finalize().into()
    }
}

/// What the content serves with, if its two halves belong together.
fn pair(content: Content) -> Result<CertifiedKey, TlsError> {
    let (certificate, key) = content.0.map_err(TlsError::Unreadable)?;
    let chain = CertificateDer::pem_slice_iter(&certificate)
        .collect::<Result<Vec<_>, _>>()
        .map_err(TlsError::Certificate)?;
    let key = PrivateKeyDer::from_pem_slice(&key).map_err(TlsError::Key)?;
    let provider = CryptoProvider::get_default().ok_or(TlsError::NoProvider)?;
    Ok(CertifiedKey::from_der(chain, key, provider)?)
}
