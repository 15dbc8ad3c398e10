//! One attempt at one target with one key: encodes the request, sends it and decodes the response.
//!
//! Does not retry. Dropping an [`Attempt`] closes its connection, which is how it is canceled. Timeouts count only the
//! time spent waiting for the network: a slow consumer of the answer (a pager, a blocked pipe) uses up none of it.

use std::{pin::pin, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{
    StreamExt,
    future::{Either, select},
};
use http::HeaderMap;
use tokio::time::Instant;

use crate::{
    engine::{
        attempt_error::{
            answer_size_error, encode_error, mask_error, memory_error, redirect_error, timeout_error, transport_error,
            without_secrets,
        },
        credentials::Credentials,
        memory::{AnswerMemory, AnswerPart, MemoryFull},
        stop_tolerant::wait_for,
    },
    model::{
        Delta, DeltaKind, ErrorClass, FinishReason, ModelRequest,
        endpoint::{ConnectOptions, Timeouts},
        target::Target,
    },
    protocol::{
        CallError, Flow, Protocol, ResponseHead, SentRequest, ServerKind, StreamEnd, StreamOutcome, protocol_of,
        reply_reader::{DecodedBatch, ReplyReader},
    },
    routing::policies::TimeoutPolicy,
    transport::{ByteStream, Transport, TransportError, UnsafeToRepeat},
};

/// How long to wait for further text after the answer is complete; restarts whenever some arrives.
const SOFT_END_TIMEOUT: Duration = Duration::from_secs(1);
/// What a response has not given to its consumer yet is reserved from this size on: the rest of one read of the network.
const RESERVED_BYTES: usize = 64 * 1024;
/// The part of an error body that is read, in bytes.
const MAX_ERROR_BODY_BYTES: usize = 64 * 1024;
/// How long to read an error body.
const ERROR_BODY_TIMEOUT: Duration = Duration::from_secs(5);

/// The timeouts of one attempt.
#[derive(Clone, Copy, Debug)]
pub struct AttemptTimeouts {
    /// From sending to the first delta; `None`: only `total` applies. Ignored for responses that are not streamed.
    pub first_token: Option<Duration>,
    /// Silence while a response that is not streamed is awaited; `None`: only `total` applies.
    pub one_piece: Option<Duration>,
    /// Between two reads after the first delta.
    pub idle: Duration,
    /// From the end of an answer to its usage.
    pub usage: Duration,
    /// For the complete response.
    pub total: Duration,
}

impl AttemptTimeouts {
    /// The configured timeouts, with those of `policy` where none is set.
    #[must_use]
    pub fn new(timeouts: Timeouts, policy: &TimeoutPolicy) -> Self {
        Self {
            first_token: timeouts.first_token,
            one_piece: None,
            idle: timeouts.idle.unwrap_or(policy.idle),
            usage: policy.usage,
            total: timeouts.total.unwrap_or(policy.total),
        }
    }

    /// The time to the first delta, or to the head of a response that is not streamed.
    #[must_use]
    pub fn first_output(&self, is_streaming: bool) -> Duration {
        let limit = if is_streaming { self.first_token } else { self.one_piece };
        limit.unwrap_or(self.total).min(self.total)
    }
}

/// The result of [`Attempt::next`].
#[derive(Debug)]
pub enum Step {
    /// Everything that one read of the network added; may contain no output.
    Read(DecodedBatch),
    /// The answer is complete.
    Done(AttemptEnd),
}

/// How a complete answer ended.
#[derive(Debug)]
pub struct AttemptEnd {
    /// The finish reason; `None`: the service sent an end signal without a reason.
    pub finish_reason: Option<FinishReason>,
    /// An error received after the answer was complete.
    pub warning: Option<CallError>,
}

/// A started attempt, whose response is being read.
pub struct Attempt {
    body: ByteStream,
    reader: ReplyReader,
    credentials: Credentials,
    timeouts: AttemptTimeouts,
    sent_at: Instant,
    /// Time spent waiting for the network.
    waited: Duration,
    streaming: bool,
    /// Size of the answer in bytes.
    answer_bytes: usize,
    max_answer_bytes: usize,
    memory: AnswerMemory,
    /// The memory of what is not decoded yet.
    undecoded: AnswerPart,
    /// The memory of what was decoded last.
    decoded: AnswerPart,
    /// The value of `waited` when the last part of a complete answer arrived, and how long to wait for more; `None`: the
    /// answer is not complete.
    complete_since: Option<(Duration, Duration)>,
    /// Usage was asked for and has not arrived.
    is_usage_pending: bool,
    /// The end of the response, returned after the deltas that were read together with it.
    pending_end: Option<Result<AttemptEnd, CallError>>,
    request_id: Option<String>,
    server: ServerKind,
    /// The headers of the response.
    headers: Arc<HeaderMap>,
}

impl std::fmt::Debug for Attempt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Attempt")
            .field("waited", &self.waited)
            .field("request_id", &self.request_id)
            .finish_non_exhaustive()
    }
}

