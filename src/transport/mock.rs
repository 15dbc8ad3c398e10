//! A transport for tests that returns responses from a list and records the requests.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use ::http::StatusCode;
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream};
use parking_lot::Mutex;
use tokio::time::sleep;

use super::{ByteStream, Transport, TransportError, TransportErrorKind};
use crate::model::endpoint::ConnectOptions;

/// One scripted response.
#[derive(Clone, Debug)]
pub(crate) enum MockResponse {
    /// A status, headers and a body.
    Status(u16, Vec<(&'static str, &'static str)>, &'static str),
    /// A stream of chunks, each after a delay.
    Chunks(Vec<(Duration, &'static str)>),
    /// A stream of chunks, then a connection reset.
    ChunksThenReset(Vec<(Duration, &'static str)>),
    /// Connection failure.
    ConnectError(TransportErrorKind),
    /// No response at all.
    NoResponse,
    /// A status after a delay.
    DelayedStatus(Duration, u16),
    /// A status and a body that never ends.
    EndlessBody(u16),
}

/// Returns responses from a list and records the requests.
#[derive(Debug, Default)]
pub(crate) struct MockTransport {
    pub(crate) responses: Mutex<VecDeque<MockResponse>>,
    pub(crate) requests: Mutex<Vec<RecordedRequest>>,
    /// Number of responses being read.
    pub(crate) open_responses: Arc<AtomicUsize>,
}

impl MockTransport {
    /// Creates a transport that returns `responses` in order.
    pub(crate) fn new(responses: impl IntoIterator<Item = MockResponse>) -> Self {
        Self { responses: Mutex::new(responses.into_iter().collect()), ..Self::default() }
    }
}

/// Counts a response as being read until it is dropped.
struct OpenGuard(Arc<AtomicUsize>);

impl OpenGuard {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(count))
    }
}

impl Drop for OpenGuard {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[derive(Clone, Debug)]
pub(crate) struct RecordedRequest {
    pub(crate) model: String,
    pub(crate) key: Option<String>,
    pub(crate) new_connection: bool,
    pub(crate) connect_timeout: Option<Duration>,
    pub(crate) body: serde_json::Value,
    pub(crate) request: ::http::Request<Bytes>,
}

impl Transport for MockTransport {
    fn send(
        &self,
        options: &ConnectOptions,
        request: ::http::Request<Bytes>,
    ) -> BoxFuture<'_, Result<::http::Response<ByteStream>, TransportError>> {
        let body: serde_json::Value = serde_json::from_slice(request.body()).expect("JSON body");
        let key = request.headers().get("authorization").map(|value| value.to_str().expect("ASCII header").to_owned());
        let model = body["model"].as_str().expect("body has a model").into();
        let recorded = RecordedRequest {
            model,
            key,
            new_connection: options.new_connection,
            connect_timeout: options.timeout,
            body,
            request,
        };
        self.requests.lock().push(recorded);
        let response = self.responses.lock().pop_front().expect("a scripted response");
        let open_guard = OpenGuard::new(&self.open_responses);
        async move {
            let streamed = |chunks: Vec<Result<(Duration, &'static str), ()>>| {
                let body: ByteStream = Box::pin(stream::iter(chunks).then(move |chunk| {
                    let _dropped_with_body = &open_guard;
                    async move {
                        match chunk {
                            Ok((delay, text)) => {
                                sleep(delay).await;
                                Ok(Bytes::from_static(text.as_bytes()))
                            }
                            Err(()) => Err(TransportError::new(TransportErrorKind::Reset, "connection reset")),
                        }
                    }
                }));
                Ok(::http::Response::new(body))
            };
            match response {
                MockResponse::Chunks(chunks) => streamed(chunks.into_iter().map(Ok).collect()),
                MockResponse::ChunksThenReset(chunks) => {
                    streamed(chunks.into_iter().map(Ok).chain([Err(())]).collect())
                }
                MockResponse::NoResponse => std::future::pending().await,
                MockResponse::DelayedStatus(delay, status) => {
                    sleep(delay).await;
                    let mut response = ::http::Response::new(stream::empty().boxed());
                    *response.status_mut() = StatusCode::from_u16(status).expect("valid status");
                    Ok(response)
                }
                MockResponse::EndlessBody(status) => {
                    let mut response = ::http::Response::new(stream::pending().boxed());
                    *response.status_mut() = StatusCode::from_u16(status).expect("valid status");
                    Ok(response)
                }
                MockResponse::ConnectError(kind) => Err(TransportError::new(kind, "no connection")),
                MockResponse::Status(status, headers, text) => {
                    let body: ByteStream =
                        Box::pin(stream::once(async move { Ok(Bytes::from_static(text.as_bytes())) }));
                    let mut response = ::http::Response::new(body);
                    *response.status_mut() = StatusCode::from_u16(status).expect("valid status");
                    for (name, value) in headers {
                        response.headers_mut().insert(name, ::http::HeaderValue::from_static(value));
                    }
                    Ok(response)
                }
            }
        }
        .boxed()
    }
}
