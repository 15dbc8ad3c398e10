//! The same faults, as an HTTP client of the gateway sees them: with a stream, a buffered stream, and a response without
//! streaming.
//!
//! The code checks what must hold for every row. The exact results are in `gateway.md`, which `MMCHAT_BLESS=1` rewrites.

use std::{fmt::Write as _, fs, path::Path, pin::pin, sync::Arc};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::BodyExt;
use mmchat::gateway::{Gateway, GatewayDeps, Log};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{
    BACKUP, PRIMARY, World,
    table::{Row, rows},
};

#[derive(Clone, Copy, Debug, PartialEq)]
enum Manner {
    Stream,
    Held,
    Whole,
}

/// A response as the client decodes it.
struct Seen {
    status: u16,
    text: String,
    /// Whether the answer has a finish reason, and `[DONE]` if it is a stream.
    whole: bool,
    /// The error code of the response body or of an event in the stream.
    error: Option<String>,
}

/// The maximum duration of a row: its timeouts, a retry delay and a Retry-After, with some margin.
const LONGEST: std::time::Duration = std::time::Duration::from_secs(12);

async fn ask(world: &World, row: &Row, manner: Manner) -> Seen {
    let config = world.config(row.primary, row.backup.then_some("instant"), row.endpoint, row.route);
    let deps = GatewayDeps { engine: Arc::clone(&world.engine), log: Log::new(drop), writer: None, ledger: None };
    let gateway = Gateway::new(config, deps).await.expect("valid config");
    let messages = json!([{"role": "user", "content": "hello"}]);
    let body = json!({"model": "chat", "stream": manner != Manner::Whole, "messages": messages});
    let request = Request::post("/v1/chat/completions").header("host", "localhost");
    let request = if manner == Manner::Held { request.header("x-mmchat-buffer", "1") } else { request };
    let request = request.body(body.to_string().into()).expect("a request");
    let started = Instant::now();
    let seen = read(gateway.handle_local(request).await, manner).await;
    assert!(started.elapsed() < LONGEST, "{}, {manner:?}: {:?}", row.name, started.elapsed());
    seen
}

async fn read<B>(reply: Response<B>, manner: Manner) -> Seen
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
    let body = String::from_utf8(bytes).expect("text");
    let code = |value: &Value| value["error"]["code"].as_str().map(str::to_owned);
    if status != 200 || manner == Manner::Whole {
        assert!(!aborted, "only a stream can be aborted: {body}");
        let value: Value = serde_json::from_str(&body).unwrap_or_else(|error| panic!("{error}: {body}"));
        let text = value["choices"][0]["message"]["content"].as_str().unwrap_or_default().to_owned();
        let whole = value["choices"][0]["finish_reason"].is_string();
        return Seen { status, text, whole, error: code(&value) };
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
    Seen { status, text, whole: done && finished, error }
}

async fn line(row: &Row, manner: Manner, world: &World) -> String {
    world.primary.set_up(!row.down);
    world.settled().await;
    let seen = ask(world, row, manner).await;
    let case = format!("{}, {manner:?}", row.name);
    // An incomplete answer must not look complete, and a failure must not look like an answer.
    assert_eq!(seen.whole, seen.error.is_none(), "{case}: {:?}", seen.text);
    assert_eq!(seen.status == 200, seen.whole || !seen.text.is_empty(), "{case}: {}", seen.status);
    if seen.whole {
        assert!([PRIMARY, BACKUP].contains(&seen.text.as_str()), "{case}: {:?}", seen.text);
    }
    let (primary, backup) = world.requests();
    assert!(primary <= 2 && backup <= 1, "{case}: {primary} and {backup} requests");
    if row.want.classes.first() == Some(&"timeout") {
        assert_eq!(primary, 1, "{case}: a timeout must not be retried");
    }
    let text = match seen.text.as_str() {
        PRIMARY => "the primary's",
        BACKUP => "the backup's",
        "" => "nothing",
        _ => "a part",
    };
    let error = seen.error.map(|code| format!(" and error `{code}`")).unwrap_or_default();
    let manner = format!("{manner:?}").to_lowercase();
    format!("| {} | {manner} | {} | {text}{error} | {primary} + {backup} |", row.name, seen.status)
}

#[tokio::test(start_paused = true)]
async fn gateway_reports_every_fault() {
    let mut table = String::from(
        "| what goes wrong | asked for | status | what comes | requests |\n| --- | --- | --- | --- | --- |\n",
    );
    // Rows with another `on_incomplete` are left out: here the client's mode decides about buffering.
    for row in rows().iter().filter(|row| row.on_incomplete == mmchat::routing::OnIncomplete::Error) {
        for manner in [Manner::Stream, Manner::Held, Manner::Whole] {
            let line = line(row, manner, &World::in_process()).await;
            writeln!(table, "{line}").expect("writing to a String cannot fail");
        }
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/faults/gateway.md");
    if std::env::var_os("MMCHAT_BLESS").is_some() {
        fs::write(&path, &table).expect("writable");
    }
    let recorded = fs::read_to_string(&path).expect("readable table");
    assert_eq!(recorded, table, "the results of faults have changed: MMCHAT_BLESS=1 rewrites the table");
}

#[tokio::test]
#[ignore = "takes minutes of real time; .ci/run runs it"]
async fn gateway_reports_every_fault_over_sockets() {
    for row in rows().iter().filter(|row| row.on_incomplete == mmchat::routing::OnIncomplete::Error) {
        for manner in [Manner::Stream, Manner::Held, Manner::Whole] {
            line(row, manner, &World::for_real().await).await;
        }
    }
}
