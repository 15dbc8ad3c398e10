//! Converts a chat answer between a stream of chunks and one object, without losing fields that mmchat does not know.
//!
//! Services answer a request for a stream with an object, and the reverse. Both shapes have the same fields: `delta` in a
//! chunk is a part of `message` in an object. So every field is carried over, whether it is text, log probabilities,
//! images, audio, annotations or a tool call.

use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::{
    decode::{is_end_signal, split_first_frame},
    known_fields,
};
use crate::protocol::framing::lenient::replace_lone_surrogates;

/// What an answer gets that the service did not send.
#[derive(Clone, Debug)]
pub struct AnswerDefaults<'a> {
    /// The id.
    pub id: &'a str,
    /// The time in Unix seconds.
    pub created: i64,
}

/// The top-level fields that every chunk repeats.
const REPEATED_FIELDS: [&str; 5] = ["id", "created", "model", "system_fingerprint", "service_tier"];

/// The events of a stream with the content of one object; `None`: it is not a chat answer.
#[must_use]
pub fn events_from_body(body: &[u8], defaults: &AnswerDefaults<'_>, include_usage: bool) -> Option<Vec<Bytes>> {
    let Value::Object(mut object) = parse(std::str::from_utf8(body).ok()?)? else { return None };
    let Some(Value::Array(choices)) = object.remove("choices") else { return None };
    let usage = object.remove("usage").filter(|usage| include_usage && !usage.is_null());
    object.insert("object".into(), "chat.completion.chunk".into());
    set_defaults(&mut object, defaults);
    let is_repeated = |name: &str| name == "object" || REPEATED_FIELDS.contains(&name);
    let repeated: Map<String, Value> = object
        .iter()
        .filter(|(name, _)| is_repeated(name))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    let chunk = |choices: Value| {
        let mut chunk = repeated.clone();
        chunk.insert("choices".into(), choices);
        chunk
    };
    let mut events = Vec::new();
    for (position, choice) in choices.into_iter().enumerate() {
        let Value::Object(mut choice) = choice else { continue };
        let index = choice.remove("index").filter(Value::is_u64).unwrap_or_else(|| position.into());
        let finish_reason = choice.remove("finish_reason").unwrap_or_default();
        let mut delta = match choice.remove("message") {
            Some(Value::Object(message)) => message,
            _ => Map::new(),
        };
        let role = delta.remove("role").filter(Value::is_string).unwrap_or_else(|| "assistant".into());
        complete_tool_calls(&mut delta);
        delta.retain(|_, value| !value.is_null());
        let mut first = chunk(json!([{"index": index, "delta": {"role": role, "content": ""}, "finish_reason": null}]));
        // Fields such as citations are sent once.
        let others = object.iter().filter(|(name, _)| position == 0 && !is_repeated(name));
        first.extend(others.map(|(name, value)| (name.clone(), value.clone())));
        choice.insert("index".into(), index.clone());
        choice.insert("delta".into(), delta.into());
        choice.insert("finish_reason".into(), Value::Null);
        let last = json!([{"index": index, "delta": {}, "finish_reason": finish_reason}]);
        events.extend([event(&first), event(&chunk(json!([choice]))), event(&chunk(last))]);
    }
    if let Some(usage) = usage {
        let mut last = chunk(json!([]));
        last.insert("usage".into(), usage);
        events.push(event(&last));
    }
    Some(events)
}

fn event(chunk: &Map<String, Value>) -> Bytes {
    let json = serde_json::to_string(chunk).expect("a JSON tree can be written");
    format!("data: {json}\n\n").into()
}

/// In chunks, each tool call has its index, and the arguments are a text.
fn complete_tool_calls(message: &mut Map<String, Value>) {
    function_call_to_text(message);
    let Some(Value::Array(calls)) = message.get_mut("tool_calls") else { return };
    for (position, call) in calls.iter_mut().enumerate() {
        if let Value::Object(call) = call {
            call.entry("index").or_insert_with(|| position.into());
            arguments_to_text(call);
        }
    }
}

/// Some services send the arguments as an object in place of its text.
fn arguments_to_text(call: &mut Map<String, Value>) {
    to_text(call.get_mut("function").and_then(|function| function.get_mut("arguments")));
}

/// The same for a call in the form that OpenAI used before there were tools.
fn function_call_to_text(message: &mut Map<String, Value>) {
    to_text(message.get_mut("function_call").and_then(|call| call.get_mut("arguments")));
}

fn to_text(arguments: Option<&mut Value>) {
    if let Some(arguments) = arguments.filter(|arguments| arguments.is_object() || arguments.is_array()) {
        *arguments = arguments.to_string().into();
    }
}

/// About the memory that the conversion of `json` takes: each value takes much more than its text.
#[must_use]
pub fn conversion_bytes(json: &[u8]) -> usize {
    const VALUE_BYTES: usize = 150;
    let values = json.iter().filter(|byte| matches!(byte, b',' | b':' | b'[' | b'{')).count();
    json.len().saturating_mul(3).saturating_add(values.saturating_mul(VALUE_BYTES))
}

