//! One try at one target with one key: encode, send, decode.
//!
//! Owns the timeouts of a single reply and the verdict on how it ended. Refuses to try again: that is `engine`'s work
//! by `route`'s rules. Dropping an [`Attempt`] closes its connection; there is no other way to cancel and none is
//! needed.
//!
//! Time counts only while the network is awaited: a reader that is slow to take what came (a pager, a blocked pipe)
//! uses up nothing.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::StreamExt;
use http::HeaderName;
use tokio::time::{Instant, timeout};

use crate::{
    model::{
        Call, Delta, ErrorClass, FinishReason,
        api_key::ApiKey,
        endpoint::{ConnectOptions, Timeouts},
        target::Target,
    },
    protocol::{
        ApiError, EncodeError, Ending, Flow, Protocol, ResponseHead, RetryAfter, ServerKind, StreamEnd, protocol,
        reply_reader::{Read, ReplyReader},
    },
    transport::{ByteStream, Transport, TransportError, TransportErrorKind},
};

/// Between two reads of a stream that has begun.
const IDLE: Duration = Duration::from_secs(60);
/// For the whole answer.
const TOTAL: Duration = Duration::from_secs(600);
/// How long late text or usage may take after the answer is complete, each time some comes.
const AFTER_SOFT_END: Duration = Duration::from_secs(1);
/// The longest answer, thinking included; some thirty million tokens.
const MOST_ANSWER: usize = 128 * 1024 * 1024;
/// How much of an error's body is read, and for how long.
const ERROR_BODY: usize = 64 * 1024;
const ERROR_BODY_TIME: Duration = Duration::from_secs(5);

/// What authorises a request, resolved.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    /// The key, if the endpoint wants one.
    pub key: Option<ApiKey>,
    /// Further headers.
    pub headers: Vec<(HeaderName, ApiKey)>,
    /// What is secret in the address itself.
    pub address: Vec<ApiKey>,
}

impl Credentials {
    /// `text` without any of these secrets: services quote keys back.
    #[must_use]
    pub fn masked_in(&self, text: &str) -> String {
        let headers = self.headers.iter().map(|(_, value)| value);
        let whole = self.key.iter().chain(headers).chain(&self.address);
        whole.fold(text.to_owned(), |text, secret| {
            let text = secret.masked_in(&text);
            secret.after_scheme().map_or(text.clone(), |rest| rest.masked_in(&text))
        })
    }
}

/// The time a reply may take.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// From sending to the first delta; `None`: as long as `total` allows. Only streams have first deltas.
    pub first_token: Option<Duration>,
    /// Between two reads after it.
    pub idle: Duration,
    /// Altogether.
    pub total: Duration,
}

impl Patience {
    /// The explicit timeouts, and the defaults where there are none.
    #[must_use]
    pub fn of(timeouts: Timeouts) -> Self {
        Self {
            first_token: timeouts.first_token,
            idle: timeouts.idle.unwrap_or(IDLE),
            total: timeouts.total.unwrap_or(TOTAL),
        }
    }
}

/// What comes next of a reply.
#[derive(Debug)]
pub enum Step {
    /// All that one read of the network added; may be empty of output.
    Read(Read),
    /// The answer is whole.
    Done(Finished),
}

/// How a whole answer ended.
#[derive(Debug)]
pub struct Finished {
    /// Its reason; `None` when the service only said that it was over.
    pub reason: Option<FinishReason>,
    /// An error that came after the answer was complete.
    pub warning: Option<ApiError>,
}

/// A reply being read.
pub struct Attempt {
    body: ByteStream,
    reader: ReplyReader,
    credentials: Credentials,
    patience: Patience,
    sent: Instant,
    /// Time spent waiting for the network so far.
    waited: Duration,
    streams: bool,
    /// The bytes of the model's words so far.
    size: usize,
    /// The answer is complete, and the last thing that came of it came when so much had been waited.
    complete_since: Option<Duration>,
    /// What to say after the deltas that came with it.
    verdict: Option<Result<Finished, ApiError>>,
    request_id: Option<String>,
    server: ServerKind,
}

impl std::fmt::Debug for Attempt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Attempt")
            .field("waited", &self.waited)
            .field("request_id", &self.request_id)
            .finish_non_exhaustive()
    }
}

