//! HTTP transport: connection pools, TLS, proxies, redirects and content encoding.
//!
//! This is the only file that uses the HTTP client library. There is one client, and so one connection pool, per event
//! loop and distinct [`ConnectOptions`]. The client's own retries are disabled, because `engine` owns the retry budget.
//! A redirect is followed only if the prompt stays with the same server.

use std::{
    error::Error,
    io,
    pin::{Pin, pin},
    sync::{Arc, OnceLock},
    task::Poll,
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, future::BoxFuture, stream::poll_fn};
use http::StatusCode;
use http_body::{Body as _, Frame};
use parking_lot::Mutex;
use rustls_platform_verifier::BuilderVerifierExt;
use tokio::{runtime, sync::mpsc, task::JoinSet};

use super::{
    ByteStream, Transport, TransportError, TransportErrorKind, UnsafeToRepeat,
    connection_reuse::{TrackConnects, track_reuse},
};

use crate::{
    model::{api_key::redact_url, describe_error, endpoint::ConnectOptions, key_mask::mask_key_shapes},
    transport::decompress::decompress,
};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const MAX_REDIRECTS: usize = 3;
/// Maximum number of cached clients: more than any config needs on the event loops of any machine.
const MAX_CLIENTS: usize = 4096;
/// Size from which a coalesced chunk is passed on, in bytes.
const COALESCE_LIMIT: usize = 16 * 1024;

/// Transport over the network.
#[derive(Debug, Default)]
pub struct HttpTransport {
    /// Clients by event loop, because a connection is driven by the event loop that opened it.
    clients: Mutex<Vec<(runtime::Id, ConnectOptions, reqwest::Client)>>,
    /// TLS configuration with the system's certificates, loaded for the first TLS connection.
    tls: OnceLock<rustls::ClientConfig>,
}

impl HttpTransport {
    /// Creates a transport without connections.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn client(&self, options: &ConnectOptions) -> Result<reqwest::Client, TransportError> {
        let mut clients = self.clients.lock();
        let event_loop = runtime::Handle::current().id();
        if let Some((.., client)) = clients.iter().find(|(id, cached, _)| *id == event_loop && cached == options) {
            return Ok(client.clone());
        }
        let client = self.build_client(options)?;
        // The oldest client most likely belongs to a config that is no longer in use.
        if clients.len() >= MAX_CLIENTS {
            clients.remove(0);
        }
        clients.push((event_loop, options.clone(), client.clone()));
        Ok(client)
    }

    fn build_client(&self, options: &ConnectOptions) -> Result<reqwest::Client, TransportError> {
        let mut builder = reqwest::Client::builder()
            .tls_backend_preconfigured(self.tls_config(options)?)
            .user_agent(concat!("mmchat/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(options.timeout.unwrap_or(CONNECT_TIMEOUT))
            .redirect(reqwest::redirect::Policy::custom(same_origin_redirect))
            .retry(reqwest::retry::never())
            .connector_layer(TrackConnects)
            .referer(false);
        if options.loopback || options.proxy.is_some() {
            builder = builder.no_proxy();
        }
        if let Some(proxy) = &options.proxy {
            let proxy = reqwest::Proxy::all(proxy.clone()).map_err(|error| {
                let message = format!("cannot use proxy {}: {error}", redact_url(proxy));
                TransportError {
                    source: Some(Box::new(error)),
                    ..TransportError::new(TransportErrorKind::Local, message)
                }
            })?;
            builder = builder.proxy(proxy);
        }
        if options.new_connection {
            builder = builder.pool_max_idle_per_host(0);
        }
        builder.build().map_err(|error| classify_error(error, TransportErrorKind::Local))
    }

    fn tls_config(&self, options: &ConnectOptions) -> Result<rustls::ClientConfig, TransportError> {
        let encrypted_proxy = options.proxy.as_ref().is_some_and(|proxy| proxy.scheme() == "https");
        if let Some(file) = &options.ca_file {
            let roots = load_ca_file(file)?;
            return Ok(tls_builder()?.with_root_certificates(roots).with_no_client_auth());
        }
        if !options.tls && !encrypted_proxy {
            return Ok(tls_builder()?.with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth());
        }
        if let Some(cached) = self.tls.get() {
            return Ok(cached.clone());
        }
        let config = tls_builder()?.with_platform_verifier().map_err(tls_setup_error)?.with_no_client_auth();
        Ok(self.tls.get_or_init(|| config).clone())
    }
}

type TlsBuilder = rustls::ConfigBuilder<rustls::ClientConfig, rustls::WantsVerifier>;

fn tls_builder() -> Result<TlsBuilder, TransportError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().map_err(tls_setup_error)
}

