//! Writes the events of a call as an HTTP response, streamed or as one body.
//!
//! The headers of a stream wait for its first chunk, so that a failure before it still has its own status. After
//! `hold` they are sent without a chunk, and a later failure is an event of the stream. Upstream bytes are forwarded
//! unchanged.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use serde_json::Value;
use tokio::time::sleep_until;

use super::{
    failure::{error_body, is_permanent, response_status},
    held_body::HeldBody,
    in_flight::InFlightRequest,
    rejection::Rejection,
    request_context::{RequestContext, ResponseOptions},
    status_numbers,
    stream::{self, EventStream, WriteOutcome},
};

use crate::{
    engine::{CallRecord, Event, EventKind, attempt_error::memory_error, memory::MemoryFull},
    model::{ModelRequest, sanitize::escape_in_json},
    protocol::{
        CallError, Frame, FrameKind,
        openai::{
            reshape::{AnswerDefaults, AnswerFormat, body_from_events, conversion_bytes},
            server_response::ChunkWriter,
        },
    },
};

/// Body of a response.
pub(super) type Body = axum::body::Body;

/// The longest Retry-After that clients get.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(3600);
/// Chunks whose conversion takes more memory are merged on a blocking thread.
const BLOCKING_MERGE_BYTES: usize = 4 * 1024 * 1024;

const EVENT_STREAM: HeaderValue = HeaderValue::from_static("text/event-stream");
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// Bytes that are percent-encoded in header values; `%` is included so that the value can be decoded.
const HEADER_ENCODE_SET: &AsciiSet = &CONTROLS.add(b'%');

/// JSON response.
pub(super) fn json_response(status: StatusCode, body: &Value) -> Response<Body> {
    response_with_body(status, JSON, Body::from(escape_in_json(body.to_string())))
}

pub(super) fn response_with_body(status: StatusCode, content_type: HeaderValue, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    response
}

/// Runs a call and returns its response.
pub(super) async fn respond(
    in_flight: Box<InFlightRequest>,
    request: Arc<ModelRequest>,
    options: ResponseOptions,
) -> Response<Body> {
    if options.stream {
        stream_response(in_flight, &request, options).await
    } else {
        buffered_response(in_flight, &request, &options).await
    }
}

/// Streamed response. Returns after the first chunk, or when `hold` is over.
async fn stream_response(
    mut in_flight: Box<InFlightRequest>,
    request: &ModelRequest,
    options: ResponseOptions,
) -> Response<Body> {
    let hold_until = in_flight.context.started_at + options.hold;
    let memory = in_flight.answer_memory.clone();
    let mut stream = EventStream::new(in_flight.context.request_id.clone(), request, &options, memory);
    let mut has_first_chunk = false;
    loop {
        let event = tokio::select! {
            biased;
            event = in_flight.next_event() => event,
            () = sleep_until(hold_until) => break,
        };
        let Some(event) = event else { break };
        match stream.handle_event(event) {
            WriteOutcome::Nothing => {}
            // The next event has the time to first token, from which the overhead header is computed.
            WriteOutcome::Chunk if !has_first_chunk => {
                has_first_chunk = true;
                continue;
            }
            WriteOutcome::Chunk => {}
            WriteOutcome::MemoryFull if !has_first_chunk => return memory_full_response(&mut in_flight),
            WriteOutcome::MemoryFull => {
                in_flight.status = Some(StatusCode::OK);
                in_flight.fail(memory_error(MemoryFull));
                break;
            }
            WriteOutcome::Failed(record) if !has_first_chunk => return failure_response(&mut in_flight, &record),
            WriteOutcome::Complete | WriteOutcome::Failed(_) => break,
        }
        if has_first_chunk {
            break;
        }
    }
    in_flight.status = Some(StatusCode::OK);
    let mut headers = HeaderMap::new();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    // Disables response buffering in nginx.
    headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    if has_first_chunk || stream.is_ended() {
        insert_target_headers(&in_flight, &mut headers);
    }
    let mut response = response_with_body(StatusCode::OK, EVENT_STREAM, Body::new(stream.into_body(in_flight)));
    response.headers_mut().extend(headers);
    response
}