/// What [`Attempt::start`] needs.
#[derive(Debug, Clone)]
pub struct Start<'a> {
    /// Whom to ask.
    pub target: &'a Target,
    /// With what authority.
    pub credentials: &'a Credentials,
    /// For what.
    pub call: &'a Call,
    /// For how long.
    pub patience: Patience,
    /// Over a connection of its own, after a pooled one broke.
    pub fresh: bool,
    /// The frames of the reply are wanted, too, where they are in the client's own format.
    pub verbatim: bool,
}

impl Attempt {
    /// Sends the request and waits for the head of the reply.
    pub async fn start(transport: &dyn Transport, start: Start<'_>) -> Result<Self, ApiError> {
        let Start { target, credentials, call, patience, fresh, verbatim } = start;
        let protocol = protocol(target.endpoint.protocol).expect("resolved configs name known protocols");
        let mask = |error: ApiError| masked(error, credentials);
        let request = request(protocol, target, credentials, call)?;
        let connect = target.endpoint.connect.clone();
        let via = ConnectOptions { fresh, timeout: target.timeouts.connect.or(connect.timeout), ..connect };
        let sent = Instant::now();
        let limit = patience.first_token.filter(|_| call.streams()).unwrap_or(patience.total).min(patience.total);
        let reply = timeout(limit, transport.send(&via, request)).await;
        let waited = sent.elapsed();
        let reply = reply.map_err(|_| silent(limit))?.map_err(|error| mask(of_transport(&error, false)))?;
        let (parts, mut body) = reply.into_parts();
        let head = ResponseHead { status: parts.status, headers: Arc::new(parts.headers) };
        if !head.status.is_success() {
            let bytes = error_body(&mut body, limit.saturating_sub(waited)).await;
            let mut error = protocol.error(&head, &bytes);
            if error.class == ErrorClass::Redirect {
                error = redirect(error, &head);
            }
            return Err(mask(error));
        }
        let reader = ReplyReader::new(protocol.decoder(call, &target.decode, &head));
        Ok(Self {
            body,
            reader: if verbatim && is_spoken(call, target) { reader.keeping_frames() } else { reader },
            credentials: credentials.clone(),
            patience,
            sent,
            waited,
            streams: call.streams(),
            size: 0,
            complete_since: None,
            verdict: None,
            request_id: head.request_id().map(|id| credentials.masked_in(&id)),
            server: ServerKind::of(&head.headers),
        })
    }

    /// When the request was sent.
    #[must_use]
    pub fn sent(&self) -> Instant {
        self.sent
    }

    /// The service's id of the request.
    #[must_use]
    pub fn request_id(&self) -> Option<&str> {
        self.request_id.as_deref()
    }

    /// What comes next. Cancel safe: a dropped call loses nothing.
    pub async fn next(&mut self) -> Result<Step, ApiError> {
        if let Some(verdict) = self.verdict.take() {
            return verdict.map(Step::Done);
        }
        let mut deltas = Vec::new();
        let verdict = self.read(&mut deltas).await;
        let read = Read { deltas, frames: self.reader.take_frames() };
        match verdict {
            None => Ok(Step::Read(read)),
            Some(verdict) if read.is_empty() => verdict.map(Step::Done),
            Some(verdict) => {
                self.verdict = Some(verdict);
                Ok(Step::Read(read))
            }
        }
    }

    /// One read of the network, and what is already there behind it.
    async fn read(&mut self, out: &mut Vec<Delta>) -> Option<Result<Finished, ApiError>> {
        let limit = self.limit();
        let begun = Instant::now();
        // `timeout` polls the body before the timer: what is already here is never too late. A server that always has
        // something here (comments without end) is stopped by the limit being used up.
        let read = if limit.is_zero() { None } else { timeout(limit, self.body.next()).await.ok() };
        self.waited += begun.elapsed();
        let begun = Instant::now();
        let verdict = match read {
            Some(Some(Ok(bytes))) => self.take(&bytes, out),
            Some(None) => Some(self.end(StreamEnd::Eof, out)),
            Some(Some(Err(error))) => Some(self.broken(&error, out)),
            None if self.complete_since.is_some() => Some(self.end(StreamEnd::Eof, out)),
            None => Some(Err(self.too_slow(out))),
        };
        // Reading what a server sends without a pause is waiting for it, too.
        self.waited += begun.elapsed();
        verdict
    }

