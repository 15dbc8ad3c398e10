//! The same faults, seen by an HTTP client of the gateway: a stream, a stream that is held back until it is whole, and a
//! reply in one piece.
//!
//! What must hold of every row is checked here; what exactly comes of each is in `gateway.md`, which `MMCHAT_BLESS=1`
//! writes anew.

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

/// What a client makes of a reply.
struct Seen {
    status: u16,
    /// The text, and whether it ended as a whole one does.
    text: String,
    whole: bool,
    /// The code of the error, as the status has it or in the stream.
    error: Option<String>,
}

/// The longest a row may take: that of its timeouts, a repeat's pause and a Retry-After it may wait for, and some.
const LONGEST: std::time::Duration = std::time::Duration::from_secs(12);

async fn ask(world: &World, row: &Row, manner: Manner) -> Seen {
    let config = world.config(row.primary, row.backup.then_some("instant"), row.endpoint, row.route);
    let outside = GatewayDeps { engine: Arc::clone(&world.engine), log: Log::new(drop), writer: None, ledger: None };
    let gateway = Gateway::new(config, outside).await.expect("a good config");
    let messages = json!([{"role": "user", "content": "hello"}]);
    let body = json!({"model": "chat", "stream": manner != Manner::Whole, "messages": messages});
    let request = Request::post("/v1/chat/completions").header("host", "localhost");
    let request = if manner == Manner::Held { request.header("x-mmchat-buffer", "1") } else { request };
    let request = request.body(body.to_string().into()).expect("a request");
    let begun = Instant::now();
    let seen = read(gateway.handle_local(request).await, manner).await;
    assert!(begun.elapsed() < LONGEST, "{}, {manner:?}: {:?}", row.name, begun.elapsed());
    seen
}

async fn read<B>(reply: Response<B>, manner: Manner) -> Seen
where
    B: http_body::Body<Data = Bytes>,
    B::Error: std::fmt::Debug,
{
    let status = reply.status().as_u16();
    let (mut reply, mut bytes, mut broken_off) = (pin!(reply.into_body()), Vec::new(), false);
    while let Some(frame) = reply.as_mut().frame().await {
        match frame {
            Ok(frame) => bytes.extend_from_slice(&frame.into_data().unwrap_or_default()),
            Err(_) => broken_off = true,
        }
    }
    let body = String::from_utf8(bytes).expect("text");
    let code = |value: &Value| value["error"]["code"].as_str().map(str::to_owned);
    if status != 200 || manner == Manner::Whole {
        assert!(!broken_off, "only a stream can break off: {body}");
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
        assert!(!(ends && finished), "two ends: {body}");
        finished |= ends;
        roles += usize::from(value["choices"][0]["delta"]["role"].is_string());
        error = error.or(code(&value));
    }
    assert!(roles <= 1, "two answers: {body}");
    assert!(!(done && error.is_some()), "an end mark behind an error: {body}");
    // Clients that read over an error see that the transfer broke off.
    assert_eq!(broken_off, error.is_some(), "{body}");
    Seen { status, text, whole: done && finished, error }
}

async fn line(row: &Row, manner: Manner, world: &World) -> String {
    world.primary.set_up(!row.down);
    world.settled().await;
    let seen = ask(world, row, manner).await;
    let place = format!("{}, {manner:?}", row.name);
    // Nothing that is not whole looks whole, and nothing that failed looks like an answer.
    assert_eq!(seen.whole, seen.error.is_none(), "{place}: {:?}", seen.text);
    assert_eq!(seen.status == 200, seen.whole || !seen.text.is_empty(), "{place}: {}", seen.status);
    if seen.whole {
        assert!([PRIMARY, BACKUP].contains(&seen.text.as_str()), "{place}: {:?}", seen.text);
    }
    let (primary, backup) = world.requests();
    assert!(primary <= 2 && backup <= 1, "{place}: {primary} and {backup} requests");
    if row.want.classes.first() == Some(&"silent") {
        assert_eq!(primary, 1, "{place}: a silent endpoint is asked once");
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
async fn paused() {
    let mut table = String::from(
        "| what goes wrong | asked for | status | what comes | requests |\n| --- | --- | --- | --- | --- |\n",
    );
    // What a route does about a cut is the manner's affair here.
    for row in rows().iter().filter(|row| row.on_cut == mmchat::routing::OnIncomplete::Error) {
        for manner in [Manner::Stream, Manner::Held, Manner::Whole] {
            let line = line(row, manner, &World::in_process()).await;
            writeln!(table, "{line}").expect("a String takes everything");
        }
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/faults/gateway.md");
    if std::env::var_os("MMCHAT_BLESS").is_some() {
        fs::write(&path, &table).expect("writable");
    }
    let known = fs::read_to_string(&path).expect("the table");
    assert_eq!(known, table, "what comes of a fault has changed; MMCHAT_BLESS=1 writes it anew");
}

#[tokio::test]
#[ignore = "takes real time; run with all checks"]
async fn for_real() {
    for row in rows().iter().filter(|row| row.on_cut == mmchat::routing::OnIncomplete::Error) {
        for manner in [Manner::Stream, Manner::Held, Manner::Whole] {
            line(row, manner, &World::for_real().await).await;
        }
    }
}
