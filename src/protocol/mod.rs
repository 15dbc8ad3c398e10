//! Wire formats: encodes requests into HTTP bodies and decodes response bodies into deltas.
//!
//! Uses no sockets and no clocks: all functions depend only on their arguments, so they are tested on bytes.
//!
//! The flow: [`Protocol::encode`] builds a request; [`framing::body::BodyFramer`] splits the response into [`Frame`]s
//! by the content of the body, not by its content type; a [`Decoder`] turns frames into deltas and detects the end.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};

use crate::model::{
    Delta, FinishReason, ModelRequest, ParamWorkaround, ProtocolId,
    api_key::ApiKey,
    endpoint::Endpoint,
    target::{DecodeOptions, Target},
};

pub mod error;
mod error_phrases;
pub mod framing;
mod numbers;
pub mod openai;

pub mod reply_reader;
pub mod retry_after;
mod think_tags;

pub use error::{CallError, ServerKind};
pub use retry_after::{RetryAfter, RetryWhen};

/// All supported protocols. A new protocol is a module and one line here.
pub static PROTOCOLS: &[&dyn Protocol] = &[&openai::OpenAiChat];

/// The protocol of an endpoint.
///
/// # Panics
///
/// When the endpoint has a protocol that is not supported, which no endpoint of a resolved config has.
#[must_use]
pub fn protocol_of(endpoint: &Endpoint) -> &'static dyn Protocol {
    let protocol = PROTOCOLS.iter().copied().find(|protocol| protocol.id() == endpoint.protocol);
    protocol.expect("a resolved config has only known protocols")
}

/// A wire format: stateless, without I/O.
pub trait Protocol: Sync {
    /// The value of `protocol = "…"`.
    fn id(&self) -> ProtocolId;

    /// Encodes `request` as an HTTP request to `target`.
    ///
    /// # Errors
    /// When the request cannot be expressed in this format.
    fn encode(
        &self,
        target: &Target,
        key: Option<&ApiKey>,
        request: &ModelRequest,
    ) -> Result<http::Request<Bytes>, EncodeError>;

    /// A decoder for the response to `request` with the given head.
    fn decoder(
        &self,
        request: &ModelRequest,
        options: &DecodeOptions,
        head: &ResponseHead,
        sent: SentRequest,
    ) -> Box<dyn Decoder>;

    /// Decodes the body of a response with an error status.
    fn decode_error(&self, head: &ResponseHead, body: &[u8], request: &[u8]) -> CallError;

    /// The request that lists the models of `target`'s endpoint. With `after`, the page of the list that follows the
    /// model with that id.
    ///
    /// # Errors
    /// When the key contains characters that are invalid in a header.
    fn list_models(
        &self,
        target: &Target,
        key: Option<&ApiKey>,
        after: Option<&str>,
    ) -> Result<http::Request<Bytes>, EncodeError>;

    /// Parses a successful response to [`Protocol::list_models`].
    ///
    /// # Errors
    /// When the body is an error or not a model list.
    fn parse_models(&self, body: &[u8]) -> Result<ModelList, CallError>;

    /// Whether the response to `request` is expected to report its usage after the finish reason.
    fn reports_usage_at_end(&self, target: &Target, request: &ModelRequest) -> bool;

    /// A change to `request` that may avoid `error`, if the model refuses a part of it.
    fn workaround(&self, error: &CallError, target: &Target, request: &ModelRequest) -> Option<ParamWorkaround>;

    /// Whether a change that has avoided `error` is right for later requests, too.
    fn is_general(&self, error: &CallError, workaround: &ParamWorkaround) -> bool;
}

/// What was sent of a request.
#[derive(Clone, Debug, Default)]
pub struct SentRequest {
    /// The body, which an error may quote.
    pub body: Bytes,
    /// The number of choices that it asks for, if it does.
    pub choice_count: Option<u64>,
}

/// Decodes one response.
pub trait Decoder: Send {
    /// Decodes one frame and appends its deltas to `out`. Deltas in `out` are valid even when an error is returned.
    ///
    /// # Errors
    /// When the frame is an error from the service.
    fn decode_frame(&mut self, frame: &Frame, out: &mut Vec<Delta>) -> Result<Flow, CallError>;

    /// Ends the response: appends buffered deltas to `out` and returns how the answer ended.
    ///
    /// # Errors
    /// When the response as a whole is an error.
    fn finish(&mut self, end: StreamEnd, out: &mut Vec<Delta>) -> Result<StreamOutcome, CallError>;