/// Response in one body.
async fn buffered_response(
    mut in_flight: Box<InFlightRequest>,
    request: &ModelRequest,
    options: &ResponseOptions,
) -> Response<Body> {
    let mut frames = Vec::<Frame>::new();
    in_flight.settles_after_conversion = true;
    loop {
        let Event { kind, .. } = in_flight.next_event().await.expect("a call ends with Finished");
        match kind {
            EventKind::Deltas(batch) | EventKind::BufferedDeltas(batch) => frames.extend(batch.frames),
            EventKind::Failed { .. } | EventKind::Restarted => frames.clear(),
            EventKind::Finished(record) if record.result.is_err() => {
                return failure_response(&mut in_flight, &record);
            }
            EventKind::Finished(_) => break,
            EventKind::Started(_) | EventKind::Headers(_) | EventKind::FirstToken(_) | EventKind::Notice(_) => {}
        }
    }
    let format = AnswerFormat::of(request);
    let (content_type, body) = match frames.first() {
        Some(frame) if frame.kind == FrameKind::Body => (JSON, frame.raw.clone()),
        // Only chunks with choices can be merged into one object; other events are returned as they are.
        Some(_) if format.is_none() => {
            let events = frames.into_iter().map(stream::to_sse_event);
            let done = options.sends_done.then(ChunkWriter::done);
            (EVENT_STREAM, events.chain(done).flatten().collect())
        }
        _ => {
            let bytes = frames.iter().map(|frame| conversion_bytes(&frame.data)).sum();
            // Given back when the conversion is done.
            let Ok(_memory) = in_flight.answer_memory.try_part(bytes) else {
                return memory_full_response(&mut in_flight);
            };
            let id = in_flight.context.request_id.clone();
            let is_cumulative = in_flight.target.as_ref().is_some_and(|target| target.decode_options.cumulative_deltas);
            let merge = move || {
                let format = format.unwrap_or(AnswerFormat::Chat);
                let defaults = AnswerDefaults { format, id: &id, created: stream::unix_time() };
                Bytes::from(body_from_events(frames.iter().map(|frame| frame.data.as_ref()), &defaults, is_cumulative))
            };
            (JSON, if bytes < BLOCKING_MERGE_BYTES { merge() } else { run_blocking(merge).await })
        }
    };
    in_flight.status = Some(StatusCode::OK);
    in_flight.settle_converted();
    let body = Body::new(HeldBody::new(body, &in_flight.answer_memory));
    let mut response = response_with_body(StatusCode::OK, content_type, body);
    insert_target_headers(&in_flight, response.headers_mut());
    response
}

/// Runs `work` on a blocking thread, so that other requests of the worker do not wait.
pub(super) async fn run_blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let running = tokio::task::spawn_blocking(work).await;
    running.unwrap_or_else(|join_error| std::panic::resume_unwind(join_error.into_panic()))
}

/// Response of a call whose answer cannot be converted to the form that the client asked for.
fn memory_full_response(in_flight: &mut InFlightRequest) -> Response<Body> {
    let rejection = Rejection::MemoryFull;
    in_flight.status = Some(rejection.status());
    in_flight.fail(memory_error(MemoryFull));
    rejection_response(&rejection, &in_flight.context)
}

fn failure_response(in_flight: &mut InFlightRequest, record: &CallRecord) -> Response<Body> {
    let error = record.result.as_ref().expect_err("the call failed");
    let mut response = error_response(&in_flight.context.request_id, record, error);
    in_flight.service_headers = Arc::new(in_flight.listed_headers(error));
    in_flight.status = Some(response.status());
    insert_target_headers(in_flight, response.headers_mut());
    let attempts = HeaderValue::from(record.attempts.len());
    response.headers_mut().insert("x-mmchat-attempts", attempts);
    response
}

/// Adds the headers for endpoint, model, route, attempts and overhead.
fn insert_target_headers(in_flight: &InFlightRequest, headers: &mut HeaderMap) {
    for name in in_flight.service_headers.keys() {
        if headers.contains_key(name) {
            continue;
        }
        for value in in_flight.service_headers.get_all(name) {
            headers.append(name.clone(), value.clone());
        }
    }
    let mut insert = |name: &'static str, value: &str| {
        let value = utf8_percent_encode(value, HEADER_ENCODE_SET).to_string();
        let value = HeaderValue::try_from(value).expect("percent-encoded values are valid in headers");
        headers.insert(HeaderName::from_static(name), value);
    };
    if let Some(target) = &in_flight.target {
        insert("x-mmchat-endpoint", &target.endpoint.name);
        insert("x-mmchat-model", &target.id.0);
    }
    if let Some(route) = in_flight.requested_route() {
        insert("x-mmchat-route", route);
    }
    insert("x-mmchat-attempts", &in_flight.attempt_count().to_string());
    if let Some(overhead) = in_flight.context.overhead {
        insert("x-mmchat-overhead-us", &overhead.as_micros().to_string());
    }
}

