//! Defines the HTTP routes and turns a request into a call of the engine or a rejection.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{Path, Request, State, rejection::PathRejection},
    routing::{get, post},
};
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Response, StatusCode, Version, request::Parts};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper_util::service::TowerToHyperService;
use tokio::time::{Instant, timeout};

use super::{
    ConfigGeneration, Gateway,
    connection::{ConnInfo, PendingWrite},
    in_flight::{InFlightRequest, RequestContext},
    rejection::{Rejection, RejectionKind, insert_request_id},
    response::{self, Body, ResponseOptions},
    status,
};
use crate::gateway::{auth, body_budget::BodyReservation, origin_guard};
use crate::{
    config::{ClientConfig, normalize_name},
    engine::plan::{self, Call, PlanError},
    model::{ModelRequest, Operation},
    protocol::{
        error::truncate_message,
        openai::server::{self, ParseError, ParsedRequest},
    },
    routing::OnIncomplete,
};

/// Time limit between two chunks of a request body.
const BODY_CHUNK_TIMEOUT: Duration = Duration::from_secs(30);
/// Time limit of a whole request body: a slow one occupies the memory budget of other requests.
const BODY_TIMEOUT: Duration = Duration::from_secs(300);
/// Maximum length of a model name in bytes; longer names are unknown models.
const MAX_NAME_BYTES: usize = 512;
/// Bodies larger than this are parsed on a blocking thread.
const BLOCKING_PARSE_BYTES: usize = 256 * 1024;

const COMPLETIONS: &str = "/v1/completions";
const CHAT: &str = "/v1/chat/completions";
const EMBEDDINGS: &str = "/v1/embeddings";
const RERANK: &str = "/v1/rerank";
const IMAGES: &str = "/v1/images/generations";
const MODELS: &str = "/v1/models";

impl Gateway {
    /// Handles a request in process, as if it came over loopback.
    pub async fn handle_local(self: &Arc<Self>, request: http::Request<Body>) -> Response<Body> {
        self.handle(self.router(), ConnInfo { loopback: true }, request).await
    }

    /// Checks the origin of a request and routes it.
    pub(super) async fn handle(
        &self,
        router: Router,
        conn_info: ConnInfo,
        request: http::Request<Body>,
    ) -> Response<Body> {
        use hyper::service::Service;
        let current = self.current();
        let serve = &current.config.serve;
        let authority = request.uri().authority().map(http::uri::Authority::as_str);
        if let Err(rejection) = origin_guard::check(serve, conn_info.loopback, request.headers(), authority) {
            return self.reject(&RequestContext::new("/"), &rejection);
        }
        let cors = origin_guard::cors_headers(serve, request.headers());
        if origin_guard::is_preflight(request.method(), request.headers()) && !cors.is_empty() {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::NO_CONTENT;
            response.headers_mut().extend(cors.into_iter().chain(origin_guard::preflight_headers()));
            return response;
        }
        drop(current);
        let response = TowerToHyperService::new(router).call(request).await;
        let mut response = response.unwrap_or_else(|never| match never {});
        response.headers_mut().extend(cors);
        response
    }

    /// All routes.
    pub(super) fn router(self: &Arc<Self>) -> Router {
        let opaque = |path, service| {
            post(move |State(gateway): State<Arc<Self>>, request: Request| async move {
                handle_model_request(&gateway, path, request, move |body| server::parse_opaque(service, &body)).await
            })
        };
        Router::new()
            .route(CHAT, post(chat))
            .route(COMPLETIONS, opaque(COMPLETIONS, Operation::Completions))
            .route(EMBEDDINGS, opaque(EMBEDDINGS, Operation::Embeddings))
            .route(RERANK, opaque(RERANK, Operation::Rerank))
            .route(IMAGES, opaque(IMAGES, Operation::Images))
            .route(MODELS, get(models))
            .route("/v1/models/{*id}", get(model))
            .route("/health", get(async || status::health()))
            .route("/ready", get(ready))
            .route("/metrics", get(metrics))
            .route("/status", get(status_page))
            .fallback(unknown_path)
            .method_not_allowed_fallback(method_not_allowed)
            .with_state(Arc::clone(self))
    }
}

async fn chat(State(gateway): State<Arc<Gateway>>, request: Request) -> Response<Body> {
    handle_model_request(&gateway, CHAT, request, |body| server::parse_chat(&body)).await
}

