//! HTTP over the network. The only file that names the HTTP client and its TLS.
//!
//! Owns connection pooling (one client per distinct [`ConnectOptions`]), certificates, proxies, redirects and content
//! encoding. Refuses to retry: the client's own retries are off, since `engine` owns the budget. A redirect is
//! followed only where the prompt stays with the same server.

use std::{
    error::Error,
    io,
    pin::{Pin, pin},
    sync::{Arc, Mutex, OnceLock},
    task::Poll,
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt, future::BoxFuture, stream::poll_fn};
use http::StatusCode;
use http_body::{Body as _, Frame};
use rustls_platform_verifier::BuilderVerifierExt;
use tokio::{runtime, sync::mpsc, task::JoinSet};

use super::{ByteStream, Transport, TransportError, TransportErrorKind};
use crate::model::{api_key::masked_url, endpoint::ConnectOptions};
use crate::transport::decompress::Inflater;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const MOST_REDIRECTS: usize = 3;
/// More than any config has, on as many event loops as any machine.
const MOST_CLIENTS: usize = 4096;
/// The most that is handed on in one piece.
const MOST_AT_ONCE: usize = 16 * 1024;

/// The transport of real life.
#[derive(Debug, Default)]
pub struct HttpTransport {
    /// Each event loop has its own: a connection is read by the one it was made on.
    clients: Mutex<Vec<(runtime::Id, ConnectOptions, reqwest::Client)>>,
    /// The system's certificates, loaded when the first encrypted connection is made.
    tls: OnceLock<rustls::ClientConfig>,
}

impl HttpTransport {
    /// A transport without connections.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn client(&self, via: &ConnectOptions) -> Result<reqwest::Client, TransportError> {
        let mut clients = self.clients.lock().expect("no code panics while it holds this lock");
        let event_loop = runtime::Handle::current().id();
        if let Some((.., client)) = clients.iter().find(|(its, options, _)| *its == event_loop && options == via) {
            return Ok(client.clone());
        }
        let client = self.build(via)?;
        // The oldest are of configs that are gone.
        if clients.len() >= MOST_CLIENTS {
            clients.remove(0);
        }
        clients.push((event_loop, via.clone(), client.clone()));
        Ok(client)
    }

    fn build(&self, via: &ConnectOptions) -> Result<reqwest::Client, TransportError> {
        let mut builder = reqwest::Client::builder()
            .tls_backend_preconfigured(self.tls(via)?)
            .user_agent(concat!("mmchat/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(via.timeout.unwrap_or(CONNECT_TIMEOUT))
            .redirect(reqwest::redirect::Policy::custom(same_server_only))
            .retry(reqwest::retry::never())
            .referer(false);
        if via.loopback || via.proxy.is_some() {
            builder = builder.no_proxy();
        }
        if let Some(proxy) = &via.proxy {
            let proxy = reqwest::Proxy::all(proxy.clone()).map_err(|error| {
                let message = format!("the proxy {} cannot be used: {error}", masked_url(proxy));
                TransportError {
                    source: Some(Box::new(error)),
                    ..TransportError::new(TransportErrorKind::Local, message)
                }
            })?;
            builder = builder.proxy(proxy);
        }
        if via.fresh {
            builder = builder.pool_max_idle_per_host(0);
        }
        builder.build().map_err(|error| classified(error, TransportErrorKind::Local))
    }

    fn tls(&self, via: &ConnectOptions) -> Result<rustls::ClientConfig, TransportError> {
        let encrypted_proxy = via.proxy.as_ref().is_some_and(|proxy| proxy.scheme() == "https");
        if let Some(file) = &via.ca_file {
            let roots = roots_of(file)?;
            return Ok(config()?.with_root_certificates(roots).with_no_client_auth());
        }
        if !via.tls && !encrypted_proxy {
            return Ok(config()?.with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth());
        }
        if let Some(known) = self.tls.get() {
            return Ok(known.clone());
        }
        let made = config()?.with_platform_verifier().map_err(tls_setup)?.with_no_client_auth();
        Ok(self.tls.get_or_init(|| made).clone())
    }
}

type TlsBuilder = rustls::ConfigBuilder<rustls::ClientConfig, rustls::WantsVerifier>;

fn config() -> Result<TlsBuilder, TransportError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().map_err(tls_setup)
}

fn tls_setup(error: rustls::Error) -> TransportError {
    let message = format!("TLS cannot be set up: {error}");
    TransportError { source: Some(Box::new(error)), ..TransportError::new(TransportErrorKind::Local, message) }
}

/// Every certificate authority there is takes less than one.
const LARGEST_CA_FILE: u64 = 16 * 1024 * 1024;

