//! OpenAI-compatible server with scripted models, for `mmchat mock`, the demo, tests and benchmarks.
//!
//! The models fail on demand. Every regular response has an `x-mmchat-mock` header and the text says that it is a mock,
//! so that it cannot be mistaken for a real model.

use std::{collections::HashMap, convert::Infallible, io, sync::Arc};

use axum::{
    Router,
    body::Body,
    extract::State,
    http::{HeaderMap, Request, Response, StatusCode, header},
    routing::{any, get, post},
};
use bytes::Bytes;
use futures_util::StreamExt;
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use parking_lot::Mutex;
use tokio::{net::TcpListener, task::JoinSet};

mod response;
mod script;
mod text;

pub(crate) use script::Fault;
pub use script::{Script, built_in_models};

use crate::{
    model::ErrorClass,
    protocol::openai::{server, server_response},
    transport::{ByteStream, TransportError, TransportErrorKind},
};

/// Maximum size of a request body.
const MAX_REQUEST_BODY: usize = 256 * 1024 * 1024;

/// Configuration of a mock server.
#[derive(Clone, Debug, Default)]
pub struct MockConfig {
    /// Models by name; requests for other models are rejected.
    pub models: Vec<(String, Script)>,
    /// Seed of the generated texts.
    pub seed: u64,
    /// API key required from clients, if any.
    pub key: Option<String>,
}

/// Accepts connections until the future is dropped, which closes them.
pub(crate) async fn serve(listener: TcpListener, config: MockConfig) -> io::Result<Infallible> {
    MockServer::new(config).serve(listener).await
}

/// Mock server whose request count can be read while it serves.
#[derive(Clone, Debug)]
pub struct MockServer {
    state: ServerState,
}

impl MockServer {
    /// Creates a mock server; call [`Self::serve`] to accept connections.
    #[must_use]
    pub fn new(config: MockConfig) -> Self {
        Self { state: ServerState { config: Arc::new(config), request_counts: Arc::default() } }
    }

    /// Total number of chat requests so far.
    #[must_use]
    pub fn request_count(&self) -> u64 {
        self.state.request_counts.lock().values().sum()
    }

    /// Accepts connections until the future is dropped, which closes them.
    pub async fn serve(&self, listener: TcpListener) -> io::Result<Infallible> {
        let app = self.router();
        let mut connections = JoinSet::new();
        loop {
            let (socket, _) = listener.accept().await?;
            socket.set_nodelay(true)?;
            while connections.try_join_next().is_some() {}
            let app = app.clone();
            connections.spawn(async move {
                let service = hyper::service::service_fn(move |request| dispatch(app.clone(), request));
                let mut server = hyper::server::conn::http1::Builder::new();
                // A fault that breaks the connection is reported as an error here, which is expected.
                let _ = server.half_close(false).serve_connection(TokioIo::new(socket), service).await;
            });
        }
    }

    /// Handles one request without a network, so that tests can use a paused clock.
    pub async fn respond(&self, request: Request<Bytes>) -> Result<http::Response<ByteStream>, TransportError> {
        let reset = || TransportError::new(TransportErrorKind::Reset, "closed by the script");
        let response = dispatch(self.router(), request.map(Body::from)).await.map_err(|ConnectionAborted| reset())?;
        Ok(response.map(|body| body.into_data_stream().map(move |chunk| chunk.map_err(|_| reset())).boxed()))
    }

    fn router(&self) -> Router {
        Router::new()
            .route("/v1/chat/completions", post(chat))
            .route("/v1/models", get(models))
            .route("/", get(async || "mmchat mock: scripted models, not real ones. Try /v1/models.\n"))
            .fallback(any(async || html_response(StatusCode::NOT_FOUND, "404 Not Found")))
            .with_state(self.state.clone())
    }
}

/// Returns the response of `app`, or an error that closes the connection if the script requires it.
async fn dispatch<B>(app: Router, request: Request<B>) -> Result<Response<Body>, ConnectionAborted>
where
    B: hyper::body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<axum::BoxError>,
{
    use hyper::service::Service;
    let response = TowerToHyperService::new(app).call(request).await.unwrap_or_else(|never| match never {});
    if response.extensions().get::<ConnectionAborted>().is_some() { Err(ConnectionAborted) } else { Ok(response) }
}