/// The arguments of [`Attempt::start`].
#[derive(Debug, Clone)]
pub struct StartOptions<'a> {
    /// The target to send to.
    pub target: &'a Target,
    /// The secrets to send.
    pub credentials: &'a Credentials,
    /// The request to encode.
    pub request: &'a ModelRequest,
    /// The timeouts of this attempt.
    pub timeouts: AttemptTimeouts,
    /// Use a new connection, for example after a pooled one was reset.
    pub fresh_connection: bool,
    /// Also keep the raw frames of the response if they are in the client's own format.
    pub retain_frames: bool,
    /// Headers to send, unless the endpoint sets them.
    pub headers: &'a HeaderMap,
    /// The memory of the answer.
    pub memory: &'a AnswerMemory,
    /// Maximum size of the answer in bytes.
    pub max_answer_bytes: usize,
}

impl Attempt {
    /// Sends the request and waits for the response head.
    pub async fn start(transport: &dyn Transport, start: StartOptions<'_>) -> Result<Self, CallError> {
        let StartOptions { target, credentials, request: model_request, timeouts, .. } = start;
        let protocol = protocol_of(&target.endpoint);
        let sent_at = Instant::now();
        let (head, body, waited, sent) = send(transport, protocol, &start).await?;
        // Parameters of the model may ask for more choices than the request does.
        let choice_count = model_request.choice_count().or(target.params.choice_count());
        let sent = SentRequest { body: sent, choice_count };
        let mut reader = ReplyReader::new(protocol.decoder(model_request, &target.decode_options, &head, sent));
        if start.retain_frames && same_protocol(model_request, target) {
            reader = reader.retain_frames();
        }
        Ok(Self {
            body,
            reader,
            credentials: credentials.clone(),
            timeouts,
            sent_at,
            waited,
            streaming: model_request.is_streaming(),
            answer_bytes: 0,
            max_answer_bytes: start.max_answer_bytes,
            memory: start.memory.clone(),
            undecoded: start.memory.new_part(),
            decoded: start.memory.new_part(),
            complete_since: None,
            // An answer that was asked for in one piece has its usage, also if it is streamed.
            is_usage_pending: !model_request.is_streaming() || protocol.reports_usage_at_end(target, model_request),
            pending_end: None,
            request_id: head.request_id().map(|id| credentials.masked_in(&id)),
            server: ServerKind::from_headers(&head.headers),
            headers: head.headers,
        })
    }

    /// When the request was sent.
    #[must_use]
    pub fn sent_at(&self) -> Instant {
        self.sent_at
    }

    /// The request id assigned by the service.
    #[must_use]
    pub fn request_id(&self) -> Option<&str> {
        self.request_id.as_deref()
    }

    /// The headers of the response with these names, in lowercase; a name may end in `*`. Values that quote a secret are
    /// left out.
    #[must_use]
    pub fn listed_headers(&self, names: &[String]) -> Arc<HeaderMap> {
        let listed = crate::config::listed_headers(&self.headers, names);
        // Masking is expensive, so only these are checked.
        without_secrets(Arc::new(listed), &self.credentials)
    }