    fn limit(&self) -> Duration {
        let left = |whole: Duration| whole.saturating_sub(self.waited);
        let total = left(self.patience.total);
        if let Some(since) = self.complete_since {
            left(since + AFTER_SOFT_END).min(total)
        } else if self.reader.any_output() {
            self.patience.idle.min(total)
        } else {
            let first = self.patience.first_token.filter(|_| self.streams);
            first.map_or(total, |first| left(first).min(total))
        }
    }

    fn take(&mut self, bytes: &[u8], out: &mut Vec<Delta>) -> Option<Result<Finished, ApiError>> {
        match self.reader.push(bytes, out) {
            Ok(Flow::End) => Some(self.end(StreamEnd::Hard, out)),
            Ok(flow) => {
                // What is no news (a ping) does not hold a complete answer open.
                let since = self.complete_since.filter(|_| out.is_empty()).unwrap_or(self.waited);
                self.complete_since = (flow == Flow::SoftEnd).then_some(since);
                self.size += out.iter().map(|delta| delta.kind.size()).sum::<usize>();
                (self.size > MOST_ANSWER).then(|| Err(self.too_long()))
            }
            Err(error) => Some(Err(masked(error, &self.credentials))),
        }
    }

    fn too_long(&self) -> ApiError {
        let message = format!("the answer is longer than {} MiB", MOST_ANSWER / 1024 / 1024);
        ApiError { server: self.server, ..ApiError::new(ErrorClass::Cut, message) }
    }

    fn end(&mut self, end: StreamEnd, out: &mut Vec<Delta>) -> Result<Finished, ApiError> {
        let ending = self.reader.finish(end, out).map_err(|error| masked(error, &self.credentials))?;
        let error = |class, message: &str| ApiError { server: self.server, ..ApiError::new(class, message) };
        let warning = self.reader.take_warning().map(|error| masked(error, &self.credentials));
        match ending {
            Ending::Finished(reason) => Ok(Finished { reason: Some(reason), warning }),
            Ending::DoneOnly => Ok(Finished { reason: None, warning }),
            Ending::Cut if self.reader.any_output() => {
                Err(error(ErrorClass::Cut, "the answer ended in the middle: no end signal"))
            }
            Ending::Cut => Err(error(ErrorClass::Reset, "the reply broke off before it said anything")),
            Ending::Empty => {
                let empty = error(ErrorClass::Garbage, "the reply is empty");
                Err(ApiError { should_retry: Some(true), ..empty })
            }
        }
    }

    /// The connection broke. An answer that was complete stays complete.
    fn broken(&mut self, problem: &TransportError, out: &mut Vec<Delta>) -> Result<Finished, ApiError> {
        let ending = self.reader.finish(StreamEnd::Broken, out);
        if let Ok(Ending::Finished(reason)) = ending {
            return Ok(Finished { reason: Some(reason), warning: Some(of_transport(problem, true)) });
        }
        Err(masked(of_transport(problem, self.reader.any_output()), &self.credentials))
    }

    fn too_slow(&mut self, out: &mut Vec<Delta>) -> ApiError {
        let limit = self.limit();
        if !self.reader.any_output() {
            return silent(self.waited);
        }
        // What was held back is shown; the verdict is already known.
        let _ = self.reader.finish(StreamEnd::Broken, out);
        let whole = self.waited >= self.patience.total;
        let message = if whole {
            format!("the answer took longer than {:.1} s", self.patience.total.as_secs_f64())
        } else {
            format!("the answer stopped for {:.1} s", limit.as_secs_f64())
        };
        ApiError::new(ErrorClass::Cut, message)
    }
}

/// Whether the client speaks as the target does, so that what comes can be passed on.
fn is_spoken(call: &Call, target: &Target) -> bool {
    call.original().is_some_and(|original| original.protocol == target.endpoint.protocol)
}