fn roots_of(file: &std::path::Path) -> Result<rustls::RootCertStore, TransportError> {
    use io::Read;
    use rustls::pki_types::{CertificateDer, pem::PemObject};
    let failed =
        |what: String| TransportError::new(TransportErrorKind::Local, format!("ca_file {}: {what}", file.display()));
    let mut bytes = Vec::new();
    let read =
        std::fs::File::open(file).and_then(|file| io::Read::take(file, LARGEST_CA_FILE + 1).read_to_end(&mut bytes));
    let read = read.map_err(|error| failed(format!("cannot be read: {error}")))?;
    if read as u64 > LARGEST_CA_FILE {
        return Err(failed("is longer than 16 MiB".into()));
    }
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&bytes) {
        let certificate = certificate.map_err(|error| failed(format!("is no PEM file: {error}")))?;
        roots.add(certificate).map_err(|error| failed(format!("holds a certificate that cannot be used: {error}")))?;
    }
    if roots.is_empty() { Err(failed("holds no certificate".into())) } else { Ok(roots) }
}

/// 307 and 308 to the same scheme, host and port keep method and body; anything else would take the prompt elsewhere
/// or lose it, and is handed back as the reply.
fn same_server_only(attempt: reqwest::redirect::Attempt<'_>) -> reqwest::redirect::Action {
    let keeps_body = matches!(attempt.status(), StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT);
    let same = attempt.previous().first().is_some_and(|from| from.origin() == attempt.url().origin());
    if keeps_body && same && attempt.previous().len() <= MOST_REDIRECTS { attempt.follow() } else { attempt.stop() }
}

impl Transport for HttpTransport {
    fn send(
        &self,
        via: &ConnectOptions,
        request: http::Request<Bytes>,
    ) -> BoxFuture<'_, Result<http::Response<ByteStream>, TransportError>> {
        let route = via.clone();
        let prepared = self.client(via).and_then(|client| {
            let request =
                reqwest::Request::try_from(request).map_err(|error| classified(error, TransportErrorKind::Local))?;
            Ok((client, request))
        });
        Box::pin(async move {
            let (client, request) = prepared?;
            let reply = client.execute(request).await;
            let reply = reply.map_err(|error| through(&route, classified(error, TransportErrorKind::Reset)))?;
            reply_of(reply)
        })
    }
}

fn reply_of(reply: reqwest::Response) -> Result<http::Response<ByteStream>, TransportError> {
    let (parts, body) = http::Response::<reqwest::Body>::from(reply).into_parts();
    let encoding = parts.headers.get(http::header::CONTENT_ENCODING).and_then(|value| value.to_str().ok());
    let inflater = match encoding.map(str::trim) {
        None | Some("" | "identity") => None,
        Some(name) => Some(Inflater::for_encoding(name).ok_or_else(|| {
            let message = format!("the reply is encoded as `{name}`, which was not asked for");
            TransportError::new(TransportErrorKind::Malformed, message)
        })?),
    };
    // What has a length is no stream of many pieces: gathering them would cost more than it saves.
    let bytes: ByteStream = match body.size_hint().exact() {
        Some(_) => Box::pin(one_by_one(body)),
        None => Box::pin(pieces(body)),
    };
    let stream: ByteStream = match inflater {
        None => bytes,
        Some(inflater) => Box::pin(inflated(bytes, inflater)),
    };
    Ok(http::Response::from_parts(parts, stream))
}

/// The body in the pieces it comes in.
fn one_by_one(body: reqwest::Body) -> impl Stream<Item = Result<Bytes, TransportError>> + Send {
    futures_util::stream::unfold(body, async |mut body| Some((next_data(&mut body).await?, body)))
}

/// The body in pieces of what is there at once.
///
/// A fast server's events come out of the connection one by one although they came over the network together; handed
/// on one by one, each would cost a turn of everything above and a write below. A task of the body's own gathers
/// them; it ends when the stream is dropped, and waits when nobody reads.
fn pieces(body: reqwest::Body) -> impl Stream<Item = Result<Bytes, TransportError>> + Send {
    let (sender, mut receiver) = mpsc::channel(1);
    let mut pump = JoinSet::new();
    pump.spawn(gather(body, sender));
    poll_fn(move |context| {
        let _ends_with_the_stream = &pump;
        receiver.poll_recv(context)
    })
}

async fn gather(mut body: reqwest::Body, to: mpsc::Sender<Result<Bytes, TransportError>>) {
    while let Some(first) = next_data(&mut body).await {
        let Ok(first) = first else {
            // The reader is gone only when this task is, too.
            let _ = to.send(first).await;
            return;
        };
        let (piece, end) = with_what_follows(&mut body, first).await;
        if to.send(Ok(piece)).await.is_err() {
            return;
        }
        match end {
            None => {}
            Some(Ok(())) => return,
            Some(Err(error)) => {
                let _ = to.send(Err(error)).await;
                return;
            }
        }
    }
}

/// `first` and whatever is at hand behind it; the end of the body, if that was at hand too.
async fn with_what_follows(body: &mut reqwest::Body, first: Bytes) -> (Bytes, Option<Result<(), TransportError>>) {
    let mut gathered = BytesMut::new();
    loop {
        match at_hand(body).await {
            Some(Some(Ok(data))) => {
                if gathered.is_empty() {
                    gathered.extend_from_slice(&first);
                }
                gathered.extend_from_slice(&data);
                if gathered.len() >= MOST_AT_ONCE {
                    return (gathered.freeze(), None);
                }
            }
            other => {
                let end = other.map(|item| item.map_or(Ok(()), |item| item.map(drop)));
                return (if gathered.is_empty() { first } else { gathered.freeze() }, end);
            }
        }
    }
}

