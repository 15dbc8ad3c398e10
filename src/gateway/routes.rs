//! Defines the HTTP routes, and checks, dispatches and rejects requests.

use std::{pin::pin, sync::Arc, task::Poll};

use axum::{
    Router,
    extract::{Path, Request, State, rejection::PathRejection},
    routing::{get, post},
};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use hyper_util::service::TowerToHyperService;

use super::{
    ConfigGeneration, Gateway, cors, paths,
    prepare::{LIST_HINT, MAX_NAME_BYTES, prepare},
    rejection::Rejection,
    request_context::{ConnInfo, RequestContext},
    response::{self, Body, insert_request_id},
    status,
};

use crate::{
    config::{ClientConfig, normalize_name},
    gateway::{auth, origin_guard},
    model::Operation,
    protocol::{
        error::truncate_message,
        openai::server::{self, ParseError, ParsedRequest},
    },
};

const COMPLETIONS: &str = "/v1/completions";
const CHAT: &str = "/v1/chat/completions";
const EMBEDDINGS: &str = "/v1/embeddings";
const RERANK: &str = "/v1/rerank";
const IMAGES: &str = "/v1/images/generations";
const MODELS: &str = "/v1/models";

/// The routers of all requests.
#[derive(Clone)]
pub(super) struct Routers {
    plain: Router,
    /// For requests of web pages, which have an `Origin`.
    cross_origin: Router,
}

impl Gateway {
    /// Handles a request in process, as if it came over loopback.
    pub async fn handle_local(self: &Arc<Self>, request: http::Request<Body>) -> Response<Body> {
        self.handle(self.routers(), ConnInfo { loopback: true, max_connections: None }, request).await
    }

