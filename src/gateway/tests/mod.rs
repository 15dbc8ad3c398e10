//! Tests of the gateway with a mock transport and a paused clock.

use std::{
    net::IpAddr,
    path::Path,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use futures_util::FutureExt;
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncWriteExt, DuplexStream},
    task::JoinHandle,
};

mod failures;
mod lifecycle;
mod memory;
mod metrics;
mod names_and_headers;
mod origin_guard;
mod passthrough;

use super::{
    Gateway, GatewayDeps, GatewayLimits, Log, ServeError, check_exposure, connection::serve_connection,
    request_context::ConnInfo, response::Body, write_timeout::WriteTimeoutStream,
};
use crate::{
    config,
    engine::Engine,
    model::environment::Environment,
    transport::{
        keys::KeyRing,
        mock::{MockResponse, MockTransport},
    },
};

const CONFIG: &str = r#"
[endpoints.a]
base_url = "http://a.example/v1"
api_key = "sk-of-the-upstream"
[endpoints.b]
base_url = "http://b.example/v1"
[models.one]
endpoint = "a"
model = "upstream-one"
params = { temperature = 0.5 }
price = { input = 1.0, output = 2.0 }
[models.two]
endpoint = "b"
model = "upstream-two"
[routes.chat]
models = ["one", "two"]
[routes.buffered]
models = ["one", "two"]
on_incomplete = "buffer"
[sets]
both = ["one", "two"]
"#;

const KEYS: &str = r#"
[serve.keys.team]
api_key = "sk-of-the-team"
models = ["chat"]
max_concurrency = 1
[serve.keys.rich]
api_key = "sk-of-the-rich"
spend = 1.5
"#;

const NO_DELAY: Duration = Duration::ZERO;
const SECOND: Duration = Duration::from_secs(1);
const ROLE: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n";
const HELLO: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hello\"}}]}\n\n";
const REASONING: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{\"reasoning_content\":\"hm\"}}]}\n\n";
const STOP: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n";
const USAGE: &str = "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":1000000,\"completion_tokens\":500000}}\n\n";
const DONE: &str = "data: [DONE]\n\n";

/// A gateway on a mock transport.
struct TestGateway {
    transport: Arc<MockTransport>,
    gateway: Arc<Gateway>,
    log_lines: Arc<Mutex<Vec<Value>>>,
}

impl TestGateway {
    async fn new(extra_config: &str, replies: impl IntoIterator<Item = MockResponse>) -> Self {
        Self::try_new(extra_config, replies).await.expect("valid config")
    }

    async fn try_new(extra_config: &str, replies: impl IntoIterator<Item = MockResponse>) -> Result<Self, ServeError> {
        let transport = Arc::new(MockTransport::new(replies));
        let config = config::resolve(&format!("{extra_config}{CONFIG}"), Path::new("c.toml")).expect("valid config");
        let policies = config.policies.clone().for_server();
        let keys = KeyRing::new(Environment::default());
        let engine = Engine::with_policies(Arc::clone(&transport) as Arc<_>, keys, policies);
        let log_lines = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&log_lines);
        let log = Log::new(move |line| sink.lock().push(serde_json::from_str(&line).expect("JSON")));
        let deps = GatewayDeps {
            engine: Arc::new(engine.with_seed(3).with_long_lived_process()),
            log,
            writer: None,
            limits: GatewayLimits::default(),
            ledger: None,
        };
        Ok(Self { transport, gateway: Gateway::new(config, deps).await?, log_lines })
    }

    async fn post(&self, path: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Response<Body> {
        let mut request = Request::post(path).header("host", "localhost");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.gateway.handle_local(request.body(Body::from(body.into())).expect("valid request")).await
    }

    async fn chat(&self, model: &str, stream: bool) -> Response<Body> {
        self.post("/v1/chat/completions", &[], chat(model, stream)).await
    }

    /// A connection of a client, and the task that serves it.
    fn connect(&self, buffer_bytes: usize, write_timeout: Duration) -> (DuplexStream, JoinHandle<()>) {
        let (client, server) = tokio::io::duplex(buffer_bytes);
        let (gateway, routers) = (Arc::clone(&self.gateway), self.gateway.routers());
        let connection = gateway.connections.open(IpAddr::from([127, 0, 0, 1]), None).expect("no limit");
        let activity = Arc::clone(&connection.activity);
        let server = WriteTimeoutStream::new(server, write_timeout, activity.pending_write.clone());
        let conn_info = ConnInfo { loopback: true, max_connections: None };
        (client, tokio::spawn(serve_connection(gateway, server, activity, routers, conn_info)))
    }

    async fn get(&self, path: &str) -> (StatusCode, String) {
        let request = Request::get(path).header("host", "localhost").body(Body::empty()).expect("valid request");
        let response = self.gateway.handle_local(request).await;
        (response.status(), read_text(response).await)
    }

    /// Requests sent to the upstreams.
    fn upstream_requests(&self) -> Vec<Request<Bytes>> {
        self.transport.requests.lock().iter().map(|sent| sent.request.clone()).collect()
    }

    fn last_log_line(&self) -> Value {
        self.log_lines.lock().last().expect("a request was logged").clone()
    }
}

fn chat(model: &str, stream: bool) -> String {
    json!({"model": model, "stream": stream, "messages": [{"role": "user", "content": "a secret question"}]})
        .to_string()
}

/// The request as bytes.
fn raw_chat(model: &str, stream: bool) -> String {
    let body = chat(model, stream);
    let length = body.len();
    format!("POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: {length}\r\n\r\n{body}")
}

fn chunks(texts: &[&'static str]) -> MockResponse {
    MockResponse::Chunks(texts.iter().map(|text| (NO_DELAY, *text)).collect())
}

fn json_reply(text: &'static str) -> MockResponse {
    MockResponse::Status(200, vec![("content-type", "application/json")], text)
}

async fn read_text(response: Response<Body>) -> String {
    read_chunks(response).await.concat()
}

async fn read_json(response: Response<Body>) -> Value {
    serde_json::from_str(&read_text(response).await).expect("valid JSON")
}

/// Reads the chunks of a body. Checks that the body fails if and only if its last chunk is an error event.
async fn read_chunks(response: Response<Body>) -> Vec<String> {
    let (mut body, mut frames, mut aborted) = (response.into_body(), Vec::<String>::new(), false);
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => frames.push(String::from_utf8(frame.into_data().expect("data").to_vec()).expect("UTF-8")),
            Err(_) => aborted = true,
        }
    }
    assert_eq!(aborted, frames.last().is_some_and(|last| last.starts_with("data: {\"error\"")), "{frames:?}");
    frames
}
