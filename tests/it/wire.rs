//! Conformance: decodes raw responses of real services.
//!
//! Every `tests/fixtures/wire/NAME.http` is decoded in one chunk, byte by byte, split in two at every byte, and split
//! at random positions; each way must give what `NAME.expect.json` says. Any prefix of a response must be incomplete or
//! an error unless it contains the end signal.

use std::{fs, io::Read as _, path::Path, sync::Arc};

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use jiff::Timestamp;
use mmchat::internals::{
    model::{Answer, ChatRequest, ErrorClass, FinishReason, ModelRequest, target::DecodeOptions},
    protocol::{
        CallError, Flow, PROTOCOLS, Protocol, ResponseHead, SentRequest, StreamEnd, StreamOutcome,
        reply_reader::ReplyReader,
    },
};
use serde_json::Value;

struct Case {
    name: String,
    expected: Value,
    head: ResponseHead,
    body: Vec<u8>,
}

fn load_cases() -> Vec<Case> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/wire");
    let mut names: Vec<_> = fs::read_dir(&folder)
        .expect("fixture directory")
        .filter_map(|entry| {
            entry.expect("readable entry").file_name().to_str()?.strip_suffix(".http").map(str::to_owned)
        })
        .collect();
    names.sort();
    assert!(names.len() > 80, "only {} fixtures found", names.len());
    names
        .into_iter()
        .map(|name| {
            let raw = fs::read(folder.join(format!("{name}.http"))).expect("readable fixture");
            let expect = fs::read_to_string(folder.join(format!("{name}.expect.json"))).expect("readable expectation");
            let expect = serde_json::from_str(&expect).unwrap_or_else(|error| panic!("{name}: {error}"));
            let (head, body) = parse_response(&raw);
            Case { name, expected: expect, head, body }
        })
        .collect()
}

/// The head and the decoded body of a raw response.
fn parse_response(raw: &[u8]) -> (ResponseHead, Vec<u8>) {
    let end = raw.windows(4).position(|window| window == b"\r\n\r\n").expect("blank line after the head");
    let text = String::from_utf8_lossy(&raw[..end]).into_owned();
    let mut lines = text.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).expect("status line");
    let mut headers = HeaderMap::new();
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        let name: HeaderName = name.trim().parse().expect("header name");
        headers.append(name, HeaderValue::from_str(value.trim()).expect("header value"));
    }
    let mut body = raw[end + 4..].to_vec();
    if headers.get("transfer-encoding").is_some_and(|value| value == "chunked") {
        body = decode_chunked(&body);
    }
    if let Some(encoding) = headers.get("content-encoding") {
        assert_eq!(encoding, "gzip", "no case has another encoding");
        let mut plain = Vec::new();
        flate2::read::GzDecoder::new(&body[..]).read_to_end(&mut plain).expect("complete encoding");
        body = plain;
    }
    let status = StatusCode::from_bytes(status.as_bytes()).expect("status code");
    (ResponseHead { status, headers: Arc::new(headers) }, body)
}

fn decode_chunked(mut bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    while let Some(line) = bytes.windows(2).position(|window| window == b"\r\n") {
        let size = std::str::from_utf8(&bytes[..line]).expect("chunk size");
        let size = usize::from_str_radix(size.trim(), 16).expect("chunk size");
        bytes = &bytes[line + 2..];
        if size == 0 || size > bytes.len() {
            break;
        }
        out.extend_from_slice(&bytes[..size]);
        bytes = &bytes[(size + 2).min(bytes.len())..];
    }
    out
}

/// Whether the same unchanged request may succeed within an hour, which is what the fixtures call retryable.
fn is_retryable(error: &CallError) -> bool {
    use ErrorClass as C;
    let transient = matches!(
        error.class,
        C::Connect | C::Reset | C::Timeout | C::Server | C::Overloaded | C::GatewayTimeout | C::Rate | C::Conflict
    );
    let incomplete = matches!(error.class, C::InvalidResponse | C::InStream | C::Incomplete);
    let now: Timestamp = "2026-11-23T00:00:00Z".parse().expect("valid timestamp");
    let soon = error.retry_after.as_ref().is_none_or(|after| after.delay_from(now).as_secs() <= 3600);
    (transient || incomplete) && soon && error.should_retry != Some(false)
}

/// The decoded answer, and the error if there was one.
struct Outcome {
    answer: Answer,
    error: Option<CallError>,
}

