//! Reads the server's TLS certificates and private key.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    ServerConfig,
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{self, PemObject},
    },
};
use tokio_rustls::TlsAcceptor;

use crate::model::describe_error;

/// An unusable certificate or private key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// The certificate file cannot be read.
    #[error("cannot read the certificates in {path}: {reason}")]
    Certificates {
        /// Path of the file.
        path: PathBuf,
        /// Cause.
        reason: String,
    },
    /// The private key file cannot be read.
    #[error("cannot read the private key in {path}: {reason}")]
    Key {
        /// Path of the file.
        path: PathBuf,
        /// Cause.
        reason: String,
    },
    /// The certificate does not match the key, or their type is not supported.
    #[error("cannot use the certificates in {cert} with the private key in {key}: {}", describe_mismatch(source))]
    Unusable {
        /// Path of the certificate file.
        cert: PathBuf,
        /// Path of the private key file.
        key: PathBuf,
        /// Cause.
        #[source]
        source: rustls::Error,
    },
}

/// The reason why certificate and key cannot be used together.
fn describe_mismatch(error: &rustls::Error) -> String {
    match error {
        rustls::Error::InconsistentKeys(_) => "the key does not belong to the certificate".to_owned(),
        other => other.to_string(),
    }
}

/// TLS acceptor for the certificate file and the key file.
pub(super) fn load_acceptor((cert, key): &(PathBuf, PathBuf)) -> Result<TlsAcceptor, TlsError> {
    let certificates = load_certificates(cert)?;
    let private_key = PrivateKeyDer::from_pem_file(key)
        .map_err(|error| TlsError::Key { path: key.clone(), reason: pem_reason(&error) })?;
    let unusable = |source| TlsError::Unusable { cert: cert.clone(), key: key.clone(), source };
    let mut config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(unusable)?
        .with_no_client_auth()
        .with_single_cert(certificates, private_key)
        .map_err(unusable)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Why a PEM file cannot be used.
fn pem_reason(error: &pem::Error) -> String {
    match error {
        pem::Error::Io(error) => describe_error(error),
        pem::Error::MissingSectionEnd { .. } => "a section has no END line".to_owned(),
        pem::Error::IllegalSectionStart { .. } => "a BEGIN line is not valid".to_owned(),
        pem::Error::Base64Decode(_) => "a section is not valid Base64".to_owned(),
        pem::Error::NoItemsFound => "the file contains no private key".to_owned(),
        error => describe_error(error),
    }
}

fn load_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let unreadable = |reason: String| TlsError::Certificates { path: path.to_owned(), reason };
    let items = CertificateDer::pem_file_iter(path).map_err(|error| unreadable(pem_reason(&error)))?;
    let certificates = items.collect::<Result<Vec<_>, _>>().map_err(|error| unreadable(pem_reason(&error)))?;
    if certificates.is_empty() { Err(unreadable("the file contains no certificate".into())) } else { Ok(certificates) }
}