fn tls_setup_error(error: rustls::Error) -> TransportError {
    let message = format!("cannot set up TLS: {error}");
    TransportError { source: Some(Box::new(error)), ..TransportError::new(TransportErrorKind::Local, message) }
}

/// Maximum size of a CA file; all public certificate authorities together need less than 1 MiB.
const MAX_CA_FILE: u64 = 16 * 1024 * 1024;

fn load_ca_file(file: &std::path::Path) -> Result<rustls::RootCertStore, TransportError> {
    use io::Read;
    use rustls::pki_types::{CertificateDer, pem::PemObject};
    let local_error = |problem: String| {
        TransportError::new(
            TransportErrorKind::Local,
            format!("ca_file {}: {problem}", mask_key_shapes(&file.display().to_string())),
        )
    };
    let mut bytes = Vec::new();
    let result =
        std::fs::File::open(file).and_then(|file| io::Read::take(file, MAX_CA_FILE + 1).read_to_end(&mut bytes));
    let length = result.map_err(|error| local_error(format!("cannot read file: {}", describe_error(&error))))?;
    if length as u64 > MAX_CA_FILE {
        return Err(local_error("larger than 16 MiB".into()));
    }
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&bytes) {
        let certificate = certificate.map_err(|error| local_error(format!("invalid PEM file: {error}")))?;
        roots.add(certificate).map_err(|error| local_error(format!("invalid certificate: {error}")))?;
    }
    if roots.is_empty() { Err(local_error("no certificate found".into())) } else { Ok(roots) }
}

/// Follows only 307 and 308 to the same scheme, host and port, which keep method and body. Any other redirect would
/// send the prompt elsewhere or lose it, and is returned as the response.
fn same_origin_redirect(attempt: reqwest::redirect::Attempt<'_>) -> reqwest::redirect::Action {
    let keeps_body = matches!(attempt.status(), StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT);
    let is_same_origin = attempt.previous().first().is_some_and(|from| from.origin() == attempt.url().origin());
    if keeps_body && is_same_origin && attempt.previous().len() <= MAX_REDIRECTS {
        attempt.follow()
    } else {
        attempt.stop()
    }
}

impl Transport for HttpTransport {
    fn send(
        &self,
        options: &ConnectOptions,
        request: http::Request<Bytes>,
    ) -> BoxFuture<'_, Result<http::Response<ByteStream>, TransportError>> {
        let connect_options = options.clone();
        let may_repeat = request.extensions().get::<UnsafeToRepeat>().is_none();
        let prepared = self.client(options).and_then(|client| {
            let request = reqwest::Request::try_from(request)
                .map_err(|error| classify_error(error, TransportErrorKind::Local))?;
            Ok((client, request))
        });
        Box::pin(async move {
            let (client, request) = prepared?;
            let copy = request.try_clone().filter(|_| may_repeat);
            let (mut response, is_reused) = track_reuse(client.execute(request)).await;
            if let Err(error) = &response
                && let Some(copy) = copy.filter(|_| is_reused && is_closed(error))
            {
                let new_connection = ConnectOptions { new_connection: true, ..connect_options.clone() };
                response = self.client(&new_connection)?.execute(copy).await;
            }
            let response = response.map_err(|error| {
                with_proxy_context(&connect_options, classify_error(error, TransportErrorKind::Reset))
            })?;
            into_response(response)
        })
    }
}

