//! Tests of both directions.

use bytes::Bytes;
use serde_json::json;

use super::*;

const DEFAULTS: AnswerDefaults<'_> = AnswerDefaults { format: AnswerFormat::Chat, id: "1", created: 7 };

fn events(body: &Value, include_usage: bool) -> Vec<Value> {
    let events = events_from_body(body.to_string().as_bytes(), &DEFAULTS, include_usage).expect("a chat answer");
    let payload = |event: &Bytes| {
        let text = std::str::from_utf8(event).expect("valid UTF-8").strip_prefix("data: ").expect("an event");
        serde_json::from_str(text.trim()).expect("valid JSON")
    };
    events.iter().map(payload).collect()
}

fn body(chunks: &[Value]) -> Value {
    let payloads: Vec<String> = chunks.iter().map(Value::to_string).collect();
    let body = body_from_events(payloads.iter().map(String::as_bytes), &DEFAULTS, false);
    serde_json::from_str(&body).expect("valid JSON")
}

/// An answer with every kind of field.
fn full_message() -> Value {
    json!({
        "role": "assistant",
        "content": "text",
        "reasoning_details": [{"type": "reasoning.text", "text": "hm"}],
        "images": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}],
        "audio": {"id": "a", "data": "AA", "expires_at": 9},
        "annotations": [{"type": "url_citation", "url_citation": {"url": "https://h"}}],
        "tool_calls": [{"id": "c1", "type": "custom", "custom": {"name": "n", "input": "x"}}],
    })
}

#[test]
fn object_becomes_events_and_events_become_the_same_object() {
    let answer = json!({
        "id": "x", "object": "chat.completion", "created": 1, "model": "m", "citations": ["https://h"],
        "choices": [{
            "index": 0, "message": full_message(), "finish_reason": "stop",
            "logprobs": {"content": [{"token": "t", "logprob": -1.5}]},
        }],
        "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3},
    });
    let chunks = events(&answer, true);
    assert_eq!(chunks.last().expect("chunks")["usage"], answer["usage"]);
    assert_eq!(chunks[2]["choices"][0]["finish_reason"], "stop");
    assert!(chunks.iter().all(|chunk| chunk["object"] == "chat.completion.chunk" && chunk["id"] == "x"));
    assert_eq!(chunks.iter().filter(|chunk| chunk.get("citations").is_some()).count(), 1);
    assert_eq!(body(&chunks), answer);
    assert!(events(&answer, false).iter().all(|chunk| chunk.get("usage").is_none()));
}

#[test]
fn texts_that_every_chunk_repeats_are_kept_once() {
    let chunk = |text: &str, severity: &str| {
        json!({"choices": [{
            "index": 0, "native_finish_reason": "stop",
            "content_filter_results": {"hate": {"filtered": false, "severity": severity}},
            "delta": {"reasoning_details": [
                {"index": 0, "type": "reasoning.text", "format": "anthropic-claude-v1", "text": text},
            ]},
        }]})
    };
    let answer = body(&[chunk("h", "safe"), chunk("m", "safe"), chunk("!", "low")]);
    let choice = &answer["choices"][0];
    assert_eq!(choice["native_finish_reason"], "stop");
    assert_eq!(choice["content_filter_results"]["hate"]["severity"], "low");
    let detail = json!(
        {"index": 0, "type": "reasoning.text", "format": "anthropic-claude-v1", "text": "hm!"}
    );
    assert_eq!(choice["message"]["reasoning_details"], json!([detail]));
}

#[test]
fn tool_calls_in_fragments_are_joined_and_objects_become_text() {
    let fragment = |call: Value| json!({"choices": [{"delta": {"tool_calls": [call]}}]});
    let answer = body(&[
        fragment(json!({"index": 0, "id": "c1", "type": "function", "function": {"name": "f", "arguments": "{\"a\""}})),
        fragment(json!({"index": 0, "id": "c1", "function": {"name": "f", "arguments": ":1}"}})),
        fragment(json!({"index": 0, "id": "c2", "type": "function", "function": {"name": "g", "arguments": {"b": 2}}})),
    ]);
    let calls = &answer["choices"][0]["message"]["tool_calls"];
    let want = json!([
        {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{\"a\":1}"}},
        {"id": "c2", "type": "function", "function": {"name": "g", "arguments": "{\"b\":2}"}},
    ]);
    assert_eq!(*calls, want);
    let message = json!({"tool_calls": [{"id": "c", "function": {"name": "f", "arguments": {"b": 2}}}]});
    let chunks = events(&json!({"choices": [{"message": message, "finish_reason": "tool_calls"}]}), false);
    let call = &chunks[1]["choices"][0]["delta"]["tool_calls"][0];
    assert_eq!((&call["index"], &call["function"]["arguments"]), (&json!(0), &json!("{\"b\":2}")));
    assert_eq!((&chunks[0]["id"], &chunks[0]["created"]), (&json!("chatcmpl-1"), &json!(7)));
}

