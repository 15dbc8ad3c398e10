//! Certificates of our own, so that clients reach us by https.
//!
//! Owns reading them. Refuses to make any.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use tokio_rustls::TlsAcceptor;

/// Certificates that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// The file of certificates.
    #[error("the certificates in {path} cannot be read: {reason}")]
    Certificates {
        /// Which file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The file of the key.
    #[error("the private key in {path} cannot be read: {reason}")]
    Key {
        /// Which file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// They do not fit each other, or their kind is unknown.
    #[error("the certificates in {cert} cannot be used with the key in {key}: {source}")]
    Pair {
        /// The file of certificates.
        cert: PathBuf,
        /// The file of the key.
        key: PathBuf,
        /// Why.
        #[source]
        source: rustls::Error,
    },
}

/// What accepts encrypted connections with these certificates.
pub(super) fn acceptor((cert, key): &(PathBuf, PathBuf)) -> Result<TlsAcceptor, TlsError> {
    let certificates = certificates(cert)?;
    let private = PrivateKeyDer::from_pem_file(key)
        .map_err(|error| TlsError::Key { path: key.clone(), reason: error.to_string() })?;
    let pair = |source| TlsError::Pair { cert: cert.clone(), key: key.clone(), source };
    let mut config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(pair)?
        .with_no_client_auth()
        .with_single_cert(certificates, private)
        .map_err(pair)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let unreadable = |reason: String| TlsError::Certificates { path: path.to_owned(), reason };
    let read = CertificateDer::pem_file_iter(path).map_err(|error| unreadable(error.to_string()))?;
    let certificates = read.collect::<Result<Vec<_>, _>>().map_err(|error| unreadable(error.to_string()))?;
    if certificates.is_empty() { Err(unreadable("there is none in it".into())) } else { Ok(certificates) }
}