fn into_response(response: reqwest::Response) -> Result<http::Response<ByteStream>, TransportError> {
    let (parts, body) = http::Response::<reqwest::Body>::from(response).into_parts();
    let encoding = parts.headers.get(http::header::CONTENT_ENCODING).and_then(|value| value.to_str().ok());
    let encoding = encoding.map(str::trim).filter(|name| !matches!(*name, "" | "identity"));
    // A body of known length is not a stream of many small chunks: coalescing would cost more than it saves.
    let raw: ByteStream = match body.size_hint().exact() {
        Some(_) => Box::pin(data_stream(body)),
        None => Box::pin(coalesced_stream(body)),
    };
    let stream = match encoding {
        None => raw,
        Some(encoding) => decompress(encoding, raw)?,
    };
    Ok(http::Response::from_parts(parts, stream))
}

/// Streams the body in chunks as they arrive.
fn data_stream(body: reqwest::Body) -> impl Stream<Item = Result<Bytes, TransportError>> + Send {
    futures_util::stream::unfold(body, async |mut body| Some((next_data(&mut body).await?, body)))
}

/// Streams the body and coalesces chunks that are available at the same time.
///
/// hyper yields the events of a fast server one by one even if they arrived together. Each of them would cost a poll in
/// every layer above and a write to the client, so a separate task coalesces them. The task ends when the stream is
/// dropped, and waits while the stream is not read.
fn coalesced_stream(body: reqwest::Body) -> impl Stream<Item = Result<Bytes, TransportError>> + Send {
    let (sender, mut receiver) = mpsc::channel(1);
    let mut task = JoinSet::new();
    task.spawn(coalesce(body, sender));
    poll_fn(move |context| {
        let _aborted_on_drop = &task;
        receiver.poll_recv(context)
    })
}

async fn coalesce(mut body: reqwest::Body, sender: mpsc::Sender<Result<Bytes, TransportError>>) {
    while let Some(first) = next_data(&mut body).await {
        let Ok(first) = first else {
            // The receiver is dropped only together with this task.
            let _ = sender.send(first).await;
            return;
        };
        let (chunk, end) = coalesce_available(&mut body, first).await;
        if sender.send(Ok(chunk)).await.is_err() {
            return;
        }
        match end {
            None => {}
            Some(Ok(())) => return,
            Some(Err(error)) => {
                let _ = sender.send(Err(error)).await;
                return;
            }
        }
    }
}

/// Coalesces `first` with the data that is already available; also returns the end of the body if it was reached.
async fn coalesce_available(body: &mut reqwest::Body, first: Bytes) -> (Bytes, Option<Result<(), TransportError>>) {
    let mut buffer = BytesMut::new();
    loop {
        match poll_data(body).await {
            Some(Some(Ok(data))) => {
                if buffer.is_empty() {
                    buffer.extend_from_slice(&first);
                }
                buffer.extend_from_slice(&data);
                if buffer.len() >= COALESCE_LIMIT {
                    return (buffer.freeze(), None);
                }
            }
            other => {
                let end = other.map(|item| item.map_or(Ok(()), |item| item.map(drop)));
                return (if buffer.is_empty() { first } else { buffer.freeze() }, end);
            }
        }
    }
}

/// Returns the next data if it is available now or after one poll of the connection's task. The outer `None`: not
/// available; the inner `None`: end of the body.
async fn poll_data(body: &mut reqwest::Body) -> Option<Option<Result<Bytes, TransportError>>> {
    let mut next = pin!(next_data(body));
    let mut yielded = false;
    std::future::poll_fn(|context| match next.as_mut().poll(context) {
        Poll::Ready(item) => Poll::Ready(Some(item)),
        Poll::Pending if yielded => Poll::Ready(None),
        Poll::Pending => {
            yielded = true;
            context.waker().wake_by_ref();
            Poll::Pending
        }
    })
    .await
}

/// Returns the next data of the body; trailers are ignored.
async fn next_data(body: &mut reqwest::Body) -> Option<Result<Bytes, TransportError>> {
    loop {
        let frame = std::future::poll_fn(|context| Pin::new(&mut *body).poll_frame(context)).await?;
        match frame.map_err(|error| classify_error(error, TransportErrorKind::Reset)).map(Frame::into_data) {
            Ok(Ok(data)) => return Some(Ok(data)),
            Ok(Err(_)) => {}
            Err(error) => return Some(Err(error)),
        }
    }
}