/// The next data, if it is here or one turn of the connection's own task away; `None`: it is not.
async fn at_hand(body: &mut reqwest::Body) -> Option<Option<Result<Bytes, TransportError>>> {
    let mut next = pin!(next_data(body));
    let mut turn_given = false;
    std::future::poll_fn(|context| match next.as_mut().poll(context) {
        Poll::Ready(item) => Poll::Ready(Some(item)),
        Poll::Pending if turn_given => Poll::Ready(None),
        Poll::Pending => {
            turn_given = true;
            context.waker().wake_by_ref();
            Poll::Pending
        }
    })
    .await
}

/// The next data of the body; its trailers hold nothing that is used.
async fn next_data(body: &mut reqwest::Body) -> Option<Result<Bytes, TransportError>> {
    loop {
        let frame = std::future::poll_fn(|context| Pin::new(&mut *body).poll_frame(context)).await?;
        match frame.map_err(|error| classified(error, TransportErrorKind::Reset)).map(Frame::into_data) {
            Ok(Ok(data)) => return Some(Ok(data)),
            Ok(Err(_)) => {}
            Err(error) => return Some(Err(error)),
        }
    }
}

fn inflated(
    bytes: impl Stream<Item = Result<Bytes, TransportError>> + Send,
    mut inflater: Inflater,
) -> impl Stream<Item = Result<Bytes, TransportError>> + Send {
    // One compressed read may become many megabytes: it goes on in bounded pieces.
    const PIECE: usize = 4096;
    bytes
        .flat_map(|read| {
            let pieces: Vec<_> = match read {
                Ok(read) => {
                    (0..read.len()).step_by(PIECE).map(|at| Ok(read.slice(at..read.len().min(at + PIECE)))).collect()
                }
                Err(error) => vec![Err(error)],
            };
            futures_util::stream::iter(pieces)
        })
        .map(move |piece| {
            let mut out = Vec::new();
            inflater.push(&piece?, |bytes| out.extend_from_slice(bytes)).map_err(|error| {
                let message = error.to_string();
                TransportError {
                    source: Some(Box::new(error)),
                    ..TransportError::new(TransportErrorKind::Malformed, message)
                }
            })?;
            Ok(Bytes::from(out))
        })
}

/// The client's error by its causes, innermost first; `otherwise` when none of them tells.
fn classified(error: reqwest::Error, otherwise: TransportErrorKind) -> TransportError {
    let error = error.without_url();
    let mut kind = None;
    let (mut innermost, mut words) = (error.to_string(), String::new());
    let mut cause: Option<&(dyn Error + 'static)> = Some(&error);
    while let Some(step) = cause {
        innermost = step.to_string();
        words.push_str(&innermost);
        kind = kind_of(step).or(kind);
        cause = step.source();
    }
    let kind = kind.unwrap_or(if error.is_dns() {
        TransportErrorKind::Dns
    } else if error.is_connect() {
        TransportErrorKind::Connect
    } else {
        otherwise
    });
    let message = match kind {
        TransportErrorKind::Dns => format!("the name has no address: {innermost}"),
        TransportErrorKind::Tls => format!("no secure connection: {innermost}"),
        TransportErrorKind::Connect if error.is_timeout() => "no connection in time".to_owned(),
        TransportErrorKind::Connect
            if words.contains("tunnel") || words.contains("proxy") || words.contains("socks") =>
        {
            format!("the proxy did not connect: {innermost}")
        }
        TransportErrorKind::Malformed => format!("the reply is no HTTP that can be read: {innermost}"),
        _ => innermost,
    };
    TransportError { kind, message, source: Some(Box::new(error)) }
}

/// Names the proxy in an error that may be its doing: the endpoint's own, or one that the environment sets.
fn through(via: &ConnectOptions, error: TransportError) -> TransportError {
    use TransportErrorKind as Kind;
    if !matches!(error.kind, Kind::Refused | Kind::Connect | Kind::Dns) {
        return error;
    }
    let names: &[&str] = if via.tls {
        &["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"]
    } else {
        &["http_proxy", "all_proxy", "ALL_PROXY"]
    };
    let variable = names.iter().find(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty()));
    let message = match (&via.proxy, variable) {
        (Some(proxy), _) => format!("through the proxy {}: {}", masked_url(proxy), error.message),
        (None, Some(name)) if !via.loopback => format!("{} (the environment sets a proxy: {name})", error.message),
        _ => return error,
    };
    TransportError { message, ..error }
}

fn kind_of(error: &(dyn Error + 'static)) -> Option<TransportErrorKind> {
    if let Some(error) = error.downcast_ref::<io::Error>() {
        // An I/O error does not name what it wraps as its source.
        if let Some(kind) = error.get_ref().and_then(|inner| kind_of(inner)) {
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