/// One object with the content of a stream. `events` are the payloads of its events. With `is_cumulative`, each content
/// repeats the text before it.
#[must_use]
pub fn body_from_events<'e>(
    events: impl Iterator<Item = &'e [u8]>,
    defaults: &AnswerDefaults<'_>,
    is_cumulative: bool,
) -> String {
    let mut merged = MergedAnswer { is_cumulative, ..MergedAnswer::default() };
    for payload in events {
        let Ok(mut remaining) = std::str::from_utf8(payload) else { continue };
        if let Some(Value::Object(chunk)) = parse(remaining) {
            merged.add(chunk);
            continue;
        }
        // Several chunks in one event.
        while let Some((frame, rest)) = split_first_frame(remaining) {
            if let Some(Value::Object(chunk)) = Some(frame).filter(|frame| !is_end_signal(frame)).and_then(parse) {
                merged.add(chunk);
            }
            remaining = rest;
        }
    }
    merged.into_body(defaults)
}

fn parse(json: &str) -> Option<Value> {
    let whole = |json: &str| serde_json::from_str(json).ok();
    whole(json).or_else(|| {
        let replaced = replace_lone_surrogates(json);
        let json = replaced.as_deref().unwrap_or(json);
        whole(json).or_else(|| known_fields::parse(json))
    })
}

fn set_defaults(object: &mut Map<String, Value>, defaults: &AnswerDefaults<'_>) {
    let is_missing = |value: Option<&Value>| value.is_none_or(|value| value.is_null() || *value == "" || *value == 0);
    if is_missing(object.get("id")) {
        object.insert("id".into(), defaults.id.into());
    }
    if is_missing(object.get("created")) {
        object.insert("created".into(), defaults.created.into());
    }
}

#[derive(Default)]
struct MergedAnswer {
    fields: Map<String, Value>,
    /// The choices by index, in order.
    choices: Vec<(u64, Map<String, Value>)>,
    is_cumulative: bool,
}

impl MergedAnswer {
    fn add(&mut self, mut chunk: Map<String, Value>) {
        if let Some(Value::Array(choices)) = chunk.remove("choices") {
            for choice in choices {
                if let Value::Object(choice) = choice {
                    self.add_choice(choice);
                }
            }
        }
        // Groq reports the usage here.
        let usage = chunk.get("x_groq").and_then(|groq| groq.get("usage")).cloned();
        for (name, value) in chunk.into_iter().chain(usage.map(|usage| ("usage".to_owned(), usage))) {
            let keeps_first = REPEATED_FIELDS.contains(&name.as_str());
            let known = self.fields.entry(name).or_insert(Value::Null);
            if !value.is_null() && (known.is_null() || !keeps_first) {
                *known = value;
            }
        }
    }

    fn add_choice(&mut self, mut choice: Map<String, Value>) {
        let index = choice.remove("index").and_then(|index| index.as_u64()).unwrap_or(0);
        let position = self.choices.iter().position(|(known, _)| *known == index).unwrap_or_else(|| {
            self.choices.push((index, Map::new()));
            self.choices.len() - 1
        });
        let merged = &mut self.choices[position].1;
        let (delta, message) = (choice.remove("delta"), choice.remove("message"));
        // Some services send both, and `message` repeats the text so far.
        let delta = delta.filter(Value::is_object).or(message);
        if let Some(Value::Object(delta)) = delta {
            let message = merged.entry("message").or_insert_with(|| json!({})).as_object_mut();
            merge_objects(message.expect("it was just made"), delta, self.is_cumulative);
        }
        for (name, value) in choice {
            let is_reason = name == "finish_reason";
            let known = merged.entry(name).or_insert(Value::Null);
            if known.is_null() || is_reason && *known == "" {
                *known = value;
            } else if !is_reason {
                merge("", known, value, self.is_cumulative);
            }
        }
    }

    fn into_body(mut self, defaults: &AnswerDefaults<'_>) -> String {
        self.choices.sort_by_key(|(index, _)| *index);
        let choices = self.choices.into_iter().map(|(index, mut choice)| {
            let mut message = match choice.remove("message") {
                Some(Value::Object(message)) => message,
                _ => Map::new(),
            };
            message.entry("role").or_insert_with(|| "assistant".into());
            message.entry("content").or_insert(Value::Null);
            function_call_to_text(&mut message);
            if let Some(Value::Array(calls)) = message.get_mut("tool_calls") {
                for call in calls.iter_mut().filter_map(Value::as_object_mut) {
                    call.remove("index");
                    arguments_to_text(call);
                }
            }
            let finish_reason = choice.remove("finish_reason").unwrap_or_default();
            let mut complete = Map::from_iter([
                ("index".to_owned(), index.into()),
                ("message".to_owned(), message.into()),
                ("finish_reason".to_owned(), finish_reason),
            ]);
            complete.extend(choice);
            Value::Object(complete)
        });
        let choices: Vec<Value> = choices.collect();
        self.fields.insert("object".into(), "chat.completion".into());
        set_defaults(&mut self.fields, defaults);
        self.fields.insert("choices".into(), choices.into());
        self.fields.retain(|name, value| !(name == "usage" && value.is_null()));
        Value::Object(self.fields).to_string()
    }
}

