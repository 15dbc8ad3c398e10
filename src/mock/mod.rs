//! Scripted models on loopback, behind `mmchat mock`, the demo, tests and benchmarks.
//!
//! Owns a server that speaks the OpenAI format and fails on demand. Refuses to be taken for a model: every reply
//! carries `x-mmchat-mock`, and the text says so too.

use std::{
    collections::HashMap,
    convert::Infallible,
    io,
    sync::{Arc, Mutex},
};

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
use tokio::{net::TcpListener, task::JoinSet};

mod reply;
mod script;
mod text;

pub use script::{Fault, Script, built_in};

use crate::{
    model::ErrorClass,
    protocol::openai::server,
    transport::{ByteStream, TransportError, TransportErrorKind},
};

/// The largest request body that is read.
const MAX_REQUEST: usize = 256 * 1024 * 1024;

/// What a mock server serves.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Its models, by name; others are refused.
    pub models: Vec<(String, Script)>,
    /// What the texts are made from.
    pub seed: u64,
    /// The key clients must bring, if any.
    pub key: Option<String>,
}

/// Serves until dropped; every connection ends with it.
pub async fn serve(listener: TcpListener, settings: Settings) -> io::Result<Infallible> {
    Mock::new(settings).serve(listener).await
}

/// Scripted models that can be looked at while they serve.
#[derive(Clone, Debug)]
pub struct Mock {
    server: Server,
}

impl Mock {
    /// A mock of these models; nobody can ask it yet.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self { server: Server { settings: Arc::new(settings), asked: Arc::default() } }
    }

    /// How often models were asked so far, all together.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.server.asked.lock().expect("no code panics while it holds this lock").values().sum()
    }

    /// Serves until dropped; every connection ends with it.
    pub async fn serve(&self, listener: TcpListener) -> io::Result<Infallible> {
        let app = self.app();
        let mut connections = JoinSet::new();
        loop {
            let (socket, _) = listener.accept().await?;
            socket.set_nodelay(true)?;
            while connections.try_join_next().is_some() {}
            let app = app.clone();
            connections.spawn(async move {
                let service = hyper::service::service_fn(move |request| answer(app.clone(), request));
                let mut server = hyper::server::conn::http1::Builder::new();
                // A connection that a fault breaks ends in an error, as it should.
                let _ = server.half_close(false).serve_connection(TokioIo::new(socket), service).await;
            });
        }
    }

    /// Answers one request without a network, so that a test's clock need not wait for one.
    pub async fn ask(&self, request: Request<Bytes>) -> Result<http::Response<ByteStream>, TransportError> {
        let reset = || TransportError::new(TransportErrorKind::Reset, "closed by the script");
        let reply = answer(self.app(), request.map(Body::from)).await.map_err(|Hangup| reset())?;
        Ok(reply.map(|body| body.into_data_stream().map(move |piece| piece.map_err(|_| reset())).boxed()))
    }

    fn app(&self) -> Router {
        Router::new()
            .route("/v1/chat/completions", post(chat))
            .route("/v1/models", get(models))
            .route("/", get(async || "mmchat mock: scripted models, not real ones. Try /v1/models.\n"))
            .fallback(any(async || page(StatusCode::NOT_FOUND, "404 Not Found")))
            .with_state(self.server.clone())
    }
}

/// The reply of `app`, or an error that closes the connection where the script wants that.
async fn answer<B>(app: Router, request: Request<B>) -> Result<Response<Body>, Hangup>
where
    B: hyper::body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<axum::BoxError>,
{
    use hyper::service::Service;
    let response = TowerToHyperService::new(app).call(request).await.unwrap_or_else(|never| match never {});
    if response.extensions().get::<Hangup>().is_some() { Err(Hangup) } else { Ok(response) }
}

/// The connection is to be closed without a word.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("closed by the script")]
struct Hangup;

#[derive(Clone, Debug)]
struct Server {
    settings: Arc<Settings>,
    /// How often each model was asked, for scripts that fail a few times only.
    asked: Arc<Mutex<HashMap<String, u64>>>,
}

async fn models(State(server): State<Server>, headers: HeaderMap) -> Response<Body> {
    if let Err(refused) = server.check_key(&headers) {
        return refused;
    }
    let models = server.settings.models.iter().map(|(name, _)| (name.as_str(), "mmchat-mock"));
    json(StatusCode::OK, &server::models(models))
}

async fn chat(State(server): State<Server>, headers: HeaderMap, body: Body) -> Response<Body> {
    if let Err(refused) = server.check_key(&headers) {
        return refused;
    }
    let Ok(body) = axum::body::to_bytes(body, MAX_REQUEST).await else {
        return failure(StatusCode::PAYLOAD_TOO_LARGE, ErrorClass::Request, "too_large", "the request is too large");
    };
    let asked = match server::parse_chat(&body) {
        Ok(asked) => asked,
        Err(problem) => return failure(StatusCode::BAD_REQUEST, ErrorClass::Request, "invalid_json", &problem.message),
    };
    match server.script(&asked.model) {
        Ok(script) => reply::make(&script, &asked, &body, server.settings.seed).await,
        Err(problem) => failure(StatusCode::NOT_FOUND, ErrorClass::Model, "model_not_found", &problem),
    }
}

impl Server {
    fn check_key(&self, headers: &HeaderMap) -> Result<(), Response<Body>> {
        let Some(key) = &self.settings.key else { return Ok(()) };
        let brought = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        if brought.and_then(|value| value.strip_prefix("Bearer ")) == Some(key) {
            return Ok(());
        }
        let message = "Incorrect API key provided.";
        Err(failure(StatusCode::UNAUTHORIZED, ErrorClass::Auth, "invalid_api_key", message))
    }

    /// The script for a name: a known one, or a known one with changes (`fast+tokens=5`).
    fn script(&self, name: &str) -> Result<Script, String> {
        let (base, changes) = name.split_once('+').unwrap_or((name, ""));
        let known = self.settings.models.iter().find(|(model, _)| model == base);
        let script = known.ok_or_else(|| format!("The model `{name}` does not exist."))?.1.changed(changes)?;
        let mut asked = self.asked.lock().expect("no code panics while it holds this lock");
        let times = asked.entry(name.to_owned()).or_default();
        *times += 1;
        let over_it = script.fail_first.is_some_and(|first| *times > first);
        Ok(if over_it { Script { fault: None, ..script } } else { script })
    }
}

fn response(status: StatusCode, content_type: &str, body: Body) -> Response<Body> {
    Response::builder()
        .status(status)
        .header(header::CONTENT_TYPE, content_type)
        .header("x-mmchat-mock", "scripted, not a model")
        .body(body)
        .expect("known headers")
}

fn json(status: StatusCode, body: &serde_json::Value) -> Response<Body> {
    response(status, "application/json", Body::from(body.to_string()))
}

fn failure(status: StatusCode, class: ErrorClass, code: &str, message: &str) -> Response<Body> {
    json(status, &server::error(class, code, message))
}

fn page(status: StatusCode, title: &str) -> Response<Body> {
    let body = format!("<html><head><title>{title}</title></head><body><h1>{title}</h1></body></html>");
    response(status, "text/html", Body::from(Bytes::from(body)))
}

fn hang_up() -> Response<Body> {
    let mut response = Response::new(Body::empty());
    response.extensions_mut().insert(Hangup);
    response
}
