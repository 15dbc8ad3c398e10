//! Turns an HTTP request for a model into a call: authenticates the client, reads and parses the body, and resolves the
//! model.

use super::{
    ConfigGeneration, Gateway,
    aliases::resolve_alias,
    in_flight::InFlightRequest,
    rejection::Rejection,
    request_context::{RequestContext, ResponseOptions},
    request_id,
    response::{Body, run_blocking},
    write_timeout::PendingWrite,
};
use crate::{
    config::{ClientConfig, Config, ServeConfig, closest_name, listed_headers},
    engine::{
        memory::RequestMemory,
        plan::{self, Call, PlanError},
        stop_tolerant::wait_for,
    },
    gateway::{auth, limits::GatewayLimits},
    model::{ModelRequest, Operation},
    protocol::{
        error::truncate_message,
        openai::server::{ParseError, ParsedRequest},
    },
    routing::OnIncomplete,
};
use axum::extract::Request;
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Version, request::Parts};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use std::sync::Arc;
use tokio::time::Instant;

/// Maximum length of a model name in bytes; longer names are unknown models.
pub(super) const MAX_NAME_BYTES: usize = 512;

/// What a request takes besides its body: the state of its call.
const REQUEST_BYTES: usize = 16 * 1024;

/// Where a client finds the names of models.
pub(super) const LIST_HINT: &str = "GET /v1/models lists the available models";

/// Bodies larger than this are parsed on a blocking thread.
const BLOCKING_PARSE_BYTES: usize = 256 * 1024;

/// Authenticates and parses a request, and starts its call.
pub(super) async fn prepare(
    gateway: &Arc<Gateway>,
    context: &mut RequestContext,
    request: Request,
    parse: impl FnOnce(Bytes) -> Result<ParsedRequest, ParseError> + Send + 'static,
) -> Result<(Box<InFlightRequest>, Arc<ModelRequest>, ResponseOptions), Rejection> {
    if gateway.is_stopping() {
        return Err(Rejection::ShuttingDown);
    }
    let current = gateway.current();
    let (parts, body) = request.into_parts();
    let client = auth::authenticate(&current.client_keys, &parts.headers)?;
    context.client = client.map(|client| client.name.clone());
    // Checked before the body is read, so that the limits also bound the cost of reading bodies.
    let quota_guard = gateway.quotas.admit(client)?;
    let mut memory = gateway.memory.new_request();
    let max_body = current.config.serve.max_body;
    let body = read_body(body, &parts.headers, max_body, gateway.deps.limits, &mut memory).await?;
    context.started_at = Instant::now();
    let is_restricted = client.is_some_and(|client| client.models.is_some());
    let parsed_request = parse_body(body, is_restricted, parse).await?;
    if let Some(raw_request) = parsed_request.request.raw_request().filter(|raw| !raw.removed_fields.is_empty()) {
        let fields = raw_request.removed_fields.join(", ");
        let notice = format!("removed fields that choose other models or addresses: {fields}");
        context.notices.push(truncate_message(&notice));
    }
    context.requested_name = Some(truncate_message(&parsed_request.model));
    let request = Arc::new(parsed_request.request);
    let call = resolve_call(&current, client, &parsed_request.model, &request, &parts)?;
    context.alias = (call.name != parsed_request.model).then(|| truncate_message(&parsed_request.model));
    context.requested_name = Some(call.name.clone());
    context.stream = request.is_streaming();
    let hold = current.config.route(&call.name).and_then(|route| route.hold).unwrap_or(current.config.serve.hold);
    let sends_done = match &*request {
        ModelRequest::Chat(_) => true,
        ModelRequest::Opaque(opaque) => opaque.operation == Operation::Completions,
    };
    let pending_write = parts.extensions.get::<PendingWrite>().cloned().unwrap_or_default();
    let options = ResponseOptions {
        stream: request.is_streaming(),
        include_usage: parsed_request.include_usage,
        sends_done,
        hold,
        pending_write,
    };
    Ok((InFlightRequest::start(gateway, current, context.clone(), call, quota_guard, memory), request, options))
}