fn decode_options(case: &Case) -> DecodeOptions {
    let option = case.expected["client_option"].as_str();
    DecodeOptions {
        think_prefilled: option == Some("think_prefilled"),
        cumulative_deltas: option == Some("cumulative_deltas"),
    }
}

fn decode(protocol: &dyn Protocol, case: &Case, chunks: &[&[u8]]) -> Outcome {
    if !case.head.status.is_success() {
        return Outcome { answer: Answer::default(), error: Some(protocol.decode_error(&case.head, &case.body, b"")) };
    }
    let mut reader = ReplyReader::new(protocol.decoder(
        &ModelRequest::Chat(ChatRequest::default()),
        &decode_options(case),
        &case.head,
        SentRequest::default(),
    ));
    let (mut out, mut end) = (Vec::new(), StreamEnd::Eof);
    let mut error = None;
    for chunk in chunks {
        match reader.push(chunk, &mut out) {
            Ok(Flow::End) => end = StreamEnd::EndSignal,
            Ok(_) => continue,
            Err(problem) => error = Some(problem),
        }
        break;
    }
    if error.is_none() {
        error = match reader.finish(end, &mut out) {
            Ok(StreamOutcome::Finished(_) | StreamOutcome::NoFinishReason) => None,
            Ok(StreamOutcome::Incomplete) => Some(CallError::new(ErrorClass::Incomplete, "incomplete")),
            Ok(StreamOutcome::Empty) => Some(CallError::new(ErrorClass::InvalidResponse, "empty")),
            Err(problem) => Some(problem),
        };
    }
    let mut answer = Answer::default();
    for delta in &out {
        answer.add(delta);
    }
    Outcome { answer, error }
}

/// Whether `class` is one of the classes that the expected kind stands for.
fn kind_matches(kind: &str, class: ErrorClass) -> bool {
    use ErrorClass as C;
    match kind {
        "auth" => class == C::Auth,
        "permission" => class == C::Forbidden,
        "not_found" => matches!(class, C::Model | C::Path),
        "rate_limit" => class == C::Rate,
        "quota" => class == C::Quota,
        "context_length" => class == C::Context,
        "bad_request" | "unsupported_param" => matches!(class, C::Request | C::TooLarge),
        "content_filter" => class == C::Filter,
        "overloaded" => class == C::Overloaded,
        "server" => class == C::Server,
        "stream_error" => matches!(class, C::InStream | C::Incomplete),
        "truncated" => class == C::Incomplete,
        "empty" => class == C::InvalidResponse,
        "protocol" => matches!(class, C::InvalidResponse | C::InvalidChunk),
        other => panic!("unknown kind {other}"),
    }
}

fn check_outcome(case: &Case, outcome: &Outcome, chunking: &str) {
    let (name, expect) = (&case.name, &case.expected);
    let trim = |text: &str| if expect["trim"] == true { text.trim().to_owned() } else { text.to_owned() };
    let text = trim(&outcome.answer.text);
    if let Some(any) = expect["text_any_of"].as_array() {
        assert!(any.iter().any(|want| want == &text), "{name} ({chunking}): text {text:?}");
    } else {
        assert_eq!(text, expect["text"].as_str().expect("text"), "{name} ({chunking}): text");
    }
    assert_eq!(
        trim(&outcome.answer.reasoning),
        trim(expect["reasoning"].as_str().unwrap_or("")),
        "{name} ({chunking})"
    );
    let finish = outcome.answer.finish_reason.as_ref().map(FinishReason::as_str);
    assert_eq!(finish, expect["finish_reason"].as_str(), "{name} ({chunking}): finish reason");
    let usage = outcome.answer.usage.map(|usage| [usage.input, usage.output, usage.cached, usage.reasoning]);
    let want =
        expect["usage"].as_object().map(|usage| ["input", "output", "cached", "reasoning"].map(|n| usage[n].as_u64()));
    assert_eq!(usage, want, "{name} ({chunking}): usage");
    check_error(case, outcome.error.as_ref(), chunking);
}