/// Handles a model request.
async fn handle_model_request(
    gateway: &Arc<Gateway>,
    path: &'static str,
    request: Request,
    parse: impl FnOnce(Bytes) -> Result<ParsedRequest, ParseError> + Send + 'static,
) -> Response<Body> {
    let mut context = RequestContext::new(path);
    let mut response = match prepare(gateway, &mut context, request, parse).await {
        Ok((in_flight, request, options)) => response::respond(in_flight, request, options).await,
        Err(rejection) => return gateway.reject(&context, &rejection),
    };
    insert_request_id(&mut response, &context.request_id);
    response
}

/// Authenticates and parses a request, and starts its call.
async fn prepare(
    gateway: &Arc<Gateway>,
    context: &mut RequestContext,
    request: Request,
    parse: impl FnOnce(Bytes) -> Result<ParsedRequest, ParseError> + Send + 'static,
) -> Result<(Box<InFlightRequest>, Arc<ModelRequest>, ResponseOptions), Rejection> {
    if gateway.is_stopping() {
        return Err(Rejection::new(RejectionKind::ShuttingDown));
    }
    let current = gateway.current();
    let (parts, body) = request.into_parts();
    let client = auth::authenticate(&current.client_keys, &parts.headers)?;
    context.client = client.map(|client| client.name.clone());
    // Checked before the body is read, so that the limits also bound the cost of reading bodies.
    let quota_guard = gateway.quotas.admit(client)?;
    let mut reservation = gateway.body_budget.new_reservation();
    let body = read_body(body, &parts.headers, current.config.serve.max_body, &mut reservation).await?;
    context.started_at = Instant::now();
    let parsed_request = parse_body(body, parse).await?;
    context.requested_name = Some(truncate_message(&parsed_request.model));
    let request = Arc::new(parsed_request.request);
    let call = resolve_call(&current, client, &parsed_request.model, &request, &parts)?;
    context.requested_name = Some(call.name.clone());
    context.stream = request.is_streaming();
    let hold = current.config.route(&call.name).and_then(|route| route.hold).unwrap_or(current.config.serve.hold);
    let ends_with_mark = match &*request {
        ModelRequest::Chat(_) => true,
        ModelRequest::Opaque(opaque) => opaque.operation == Operation::Completions,
    };
    let pending_write = parts.extensions.get::<PendingWrite>().cloned().unwrap_or_default();
    let options = ResponseOptions {
        stream: request.is_streaming(),
        include_usage: parsed_request.include_usage,
        sends_done: ends_with_mark,
        hold,
        pending_write,
    };
    Ok((InFlightRequest::start(gateway, current, context.clone(), call, quota_guard, reservation), request, options))
}

/// Parses a body; a large one on a blocking thread, so that it does not delay other requests of the worker.
async fn parse_body(
    body: Bytes,
    parse: impl FnOnce(Bytes) -> Result<ParsedRequest, ParseError> + Send + 'static,
) -> Result<ParsedRequest, Rejection> {
    let parsed = if body.len() > BLOCKING_PARSE_BYTES {
        let parsing = tokio::task::spawn_blocking(move || parse(body));
        parsing.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
    } else {
        parse(body)
    };
    parsed.map_err(|error| Rejection::new(RejectionKind::InvalidRequest(error)))
}