    /// The finish reason of the answer, as soon as all choices that the request asked for have one.
    fn finish_reason(&self) -> Option<FinishReason>;
}

/// The smallest part of a response that can be decoded on its own.
#[derive(Clone, Debug)]
pub struct Frame {
    /// The original bytes, for pass-through.
    pub raw: Bytes,
    /// The payload; valid UTF-8.
    pub data: Bytes,
    /// The name of the SSE event; empty when absent.
    pub event: Bytes,
    /// The kind of response it is part of.
    pub kind: FrameKind,
}

impl Frame {
    /// The frame with a copy of its bytes. Those of the original share a buffer with others, which a frame that is kept
    /// would keep, too.
    #[must_use]
    pub fn detached(self) -> Self {
        let raw = Bytes::copy_from_slice(&self.raw);
        let detach = |part: &Bytes| {
            let offset = (part.as_ptr() as usize).checked_sub(self.raw.as_ptr() as usize);
            let range = offset.map(|offset| offset..offset + part.len()).filter(|range| range.end <= raw.len());
            range.map_or_else(|| Bytes::copy_from_slice(part), |range| raw.slice(range))
        };
        let (data, event) = (detach(&self.data), detach(&self.event));
        Self { raw, data, event, kind: self.kind }
    }
}

/// The kind of response a frame is part of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameKind {
    /// One event of a stream.
    Event,
    /// A complete JSON body.
    Body,
    /// An HTML or XML page or plain text, which never holds an answer.
    Page,
}

/// What the reader should do after a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// Continue with the next frame.
    More,
    /// All choices have a finish reason; usage or late text may follow.
    SoftEnd,
    /// All choices so far have a finish reason, but the request asked for more.
    ChoicesMissing,
    /// The response is complete: stop reading.
    End,
    /// The frame could not be parsed, so part of the answer is lost.
    InvalidChunk,
}

/// How the byte stream of a response ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamEnd {
    /// The protocol's end signal was seen, and reading stopped.
    EndSignal,
    /// End of the body.
    Eof,
    /// The connection was lost.
    Broken,
}

/// How an answer ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StreamOutcome {
    /// With a finish reason.
    Finished(FinishReason),
    /// With an end signal but no finish reason: complete, with a warning.
    NoFinishReason,
    /// Without an end signal.
    Incomplete,
    /// Without any output.
    Empty,
}

/// Status and headers of a response.
#[derive(Clone, Debug)]
pub struct ResponseHead {
    /// The HTTP status.
    pub status: StatusCode,
    /// The headers.
    pub headers: Arc<HeaderMap>,
}

impl ResponseHead {
    /// The trimmed value of a header, if it is visible ASCII.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok().map(str::trim)
    }

    /// The request id that the service assigned, from any of the known headers.
    #[must_use]
    pub fn request_id(&self) -> Option<String> {
        const NAMES: [&str; 6] = [
            "x-request-id",
            "request-id",
            "apim-request-id",
            "x-generation-id",
            "x-oneapi-request-id",
            "x-litellm-call-id",
        ];
        NAMES.iter().find_map(|name| self.header(name)).filter(|id| !id.is_empty()).map(error::truncate_code)
    }
}

/// A model list, or one page of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModelList {
    /// The models in list order, without duplicates.
    pub models: Vec<ModelInfo>,
    /// The id after which the next page starts; `None` on the last page.
    pub next_cursor: Option<String>,
}

/// An entry of an endpoint's model list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelInfo {
    /// The upstream id.
    pub id: String,
    /// The context window in tokens, when the list has it.
    pub context_window: Option<u64>,
    /// The `owned_by` value; some servers put their own name there.
    pub owner: Option<String>,
}

/// A request that cannot be encoded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// The key contains characters that are invalid in a header.
    #[error("invalid key of endpoint \"{endpoint}\": it contains a character that cannot be sent in a header")]
    Key {
        /// The name of the endpoint.
        endpoint: String,
    },
    /// The client's body is not a JSON object, or has too many fields.
    #[error("the request body cannot be sent: {0}")]
    Body(#[source] serde_json::Error),
    /// The URL or a header is invalid.
    #[error("cannot build a request for {url}")]
    Request {
        /// The URL, with secrets masked.
        url: String,
        /// The cause.
        #[source]
        source: http::Error,
    },
}