/// Classifies an error of the client by its causes, innermost first; `default` if no cause determines the kind.
fn classify_error(error: reqwest::Error, default: TransportErrorKind) -> TransportError {
    let error = error.without_url();
    let mut kind = None;
    let (mut innermost, mut messages) = (describe_cause(&error), String::new());
    let mut cause: Option<&(dyn Error + 'static)> = Some(&error);
    while let Some(current) = cause {
        innermost = describe_cause(&current);
        messages.push_str(&innermost);
        kind = error_kind(current).or(kind);
        cause = current.source();
    }
    let kind = kind.unwrap_or(if error.is_dns() {
        TransportErrorKind::Dns
    } else if error.is_connect() {
        // Reset in the middle of a TLS handshake. A tunnel that a proxy closes is rejected.
        if is_closed(&error) && !names_proxy(&messages) {
            TransportErrorKind::Refused
        } else {
            TransportErrorKind::Connect
        }
    } else {
        default
    });
    let message = match kind {
        TransportErrorKind::Dns => format!("cannot resolve host name: {innermost}"),
        TransportErrorKind::Tls => format!("TLS error: {innermost}"),
        TransportErrorKind::Connect if error.is_timeout() => "connection timed out".to_owned(),
        TransportErrorKind::Connect if names_proxy(&messages) => format!("proxy connection failed: {innermost}"),
        TransportErrorKind::Malformed => format!("invalid HTTP response: {innermost}"),
        _ => innermost,
    };
    TransportError { kind, message, source: Some(Box::new(error)) }
}

fn names_proxy(messages: &str) -> bool {
    ["tunnel", "proxy", "socks"].iter().any(|word| messages.contains(word))
}

/// Whether the connection was closed before any part of the response.
fn is_closed(error: &reqwest::Error) -> bool {
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(current) = cause {
        if let Some(error) = current.downcast_ref::<hyper::Error>()
            && (error.is_incomplete_message() || error.is_canceled() || error.is_closed())
        {
            return true;
        }
        if let Some(error) = current.downcast_ref::<io::Error>() {
            return is_io_closed(error);
        }
        cause = current.source();
    }
    false
}

fn is_io_closed(error: &io::Error) -> bool {
    use io::ErrorKind as Kind;
    let kinds = [Kind::ConnectionReset, Kind::ConnectionAborted, Kind::BrokenPipe, Kind::UnexpectedEof];
    // `io::Error::source` skips the wrapped error itself.
    let wrapped = error.get_ref().and_then(|inner| inner.downcast_ref::<io::Error>());
    kinds.contains(&error.kind()) || wrapped.is_some_and(is_io_closed)
}

/// Adds the proxy to an error that it may have caused: the endpoint's own proxy, or one set in the environment.
fn with_proxy_context(options: &ConnectOptions, error: TransportError) -> TransportError {
    use TransportErrorKind as Kind;
    if !matches!(error.kind, Kind::Refused | Kind::Connect | Kind::Dns) {
        return error;
    }
    let variables: &[&str] = if options.tls {
        &["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"]
    } else {
        &["http_proxy", "all_proxy", "ALL_PROXY"]
    };
    let variable = variables.iter().find(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty()));
    let message = match (&options.proxy, variable) {
        (Some(proxy), _) => format!("via proxy {}: {}", redact_url(proxy), error.message),
        (None, Some(name)) if !options.loopback => format!("{} (proxy set by {name})", error.message),
        _ => return error,
    };
    TransportError { message, ..error }
}

/// Descriptions of errors of the HTTP client that name its internals.
const CLIENT_TEXTS: [(&str, &str); 5] = [
    ("connection closed before message completed", "the connection was closed before the response"),
    ("invalid HTTP version parsed", "the server does not speak HTTP"),
    ("unexpected EOF during chunk size line", "the connection was closed in the middle of the response"),
    ("unexpected EOF during chunk", "the connection was closed in the middle of the response"),
    ("end of file before message length reached", "the connection was closed in the middle of the response"),
];

/// The text of a cause in the words of a user.
fn describe_cause(cause: &dyn std::fmt::Display) -> String {
    let text = describe_error(cause);
    CLIENT_TEXTS.iter().find(|(known, _)| text == *known).map_or(text, |(_, replacement)| (*replacement).to_owned())
}

