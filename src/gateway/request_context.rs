//! Defines the context of a request, for the log and the metrics, and the options of its response.

use std::time::Duration;

use tokio::time::Instant;

use super::write_timeout::PendingWrite;

/// Properties of the connection of a request.
#[derive(Clone, Copy, Debug)]
pub(super) struct ConnInfo {
    /// The listener is on a loopback address, which only this machine can reach.
    pub(super) loopback: bool,
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
    /// Path of the HTTP route, as documented.
    pub(super) path: &'static str,
    /// Name of the client key.
    pub(super) client: Option<String>,
    /// Requested model or route; `None` until the body is parsed and for paths without a model.
    pub(super) requested_name: Option<String>,
    pub(super) stream: bool,
    pub(super) started_at: Instant,
    /// Time this server added to the time to first token.
    pub(super) overhead: Option<Duration>,
    /// Notices of the call that are not failures.
    pub(super) notices: Vec<String>,
}

impl RequestContext {
    pub(super) fn new(path: &'static str) -> Self {
        Self {
            request_id: uuid::Uuid::now_v7().simple().to_string(),
            path,
            client: None,
            requested_name: None,
            stream: false,
            started_at: Instant::now(),
            overhead: None,
            notices: Vec::new(),
        }
    }
}