fn check_error(case: &Case, error: Option<&CallError>, chunking: &str) {
    let name = &case.name;
    let want = &case.expected["error"];
    let Some(error) = error else {
        assert!(want.is_null(), "{name} ({chunking}): no error, wanted {want}");
        return;
    };
    assert!(!want.is_null(), "{name} ({chunking}): unexpected {error:?}");
    let kinds = want["kind_any_of"].as_array().cloned().unwrap_or_else(|| vec![want["kind"].clone()]);
    let matches = kinds.iter().any(|kind| kind_matches(kind.as_str().expect("kind"), error.class));
    assert!(matches, "{name} ({chunking}): {:?}, wanted {kinds:?}", error.class);
    let wanted_message = want["message_contains"].as_str().unwrap_or("").to_lowercase();
    assert!(error.message.to_lowercase().contains(&wanted_message), "{name}: message {:?}", error.message);
    if let Some(lacks) = want["message_lacks"].as_str() {
        assert!(!error.message.contains(lacks), "{name}: message {:?}", error.message);
    }
    if let Some(max) = want["max_message"].as_u64() {
        assert!(error.message.len() as u64 <= max, "{name}: message of {}", error.message.len());
    }
    if let Some(id) = want["request_id"].as_str() {
        assert_eq!(error.request_id.as_deref(), Some(id), "{name}: request id");
    }
    if let Some(param) = want["param"].as_str() {
        assert_eq!(error.param.as_deref(), Some(param), "{name}: param");
    }
    if want["kind"] != "protocol" && error.status.is_some() {
        assert_eq!(Value::from(error.status), want["status"], "{name}: status");
    }
    assert_eq!(Value::from(is_retryable(error)), want["retryable"], "{name} ({chunking}): retryable");
    let now: Timestamp = "2026-11-23T00:00:00Z".parse().expect("valid timestamp");
    let wait =
        error.retry_after.as_ref().map(|after| u64::try_from(after.delay_from(now).as_millis()).expect("short delay"));
    match want["retry_after_ms_any_of"].as_array() {
        Some(any) => assert!(any.contains(&Value::from(wait)), "{name}: retry after {wait:?}"),
        None => assert_eq!(Value::from(wait), want["retry_after_ms"], "{name}: retry after"),
    }
}

fn openai() -> &'static dyn Protocol {
    PROTOCOLS.iter().copied().find(|protocol| protocol.id().0 == "openai").expect("registered protocol")
}

#[test]
fn chunk_boundaries_do_not_change_the_answer() {
    for case in load_cases().iter().filter(|case| case.expected["api"] == "openai") {
        let body = &case.body;
        check_outcome(case, &decode(openai(), case, &[body]), "one chunk");
        check_outcome(case, &decode(openai(), case, &body.chunks(1).collect::<Vec<_>>()), "byte by byte");
        // Large bodies are split at about 200 positions instead of every byte.
        let step = if body.len() < 20_000 { 1 } else { body.len() / 200 };
        for split in (0..body.len()).step_by(step) {
            check_outcome(
                case,
                &decode(openai(), case, &[&body[..split], &body[split..]]),
                &format!("split at {split}"),
            );
        }
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..20 {
            let mut splits: Vec<usize> = (0..6).map(|_| random.usize(0..=body.len())).chain([0, body.len()]).collect();
            splits.sort_unstable();
            let chunks: Vec<&[u8]> = splits.windows(2).map(|pair| &body[pair[0]..pair[1]]).collect();
            check_outcome(case, &decode(openai(), case, &chunks), &format!("split at {splits:?}"));
        }
    }
}

#[test]
fn truncated_response_is_an_error() {
    for case in load_cases().iter().filter(|case| case.expected["api"] == "openai" && case.head.status.is_success()) {
        let step = if case.body.len() < 20_000 { 1 } else { case.body.len() / 200 };
        for end in (0..case.body.len()).step_by(step) {
            let prefix = &case.body[..end];
            let outcome = decode(openai(), case, &[prefix]);
            let text = String::from_utf8_lossy(prefix);
            let reason = text
                .split("\"finish_reason\":\"")
                .skip(1)
                .any(|rest| !rest.starts_with('"') && !rest.starts_with("null\""));
            let ended = text.contains("[DONE]") || reason;
            assert!(outcome.error.is_some() || ended, "{}: the first {end} bytes are accepted as an answer", case.name);
        }
    }
}

#[test]
fn model_lists_of_all_services_are_parsed() {
    for case in load_cases().iter().filter(|case| case.expected["api"] == "models") {
        let listed = if case.head.status.is_success() {
            openai().parse_models(&case.body).map(|list| list.models)
        } else {
            Err(openai().decode_error(&case.head, &case.body, b""))
        };
        let want = case.expected["models"]
            .as_array()
            .map(|ids| ids.iter().map(|id| id.as_str().expect("model id").to_owned()).collect::<Vec<_>>());
        let ids = listed.as_ref().ok().map(|models| models.iter().map(|model| model.id.clone()).collect::<Vec<_>>());
        assert_eq!(ids, want, "{}", case.name);
        check_error(case, listed.err().as_ref(), "one chunk");
    }
}