    /// Answers a request.
    pub(super) async fn handle(
        &self,
        routers: Routers,
        conn_info: ConnInfo,
        request: http::Request<Body>,
    ) -> Response<Body> {
        let mut response = self.check_and_route(routers, conn_info, request).await;
        // A browser must not take the answer of a model for a page.
        response.headers_mut().insert(http::header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        if conn_info.max_connections.is_some() {
            response.headers_mut().insert(http::header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    /// Checks the origin of a request and routes it.
    async fn check_and_route(
        &self,
        routers: Routers,
        conn_info: ConnInfo,
        request: http::Request<Body>,
    ) -> Response<Body> {
        use hyper::service::Service;
        let current = self.current();
        let serve = &current.config.serve;
        let authority = request.uri().authority().map(http::uri::Authority::as_str);
        // A load balancer checks the health of a server by its address, or by a name of its own.
        let path = paths::normalized(request.uri().path());
        let path = path.as_deref().unwrap_or(request.uri().path());
        let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
        let is_health_check = is_read && matches!(path, "/health" | "/ready");
        if let Some(max) = conn_info.max_connections.filter(|_| !is_health_check) {
            let path = truncate_message(path);
            return self.reject(&RequestContext::new(path, request.headers()), &Rejection::TooManyConnections { max });
        }
        if !is_health_check
            && let Err(rejection) = origin_guard::check(serve, conn_info.loopback, request.headers(), authority)
        {
            return self.reject(&RequestContext::new("/", request.headers()), &rejection);
        }
        drop(current);
        let request = with_normalized_path(request);
        let headers = request.headers();
        // The layer takes every OPTIONS request for a preflight request.
        let is_other_options =
            *request.method() == Method::OPTIONS && !headers.contains_key(http::header::ACCESS_CONTROL_REQUEST_METHOD);
        let is_cross_origin = headers.contains_key(http::header::ORIGIN) && !is_other_options;
        let router = if is_cross_origin { routers.cross_origin } else { routers.plain };
        let response = TowerToHyperService::new(router).call(request).await;
        response.unwrap_or_else(|never| match never {})
    }

    /// All routes, without and with CORS.
    pub(super) fn routers(self: &Arc<Self>) -> Routers {
        let plain = self.router();
        Routers { cross_origin: plain.clone().layer(cors::layer(self)), plain }
    }

    fn router(self: &Arc<Self>) -> Router {
        let opaque = |path, operation| {
            post(move |State(gateway): State<Arc<Self>>, request: Request| async move {
                handle_model_request(&gateway, path, request, move |body| server::parse_opaque(operation, &body)).await
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

/// Prepares a request for a model, runs its call and responds.
async fn handle_model_request(
    gateway: &Arc<Gateway>,
    path: &'static str,
    request: Request,
    parse: impl FnOnce(Bytes) -> Result<ParsedRequest, ParseError> + Send + 'static,
) -> Response<Body> {
    let mut context = RequestContext::new(path, request.headers());
    let prepared = unless_ending(gateway, prepare(gateway, &mut context, request, parse)).await;
    let mut response = match prepared {
        Ok((in_flight, request, options)) => response::respond(in_flight, request, options).await,
        Err(rejection) => return gateway.reject(&context, &rejection),
    };
    insert_request_id(&mut response, &context);
    response
}

/// Completes `preparing`, or rejects the request when the server ends those in flight.
async fn unless_ending<T>(
    gateway: &Gateway,
    preparing: impl Future<Output = Result<T, Rejection>>,
) -> Result<T, Rejection> {
    let mut preparing = pin!(preparing);
    std::future::poll_fn(|context| {
        let is_ending = gateway.phase.is_ending();
        if is_ending { Poll::Ready(Err(Rejection::ShuttingDown)) } else { preparing.as_mut().poll(context) }
    })
    .await
}

/// Like [`authenticate`], but rejects clients that may not read `/metrics` and `/status`.
fn authenticate_for_monitoring(
    gateway: &Gateway,
    path: &'static str,
    headers: &HeaderMap,
) -> Result<Arc<ConfigGeneration>, Response<Body>> {
    match authenticate(gateway, path, headers)? {
        (_, Some(client)) if !client.metrics => {
            let context = RequestContext { client: Some(client.name.clone()), ..RequestContext::new(path, headers) };
            Err(gateway.reject(&context, &Rejection::MetricsNotAllowed { client: client.name }))
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
        Err(rejection) => Err(gateway.reject(&RequestContext::new(path, headers), &rejection)),
    }
}

async fn models(State(gateway): State<Arc<Gateway>>, headers: HeaderMap) -> Response<Body> {
    match authenticate(&gateway, MODELS, &headers) {
        Ok((current, client)) => response::json_response(
            StatusCode::OK,
            &status::model_list(&current.config, current.created, client.as_ref()),
        ),
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
    let entry = (id.len() <= MAX_NAME_BYTES)
        .then(|| status::model_entry(&current.config, current.created, client.as_ref(), &id))
        .flatten();
    if let Some(entry) = entry {
        return response::json_response(StatusCode::OK, &entry);
    }
    let hint = LIST_HINT.to_owned();
    let context = RequestContext { client: client.map(|client| client.name), ..RequestContext::new(MODELS, &headers) };
    gateway.reject(&context, &Rejection::UnknownModel { model: id, hint })
}

async fn ready(State(gateway): State<Arc<Gateway>>) -> Response<Body> {
    status::ready(&gateway)
}

async fn metrics(State(gateway): State<Arc<Gateway>>, headers: HeaderMap) -> Response<Body> {
    match authenticate_for_monitoring(&gateway, "/metrics", &headers) {
        Ok(current) => {
            let text = gateway.metrics.export(&current.config, &gateway.deps, gateway.memory.used());
            let content_type = HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
            response::response_with_body(StatusCode::OK, content_type, Body::from(text))
        }
        Err(response) => response,
    }
}

async fn status_page(State(gateway): State<Arc<Gateway>>, headers: HeaderMap) -> Response<Body> {
    match authenticate_for_monitoring(&gateway, "/status", &headers) {
        Ok(current) => response::json_response(StatusCode::OK, &status::status_body(&gateway, &current)),
        Err(response) => response,
    }
}

async fn unknown_path(State(gateway): State<Arc<Gateway>>, request: Request) -> Response<Body> {
    let path = request.uri().path().to_owned();
    reject_path(&gateway, &request, &Rejection::UnknownPath { path })
}

async fn method_not_allowed(State(gateway): State<Arc<Gateway>>, request: Request) -> Response<Body> {
    let path = request.uri().path().to_owned();
    reject_path(&gateway, &request, &Rejection::MethodNotAllowed { path })
}

/// Rejects a request by its path; the log names the path and the client, so that a wrong base URL is found.
fn reject_path(gateway: &Gateway, request: &Request, rejection: &Rejection) -> Response<Body> {
    let current = gateway.current();
    let client = auth::authenticate(&current.client_keys, request.headers()).ok().flatten();
    let path = truncate_message(request.uri().path());
    let context = RequestContext {
        client: client.map(|client| client.name.clone()),
        ..RequestContext::new(path, request.headers())
    };
    gateway.reject(&context, rejection)
}

/// The request with the path of its route.
fn with_normalized_path(mut request: http::Request<Body>) -> http::Request<Body> {
    let uri = request.uri();
    if let Some(path) = paths::normalized(uri.path()) {
        let path_and_query = uri.query().map(|query| format!("{path}?{query}")).unwrap_or(path);
        let mut parts = uri.clone().into_parts();
        parts.path_and_query = path_and_query.parse().ok();
        // A path that cannot be written stays as it is, and is unknown.
        if let Ok(uri) = http::Uri::from_parts(parts) {
            *request.uri_mut() = uri;
        }
    }
    request
}

impl Gateway {
    /// Responds to a rejected request, and counts and logs it.
    fn reject(&self, context: &RequestContext, rejection: &Rejection) -> Response<Body> {
        let response = response::rejection_response(rejection, context);
        self.metrics.count_rejected(context, &self.current().config, rejection.code());
        self.deps.log.rejected(context, response.status().as_u16(), rejection.code());
        response
    }
}