    /// The finish reason, if only the usage of the answer may be missing.
    #[must_use]
    pub fn finish_reason(&self) -> Option<FinishReason> {
        if let Some(Ok(end)) = &self.pending_end {
            return end.finish_reason.clone();
        }
        self.complete_since?;
        self.reader.finish_reason()
    }

    /// Reads further. Not cancel safe: decoded deltas wait for memory, and dropping the future loses them.
    pub async fn next(&mut self) -> Result<Step, CallError> {
        if let Some(end) = self.pending_end.take() {
            return end.map(Step::Done);
        }
        let mut deltas = Vec::new();
        let end = self.read(&mut deltas).await;
        let read = DecodedBatch { deltas, frames: self.reader.take_frames() };
        let end = match self.reserve(&read).await {
            Err(full) if end.as_ref().is_none_or(Result::is_ok) => return Err(memory_error(full)),
            _ => end,
        };
        match end {
            None => Ok(Step::Read(read)),
            Some(end) if read.is_empty() => end.map(Step::Done),
            Some(end) => {
                self.pending_end = Some(end);
                Ok(Step::Read(read))
            }
        }
    }

    /// Reads the network once and decodes what it returned.
    async fn read(&mut self, out: &mut Vec<Delta>) -> Option<Result<AttemptEnd, CallError>> {
        let limit = self.read_timeout();
        // The body is polled before the timer, so data that has already arrived never times out. A server that always has
        // data ready (endless comments) is stopped when the limit reaches zero.
        let body = self.body.next();
        let (read, waited) = match (limit.is_zero(), self.memory.is_held()) {
            (true, _) => (None, Duration::ZERO),
            (false, false) => wait_for(limit, body).await,
            (false, true) => match select(pin!(wait_for(limit, body)), pin!(self.memory.has_to_end())).await {
                Either::Left((read, _)) => read,
                // Only usage may be missing.
                Either::Right(_) if self.complete_since.is_some() => (None, Duration::ZERO),
                Either::Right(_) => return Some(Err(memory_error(MemoryFull))),
            },
        };
        self.waited += waited;
        let started = Instant::now();
        let end = match read {
            Some(Some(Ok(bytes))) => self.decode(&bytes, out),
            Some(None) => Some(self.finish(StreamEnd::Eof, out)),
            Some(Some(Err(error))) => Some(self.finish_broken(error, out)),
            None if self.complete_since.is_some() => Some(self.finish(StreamEnd::Eof, out)),
            None => Some(Err(self.read_timeout_error(out))),
        };
        // Decoding counts too: otherwise a server that sends without pause would never reach a timeout.
        self.waited += started.elapsed();
        end
    }

    /// Reserves the memory of what was read: of `batch`, until the next read, and of what is not decoded yet.
    async fn reserve(&mut self, batch: &DecodedBatch) -> Result<(), MemoryFull> {
        let if_large = |bytes: usize| if bytes > RESERVED_BYTES { bytes } else { 0 };
        let (undecoded, decoded) = (if_large(self.reader.held_bytes()), if_large(batch.held_bytes()));
        // Most of what was decoded had been reserved before.
        let excess = self.undecoded.bytes().saturating_sub(undecoded);
        self.undecoded.hand_over(excess, &mut self.decoded);
        self.decoded.resize(decoded).await?;
        self.undecoded.resize(undecoded).await
    }

    /// Takes the memory of the last batch, for a consumer that holds the batch longer than until the next read.
    pub fn take_reserved(&mut self) -> AnswerPart {
        std::mem::replace(&mut self.decoded, self.memory.new_part())
    }

    fn read_timeout(&self) -> Duration {
        let remaining = |limit: Duration| limit.saturating_sub(self.waited);
        let total = remaining(self.timeouts.total);
        if let Some((since, wait)) = self.complete_since {
            remaining(since.saturating_add(wait)).min(total)
        } else if self.reader.has_output() {
            self.timeouts.idle.min(total)
        } else {
            let first_token = self.timeouts.first_token.map(remaining);
            let silence = if self.streaming { first_token } else { self.timeouts.one_piece };
            silence.unwrap_or(total).min(total)
        }
    }

