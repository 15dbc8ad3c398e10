//! The same faults, as an HTTP client of the gateway sees them: with a stream, a stream that is held back, and a
//! response in one piece.
//!
//! The code checks what must hold for every row. The exact results are in `gateway.md`, which `MMCHAT_BLESS=1`
//! rewrites.

use std::{fmt::Write as _, fs, path::Path, pin::pin, sync::Arc};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::BodyExt;
use mmchat::internals::gateway::{Gateway, GatewayDeps, GatewayLimits, Log};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{
    BACKUP, FaultEnv, PRIMARY,
    table::{Row, rows},
};

#[derive(Clone, Copy, Debug, PartialEq)]
enum ResponseMode {
    Stream,
    Buffered,
    Complete,
}

/// A response as the client decodes it.
struct ClientResponse {
    status: u16,
    text: String,
    /// Whether the answer has a finish reason, and `[DONE]` if it is a stream.
    complete: bool,
    /// The error code of the response body or of an event in the stream.
    error: Option<String>,
}

/// The maximum duration of a row: its timeouts, a retry delay and a Retry-After, with some margin.
const MAX_ROW_DURATION: std::time::Duration = std::time::Duration::from_secs(12);

async fn send_request(env: &FaultEnv, row: &Row, mode: ResponseMode) -> ClientResponse {
    let config = env.config(row.primary, row.backup.then_some("instant"), row.endpoint, row.route);
    let deps = GatewayDeps {
        engine: Arc::clone(&env.engine),
        log: Log::new(drop),
        writer: None,
        limits: GatewayLimits::default(),
        ledger: None,
    };
    let gateway = Gateway::new(config, deps).await.expect("valid config");
    let messages = json!([{"role": "user", "content": "hello"}]);
    let body = json!({"model": "chat", "stream": mode != ResponseMode::Complete, "messages": messages});
    let request = Request::post("/v1/chat/completions").header("host", "localhost");
    let request = if mode == ResponseMode::Buffered { request.header("x-mmchat-buffer", "1") } else { request };
    let request = request.body(body.to_string().into()).expect("valid request");
    let started = Instant::now();
    let response = read_response(gateway.handle_local(request).await, mode).await;
    assert!(started.elapsed() < MAX_ROW_DURATION, "{}, {mode:?}: {:?}", row.name, started.elapsed());
    response
}

async fn read_response<B>(reply: Response<B>, mode: ResponseMode) -> ClientResponse
where
    B: http_body::Body<Data = Bytes>,
    B::Error: std::fmt::Debug,
{
    let status = reply.status().as_u16();
    let (mut reply, mut bytes, mut aborted) = (pin!(reply.into_body()), Vec::new(), false);
    while let Some(frame) = reply.as_mut().frame().await {
        match frame {
            Ok(frame) => bytes.extend_from_slice(&frame.into_data().unwrap_or_default()),
            Err(_) => aborted = true,
        }
    }
    let body = String::from_utf8(bytes).expect("UTF-8 body");
    let code = |value: &Value| value["error"]["code"].as_str().map(str::to_owned);
    if status != 200 || mode == ResponseMode::Complete {
        assert!(!aborted, "only a stream can be aborted: {body}");
        let value: Value = serde_json::from_str(&body).unwrap_or_else(|error| panic!("{error}: {body}"));
        let text = value["choices"][0]["message"]["content"].as_str().unwrap_or_default().to_owned();
        let complete = value["choices"][0]["finish_reason"].is_string();
        return ClientResponse { status, text, complete, error: code(&value) };
    }
    let (mut text, mut finished, mut done, mut error, mut roles) = (String::new(), false, false, None, 0);
    for event in body.split("\n\n").filter_map(|event| event.strip_prefix("data: ")) {
        if event == "[DONE]" {
            done = true;
            continue;
        }
        let value: Value = serde_json::from_str(event).unwrap_or_else(|error| panic!("{error}: {event}"));
        text.push_str(value["choices"][0]["delta"]["content"].as_str().unwrap_or_default());
        let ends = value["choices"][0]["finish_reason"].is_string();
        assert!(!(ends && finished), "two finish reasons: {body}");
        finished |= ends;
        roles += usize::from(value["choices"][0]["delta"]["role"].is_string());
        error = error.or(code(&value));
    }
    assert!(roles <= 1, "two answers: {body}");
    assert!(!(done && error.is_some()), "[DONE] after an error: {body}");
    // Clients that ignore error events detect the aborted transfer.
    assert_eq!(aborted, error.is_some(), "{body}");
    ClientResponse { status, text, complete: done && finished, error }
}

async fn table_line(row: &Row, mode: ResponseMode, env: &FaultEnv) -> String {
    env.primary.set_up(!row.down);
    env.wait_for_ports().await;
    let response = send_request(env, row, mode).await;
    let case = format!("{}, {mode:?}", row.name);
    // An incomplete answer must not look complete, and a failure must not look like an answer.
    assert_eq!(response.complete, response.error.is_none(), "{case}: {:?}", response.text);
    assert_eq!(response.status == 200, response.complete || !response.text.is_empty(), "{case}: {}", response.status);
    if response.complete {
        assert!([PRIMARY, BACKUP].contains(&response.text.as_str()), "{case}: {:?}", response.text);
    }
    let (primary, backup) = env.request_counts();
    assert!(primary <= 2 && backup <= 1, "{case}: {primary} and {backup} requests");
    if row.expected.classes.first() == Some(&"timeout") {
        assert_eq!(primary, 1, "{case}: a timeout must not be retried");
    }
    let text = match response.text.as_str() {
        PRIMARY => "primary",
        BACKUP => "backup",
        "" => "none",
        _ => "partial",
    };
    let error = response.error.map(|code| format!(", error `{code}`")).unwrap_or_default();
    let mode = format!("{mode:?}").to_lowercase();
    format!("| {} | {mode} | {} | {text}{error} | {primary} + {backup} |", row.name, response.status)
}

#[tokio::test(start_paused = true)]
async fn gateway_reports_every_fault() {
    let mut table = String::from("| fault | mode | status | answer | requests |\n| --- | --- | --- | --- | --- |\n");
    // Rows with another `on_incomplete` are left out: here the request decides whether the answer is buffered.
    for row in rows().iter().filter(|row| row.on_incomplete == mmchat::internals::routing::OnIncomplete::Error) {
        for mode in [ResponseMode::Stream, ResponseMode::Buffered, ResponseMode::Complete] {
            let line = table_line(row, mode, &FaultEnv::in_process()).await;
            writeln!(table, "{line}").expect("writing to a String cannot fail");
        }
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/faults/gateway.md");
    if std::env::var_os("MMCHAT_BLESS").is_some() {
        fs::write(&path, &table).expect("writable file");
    }
    let recorded = fs::read_to_string(&path).expect("readable table");
    assert_eq!(recorded, table, "the results of faults have changed: MMCHAT_BLESS=1 rewrites the table");
}

#[tokio::test]
#[ignore = "takes minutes of real time; .ci/run runs it"]
async fn gateway_reports_every_fault_over_sockets() {
    for row in rows().iter().filter(|row| row.on_incomplete == mmchat::internals::routing::OnIncomplete::Error) {
        for mode in [ResponseMode::Stream, ResponseMode::Buffered, ResponseMode::Complete] {
            table_line(row, mode, &FaultEnv::over_sockets().await).await;
        }
    }
}