#[test]
fn calls_without_an_index_and_of_the_old_form_are_joined() {
    let chunk = |delta: Value| json!({"choices": [{"delta": delta}]});
    let call = |call: Value| chunk(json!({"tool_calls": [call]}));
    let answer = body(&[
        call(json!({"id": "c", "function": {"name": "f", "arguments": "{\"a\""}})),
        call(json!({"function": {"arguments": ":1}"}})),
        call(json!({"id": "d", "function": {"name": "g", "arguments": "{}"}})),
        call(json!({"function": {"name": "h", "arguments": "{}"}})),
    ]);
    let calls = &answer["choices"][0]["message"]["tool_calls"];
    assert_eq!(
        (calls[0]["function"]["arguments"].as_str(), calls.as_array().map(Vec::len)),
        (Some("{\"a\":1}"), Some(3))
    );
    let answer = body(&[chunk(json!({"function_call": {"name": "f", "arguments": {"a": 1}}}))]);
    assert_eq!(answer["choices"][0]["message"]["function_call"]["arguments"], "{\"a\":1}");
}

#[test]
fn text_beside_what_no_tree_can_hold_is_not_lost() {
    let deep = format!("{}1{}", "[".repeat(300), "]".repeat(300));
    for other in ["1e400", deep.as_str()] {
        let chunk =
            format!(r#"{{"id":"1","own":{other},"choices":[{{"delta":{{"content":"HELLO"}},"own":{other}}}]}}"#);
        let object = body_from_events([chunk.as_bytes()].into_iter(), &DEFAULTS, false);
        assert!(object.contains("\"content\":\"HELLO\""), "{object}");
        let whole = chunk.replace("delta", "message");
        let events = events_from_body(whole.as_bytes(), &DEFAULTS, false).expect("an answer");
        assert!(events.iter().any(|event| event.windows(5).any(|text| text == b"HELLO")), "{events:?}");
    }
}

#[test]
fn choices_lists_of_parts_and_cumulative_texts_are_merged() {
    let chunk = |index: u64, content: Value| json!({"choices": [{"index": index, "delta": {"content": content}}]});
    let answer = body(&[
        chunk(1, json!("B")),
        chunk(0, json!("a")),
        chunk(0, json!([{"type": "text", "text": "b"}])),
        json!({"choices": [], "x_groq": {"usage": {"prompt_tokens": 1}}, "usage": null}),
    ]);
    let parts = json!([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]);
    assert_eq!(answer["choices"][0]["message"]["content"], parts);
    assert_eq!(
        (&answer["choices"][1]["message"]["content"], &answer["usage"]),
        (&json!("B"), &json!({"prompt_tokens": 1}))
    );
    let payloads = [chunk(0, json!("ab")).to_string(), chunk(0, json!("abc")).to_string()];
    let cumulative = body_from_events(payloads.iter().map(String::as_bytes), &DEFAULTS, true);
    assert!(cumulative.contains("\"content\":\"abc\""), "{cumulative}");
    let joined = format!("{}{}", chunk(0, json!("x")), chunk(0, json!("y")));
    assert!(body_from_events([joined.as_bytes()].into_iter(), &DEFAULTS, false).contains("\"content\":\"xy\""));
}

#[test]
fn completions_are_converted_with_their_texts_and_log_probabilities() {
    let defaults = AnswerDefaults { format: AnswerFormat::Completion, ..DEFAULTS };
    // Names in `top_logprobs` are tokens.
    let top = json!({"index": 0});
    let logprobs = |tokens: &[&str]| json!({"tokens": tokens, "top_logprobs": vec![&top; tokens.len()]});
    let chunk = |text: &str, logprobs: Value, finish_reason: Value| {
        json!({"choices": [{"index": 0, "text": text, "logprobs": logprobs, "finish_reason": finish_reason}]})
            .to_string()
    };
    let chunks = [
        chunk("a", logprobs(&["a"]), Value::Null),
        chunk("bc", logprobs(&["b", "c"]), Value::Null),
        chunk("", Value::Null, json!("stop")),
        json!({"choices": [], "usage": {"prompt_tokens": 1}}).to_string(),
    ];
    let object = body_from_events(chunks.iter().map(String::as_bytes), &defaults, false);
    let answer: Value = serde_json::from_str(&object).expect("valid JSON");
    let choice = json!({"index": 0, "text": "abc", "logprobs": logprobs(&["a", "b", "c"]), "finish_reason": "stop"});
    let want = json!({
        "id": "cmpl-1", "object": "text_completion", "created": 7, "choices": [choice], "usage": {"prompt_tokens": 1},
    });
    assert_eq!(answer, want);
    let events = events_from_body(object.as_bytes(), &defaults, true).expect("an answer");
    let text = String::from_utf8(events.concat()).expect("valid UTF-8");
    let payloads: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
    assert_eq!(payloads.len(), 2, "{text}");
    assert!(payloads[0].contains("text_completion") && !text.contains("delta"), "{text}");
    let again = body_from_events(payloads.iter().map(|payload| payload.as_bytes()), &defaults, false);
    assert_eq!(serde_json::from_str::<Value>(&again).expect("valid JSON"), want);
}