/// Resolves `name` to the call that answers `request`.
fn resolve_call(
    current: &ConfigGeneration,
    client: Option<&ClientConfig>,
    name: &str,
    request: &Arc<ModelRequest>,
    parts: &Parts,
) -> Result<Call, Rejection> {
    if name.len() > MAX_NAME_BYTES {
        let hint = format!("names have at most {MAX_NAME_BYTES} bytes");
        return Err(Rejection::new(RejectionKind::UnknownModel { name: name.to_owned(), hint }));
    }
    let limited = client.is_some_and(|client| client.models.is_some());
    // Checked before the lookup, so that the error does not reveal whether the name exists.
    if let Some(client) = client
        && !auth::is_model_allowed(Some(client), &normalize_name(name))
    {
        return Err(Rejection::new(RejectionKind::ModelNotAllowed {
            name: client.name.clone(),
            model: name.to_owned(),
        }));
    }
    let call = plan::resolve_call(&current.config, Some(name), request, OnIncomplete::Error)
        .map_err(|error| plan_rejection(name, &error, limited))?;
    if let Some(client) = client {
        let (client_name, model) = (client.name.clone(), name.to_owned());
        // An unpriced model without an entry would bypass the spend limit.
        let has_entry = call.route.is_some() || current.config.model(&call.name).is_some();
        if !client.spend.is_empty() && !has_entry && call.candidates.iter().any(|target| target.price.is_none()) {
            return Err(Rejection::new(RejectionKind::PriceUnknown { name: client_name, model }));
        }
    }
    let header = |name| parts.headers.get(name).and_then(|value| value.to_str().ok());
    let buffer = !request.is_streaming()
        || call.on_incomplete == OnIncomplete::Buffer
        || header("x-mmchat-buffer").is_some_and(|value| value == "1")
        // In HTTP/1.0 a client cannot tell an aborted transfer from a complete one.
        || parts.version < Version::HTTP_11;
    Ok(Call {
        passthrough: true,
        affinity_key: header("x-mmchat-session").map(str::to_owned),
        // Chunks already sent to the client cannot be retracted, so an unbuffered stream is never restarted.
        on_incomplete: if buffer { OnIncomplete::Buffer } else { OnIncomplete::Error },
        ..call
    })
}

/// Rejection for a failed lookup. `limited`: the client may use some models only, and must not learn the other names.
fn plan_rejection(name: &str, error: &PlanError, limited: bool) -> Rejection {
    match error {
        PlanError::NoImageSupport(_) => {
            let message = error.to_string();
            Rejection::new(RejectionKind::InvalidRequest(ParseError { message, param: Some("messages") }))
        }
        _ if limited => {
            let hint = "GET /v1/models lists the available models".to_owned();
            Rejection::new(RejectionKind::UnknownModel { name: name.to_owned(), hint })
        }
        PlanError::IsSet(_) => {
            let hint = "it is a set, which gives several answers; request one of its models".to_owned();
            Rejection::new(RejectionKind::UnknownModel { name: name.to_owned(), hint })
        }
        _ => Rejection::new(RejectionKind::UnknownModel { name: name.to_owned(), hint: error.hint() }),
    }
}

