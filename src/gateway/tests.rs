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

use super::{
    Gateway, Log, Outside, ServeError, check_open,
    connection::{Arrived, Impatient, STALLED, speak},
    reply::Body,
};
use crate::{
    config,
    engine::Engine,
    environment::Environment,
    keys::KeyRing,
    transport::scripted::{Reply, Script},
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
    let bytes = reply.into_body().collect().await.expect("a whole body").to_bytes();
    String::from_utf8(bytes.to_vec()).expect("text")
}

async fn json_of(reply: Response<Body>) -> Value {
    serde_json::from_str(&text(reply).await).expect("JSON")
}

/// The pieces of a body, as they are written.
async fn frames(reply: Response<Body>) -> Vec<String> {
    let (mut body, mut frames) = (reply.into_body(), Vec::new());
    while let Some(frame) = body.frame().await {
        let data = frame.expect("no break").into_data().expect("data");
        frames.push(String::from_utf8(data.to_vec()).expect("text"));
    }
    frames
}

#[tokio::test(start_paused = true)]
async fn a_stream_is_passed_on_byte_for_byte_and_event_by_event() {
    let odd = [
        "data:{\"id\":\"x\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\"},\"logprobs\":{\"content\":[]}}],\"own\":1e400}\r\n\r\n",
        "event: message\nid: 7\ndata: {\"choices\":[{\"index\":1,\"delta\":{\"content\":\"\\u00e9\"}}]}\n\n",
        "data: {\"choices\":[{\"index\":0,\"delta\":{\"tool_calls\":[{\"index\":0,\"id\":\"c\",\"function\":{\"name\":\"f\",\"arguments\":\"{}\"}}]}}]}\n\n",
        "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"tool_calls\"},{\"index\":1,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n",
    ];
    let all = [ROLE, odd[0], odd[1], odd[2], odd[3], DONE];
    // In one read, event by event, and cut anywhere.
    let joined: &'static str = Box::leak(all.concat().into_boxed_str());
    let (front, back) = joined.split_at(joined.len() / 2);
    for reply in [pieces(&all), pieces(&[joined]), pieces(&[front, back])] {
        let world = World::new("", [reply]).await;
        let reply = world.chat("one", true).await;
        assert_eq!(reply.headers()["content-type"], "text/event-stream");
        assert_eq!(frames(reply).await, all);
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_client_sends_reaches_the_upstream_field_for_field() {
    let world = World::new("", [pieces(&[HELLO, STOP, DONE])]).await;
    let body = r#"{"z":1,"model":"one","stream":true,"n":null,"tools":[{"type":"function"}],"big":123456789012345678901234567890,"logit_bias":{"1":-100},"base_url":"http://evil.example","messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"http://h/a.png"}}],"name":"x"}],"seed":7}"#;
    let headers = [("authorization", "Bearer sk-of-a-client"), ("x-other", "1"), ("cookie", "a=b")];
    text(world.post("/v1/chat/completions", &headers, body).await).await;
    let asked = world.asked().pop().expect("one");
    let want = body.replace("\"one\"", "\"upstream-one\"").trim_end_matches('}').to_owned()
        + r#","temperature":0.5,"stream_options":{"include_usage":true}}"#;
    assert_eq!(String::from_utf8_lossy(asked.body()), want);
    assert_eq!(asked.uri(), "http://a.example/v1/chat/completions");
    assert_eq!(asked.headers()["authorization"], "Bearer sk-of-the-upstream");
    assert!(!asked.headers().contains_key("x-other") && !asked.headers().contains_key("cookie"));
}

#[tokio::test(start_paused = true)]
async fn usage_is_told_to_whoever_asked_for_it_and_kept_in_any_case() {
    let replies = || [pieces(&[HELLO, STOP, USAGE, DONE])];
    let world = World::new("", replies()).await;
    assert_eq!(text(world.chat("one", true).await).await, [HELLO, STOP, DONE].concat());
    assert_eq!((world.line()["input"].as_u64(), world.line()["cost"].as_f64()), (Some(1_000_000), Some(2.0)));
    let world = World::new("", replies()).await;
    let body =
        chat("one", true).replace("\"stream\":true", "\"stream\":true,\"stream_options\":{\"include_usage\":true}");
    let reply = world.post("/v1/chat/completions", &[], body).await;
    assert_eq!(text(reply).await, [HELLO, STOP, USAGE, DONE].concat());
}

#[tokio::test(start_paused = true)]
async fn a_reply_in_one_piece_is_passed_on_as_it_is_and_says_who_served_it() {
    let body = "{\"choices\":[ {\"message\":{\"content\":\"hi\"},\"finish_reason\":\"stop\"}],\"model\":\"m-2026\",\"own\":1e400}";
    let world = World::new("", [Reply::Status(503, vec![], "{}"), whole(body)]).await;
    let reply = world.chat("chat", false).await;
    let header = |name: &str| reply.headers()[name].to_str().expect("text").to_owned();
    assert_eq!((header("x-mmchat-endpoint"), header("x-mmchat-model")), ("b".into(), "two".into()));
    assert_eq!((header("x-mmchat-route"), header("x-mmchat-attempts")), ("chat".into(), "2".into()));
    assert_eq!(header("x-mmchat-request-id"), world.line()["request_id"].as_str().expect("an id"));
    assert_eq!(text(reply).await, body);
}

#[tokio::test(start_paused = true)]
async fn an_upstream_that_answers_in_the_other_shape_is_translated() {
    let body = "{\"model\":\"m\",\"choices\":[{\"index\":0,\"message\":{\"content\":\"hi\"},\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":1}}";
    let world = World::new("", [whole(body)]).await;
    let frames = frames(world.chat("one", true).await).await;
    let chunk =
        |at: usize| serde_json::from_str::<Value>(frames[at].trim().trim_start_matches("data: ")).expect("JSON");
    assert_eq!(chunk(1)["choices"][0]["delta"]["content"], "hi");
    assert_eq!(chunk(2)["choices"][0]["finish_reason"], "stop");
    assert_eq!((frames.len(), frames[3].as_str()), (4, DONE), "{frames:?}");
    let world = World::new("", [pieces(&[ROLE, HELLO, STOP, USAGE, DONE])]).await;
    let whole = json_of(world.chat("one", false).await).await;
    assert_eq!(whole["choices"][0]["message"]["content"], "Hello");
    assert_eq!(whole["usage"]["prompt_tokens"], 1_000_000);
}