/// Parses a body; a large one on a blocking thread, so that it does not delay other requests of the worker.
async fn parse_body(
    body: Bytes,
    is_restricted: bool,
    parse: impl FnOnce(Bytes) -> Result<ParsedRequest, ParseError> + Send + 'static,
) -> Result<ParsedRequest, Rejection> {
    let parse = move |body| {
        let mut parsed = parse(body)?;
        if is_restricted {
            parsed.restrict();
        }
        Ok(parsed)
    };
    let is_large = body.len() > BLOCKING_PARSE_BYTES;
    let parsed = if is_large { run_blocking(move || parse(body)).await } else { parse(body) };
    parsed.map_err(Rejection::InvalidRequest)
}

/// Resolves `name` to the call that answers `request`. Of the client's headers, only those in `request_headers` and its
/// `X-Request-Id` are passed on: others may contain the client's key, or describe its connection.
pub(super) fn resolve_call(
    current: &ConfigGeneration,
    client: Option<&ClientConfig>,
    name: &str,
    request: &Arc<ModelRequest>,
    parts: &Parts,
) -> Result<Call, Rejection> {
    if name.len() > MAX_NAME_BYTES {
        let hint = format!("names have at most {MAX_NAME_BYTES} bytes");
        return Err(Rejection::UnknownModel { model: name.to_owned(), hint });
    }
    let (sent_name, name) = (name, &*resolve_alias(&current.config, name));
    let is_restricted = client.is_some_and(|client| client.models.is_some());
    // Checked before the lookup, so that the error does not reveal whether the name exists.
    if let Some(client) = client
        && !auth::is_model_allowed(Some(client), name)
    {
        return Err(Rejection::ModelNotAllowed { client: client.name.clone(), model: sent_name.to_owned() });
    }
    let call = plan::resolve_call(&current.config, Some(name), request, OnIncomplete::Error)
        .map_err(|error| plan_rejection(&current.config, name, &error, is_restricted))?;
    if let Some(client) = client {
        let (client_name, model) = (client.name.clone(), name.to_owned());
        // An unpriced model without an entry would bypass the spend limit.
        let has_entry = call.route.is_some() || current.config.model(&call.name).is_some();
        if !client.spend.is_empty() && !has_entry && call.candidates.iter().any(|target| target.price.is_none()) {
            return Err(Rejection::PriceUnknown { client: client_name, model });
        }
    }
    let header = |name| parts.headers.get(name).and_then(|value| value.to_str().ok());
    let buffer = !request.is_streaming()
        || call.on_incomplete == OnIncomplete::Buffer
        || header("x-mmchat-buffer").is_some_and(|value| value == "1")
        // In HTTP/1.0 a client cannot tell an aborted transfer from a complete one.
        || parts.version < Version::HTTP_11;
    let serve = &current.config.serve;
    Ok(Call {
        passthrough: true,
        headers: headers_for_service(serve, &parts.headers),
        response_headers: Arc::clone(&current.response_headers),
        client_retries: header("x-stainless-retry-count")
            .is_some_and(|count| count.trim().parse().is_ok_and(|count: u32| count > 0)),
        affinity_key: header("x-mmchat-session").map(str::to_owned),
        // Chunks already sent to the client cannot be retracted, so an unbuffered stream is never restarted.
        on_incomplete: if buffer { OnIncomplete::Buffer } else { OnIncomplete::Error },
        ..call
    })
}

/// The headers of a client that reach the service: those that the config lists, and its id of the request.
fn headers_for_service(serve: &ServeConfig, headers: &HeaderMap) -> HeaderMap {
    let mut sent = listed_headers(headers, &serve.request_headers);
    if let Some(id) = request_id::of_client(headers).and_then(|id| HeaderValue::try_from(id).ok()) {
        sent.insert("x-request-id", id);
    }
    sent
}