    fn decode(&mut self, bytes: &[u8], out: &mut Vec<Delta>) -> Option<Result<AttemptEnd, CallError>> {
        match self.reader.push(bytes, out) {
            Ok(Flow::End) => Some(self.finish(StreamEnd::EndSignal, out)),
            Ok(flow) => {
                self.is_usage_pending &= !out.iter().any(|delta| matches!(delta.kind, DeltaKind::Usage(_)));
                // A read without deltas (a ping) does not extend the wait after a complete answer.
                let since = self.complete_since.filter(|_| out.is_empty()).map_or(self.waited, |(since, _)| since);
                self.complete_since = match flow {
                    Flow::SoftEnd if self.is_usage_pending => Some((since, self.timeouts.usage)),
                    Flow::SoftEnd => Some((since, SOFT_END_TIMEOUT)),
                    Flow::ChoicesMissing => Some((since, self.timeouts.idle)),
                    Flow::More | Flow::End | Flow::InvalidChunk => None,
                };
                let output: usize = out.iter().map(|delta| delta.kind.byte_len()).sum();
                // Events without output count, too.
                self.answer_bytes += if output > 0 { output } else { bytes.len() };
                (self.answer_bytes > self.max_answer_bytes).then(|| Err(self.size_error()))
            }
            Err(error) => Some(Err(mask_error(error, &self.credentials))),
        }
    }

    fn size_error(&self) -> CallError {
        let class = if self.reader.has_output() { ErrorClass::Incomplete } else { ErrorClass::InvalidResponse };
        CallError { class, server: self.server, ..answer_size_error(self.max_answer_bytes) }
    }

    fn finish(&mut self, end: StreamEnd, out: &mut Vec<Delta>) -> Result<AttemptEnd, CallError> {
        let outcome = self.reader.finish(end, out).map_err(|error| mask_error(error, &self.credentials))?;
        let new_error = |class, message: &str| CallError { server: self.server, ..CallError::new(class, message) };
        let warning = self.reader.take_warning().map(|error| mask_error(error, &self.credentials));
        match outcome {
            StreamOutcome::Finished(reason) => Ok(AttemptEnd { finish_reason: Some(reason), warning }),
            StreamOutcome::NoFinishReason => Ok(AttemptEnd { finish_reason: None, warning }),
            StreamOutcome::Incomplete if self.reader.has_output() => {
                Err(new_error(ErrorClass::Incomplete, "the answer ended without an end signal"))
            }
            StreamOutcome::Incomplete => Err(new_error(ErrorClass::Reset, "the response ended before any output")),
            StreamOutcome::Empty => {
                let empty = new_error(ErrorClass::InvalidResponse, "empty response");
                Err(CallError { should_retry: Some(true), ..empty })
            }
        }
    }

    /// Ends the response after a transport error. A complete answer stays complete.
    fn finish_broken(&mut self, error: TransportError, out: &mut Vec<Delta>) -> Result<AttemptEnd, CallError> {
        let outcome = self.reader.finish(StreamEnd::Broken, out);
        if let Ok(StreamOutcome::Finished(reason)) = outcome {
            return Ok(AttemptEnd {
                finish_reason: Some(reason),
                warning: Some(mask_error(transport_error(error, true), &self.credentials)),
            });
        }
        Err(mask_error(transport_error(error, self.reader.has_output()), &self.credentials))
    }

    fn read_timeout_error(&mut self, out: &mut Vec<Delta>) -> CallError {
        let limit = self.read_timeout();
        if !self.reader.has_output() {
            return timeout_error(self.waited);
        }
        // Flushes what the decoder has buffered; the timeout is the error either way.
        let _ = self.reader.finish(StreamEnd::Broken, out);
        let total_reached = self.waited >= self.timeouts.total;
        let message = if total_reached {
            format!("the answer took longer than {:.1} s", self.timeouts.total.as_secs_f64())
        } else {
            format!("no output for {:.1} s", limit.as_secs_f64())
        };
        CallError::new(ErrorClass::Incomplete, message)
    }
}