fn request(
    protocol: &dyn Protocol,
    target: &Target,
    credentials: &Credentials,
    call: &Call,
) -> Result<http::Request<Bytes>, ApiError> {
    let local = |message: String| ApiError::new(ErrorClass::Local, message);
    let mut request = protocol.encode(target, credentials.key.as_ref(), call).map_err(|error| match error {
        EncodeError::Key { .. } => ApiError::new(ErrorClass::Auth, error.to_string()),
        _ => local(error.to_string()),
    })?;
    add_headers(&mut request, credentials).map_err(local)?;
    Ok(request)
}

/// Adds the endpoint's own headers, which win over ours.
pub fn add_headers(request: &mut http::Request<Bytes>, credentials: &Credentials) -> Result<(), String> {
    for (name, value) in &credentials.headers {
        let mut value = http::HeaderValue::try_from(value.expose()).map_err(|_| {
            format!("the value of header `{name}` has a line break or another character that cannot be sent")
        })?;
        value.set_sensitive(true);
        request.headers_mut().insert(name.clone(), value);
    }
    Ok(())
}

/// `error` without our secrets in any of its texts: services quote them in codes, ids and headers, too.
pub(crate) fn masked(error: ApiError, credentials: &Credentials) -> ApiError {
    let mask = |text: Option<String>| text.map(|text| credentials.masked_in(&text));
    ApiError {
        message: credentials.masked_in(&error.message),
        code: mask(error.code),
        param: mask(error.param),
        hint: mask(error.hint),
        request_id: mask(error.request_id),
        retry_after: error.retry_after.map(|after| RetryAfter { raw: credentials.masked_in(&after.raw), ..after }),
        ..error
    }
}

fn silent(after: Duration) -> ApiError {
    ApiError::new(ErrorClass::Silent, format!("no answer within {:.1} s", after.as_secs_f64()))
}

fn redirect(error: ApiError, head: &ResponseHead) -> ApiError {
    let to = head.header("location").and_then(|to| url::Url::parse(to).ok());
    let to = to.map_or_else(|| "another place".to_owned(), |url| crate::model::api_key::masked_url(&url));
    let status = head.status;
    ApiError {
        message: format!("{status}: sent on to {to}; the prompt was not sent there"),
        hint: Some("if you trust that address, make it the base_url".into()),
        ..error
    }
}

/// What a failure on the way means for the answer.
pub(crate) fn of_transport(error: &TransportError, after_output: bool) -> ApiError {
    let class = match error.kind {
        _ if after_output => ErrorClass::Cut,
        TransportErrorKind::Refused
        | TransportErrorKind::Dns
        | TransportErrorKind::Tls
        | TransportErrorKind::Connect => ErrorClass::Connect,
        TransportErrorKind::Reset => ErrorClass::Reset,
        TransportErrorKind::Malformed => ErrorClass::Garbage,
        TransportErrorKind::Local => ErrorClass::Local,
    };
    // Trying the same endpoint again helps against a blink, not against a missing name or a wrong certificate.
    let should_retry =
        matches!(error.kind, TransportErrorKind::Dns | TransportErrorKind::Tls | TransportErrorKind::Connect)
            .then_some(false);
    ApiError { should_retry, ..ApiError::new(class, &error.message) }
}

/// The start of an error's body; what cannot be read in time is not worth waiting for.
async fn error_body(body: &mut ByteStream, left: Duration) -> Vec<u8> {
    let mut bytes = Vec::new();
    let read = async {
        while let Some(Ok(piece)) = body.next().await {
            let room = ERROR_BODY - bytes.len();
            bytes.extend_from_slice(&piece[..piece.len().min(room)]);
            if bytes.len() >= ERROR_BODY {
                break;
            }
        }
    };
    // Out of time, what has come is enough for a message.
    let _ = timeout(ERROR_BODY_TIME.min(left), read).await;
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_that_quotes_a_header_without_its_scheme_shows_no_key() {
        let header = (http::header::AUTHORIZATION, ApiKey::new("Bearer sk-in-a-header"));
        let credentials = Credentials {
            key: Some(ApiKey::new("sk-the-key")),
            headers: vec![header],
            address: vec![ApiKey::new("in-the-address")],
        };
        let quoted = credentials.masked_in("sk-in-a-header, Bearer sk-in-a-header, sk-the-key, in-the-address");
        assert_eq!(quoted, "[redacted], [redacted], [redacted], [redacted]");
    }
}