/// Rejection for a failed lookup. `is_restricted`: the client may use some models only, so the names of others are not
/// shown.
fn plan_rejection(config: &Config, name: &str, error: &PlanError, is_restricted: bool) -> Rejection {
    match error {
        PlanError::NoImageSupport(_) => {
            let message = error.to_string();
            Rejection::InvalidRequest(ParseError { message, param: Some("messages") })
        }
        _ if is_restricted => Rejection::UnknownModel { model: name.to_owned(), hint: LIST_HINT.to_owned() },
        PlanError::IsSet(_) => {
            let hint = "it is a set, which gives several answers; request one of its models".to_owned();
            Rejection::UnknownModel { model: name.to_owned(), hint }
        }
        // A list of all models in an error would be in the logs of every client.
        _ => {
            let suggestion = closest_name(name, config.names()).filter(|suggestion| *suggestion != name);
            let hint = suggestion.map_or_else(|| LIST_HINT.to_owned(), |name| format!("did you mean \"{name}\"?"));
            Rejection::UnknownModel { model: name.to_owned(), hint }
        }
    }
}

/// Reads a body within the size limit, the time limits and the memory budget.
async fn read_body(
    body: Body,
    headers: &HeaderMap,
    max_body: usize,
    limits: GatewayLimits,
    memory: &mut RequestMemory,
) -> Result<Bytes, Rejection> {
    if let Some(encoding) = unsupported_encoding(headers) {
        return Err(Rejection::UnsupportedEncoding(encoding));
    }
    let content_length =
        headers.get(http::header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    if content_length.is_some_and(|length| length > max_body) {
        return Err(Rejection::BodyTooLarge(max_body));
    }
    let deadline = Instant::now() + limits.body_timeout;
    let mut body = Limited::new(body, max_body);
    let mut received = BytesMut::with_capacity(content_length.unwrap_or_default().min(limits.small_body_bytes));
    loop {
        let limit = limits.body_chunk_timeout.min(deadline.saturating_duration_since(Instant::now()));
        let (frame, _) = wait_for(limit, body.frame()).await;
        let frame = frame.ok_or(Rejection::BodyTimeout)?;
        match frame {
            None => return Ok(received.freeze()),
            // Copied into one buffer: many small frames would take many times their size.
            Some(Ok(frame)) => {
                let data = frame.into_data().unwrap_or_default();
                if let Some(length) = content_length.filter(|_| received.capacity() - received.len() < data.len()) {
                    // Space for all of it takes memory only as it is filled; growing would copy it several times.
                    received.reserve(length.saturating_sub(received.len()));
                }
                received.extend_from_slice(&data);
                let is_small = content_length.is_none_or(|length| length <= limits.small_body_bytes)
                    && received.len() <= limits.small_body_bytes;
                let buffer = if content_length.is_some() { received.len() } else { received.capacity() };
                // The request that is sent to the model is about as long.
                let bytes = buffer + received.len() + REQUEST_BYTES;
                memory.grow_to(bytes, is_small).map_err(|_| Rejection::MemoryFull)?;
            }
            Some(Err(error)) if error.is::<LengthLimitError>() => {
                return Err(Rejection::BodyTooLarge(max_body));
            }
            Some(Err(_)) => return Err(Rejection::IncompleteBody),
        }
    }
}

/// Content or transfer encoding of a body that is not supported, if any.
pub(super) fn unsupported_encoding(headers: &HeaderMap) -> Option<String> {
    let (content, transfer) =
        (headers.get_all(http::header::CONTENT_ENCODING), headers.get_all(http::header::TRANSFER_ENCODING));
    let unsupported = |value: &HeaderValue, supported: &str| {
        let text = String::from_utf8_lossy(value.as_bytes());
        text.split(',')
            .map(str::trim)
            .find(|encoding| !encoding.is_empty() && !encoding.eq_ignore_ascii_case(supported))
            .map(str::to_owned)
    };
    let content = content.iter().find_map(|value| unsupported(value, "identity"));
    content.or_else(|| transfer.iter().find_map(|value| unsupported(value, "chunked")))
}