/// Closes the connection without a response.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("closed by the script")]
struct ConnectionAborted;

#[derive(Clone, Debug)]
struct ServerState {
    config: Arc<MockConfig>,
    /// Number of requests per model, for scripts that fail only the first requests.
    request_counts: Arc<Mutex<HashMap<String, u64>>>,
}

async fn models(State(state): State<ServerState>, headers: HeaderMap) -> Response<Body> {
    if let Err(response) = state.check_key(&headers) {
        return response;
    }
    let listed =
        |name| server_response::ListedModel { id: name, owner: "mmchat-mock", context_window: None, created: 0 };
    let models = state.config.models.iter().map(|(name, _)| listed(name));
    json_response(
        StatusCode::OK,
        &server_response::model_list(models.map(|model| server_response::model_entry(&model))),
    )
}

async fn chat(State(state): State<ServerState>, headers: HeaderMap, body: Body) -> Response<Body> {
    if let Err(response) = state.check_key(&headers) {
        return response;
    }
    let Ok(body) = axum::body::to_bytes(body, MAX_REQUEST_BODY).await else {
        return error_response(
            StatusCode::PAYLOAD_TOO_LARGE,
            ErrorClass::Request,
            "too_large",
            "the request is too large",
        );
    };
    let request = match server::parse_chat(&body) {
        Ok(request) => request,
        Err(error) => {
            return error_response(StatusCode::BAD_REQUEST, ErrorClass::Request, "invalid_json", &error.message);
        }
    };
    match state.script_for(&request.model) {
        Ok(script) => response::respond(&script, &request, &body, state.config.seed).await,
        Err(message) => error_response(StatusCode::NOT_FOUND, ErrorClass::Model, "model_not_found", &message),
    }
}

impl ServerState {
    fn check_key(&self, headers: &HeaderMap) -> Result<(), Response<Body>> {
        let Some(key) = &self.config.key else { return Ok(()) };
        let authorization = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        if authorization.and_then(|value| value.strip_prefix("Bearer ")) == Some(key) {
            return Ok(());
        }
        let message = "Incorrect API key provided.";
        Err(error_response(StatusCode::UNAUTHORIZED, ErrorClass::Auth, "invalid_api_key", message))
    }

    /// The script of a model name, optionally with modifiers (`fast+tokens=5`).
    fn script_for(&self, name: &str) -> Result<Script, String> {
        let (base, modifiers) = name.split_once('+').unwrap_or((name, ""));
        let known = self.config.models.iter().find(|(model, _)| model == base);
        let script = known.ok_or_else(|| format!("The model `{name}` does not exist."))?.1.with_settings(modifiers)?;
        let mut counts = self.request_counts.lock();
        let count = counts.entry(name.to_owned()).or_default();
        *count += 1;
        let is_recovered = script.fail_first.is_some_and(|limit| *count > limit);
        Ok(if is_recovered { Script { fault: None, ..script } } else { script })
    }
}

fn mock_response(status: StatusCode, content_type: &str, body: Body) -> Response<Body> {
    Response::builder()
        .status(status)
        .header(header::CONTENT_TYPE, content_type)
        .header("x-mmchat-mock", "scripted, not a model")
        .body(body)
        .expect("valid headers")
}

fn json_response(status: StatusCode, body: &serde_json::Value) -> Response<Body> {
    mock_response(status, "application/json", Body::from(body.to_string()))
}

fn error_response(status: StatusCode, class: ErrorClass, code: &str, message: &str) -> Response<Body> {
    json_response(status, &server_response::error_body(class, code, message))
}

fn html_response(status: StatusCode, title: &str) -> Response<Body> {
    let body = format!("<html><head><title>{title}</title></head><body><h1>{title}</h1></body></html>");
    mock_response(status, "text/html", Body::from(Bytes::from(body)))
}

fn abort_connection() -> Response<Body> {
    let mut response = Response::new(Body::empty());
    response.extensions_mut().insert(ConnectionAborted);
    response
}
