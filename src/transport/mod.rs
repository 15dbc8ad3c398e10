//! Sends HTTP requests and streams the response bytes.
//!
//! The layers above use the [`Transport`] trait, so that they can be tested without a network. `http` is the only file
//! that uses the HTTP client library.

use std::pin::Pin;

use bytes::Bytes;
use futures_util::{Stream, future::BoxFuture};

use crate::model::endpoint::ConnectOptions;

mod connection_reuse;
mod decompress;
pub mod http;
pub mod keys;
#[cfg(test)]
pub(crate) mod mock;

/// Response bytes as they arrive. Dropping the stream closes the connection.
pub type ByteStream = Pin<Box<dyn Stream<Item = Result<Bytes, TransportError>> + Send>>;

/// Marks a request, in its extensions, that must not be sent twice.
#[derive(Clone, Copy, Debug)]
pub struct UnsafeToRepeat;

/// Sends requests.
pub trait Transport: Send + Sync {
    /// Sends `request` over a connection with `options`; resolves when the response head has arrived. If a pooled
    /// connection turns out to be closed, sends it once more over a new one, unless it is marked as [`UnsafeToRepeat`].
    ///
    /// # Errors
    /// When no response head arrives. A status such as 500 is not an error; a failure after the head is an item of the
    /// stream.
    fn send(
        &self,
        options: &ConnectOptions,
        request: ::http::Request<Bytes>,
    ) -> BoxFuture<'_, Result<::http::Response<ByteStream>, TransportError>>;
}

/// Error of the transport, as opposed to an error response.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct TransportError {
    /// Kind of error.
    pub kind: TransportErrorKind,
    /// Message with the innermost cause.
    pub message: String,
    /// Underlying error of the HTTP client.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl TransportError {
    /// Creates an error without a source.
    pub fn new(kind: TransportErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), source: None }
    }
}

/// Kinds of transport errors; retry and cooldown depend on them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransportErrorKind {
    /// Connection refused or reset before anything was sent.
    Refused,
    /// Name resolution failed.
    Dns,
    /// TLS handshake failed or the certificate is not valid for the host.
    Tls,
    /// Connection failed for another reason: no route, timeout, rejected by a proxy.
    Connect,
    /// Connection lost after it was established.
    Reset,
    /// Invalid HTTP response, or a response over a size limit.
    Malformed,
    /// Invalid local file or setting.
    Local,
}