/// Adds the request ID headers: ours, and the client's own if it has sent one.
pub(super) fn insert_request_id(response: &mut Response<Body>, context: &RequestContext) {
    let own = HeaderValue::try_from(&context.request_id).expect("a request ID consists of letters");
    let of_client = context.client_request_id.as_deref().and_then(|id| HeaderValue::try_from(id).ok());
    response.headers_mut().insert("x-request-id", of_client.unwrap_or_else(|| own.clone()));
    response.headers_mut().insert("x-mmchat-request-id", own);
}

/// Error response of a failed call.
pub(super) fn error_response(request_id: &str, record: &CallRecord, error: &CallError) -> Response<Body> {
    let status = response_status(record, error);
    let mut response = json_response(status, &error_body(request_id, record, error));
    if is_permanent(error.class) {
        response.headers_mut().insert("x-should-retry", HeaderValue::from_static("false"));
        return response;
    }
    // Without `x-should-retry`, the client's library decides, as if it had asked the service itself.
    let is_busy = matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
    let retry_after = error.retry_after.as_ref().map(|retry_after| retry_after.delay_from(jiff::Timestamp::now()));
    let retry_after = retry_after.or(is_busy.then_some(Duration::from_secs(1)));
    if let Some(retry_after) = retry_after {
        response.headers_mut().insert(header::RETRY_AFTER, retry_after_value(retry_after));
    }
    response
}

/// Rounds up to whole seconds, at least 1, so that a client does not retry too early.
fn retry_after_value(wait: Duration) -> HeaderValue {
    // Some services name an absurd time.
    let wait = wait.min(MAX_RETRY_AFTER);
    let rounded = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    HeaderValue::from(rounded.max(1))
}

/// Response to a rejected request.
pub(super) fn rejection_response(rejection: &Rejection, context: &RequestContext) -> Response<Body> {
    let mut body = rejection.error_body(&context.request_id);
    if rejection.retry_after().is_none() {
        status_numbers::remove(&mut body, &rejection.names());
    }
    let mut response = json_response(rejection.status(), &body);
    insert_request_id(&mut response, context);
    if let Some(retry_after) = rejection.retry_after() {
        response.headers_mut().insert(header::RETRY_AFTER, retry_after_value(retry_after));
    } else if !rejection.is_of_transfer() {
        // The same request would be rejected again.
        response.headers_mut().insert("x-should-retry", HeaderValue::from_static("false"));
    }
    if rejection.is_unauthenticated() {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    if rejection.closes_connection() {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        gateway::failure::failed_record,
        model::ErrorClass,
        protocol::{RetryAfter, RetryWhen},
    };

    #[test]
    fn non_ascii_names_are_percent_encoded_in_headers() {
        let encoded = utf8_percent_encode("通义 50%", HEADER_ENCODE_SET).to_string();
        HeaderValue::try_from(&encoded).expect("valid header value");
        assert_eq!(percent_encoding::percent_decode_str(&encoded).decode_utf8_lossy(), "通义 50%");
    }

    #[test]
    fn retryable_failures_have_retry_after() {
        let retry_after = |class, wait_ms: Option<u64>| {
            let after =
                |wait_ms| RetryAfter { raw: String::new(), when: RetryWhen::After(Duration::from_millis(wait_ms)) };
            let error = CallError { retry_after: wait_ms.map(after), ..CallError::new(class, "no") };
            let response = error_response("id", &failed_record(&error), &error);
            assert_eq!(response.headers().get("x-should-retry"), None, "{class}");
            response.headers().get(header::RETRY_AFTER).map(|value| value.to_str().expect("ASCII header").to_owned())
        };
        assert_eq!(retry_after(ErrorClass::Rate, Some(1500)).as_deref(), Some("2"));
        assert_eq!(retry_after(ErrorClass::Overloaded, None).as_deref(), Some("1"));
        assert_eq!(retry_after(ErrorClass::Server, Some(1500)).as_deref(), Some("2"));
        assert_eq!(retry_after(ErrorClass::Server, None), None);
    }

    #[test]
    fn permanent_failures_are_not_retried_by_clients() {
        let should_retry = |class| {
            let error = CallError::new(class, "no");
            error_response("id", &failed_record(&error), &error).headers().get("x-should-retry").cloned()
        };
        for class in [ErrorClass::Auth, ErrorClass::Quota, ErrorClass::Model, ErrorClass::Context, ErrorClass::Spend] {
            assert_eq!(should_retry(class), Some(HeaderValue::from_static("false")), "{class}");
        }
        for class in [ErrorClass::Server, ErrorClass::Connect, ErrorClass::Timeout, ErrorClass::NoChannel] {
            assert_eq!(should_retry(class), None, "{class}");
        }
    }
}
