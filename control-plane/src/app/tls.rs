//! The server's certificate and key.

use rustls::ServerConfig;
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::config::TlsFiles;

#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("TLS_CERT_FILE cannot be read")]
    Certificate(#[source] pem::Error),
    #[error("TLS_KEY_FILE cannot be read")]
    Key(#[source] pem::Error),
    #[error("TLS_CERT_FILE and TLS_KEY_FILE cannot be used together")]
    Pair(#[from] rustls::Error),
}

/// Whether the files can be served with.
pub fn check(files: &TlsFiles) -> Result<(), TlsError> {
    load(files).map(drop)
}

/// TLS 1.2 and 1.3 with the given files.
pub(super) fn load(files: &TlsFiles) -> Result<ServerConfig, TlsError> {
    let chain = CertificateDer::pem_file_iter(&files.certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(TlsError::Certificate)?;
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(TlsError::Key)?;
    Ok(ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(chain, key)?)
}