#[tokio::test(start_paused = true)]
async fn until_the_first_piece_everything_fails_over_unseen() {
    for (failure, times) in [
        (Reply::Status(500, vec![], "{}"), 2),
        (Reply::Status(429, vec![("retry-after", "30")], "{}"), 1),
        (Reply::Status(401, vec![], "{}"), 1),
        (pieces(&[ROLE, "data: {\"error\":{\"message\":\"no\",\"code\":503}}\n\n"]), 1),
        (pieces(&[ROLE]), 2),
    ] {
        let replies = std::iter::repeat_n(failure, times).chain([pieces(&[HELLO, STOP, DONE])]);
        let world = World::new("", replies).await;
        let reply = world.chat("chat", true).await;
        assert_eq!(
            (reply.status(), &reply.headers()["x-mmchat-model"]),
            (StatusCode::OK, &"two".parse().expect("a value"))
        );
        assert_eq!(text(reply).await, [HELLO, STOP, DONE].concat());
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_breaks_off_ends_in_an_error_and_nothing_is_forged() {
    let world = World::new("", [pieces(&[ROLE, HELLO])]).await;
    let got = frames(world.chat("chat", true).await).await;
    assert_eq!(got[..2], [ROLE, HELLO]);
    let error: Value = serde_json::from_str(got[2].trim().trim_start_matches("data: ")).expect("JSON");
    assert_eq!(error["error"]["code"], "cut");
    assert_eq!(error["error"]["mmchat"]["attempts"][0]["class"], "cut");
    assert_eq!(got.len(), 3, "{got:?}");
    assert!(!got.concat().contains("[DONE]") && !got.concat().contains("finish_reason\":\"stop"));
    assert_eq!((world.line()["status"].as_u64(), world.line()["class"].as_str()), (Some(200), Some("cut")));
    // Thinking that was passed on cannot be taken back either.
    let world = World::new("", [pieces(&[THOUGHT])]).await;
    let got = frames(world.chat("chat", true).await).await;
    assert!(got.len() == 2 && got[1].contains("\"error\""), "{got:?}");
    assert_eq!(world.asked().len(), 1);
    // One-API writes its mark itself when its upstream breaks off.
    let forged = Reply::Status(
        200,
        vec![("x-oneapi-request-id", "1")],
        "data: {\"choices\":[{\"delta\":{\"content\":\"half\"}}]}\n\ndata: [DONE]\n\n",
    );
    let world = World::new("", [forged]).await;
    let got = text(world.chat("chat", true).await).await;
    assert!(got.contains("\"error\"") && !got.contains("[DONE]"), "{got}");
}

#[tokio::test(start_paused = true)]
async fn a_whole_answer_without_an_end_mark_gets_one() {
    let world = World::new("", [pieces(&[HELLO, STOP])]).await;
    assert_eq!(text(world.chat("one", true).await).await, [HELLO, STOP, DONE].concat());
    let unfinished = "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}";
    let world = World::new("", [pieces(&[HELLO, unfinished])]).await;
    assert_eq!(text(world.chat("one", true).await).await, [HELLO, unfinished, "\n\n", DONE].concat());
}

#[tokio::test(start_paused = true)]
async fn what_is_held_back_until_it_is_whole_begins_again_unseen() {
    let replies = || [pieces(&[ROLE, HELLO]), pieces(&[ROLE, HELLO, STOP, DONE])];
    for (model, headers) in [("whole", &[][..]), ("chat", &[("x-mmchat-buffer", "1")])] {
        let world = World::new("", replies()).await;
        let reply = world.post("/v1/chat/completions", headers, chat(model, true)).await;
        assert_eq!(reply.headers()["x-mmchat-attempts"], "2");
        assert_eq!(text(reply).await, [ROLE, HELLO, STOP, DONE].concat());
    }
    let world = World::new("", [pieces(&[HELLO]), pieces(&[HELLO])]).await;
    let reply = world.post("/v1/chat/completions", &[], chat("whole", true)).await;
    assert_eq!(reply.status(), StatusCode::BAD_GATEWAY);
    assert!(!text(reply).await.contains("Hello"));
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_slow_to_begin_begins_without_its_first_piece() {
    let late = |then: &[&'static str]| {
        let mut pieces = vec![(20 * SECOND, HELLO)];
        pieces.extend(then.iter().map(|text| (NOW, *text)));
        Reply::Pieces(pieces)
    };
    let begun = tokio::time::Instant::now();
    let world = World::new("", [late(&[STOP, DONE])]).await;
    let reply = world.chat("one", true).await;
    assert_eq!((reply.status(), begun.elapsed()), (StatusCode::OK, 15 * SECOND));
    assert_eq!(text(reply).await, [HELLO, STOP, DONE].concat());
    // A failure after that is an event.
    let world = World::new("[serve]\nhold = \"5s\"\n", [Reply::Slow(7 * SECOND, 400)]).await;
    let begun = tokio::time::Instant::now();
    let reply = world.chat("one", true).await;
    assert_eq!((reply.status(), begun.elapsed()), (StatusCode::OK, 5 * SECOND));
    let got = text(reply).await;
    assert!(got.starts_with("data: {\"error\"") && !got.contains("[DONE]"), "{got}");
    // Whoever waits long is told that it is not forgotten.
    let pieces = vec![(NOW, HELLO), (40 * SECOND, STOP)];
    let world = World::new("", [Reply::Pieces(pieces)]).await;
    let comment = ": waiting\n\n";
    assert_eq!(frames(world.chat("one", true).await).await, [HELLO, comment, comment, STOP, DONE]);
}

#[tokio::test(start_paused = true)]
async fn failures_have_the_status_that_is_the_truth() {
    for (reply, status, code, asked) in [
        (Reply::Status(401, vec![], "{\"error\":{\"message\":\"Incorrect key sk-of-the-upstream\"}}"), 502, "auth", 1),
        (Reply::Status(403, vec![], "{}"), 502, "forbidden", 1),
        (Reply::Status(402, vec![], "{}"), 502, "quota", 1),
        (Reply::Status(429, vec![("retry-after", "30")], "{}"), 429, "rate_limit_exceeded", 1),
        (Reply::Status(503, vec![("retry-after", "30")], "{}"), 503, "overloaded", 1),
        (Reply::Status(500, vec![], "{}"), 502, "server", 2),
        (
            Reply::Status(422, vec![], "{\"error\":{\"message\":\"bad field\",\"param\":\"n\",\"code\":\"x\"}}"),
            422,
            "x",
            1,
        ),
        (
            Reply::Status(404, vec![], "{\"error\":{\"message\":\"no model\",\"code\":\"model_not_found\"}}"),
            404,
            "model_not_found",
            1,
        ),
        (
            Reply::Status(400, vec![], "{\"error\":{\"message\":\"too long\",\"code\":\"context_length_exceeded\"}}"),
            400,
            "context_length_exceeded",
            1,
        ),
    ] {
        for stream in [true, false] {
            let world = World::new("", vec![reply.clone(); asked]).await;
            let got = world.chat("one", stream).await;
            assert_eq!(
                (got.status().as_u16(), &got.headers()["x-should-retry"]),
                (status, &"false".parse().expect("a value")),
                "{reply:?}"
            );
            let after = got.headers().get("retry-after").map(|after| after.to_str().expect("text").to_owned());
            assert_eq!(after.as_deref(), matches!(status, 429 | 503).then_some("30"), "{reply:?}");
            let body = json_of(got).await;
            assert_eq!(body["error"]["code"], code, "{body}");
            assert_eq!(body["error"]["mmchat"]["attempts"].as_array().map(Vec::len), Some(asked), "{body}");
            assert!(!body.to_string().contains("sk-of-the-upstream"), "{body}");
            assert_eq!(world.asked().len(), asked);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_nobody_has_is_not_found_and_what_is_no_request_is_refused() {
    let world = World::new("", []).await;
    let long = chat(&"x".repeat(1 << 20), false);
    let unknown = chat("nobody", true);
    let (set, unknown_endpoint) = (chat("both", false), chat("nowhere/x", false));
    for (body, status, code) in [
        (unknown.as_str(), 404, "model_not_found"),
        (&unknown_endpoint, 404, "model_not_found"),
        (&set, 404, "model_not_found"),
        (&long, 404, "model_not_found"),
        ("{", 400, "invalid_request"),
        ("[1]", 400, "no JSON object"),
        ("null", 400, "no JSON object"),
        ("\u{0}", 400, "invalid_request"),
        ("{\"model\":\"one\"}", 400, "invalid_request"),
    ] {
        let reply = world.post("/v1/chat/completions", &[], body.to_owned()).await;
        assert_eq!(reply.status().as_u16(), status);
        let body = text(reply).await;
        assert!(body.len() < 2000 && body.contains(code), "{body}");
    }
    let (status, body) = world.get("/v1/chat/completions").await;
    assert_eq!((status, body.contains("method_not_allowed")), (StatusCode::METHOD_NOT_ALLOWED, true));
    let (status, body) = world.get("/v2/nothing").await;
    assert_eq!((status, body.contains("unknown_url")), (StatusCode::NOT_FOUND, true));
    let world = World::new("[serve]\nmax_body_mb = 1\n", []).await;
    let large = world.post("/v1/chat/completions", &[], " ".repeat(1024 * 1024 + 1)).await;
    assert_eq!(
        (large.status(), &large.headers()["connection"]),
        (StatusCode::PAYLOAD_TOO_LARGE, &"close".parse().expect("a value"))
    );
}

#[tokio::test(start_paused = true)]
async fn models_and_routes_are_listed_one_by_one_too() {
    let world = World::new("", []).await;
    let list: Value = serde_json::from_str(&world.get("/v1/models").await.1).expect("JSON");
    let ids: Vec<_> =
        list["data"].as_array().expect("a list").iter().filter_map(|model| model["id"].as_str()).collect();
    assert_eq!(ids, ["chat", "whole", "one", "two"]);
    for (id, status) in [("one", 200), ("chat", 200), ("a/anything/at:all", 200), ("nobody", 404), ("both", 404)] {
        assert_eq!(world.get(&format!("/v1/models/{id}")).await.0.as_u16(), status, "{id}");
    }
    for (path, word) in
        [("/health", "ok"), ("/ready", "ready"), ("/status", "generation"), ("/metrics", "mmchat_build")]
    {
        let (status, body) = world.get(path).await;
        assert!(status == StatusCode::OK && body.contains(word), "{path}: {body}");
    }
}

#[tokio::test(start_paused = true)]
async fn other_services_are_passed_on_by_their_model() {
    let vectors = "{\"data\":[{\"embedding\":\"AACAPw==\"}],\"usage\":{\"prompt_tokens\":3,\"total_tokens\":3}}";
    for path in ["/v1/embeddings", "/v1/rerank", "/v1/images/generations"] {
        let world = World::new("", [Reply::Status(503, vec![], "{}"), whole(vectors)]).await;
        let body = "{\"input\":[[1,2,3],[4]],\"model\":\"chat\",\"encoding_format\":\"base64\",\"user\":null}";
        let reply = world.post(path, &[], body).await;
        assert_eq!(reply.headers()["x-mmchat-model"], "two");
        assert_eq!(text(reply).await, vectors);
        let asked = world.asked().pop().expect("two");
        assert_eq!(asked.uri().path(), path);
        assert_eq!(String::from_utf8_lossy(asked.body()), body.replace("\"chat\"", "\"upstream-two\""));
        assert_eq!(world.line()["input"], 3);
    }
    let completion = "data: {\"choices\":[{\"text\":\"on\",\"index\":0}]}\n\n";
    let stop = "data: {\"choices\":[{\"text\":\"\",\"index\":0,\"finish_reason\":\"stop\"}]}\n\n";
    let world = World::new("", [pieces(&[completion, stop, DONE]), pieces(&[completion])]).await;
    let body = "{\"model\":\"one\",\"prompt\":[1,2],\"stream\":true}";
    assert_eq!(text(world.post("/v1/completions", &[], body).await).await, [completion, stop, DONE].concat());
    assert!(text(world.post("/v1/completions", &[], body).await).await.contains("\"error\""));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_ends_its_upstream_at_once() {
    for (reply, stream) in [
        (Reply::Silence, true),
        (Reply::Silence, false),
        (Reply::Pieces(vec![(NOW, HELLO), (3600 * SECOND, STOP)]), true),
    ] {
        let world = World::new("", [reply]).await;
        let body = {
            let mut asking = Box::pin(world.chat("one", stream));
            // As far as it goes.
            let mut reply = None;
            for _ in 0..50 {
                reply = reply.or(asking.as_mut().now_or_never());
                tokio::task::yield_now().await;
                if reply.is_some() {
                    break;
                }
            }
            reply.map(Response::into_body)
        };
        drop(body);
        assert_eq!(world.script.open.load(Ordering::Relaxed), 0, "nothing is read any more");
        assert_eq!(world.line()["class"], "client-gone");
        assert!(
            world
                .gateway
                .metrics
                .text(&world.gateway.current().config, &world.gateway.outside)
                .contains("mmchat_client_disconnects_total 1")
        );
    }
}

#[tokio::test(start_paused = true)]
async fn the_log_has_figures_and_no_word_of_what_was_said() {
    let world = World::new(
        "",
        [
            Reply::Status(503, vec![], "{\"error\":{\"message\":\"a secret question\"}}"),
            pieces(&[HELLO, STOP, USAGE, DONE]),
        ],
    )
    .await;
    text(world.chat("chat", true).await).await;
    let line = world.line();
    assert_eq!(line["attempts"][0]["class"], "overloaded");
    assert_eq!((&line["class"], &line["status"], &line["model"]), (&json!("ok"), &json!(200), &json!("two")));
    assert!(!line.to_string().contains("secret") && !line.to_string().contains("Hello"), "{line}");
    let metrics = world.get("/metrics").await.1;
    for figure in [
        "mmchat_requests_total{name=\"chat\",key=\"\",class=\"ok\"} 1",
        "mmchat_attempts_total{endpoint=\"a\",model=\"one\",class=\"overloaded\"} 1",
        "mmchat_attempts_total{endpoint=\"b\",model=\"two\",class=\"ok\"} 1",
        "mmchat_failovers_total{route=\"chat\"} 1",
        "mmchat_tokens_total{endpoint=\"b\",model=\"two\",direction=\"input\"} 1000000",
    ] {
        assert!(metrics.contains(figure), "{figure} in\n{metrics}");
    }
}

#[tokio::test(start_paused = true)]
async fn labels_come_from_the_config_alone() {
    let world = World::new(
        "",
        (0..3).map(|_| whole("{\"choices\":[{\"message\":{\"content\":\"hi\"},\"finish_reason\":\"stop\"}]}")),
    )
    .await;
    for number in 0..3 {
        text(world.chat(&format!("a/made-up-{number}"), false).await).await;
        text(world.chat(&format!("made-up-{number}"), false).await).await;
    }
    let metrics = world.get("/metrics").await.1;
    assert!(!metrics.contains("made-up"), "{metrics}");
    assert!(metrics.contains("mmchat_requests_total{name=\"a/*\",key=\"\",class=\"ok\"} 3"), "{metrics}");
}

const KEYS: &str = r#"
[serve.keys.team]
api_key = "sk-of-the-team"
models = ["chat"]
max_concurrency = 1
[serve.keys.rich]
api_key = "sk-of-the-rich"
spend = 1.5
"#;

#[tokio::test(start_paused = true)]
async fn whoever_has_a_key_may_do_what_it_may() {
    let answer = || pieces(&[HELLO, STOP, USAGE, DONE]);
    let world = World::new(KEYS, [answer(), answer(), Reply::Silence]).await;
    let ask = async |key: Option<&str>, model: &str| {
        let bearer = key.map(|key| format!("Bearer {key}"));
        let headers: Vec<(&str, &str)> = bearer.iter().map(|bearer| ("authorization", bearer.as_str())).collect();
        let reply = world.post("/v1/chat/completions", &headers, chat(model, true)).await;
        (reply.status().as_u16(), text(reply).await)
    };
    assert_eq!(ask(None, "chat").await.0, 401);
    let (status, body) = ask(Some("sk-of-nobody"), "chat").await;
    assert!(status == 401 && body.contains("invalid_api_key") && !body.contains("sk-of"), "{body}");
    assert_eq!(ask(Some("sk-of-the-team"), "one").await.0, 403);
    assert_eq!(ask(Some("sk-of-the-team"), "chat").await.0, 200);
    assert_eq!(world.line()["client"], "team");
    // It costs 2, and one may spend 1.5.
    assert_eq!(ask(Some("sk-of-the-rich"), "one").await.0, 200);
    let (status, body) = ask(Some("sk-of-the-rich"), "one").await;
    assert!(status == 429 && body.contains("insufficient_quota"), "{body}");
    assert_eq!(world.get("/v1/models").await.0, StatusCode::UNAUTHORIZED);
    assert_eq!(world.get("/health").await.0, StatusCode::OK);
    // One at once: the second waits for nobody.
    let waiting = Box::pin(ask(Some("sk-of-the-team"), "chat"));
    let mut waiting = waiting;
    for _ in 0..20 {
        assert!(waiting.as_mut().now_or_never().is_none());
        tokio::task::yield_now().await;
    }
    let (status, body) = ask(Some("sk-of-the-team"), "chat").await;
    assert!(status == 429 && body.contains("concurrency_limit_exceeded"), "{body}");
}

#[tokio::test]
async fn nobody_is_let_in_by_accident() {
    let serve = |text: &str| config::resolve(text, Path::new("c.toml")).expect("good").serve;
    let everywhere = "0.0.0.0".parse().expect("an address");
    assert!(matches!(check_open(&serve(""), everywhere), Err(ServeError::Open { .. })));
    assert!(check_open(&serve(KEYS.replace("models = [\"chat\"]\n", "").as_str()), everywhere).is_ok());
    assert!(check_open(&serve(""), "127.0.0.1".parse().expect("an address")).is_ok());
    let missing = World::open("[serve.keys.x]\napi_key = { env = \"NOT_SET_ANYWHERE\" }\n", []).await;
    assert!(missing.is_err_and(|error| error.to_string().contains("serve.keys.x")));
    let tls = World::open("[serve]\ncert = \"/nowhere/cert.pem\"\nkey = \"/nowhere/key.pem\"\n", []).await;
    assert!(tls.is_err_and(|error| error.to_string().contains("/nowhere/cert.pem")));
}

#[tokio::test(start_paused = true)]
async fn a_new_config_holds_for_new_requests_and_a_bad_one_for_none() {
    let slow = Reply::Pieces(vec![(NOW, HELLO), (SECOND, STOP)]);
    let world = World::new("", [slow, pieces(&[HELLO, STOP, DONE])]).await;
    let under_way = world.chat("one", true).await;
    let renamed = CONFIG.replace("models.one]", "models.first]").replace("\"one\"", "\"first\"");
    let resolve = |text: &str| config::resolve(text, Path::new("c.toml")).expect("good");
    world.gateway.reload(resolve(&renamed)).await.expect("good");
    assert_eq!(world.chat("one", true).await.status(), StatusCode::NOT_FOUND);
    assert_eq!(text(world.chat("first", true).await).await, [HELLO, STOP, DONE].concat());
    assert_eq!(text(under_way).await, [HELLO, STOP, DONE].concat());
    let bad = resolve(&format!("{renamed}[serve.keys.x]\napi_key = {{ env = \"NOT_SET_ANYWHERE\" }}\n"));
    assert!(world.gateway.reload(bad).await.is_err());
    assert_eq!(world.get("/v1/models/first").await.0, StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn a_web_page_does_not_reach_it_unless_it_is_named() {
    let world = World::new(
        "[serve]\ncors = [\"https://chat.example.com\"]\n",
        [whole("{\"choices\":[{\"message\":{\"content\":\"hi\"},\"finish_reason\":\"stop\"}]}")],
    )
    .await;
    let from = async |origin: &str, method: &str| {
        let request = Request::builder()
            .method(method)
            .uri("/v1/chat/completions")
            .header("host", "localhost:8484")
            .header("origin", origin)
            .header("access-control-request-method", "POST")
            .body(Body::from(chat("one", false)));
        world.gateway.ask(request.expect("a request")).await
    };
    assert_eq!(from("https://evil.example", "POST").await.status(), StatusCode::FORBIDDEN);
    assert_eq!(from("https://evil.example", "OPTIONS").await.status(), StatusCode::FORBIDDEN);
    assert_eq!(world.asked().len(), 0);
    let asked = from("https://chat.example.com", "OPTIONS").await;
    assert_eq!(asked.status(), StatusCode::NO_CONTENT);
    let reply = from("https://chat.example.com", "POST").await;
    assert_eq!(reply.headers()["access-control-allow-origin"], "https://chat.example.com");
    let twice = Request::get("/v1/models").header("host", "localhost").header("host", "evil.example");
    let twice = twice.body(Body::empty()).expect("a request");
    assert_eq!(world.gateway.ask(twice).await.status(), StatusCode::FORBIDDEN);
    let rebound = Request::get("/v1/models").header("host", "evil.example").body(Body::empty()).expect("a request");
    assert_eq!(world.gateway.ask(rebound).await.status(), StatusCode::FORBIDDEN);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_others_can_reach_is_never_left_without_keys() {
    let keyless = config::resolve(CONFIG, Path::new("c.toml")).expect("good");
    let world = World::new(KEYS, []).await;
    assert!(matches!(world.gateway.reload(keyless.clone()).await, Err(ServeError::Keyless)));
    assert_eq!(world.get("/v1/models").await.0, StatusCode::UNAUTHORIZED);
    let world = World::new("", []).await;
    world.gateway.reach.get_or_init(|| "0.0.0.0".parse().expect("an address"));
    assert!(matches!(world.gateway.reload(keyless).await, Err(ServeError::Open { .. })));
}

#[tokio::test(start_paused = true)]
async fn what_a_filter_withheld_is_not_told_before_another_one_answers() {
    let withheld = "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"content_filter\"}]}\n\n";
    let more = "[routes.on]\nmodels = [\"one\", \"two\"]\non_filter = \"next\"\n";
    let world = World::new(more, [pieces(&[ROLE, withheld, DONE]), pieces(&[ROLE, HELLO, STOP, DONE])]).await;
    let reply = world.chat("on", true).await;
    assert_eq!(reply.headers()["x-mmchat-model"], "two");
    assert_eq!(text(reply).await, [ROLE, HELLO, STOP, DONE].concat());
}

#[tokio::test(start_paused = true)]
async fn of_several_choices_one_that_breaks_off_spoils_the_answer() {
    let second = "data: {\"choices\":[{\"index\":1,\"delta\":{\"content\":\"half\"}}]}\n\n";
    let world = World::new("", [pieces(&[HELLO, second, STOP])]).await;
    let got = text(world.chat("one", true).await).await;
    assert!(got.contains("\"error\"") && !got.contains("[DONE]"), "{got}");
    let both = "data: {\"choices\":[{\"index\":1,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n";
    let world = World::new("", [pieces(&[HELLO, second, STOP, both, DONE])]).await;
    let whole = json_of(world.chat("one", false).await).await;
    let contents: Vec<_> =
        whole["choices"].as_array().expect("a list").iter().map(|choice| &choice["message"]["content"]).collect();
    assert_eq!(contents, ["Hello", "half"]);
}

#[tokio::test(start_paused = true)]
async fn no_name_leads_around_a_limit_and_none_of_a_clients_becomes_a_label() {
    let world = World::new(KEYS, [pieces(&[HELLO, STOP, USAGE, DONE])]).await;
    let ask = async |model: &str| {
        let headers = [("authorization", "Bearer sk-of-the-rich")];
        let reply = world.post("/v1/chat/completions", &headers, chat(model, true)).await;
        (reply.status().as_u16(), text(reply).await)
    };
    let (status, body) = ask("a/of-no-known-price").await;
    assert!(status == 403 && body.contains("no price"), "{body}");
    // The same model by another name costs the same.
    assert_eq!(ask("a/upstream-one").await.0, 200);
    assert_eq!(ask("a/made-up-too").await.0, 429);
    let figures = Request::get("/metrics").header("host", "localhost").header("x-api-key", "sk-of-the-rich");
    let metrics = text(world.gateway.ask(figures.body(Body::empty()).expect("a request")).await).await;
    assert!(!metrics.contains("made-up") && !metrics.contains("of-no-known"), "{metrics}");
    // One that may use some models does not read how all of them stand.
    let figures = Request::get("/status").header("host", "localhost").header("x-api-key", "sk-of-the-team");
    let refused = world.gateway.ask(figures.body(Body::empty()).expect("a request")).await;
    assert_eq!(refused.status(), StatusCode::FORBIDDEN);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_does_not_come_is_not_waited_for_without_end() {
    let world = World::new("", []).await;
    let stuck = Body::from_stream(futures_util::stream::pending::<Result<Bytes, std::io::Error>>());
    let request = Request::post("/v1/chat/completions").header("host", "localhost").body(stuck).expect("a request");
    let reply = world.gateway.ask(request).await;
    assert_eq!(
        (reply.status(), &reply.headers()["connection"]),
        (StatusCode::REQUEST_TIMEOUT, &"close".parse().expect("a value"))
    );
    let large = chat("one", false).replace("a secret question", &"x".repeat(300 * 1024));
    let world =
        World::new("", [whole("{\"choices\":[{\"message\":{\"content\":\"hi\"},\"finish_reason\":\"stop\"}]}")]).await;
    assert_eq!(world.post("/v1/chat/completions", &[], large).await.status(), StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn what_services_say_of_our_key_stays_here() {
    let world = World::new(
        "",
        [Reply::Status(401, vec![], "{\"error\":{\"message\":\"Incorrect API key provided: sk-proj-****abcd\"}}")],
    )
    .await;
    let body = json_of(world.chat("one", false).await).await;
    assert!(
        !body.to_string().contains("abcd")
            && body["error"]["message"].as_str().is_some_and(|text| text.contains("refused")),
        "{body}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_session_keeps_to_one_model_and_a_slow_one_is_asked_beside_another() {
    let more = "[routes.kept]\nmodels = [\"one\", \"two\"]\nsticky = true\n[routes.hedged]\nmodels = [\"one\", \"two\"]\nhedge_after = \"1s\"\n";
    let world = World::new(more, (0..6).map(|_| pieces(&[HELLO, STOP, DONE]))).await;
    for session in ["first", "second", "third"] {
        let served = async || {
            let reply = world.post("/v1/chat/completions", &[("x-mmchat-session", session)], chat("kept", true)).await;
            let model = reply.headers()["x-mmchat-model"].clone();
            text(reply).await;
            model
        };
        assert_eq!(served().await, served().await);
    }
    let world = World::new(more, [Reply::Silence, pieces(&[HELLO, STOP, DONE])]).await;
    let reply = world.chat("hedged", true).await;
    assert_eq!(
        (&reply.headers()["x-mmchat-model"], &reply.headers()["x-mmchat-attempts"]),
        (&"two".parse().expect("a value"), &"2".parse().expect("a value"))
    );
    let overhead: u64 = reply.headers()["x-mmchat-overhead-us"].to_str().expect("text").parse().expect("a number");
    assert!(overhead < 1_000_000, "waiting for the first one is no time of ours: {overhead}");
    text(reply).await;
    assert_eq!(world.line()["attempts"].as_array().map(Vec::len), Some(2));
    assert!(world.line()["notices"][0].as_str().is_some_and(|text| text.contains("asked as well")));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_nothing_holds_up_its_own_upstream_alone_and_not_for_ever() {
    let endless = Reply::Pieces(std::iter::repeat_n((NOW, HELLO), 20_000).collect());
    let world = World::new("", [endless, pieces(&[HELLO, STOP, DONE])]).await;
    let (mut client, server) = tokio::io::duplex(4096);
    let (_stopping, stopping) = tokio::sync::watch::channel(false);
    let (gateway, router) = (Arc::clone(&world.gateway), world.gateway.router());
    let arrived = Arrived { loopback: true };
    let serving = tokio::spawn(speak(gateway, Impatient::new(server), router, arrived, stopping));
    let body = chat("one", true);
    let length = body.len();
    let request =
        format!("POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: {length}\r\n\r\n{body}");
    client.write_all(request.as_bytes()).await.expect("it reads");
    while world.asked().is_empty() {
        tokio::task::yield_now().await;
    }
    // Nobody else notices.
    assert_eq!(text(world.chat("one", true).await).await, [HELLO, STOP, DONE].concat());
    let begun = tokio::time::Instant::now();
    serving.await.expect("it ends");
    assert!(begun.elapsed() >= STALLED, "{:?}", begun.elapsed());
    assert_eq!(world.script.open.load(Ordering::Relaxed), 0);
    assert_eq!(world.line()["class"], "client-gone");
}
