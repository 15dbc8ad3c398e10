//! Wire formats: requests in, bytes out; bytes in, deltas out.
//!
//! Owns the [`Protocol`] and [`Decoder`] traits, the framing of bodies and the registry of protocols. Refuses sockets
//! and clocks: everything here is a function of the bytes it was given, so every test is a test on bytes.
//!
//! The flow: [`Protocol::encode`] makes a request; [`body::BodyFramer`] cuts the reply into [`Frame`]s by looking at
//! the body, not at its label; a [`Decoder`] turns frames into deltas and says when the answer is over.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};

use crate::model::{
    Adjustment, Call, ChatRequest, Delta, FinishReason, ProtocolId,
    api_key::ApiKey,
    target::{DecodeOptions, Target},
};

pub mod error;
pub mod framing;
pub mod openai;

pub mod reply_reader;
pub mod retry_after;
mod think_tags;

pub use error::{ApiError, ServerKind};
pub use retry_after::{RetryAfter, RetryWhen};

/// Every protocol there is. A new one is one file and one line here.
pub static PROTOCOLS: &[&dyn Protocol] = &[&openai::OpenAiChat];

/// The protocol called `id`.
#[must_use]
pub fn protocol(id: ProtocolId) -> Option<&'static dyn Protocol> {
    PROTOCOLS.iter().copied().find(|protocol| protocol.id() == id)
}

/// One wire format: stateless, without I/O.
pub trait Protocol: Sync {
    /// The value of `protocol = "…"`.
    fn id(&self) -> ProtocolId;

    /// The request that asks `target` for `call`.
    ///
    /// # Errors
    /// When the call cannot be put into this format.
    fn encode(&self, target: &Target, key: Option<&ApiKey>, call: &Call) -> Result<http::Request<Bytes>, EncodeError>;

    /// A decoder for the reply to `call` that begins with `head`.
    fn decoder(&self, call: &Call, options: &DecodeOptions, head: &ResponseHead) -> Box<dyn Decoder>;

    /// What an unsuccessful reply says.
    fn error(&self, head: &ResponseHead, body: &[u8]) -> ApiError;

    /// The request that lists the models of `target`'s endpoint, those behind the id `after` where the list has pages.
    ///
    /// # Errors
    /// When the key cannot be put into a header.
    fn list_models(
        &self,
        target: &Target,
        key: Option<&ApiKey>,
        after: Option<&str>,
    ) -> Result<http::Request<Bytes>, EncodeError>;

    /// The models in a successful reply to [`Protocol::list_models`].
    ///
    /// # Errors
    /// When the body is an error or no list.
    fn parse_models(&self, body: &[u8]) -> Result<ModelList, ApiError>;

    /// The change to `chat` that may satisfy a service that refused one of its parameters.
    fn adjust(&self, error: &ApiError, target: &Target, chat: &ChatRequest) -> Option<Adjustment>;
}

/// Reads one reply.
pub trait Decoder: Send {
    /// Reads one frame and appends what it adds to `out`. Deltas in `out` count even when an error is returned.
    ///
    /// # Errors
    /// When the frame is an error of the service.
    fn frame(&mut self, frame: &Frame, out: &mut Vec<Delta>) -> Result<Flow, ApiError>;

    /// The reply is over: appends what was held back and judges how it ended.
    ///
    /// # Errors
    /// When the whole reply turns out to be an error.
    fn finish(&mut self, end: StreamEnd, out: &mut Vec<Delta>) -> Result<Ending, ApiError>;
}

/// One piece of a reply that can be decoded by itself.
#[derive(Clone, Debug)]
pub struct Frame {
    /// Exactly the bytes it came in, for passing on.
    pub raw: Bytes,
    /// Its payload; valid UTF-8.
    pub data: Bytes,
    /// The SSE event's name; empty when there was none.
    pub event: Bytes,
    /// What kind of reply it is part of.
    pub kind: FrameKind,
}

/// What kind of reply a frame is part of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameKind {
    /// One event of a stream.
    Event,
    /// A whole JSON body.
    Body,
    /// A page (HTML or XML) or a text: no answer.
    Page,
}

/// What a decoder wants next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// More frames.
    More,
    /// Every choice has its finish reason; usage or late text may follow.
    SoftEnd,
    /// Nothing of interest follows: stop reading.
    End,
    /// The frame could not be read: a piece of the answer is lost.
    Garbled,
}

/// How the bytes of a reply ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamEnd {
    /// The protocol's own end was seen; reading stopped.
    Hard,
    /// The body was over.
    Eof,
    /// The connection broke.
    Broken,
}

/// How an answer ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// With a reason.
    Finished(FinishReason),
    /// With an end mark but no reason: whole, with a warning.
    DoneOnly,
    /// In the middle.
    Cut,
    /// Before it began.
    Empty,
}

/// The first lines of a reply.
#[derive(Clone, Debug)]
pub struct ResponseHead {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: Arc<HeaderMap>,
}

impl ResponseHead {
    /// A header's value as text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok().map(str::trim)
    }

    /// The service's id of the request, under whichever of its names.
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
        NAMES.iter().find_map(|name| self.header(name)).filter(|id| !id.is_empty()).map(str::to_owned)
    }
}

/// A list of models, or a page of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModelList {
    /// The models, in the order of the list, each once.
    pub models: Vec<ModelInfo>,
    /// There are more, behind this id.
    pub more_after: Option<String>,
}

/// A model as its endpoint lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelInfo {
    /// The upstream id.
    pub id: String,
    /// How many tokens it takes, when the list says so.
    pub context: Option<u64>,
    /// Whose it is said to be; some servers put their own name there.
    pub owner: Option<String>,
}

/// A call that cannot be put on the wire.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// The key has characters that no header can carry.
    #[error("the key of endpoint `{endpoint}` has a line break or another character that cannot be sent in a header")]
    Key {
        /// The endpoint's name.
        endpoint: String,
    },
    /// The client's body is not a JSON object.
    #[error("the request body is not a JSON object")]
    Body(#[source] serde_json::Error),
    /// The URL is one no request can be made of.
    #[error("no request can be made for {url}")]
    Request {
        /// The address, masked.
        url: String,
        /// Why.
        #[source]
        source: http::Error,
    },
}
