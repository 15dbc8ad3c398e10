//! Bytes over the network: a request goes out, a reply's bytes come back.
//!
//! Owns the [`Transport`] trait, so that everything above is tested on a scripted one, and what can go wrong on the
//! way. Refuses to know models: `http` is the only file that names the HTTP client.

use std::pin::Pin;

use bytes::Bytes;
use futures_util::{Stream, future::BoxFuture};

use crate::model::endpoint::ConnectOptions;

pub mod decompress;
pub mod http;
pub mod keys;
#[cfg(test)]
pub(crate) mod mock;

/// The bytes of a reply as they arrive. Dropping it closes the connection.
pub type ByteStream = Pin<Box<dyn Stream<Item = Result<Bytes, TransportError>> + Send>>;

/// Sends requests.
pub trait Transport: Send + Sync {
    /// Sends `request` over a connection made as `via` says; resolves when the reply's head is here.
    fn send(
        &self,
        via: &ConnectOptions,
        request: ::http::Request<Bytes>,
    ) -> BoxFuture<'_, Result<::http::Response<ByteStream>, TransportError>>;
}

/// What went wrong below HTTP's meaning.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct TransportError {
    /// What kind it is.
    pub kind: TransportErrorKind,
    /// What happened, with the innermost cause.
    pub message: String,
    /// The client's own error, for those who walk the chain.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl TransportError {
    /// An error without a cause below it.
    pub fn new(kind: TransportErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), source: None }
    }
}

/// Kinds of failure, by what may be done about them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransportErrorKind {
    /// The connection was refused or reset before anything was sent.
    Refused,
    /// The name has no address.
    Dns,
    /// TLS could not be agreed on, or the certificate is not the host's.
    Tls,
    /// No connection for another reason: no route, time, a proxy that says no.
    Connect,
    /// The connection broke after it was made.
    Reset,
    /// What came is no HTTP, or more of it than is read.
    Malformed,
    /// A file or setting of our own.
    Local,
}