fn error_kind(error: &(dyn Error + 'static)) -> Option<TransportErrorKind> {
    if let Some(error) = error.downcast_ref::<io::Error>() {
        // `io::Error::source` skips the wrapped error itself, so it is checked here.
        if let Some(kind) = error.get_ref().and_then(|inner| error_kind(inner)) {
            return Some(kind);
        }
        return match error.kind() {
            io::ErrorKind::ConnectionRefused => Some(TransportErrorKind::Refused),
            _ => None,
        };
    }
    if error.is::<rustls::Error>() {
        return Some(TransportErrorKind::Tls);
    }
    let hyper = error.downcast_ref::<hyper::Error>()?;
    (hyper.is_parse() || hyper.is_parse_too_large()).then_some(TransportErrorKind::Malformed)
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::{TcpListener, TcpStream},
    };

    use super::*;

    const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

    /// Reads one request without a body.
    async fn read_request(stream: &mut TcpStream) {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.expect("a request"));
        }
    }

    /// Answers the first request of the first connection, and closes that connection on the second. Answers one request
    /// on the second connection.
    async fn serve_and_close_idle(listener: TcpListener) {
        let (mut first, _) = listener.accept().await.expect("a connection");
        read_request(&mut first).await;
        first.write_all(RESPONSE).await.expect("an open connection");
        read_request(&mut first).await;
        drop(first);
        let (mut second, _) = listener.accept().await.expect("a second connection");
        read_request(&mut second).await;
        second.write_all(RESPONSE).await.expect("an open connection");
    }

    async fn send(transport: &HttpTransport, request: http::Request<Bytes>) -> Result<Bytes, TransportError> {
        let options = ConnectOptions { loopback: true, ..ConnectOptions::default() };
        let mut body = transport.send(&options, request).await?.into_body();
        let mut bytes = BytesMut::new();
        while let Some(chunk) = body.next().await {
            bytes.extend_from_slice(&chunk?);
        }
        // The connection is returned to the pool by its own task.
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        Ok(bytes.freeze())
    }

    #[tokio::test]
    async fn request_on_a_closed_pooled_connection_is_sent_once_more_unless_that_is_unsafe() {
        for is_unsafe in [false, true] {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
            let url = format!("http://{}/", listener.local_addr().expect("an address"));
            let server = tokio::spawn(serve_and_close_idle(listener));
            let transport = HttpTransport::new();
            let request = || http::Request::post(&url).body(Bytes::new()).expect("valid request");
            assert_eq!(send(&transport, request()).await.expect("a response"), "ok");
            let mut second = request();
            if is_unsafe {
                second.extensions_mut().insert(UnsafeToRepeat);
            }
            match send(&transport, second).await {
                Ok(body) => assert!(!is_unsafe && body == "ok"),
                Err(error) => assert!(is_unsafe && error.kind == TransportErrorKind::Reset, "{error:?}"),
            }
            assert_eq!(server.is_finished(), !is_unsafe, "the second connection is used only for the repetition");
            server.abort();
        }
    }

    #[tokio::test]
    async fn connection_that_breaks_in_the_tls_handshake_counts_as_reset() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("https://{}/", listener.local_addr().expect("an address"));
        let server = tokio::spawn(async move { listener.accept().await.map(drop) });
        let request = http::Request::post(&url).body(Bytes::new()).expect("valid request");
        let options = ConnectOptions { tls: true, loopback: true, ..ConnectOptions::default() };
        let error = HttpTransport::new().send(&options, request).await.err().expect("a closed connection");
        assert_eq!(error.kind, TransportErrorKind::Refused, "{error:?}");
        server.await.expect("the task does not panic").expect("a connection");
    }

    #[tokio::test]
    async fn request_on_a_new_connection_is_not_repeated() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}/", listener.local_addr().expect("an address"));
        let server = tokio::spawn(async move {
            let (mut first, _) = listener.accept().await.expect("a connection");
            read_request(&mut first).await;
            drop(first);
            listener.accept().await.map(drop)
        });
        let request = http::Request::post(&url).body(Bytes::new()).expect("valid request");
        let error = send(&HttpTransport::new(), request).await.expect_err("a closed connection");
        assert!(error.kind == TransportErrorKind::Reset && !server.is_finished(), "{error:?}");
        server.abort();
    }
}