/// Sends the request and waits for the head of a successful response. Also returns its body, how long it waited, and the body
/// of the request.
async fn send(
    transport: &dyn Transport,
    protocol: &dyn Protocol,
    start: &StartOptions<'_>,
) -> Result<(ResponseHead, ByteStream, Duration, Bytes), CallError> {
    let StartOptions { target, credentials, request: model_request, .. } = start;
    let mask = |error: CallError| mask_error(error, credentials);
    let request = build_request(protocol, target, credentials, model_request, start.headers)?;
    let sent = request.body().clone();
    let connect = target.endpoint.connect.clone();
    let connect = ConnectOptions {
        new_connection: start.fresh_connection,
        timeout: target.timeouts.connect.or(connect.timeout),
        ..connect
    };
    let limit = start.timeouts.first_output(model_request.is_streaming());
    let (response, waited) = wait_for(limit, transport.send(&connect, request)).await;
    let response =
        response.ok_or_else(|| timeout_error(limit))?.map_err(|error| mask(transport_error(error, false)))?;
    let (parts, mut body) = response.into_parts();
    let head = ResponseHead { status: parts.status, headers: Arc::new(parts.headers) };
    if head.status.is_success() {
        return Ok((head, body, waited, sent));
    }
    let bytes = read_error_body(&mut body, limit.saturating_sub(waited)).await;
    let mut error = protocol.decode_error(&head, &bytes, &sent);
    if error.class == ErrorClass::Redirect {
        error = redirect_error(error, &head);
    }
    Err(mask(error))
}

/// Whether client and target use the same protocol, so that frames can be passed through.
fn same_protocol(request: &ModelRequest, target: &Target) -> bool {
    request.raw_request().is_some_and(|raw_request| raw_request.protocol == target.endpoint.protocol)
}

fn build_request(
    protocol: &dyn Protocol,
    target: &Target,
    credentials: &Credentials,
    model_request: &ModelRequest,
    headers: &HeaderMap,
) -> Result<http::Request<Bytes>, CallError> {
    let encoded = protocol.encode(target, credentials.key.as_ref(), model_request);
    let mut request = encoded.map_err(encode_error)?;
    for (name, value) in headers {
        // What the format itself sends cannot be replaced by a client.
        request.headers_mut().entry(name).or_insert_with(|| value.clone());
    }
    add_headers(&mut request, credentials)?;
    if model_request.is_unsafe_to_repeat() {
        request.extensions_mut().insert(UnsafeToRepeat);
    }
    Ok(request)
}

/// Adds the headers configured for the endpoint, which override ours.
pub fn add_headers(request: &mut http::Request<Bytes>, credentials: &Credentials) -> Result<(), CallError> {
    for (name, value) in &credentials.headers {
        let mut value = http::HeaderValue::try_from(value.expose()).map_err(|_| {
            let reason = "contains a line break or another character that cannot be sent";
            CallError::new(ErrorClass::LocalLimit, format!("the value of header \"{name}\" {reason}"))
        })?;
        value.set_sensitive(true);
        request.headers_mut().insert(name.clone(), value);
    }
    Ok(())
}

/// Reads the start of an error body, within the time limit.
async fn read_error_body(body: &mut ByteStream, limit: Duration) -> Vec<u8> {
    let mut bytes = Vec::new();
    let read = async {
        while let Some(Ok(chunk)) = body.next().await {
            let remaining = MAX_ERROR_BODY_BYTES - bytes.len();
            bytes.extend_from_slice(&chunk[..chunk.len().min(remaining)]);
            if bytes.len() >= MAX_ERROR_BODY_BYTES {
                break;
            }
        }
    };
    // After a timeout, what was read so far is enough for a message.
    wait_for(ERROR_BODY_TIMEOUT.min(limit), read).await;
    bytes
}
