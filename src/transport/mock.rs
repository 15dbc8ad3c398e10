//! A transport that answers from a list, for tests. Owns what was asked; refuses to wait for a real network.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use ::http::StatusCode;
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream};
use tokio::time::sleep;

use super::{ByteStream, Transport, TransportError, TransportErrorKind};
use crate::model::endpoint::ConnectOptions;

/// One scripted reply.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    /// A status, headers and a body.
    Status(u16, Vec<(&'static str, &'static str)>, &'static str),
    /// A stream: pieces, each after a wait.
    Pieces(Vec<(Duration, &'static str)>),
    /// As `Pieces`, and then the connection breaks.
    Broken(Vec<(Duration, &'static str)>),
    /// No connection.
    NoConnection(TransportErrorKind),
    /// Nothing, ever.
    Silence,
    /// A status, after a wait.
    Slow(Duration, u16),
    /// A status whose body never ends.
    Unended(u16),
}

/// Answers requests from a list and remembers them.
#[derive(Debug, Default)]
pub(crate) struct Script {
    pub(crate) replies: Mutex<VecDeque<Reply>>,
    pub(crate) asked: Mutex<Vec<Asked>>,
    /// How many replies are being read.
    pub(crate) open: Arc<AtomicUsize>,
}

impl Script {
    /// A script of these replies, in the order of the requests.
    pub(crate) fn of(replies: impl IntoIterator<Item = Reply>) -> Self {
        Self { replies: Mutex::new(replies.into_iter().collect()), ..Self::default() }
    }
}

/// A reply that is being read, until dropped.
struct Open(Arc<AtomicUsize>);

impl Open {
    fn begin(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(count))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) model: String,
    pub(crate) key: Option<String>,
    pub(crate) fresh: bool,
    pub(crate) connect: Option<Duration>,
    pub(crate) body: serde_json::Value,
    pub(crate) request: ::http::Request<Bytes>,
}

impl Transport for Script {
    fn send(
        &self,
        via: &ConnectOptions,
        request: ::http::Request<Bytes>,
    ) -> BoxFuture<'_, Result<::http::Response<ByteStream>, TransportError>> {
        let body: serde_json::Value = serde_json::from_slice(request.body()).expect("JSON");
        let key = request.headers().get("authorization").map(|value| value.to_str().expect("text").to_owned());
        let model = body["model"].as_str().expect("a model").into();
        let asked = Asked { model, key, fresh: via.fresh, connect: via.timeout, body, request };
        self.asked.lock().expect("one thread").push(asked);
        let reply = self.replies.lock().expect("one thread").pop_front().expect("a reply for every request");
        let open = Open::begin(&self.open);
        async move {
            let ok = |pieces: Vec<Result<(Duration, &'static str), ()>>| {
                let body: ByteStream = Box::pin(stream::iter(pieces).then(move |piece| {
                    let _open = &open;
                    async move {
                        match piece {
                            Ok((wait, text)) => {
                                sleep(wait).await;
                                Ok(Bytes::from_static(text.as_bytes()))
                            }
                            Err(()) => Err(TransportError::new(TransportErrorKind::Reset, "connection reset")),
                        }
                    }
                }));
                Ok(::http::Response::new(body))
            };
            match reply {
                Reply::Pieces(pieces) => ok(pieces.into_iter().map(Ok).collect()),
                Reply::Broken(pieces) => ok(pieces.into_iter().map(Ok).chain([Err(())]).collect()),
                Reply::Silence => std::future::pending().await,
                Reply::Slow(wait, status) => {
                    sleep(wait).await;
                    let mut reply = ::http::Response::new(stream::empty().boxed());
                    *reply.status_mut() = StatusCode::from_u16(status).expect("a status");
                    Ok(reply)
                }
                Reply::Unended(status) => {
                    let mut reply = ::http::Response::new(stream::pending().boxed());
                    *reply.status_mut() = StatusCode::from_u16(status).expect("a status");
                    Ok(reply)
                }
                Reply::NoConnection(kind) => Err(TransportError::new(kind, "no connection")),
                Reply::Status(status, headers, text) => {
                    let body: ByteStream =
                        Box::pin(stream::once(async move { Ok(Bytes::from_static(text.as_bytes())) }));
                    let mut reply = ::http::Response::new(body);
                    *reply.status_mut() = StatusCode::from_u16(status).expect("a status");
                    for (name, value) in headers {
                        reply.headers_mut().insert(name, ::http::HeaderValue::from_static(value));
                    }
                    Ok(reply)
                }
            }
        }
        .boxed()
    }
}