/// Reads a body within the size limit, the time limits and the memory budget.
async fn read_body(
    body: Body,
    headers: &HeaderMap,
    max_body: usize,
    reservation: &mut BodyReservation,
) -> Result<Bytes, Rejection> {
    if let Some(encoding) = unsupported_encoding(headers) {
        return Err(Rejection::new(RejectionKind::UnsupportedEncoding(encoding)));
    }
    let content_length =
        headers.get(http::header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if content_length.is_some_and(|length| length > max_body as u64) {
        return Err(Rejection::new(RejectionKind::BodyTooLarge(max_body)));
    }
    let deadline = Instant::now() + BODY_TIMEOUT;
    let mut body = Limited::new(body, max_body);
    let mut received = BytesMut::new();
    loop {
        let limit = BODY_CHUNK_TIMEOUT.min(deadline.saturating_duration_since(Instant::now()));
        let frame = timeout(limit, body.frame()).await.map_err(|_| Rejection::new(RejectionKind::BodyTimeout))?;
        match frame {
            None => return Ok(received.freeze()),
            // Copied into one buffer: many small frames would take many times their size.
            Some(Ok(frame)) => {
                received.extend_from_slice(&frame.into_data().unwrap_or_default());
                reservation.grow_to(received.len(), max_body)?;
            }
            Some(Err(error)) if error.is::<LengthLimitError>() => {
                return Err(Rejection::new(RejectionKind::BodyTooLarge(max_body)));
            }
            Some(Err(_)) => return Err(Rejection::new(RejectionKind::IncompleteBody)),
        }
    }
}

/// Content or transfer encoding of a body that is not supported, if any.
fn unsupported_encoding(headers: &HeaderMap) -> Option<String> {
    let (content, transfer) =
        (headers.get_all(http::header::CONTENT_ENCODING), headers.get_all(http::header::TRANSFER_ENCODING));
    let unsupported = |value: &HeaderValue, plain: &str| {
        let text = String::from_utf8_lossy(value.as_bytes());
        text.split(',')
            .map(str::trim)
            .find(|encoding| !encoding.is_empty() && !encoding.eq_ignore_ascii_case(plain))
            .map(str::to_owned)
    };
    let content = content.iter().find_map(|value| unsupported(value, "identity"));
    content.or_else(|| transfer.iter().find_map(|value| unsupported(value, "chunked")))
}

/// Like [`authenticate`], but rejects clients that may not read metrics.
fn authenticate_for_metrics(
    gateway: &Gateway,
    path: &'static str,
    headers: &HeaderMap,
) -> Result<Arc<ConfigGeneration>, Response<Body>> {
    match authenticate(gateway, path, headers)? {
        (_, Some(client)) if !client.metrics => {
            let context = RequestContext { client: Some(client.name.clone()), ..RequestContext::new(path) };
            Err(gateway.reject(&context, &Rejection::new(RejectionKind::MetricsNotAllowed { name: client.name })))
        }
        (current, _) => Ok(current),
    }
}

/// Authenticates a request to a non-model endpoint (`/v1/models`, `/metrics`, `/status`).
fn authenticate(
    gateway: &Gateway,
    path: &'static str,
    headers: &HeaderMap,
) -> Result<(Arc<ConfigGeneration>, Option<ClientConfig>), Response<Body>> {
    let current = gateway.current();
    let client = auth::authenticate(&current.client_keys, headers).map(Option::<&ClientConfig>::cloned);
    match client {
        Ok(client) => Ok((current, client)),
        Err(rejection) => Err(gateway.reject(&RequestContext::new(path), &rejection)),
    }
}

async fn models(State(gateway): State<Arc<Gateway>>, headers: HeaderMap) -> Response<Body> {
    match authenticate(&gateway, MODELS, &headers) {
        Ok((current, client)) => {
            response::json_response(StatusCode::OK, &status::model_list(&current.config, client.as_ref()))
        }
        Err(response) => response,
    }
}

async fn model(
    State(gateway): State<Arc<Gateway>>,
    id: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Response<Body> {
    let (current, client) = match authenticate(&gateway, MODELS, &headers) {
        Ok(authenticated) => authenticated,
        Err(response) => return response,
    };
    // A path that is not valid UTF-8 matches no name.
    let id = id.map(|Path(id)| normalize_name(&id)).unwrap_or_default();
    let found = (id.len() <= MAX_NAME_BYTES && auth::is_model_allowed(client.as_ref(), &id))
        .then(|| status::model_entry(&current.config, &id))
        .flatten();
    if let Some(model) = found {
        return response::json_response(StatusCode::OK, &model);
    }
    let hint = "GET /v1/models lists the available models".to_owned();
    gateway.reject(&RequestContext::new(MODELS), &Rejection::new(RejectionKind::UnknownModel { name: id, hint }))
}

async fn ready(State(gateway): State<Arc<Gateway>>) -> Response<Body> {
    status::ready(&gateway)
}

async fn metrics(State(gateway): State<Arc<Gateway>>, headers: HeaderMap) -> Response<Body> {
    match authenticate_for_metrics(&gateway, "/metrics", &headers) {
        Ok(current) => {
            let text = gateway.metrics.export(&current.config, &gateway.deps);
            let content_type = HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
            response::response_with_body(StatusCode::OK, content_type, Body::from(text))
        }
        Err(response) => response,
    }
}

async fn status_page(State(gateway): State<Arc<Gateway>>, headers: HeaderMap) -> Response<Body> {
    match authenticate_for_metrics(&gateway, "/status", &headers) {
        Ok(current) => response::json_response(StatusCode::OK, &status::status_body(&gateway, &current)),
        Err(response) => response,
    }
}

async fn unknown_path(State(gateway): State<Arc<Gateway>>, request: Request) -> Response<Body> {
    let path = request.uri().path().to_owned();
    gateway.reject(&RequestContext::new("/"), &Rejection::new(RejectionKind::UnknownPath { path }))
}

async fn method_not_allowed(State(gateway): State<Arc<Gateway>>, request: Request) -> Response<Body> {
    let path = request.uri().path().to_owned();
    gateway.reject(&RequestContext::new("/"), &Rejection::new(RejectionKind::MethodNotAllowed { path }))
}

impl Gateway {
    /// Responds to a rejected request, and counts and logs it.
    fn reject(&self, context: &RequestContext, rejection: &Rejection) -> Response<Body> {
        let response = rejection.to_response(&context.request_id);
        self.metrics.count_rejected(context, &self.current().config, rejection.code());
        self.deps.log.rejected(context, response.status().as_u16(), rejection.code());
        response
    }
}
