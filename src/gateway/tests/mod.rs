//! The gateway on a scripted upstream and a paused clock: what reaches the upstream, what the client gets.

use std::{
    path::Path,
    sync::{Arc, Mutex, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use futures_util::FutureExt;
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

mod failures;
mod figures;
mod life;
mod origin_guard;
mod passing;

use super::{
    Gateway, Log, Outside, ServeError, check_open,
    connection::{Arrived, Impatient, STALLED, speak},
    reply::Body,
};
use crate::{
    config,
    engine::Engine,
    model::environment::Environment,
    transport::{
        keys::KeyRing,
        mock::{Reply, Script},
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
[routes.whole]
models = ["one", "two"]
on_cut = "buffer"
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

const NOW: Duration = Duration::ZERO;
const SECOND: Duration = Duration::from_secs(1);
const ROLE: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n";
const HELLO: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hello\"}}]}\n\n";
const THOUGHT: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{\"reasoning_content\":\"hm\"}}]}\n\n";
const STOP: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n";
const USAGE: &str = "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":1000000,\"completion_tokens\":500000}}\n\n";
const DONE: &str = "data: [DONE]\n\n";

/// A gateway over a script.
struct World {
    script: Arc<Script>,
    gateway: Arc<Gateway>,
    lines: Arc<Mutex<Vec<Value>>>,
}

impl World {
    async fn new(more: &str, replies: impl IntoIterator<Item = Reply>) -> Self {
        Self::open(more, replies).await.expect("a good config")
    }

    async fn open(more: &str, replies: impl IntoIterator<Item = Reply>) -> Result<Self, ServeError> {
        let script = Arc::new(Script::of(replies));
        let config = config::resolve(&format!("{CONFIG}{more}"), Path::new("c.toml")).expect("a good config");
        let engine = Engine::new(Arc::clone(&script) as Arc<_>, KeyRing::new(Environment::default()));
        let lines = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&lines);
        let log =
            Log::new(move |line| kept.lock().expect("one thread").push(serde_json::from_str(&line).expect("JSON")));
        let outside = Outside { engine: Arc::new(engine.seeded(3).resident()), log, scribe: None, ledger: None };
        Ok(Self { script, gateway: Gateway::new(config, outside).await?, lines })
    }

    async fn post(&self, path: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Response<Body> {
        let mut request = Request::post(path).header("host", "localhost");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.gateway.ask(request.body(Body::from(body.into())).expect("a request")).await
    }

    async fn chat(&self, model: &str, stream: bool) -> Response<Body> {
        self.post("/v1/chat/completions", &[], chat(model, stream)).await
    }

    async fn get(&self, path: &str) -> (StatusCode, String) {
        let request = Request::get(path).header("host", "localhost").body(Body::empty()).expect("a request");
        let reply = self.gateway.ask(request).await;
        (reply.status(), text(reply).await)
    }

    /// What the upstreams were asked.
    fn asked(&self) -> Vec<Request<Bytes>> {
        self.script.asked.lock().expect("one thread").iter().map(|asked| asked.request.clone()).collect()
    }

    fn line(&self) -> Value {
        self.lines.lock().expect("one thread").last().expect("a line").clone()
    }
}

fn chat(model: &str, stream: bool) -> String {
    json!({"model": model, "stream": stream, "messages": [{"role": "user", "content": "a secret question"}]})
        .to_string()
}

fn pieces(texts: &[&'static str]) -> Reply {
    Reply::Pieces(texts.iter().map(|text| (NOW, *text)).collect())
}

fn whole(text: &'static str) -> Reply {
    Reply::Status(200, vec![("content-type", "application/json")], text)
}

async fn text(reply: Response<Body>) -> String {
    frames(reply).await.concat()
}

async fn json_of(reply: Response<Body>) -> Value {
    serde_json::from_str(&text(reply).await).expect("JSON")
}

/// The pieces of a body, as they are written. It breaks off where the last one is an error, and nowhere else.
async fn frames(reply: Response<Body>) -> Vec<String> {
    let (mut body, mut frames, mut broken) = (reply.into_body(), Vec::<String>::new(), false);
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => frames.push(String::from_utf8(frame.into_data().expect("data").to_vec()).expect("text")),
            Err(_) => broken = true,
        }
    }
    assert_eq!(broken, frames.last().is_some_and(|last| last.starts_with("data: {\"error\"")), "{frames:?}");
    frames
}
