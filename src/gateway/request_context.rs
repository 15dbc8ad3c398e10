//! Defines the context of a request, for the log and the metrics, and the options of its response.

use std::{borrow::Cow, time::Duration};

use http::HeaderMap;
use tokio::time::Instant;

use super::{request_id, write_timeout::PendingWrite};

/// Properties of the connection of a request.
#[derive(Clone, Copy, Debug)]
pub(super) struct ConnInfo {
    /// The listener is on a loopback address, which only this machine can reach.
    pub(super) loopback: bool,
    /// The address of the client has more connections than it may have: this is the limit.
    pub(super) max_connections: Option<usize>,
}

/// Options of a response.
#[derive(Debug)]
pub(super) struct ResponseOptions {
    pub(super) stream: bool,
    /// The client requested the usage of a stream (`stream_options.include_usage`).
    pub(super) include_usage: bool,
    /// A stream ends with `data: [DONE]`.
    pub(super) sends_done: bool,
    /// Time that the headers of a stream are held back for its first chunk.
    pub(super) hold: Duration,
    /// Whether written data still waits for the client to read it.
    pub(super) pending_write: PendingWrite,
}

/// Context of a request for the log and the metrics.
#[derive(Clone, Debug)]
pub(super) struct RequestContext {
    pub(super) request_id: String,
    /// The client's own id of the request.
    pub(super) client_request_id: Option<String>,
    /// Path of the HTTP route, as documented, or the path of a request without a route.
    pub(super) path: Cow<'static, str>,
    /// Name of the client key.
    pub(super) client: Option<String>,
    /// Requested model or route; `None` until the body is parsed and for paths without a model.
    pub(super) requested_name: Option<String>,
    /// The name that the client has sent, if it stands for the requested one.
    pub(super) alias: Option<String>,
    pub(super) stream: bool,
    pub(super) started_at: Instant,
    /// Time this server added to the time to first token.
    pub(super) overhead: Option<Duration>,
    /// Notices of the call that are not failures.
    pub(super) notices: Vec<String>,
}

impl RequestContext {
    pub(super) fn new(path: impl Into<Cow<'static, str>>, headers: &HeaderMap) -> Self {
        Self {
            request_id: request_id::new(),
            client_request_id: request_id::of_client(headers),
            path: path.into(),
            client: None,
            requested_name: None,
            alias: None,
            stream: false,
            started_at: Instant::now(),
            overhead: None,
            notices: Vec::new(),
        }
    }
}