/// Fields that name or identify something: the first value counts, because some services repeat it in every chunk.
const FIRST_WINS: [&str; 5] = ["role", "id", "type", "name", "index"];

/// Fields whose texts arrive in parts. Any other text replaces the one before: services repeat formats, severities and
/// reasons in every chunk.
const GROWING_TEXTS: [&str; 23] = [
    "arguments",
    "code",
    "content",
    "data",
    "delta",
    "encrypted_content",
    "input",
    "logs",
    "output",
    "partial_json",
    "reasoning",
    "reasoning_content",
    "reasoning_summary",
    "reasoning_text",
    "refusal",
    "signature",
    "summary",
    "text",
    "thinking",
    "thinking_content",
    "thought",
    "thoughts",
    "transcript",
];

fn merge_objects(known: &mut Map<String, Value>, next: Map<String, Value>, is_cumulative: bool) {
    for (name, value) in next {
        match known.get_mut(&name) {
            Some(old) => merge(&name, old, value, is_cumulative),
            None => {
                known.insert(name, value);
            }
        }
    }
}

/// Appends the next part of a value: some texts and all lists grow, objects are merged, any other value replaces the one
/// before.
fn merge(name: &str, known: &mut Value, next: Value, is_cumulative: bool) {
    match (&mut *known, next) {
        (_, Value::Null) => {}
        (Value::Null, next) => *known = next,
        (Value::String(old), _) if FIRST_WINS.contains(&name) && !old.is_empty() => {}
        (Value::String(old), Value::String(new)) if is_cumulative && new.starts_with(old.as_str()) => *old = new,
        (Value::String(old), Value::String(new)) if GROWING_TEXTS.contains(&name) => old.push_str(&new),
        (Value::String(_), Value::String(new)) if new.is_empty() => {}
        (Value::Object(old), Value::Object(new)) => merge_objects(old, new, is_cumulative),
        (Value::Array(old), Value::Array(new)) => {
            for item in new {
                merge_item(name, old, item, is_cumulative);
            }
        }
        // Content as a text in one chunk and as a list of parts in the next.
        (Value::String(old), Value::Array(new)) => {
            let text = (!old.is_empty()).then(|| json!({"type": "text", "text": old}));
            *known = text.into_iter().chain(new).collect();
        }
        (Value::Array(old), Value::String(new)) => {
            if !new.is_empty() {
                old.push(json!({"type": "text", "text": new}));
            }
        }
        (known, next) => *known = next,
    }
}

/// Adds an item to the list `name`. An item with an index, such as a tool call, continues the one with the same index, unless
/// it has another id: some services send index 0 for every call. A tool call without an index continues the last one, unless
/// it has an id or a name of its own.
fn merge_item(name: &str, items: &mut Vec<Value>, next: Value, is_cumulative: bool) {
    let id = |item: &Value| item.get("id").and_then(Value::as_str).filter(|id| !id.is_empty()).map(str::to_owned);
    let function = |item: &Value| item.pointer("/function/name").filter(|name| **name != "").cloned();
    let is_new = |next: &Value| {
        id(next).is_some() || function(next).is_some_and(|new| items.last().and_then(function) != Some(new))
    };
    // Lists such as log probabilities have many items, and no index.
    if next.get("index").is_none() && (name != "tool_calls" || is_new(&next)) {
        return items.push(next);
    }
    let continues = |item: &Value| {
        let same_index = next.get("index").is_none_or(|index| item.get("index") == Some(index));
        same_index && id(item).zip(id(&next)).is_none_or(|(known, new)| known == new)
    };
    match (items.iter().rposition(continues), next) {
        (Some(position), Value::Object(next)) if items[position].is_object() => {
            let known = items[position].as_object_mut().expect("it is an object");
            merge_objects(known, next, is_cumulative);
        }
        (_, next) => items.push(next),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEFAULTS: AnswerDefaults<'_> = AnswerDefaults { id: "chatcmpl-1", created: 7 };

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
            fragment(
                json!({"index": 0, "id": "c1", "type": "function", "function": {"name": "f", "arguments": "{\"a\""}}),
            ),
            fragment(json!({"index": 0, "id": "c1", "function": {"name": "f", "arguments": ":1}"}})),
            fragment(
                json!({"index": 0, "id": "c2", "type": "function", "function": {"name": "g", "arguments": {"b": 2}}}),
            ),
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
}
