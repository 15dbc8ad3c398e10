//! Converts one object to the events of a stream.

use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::{
    AnswerDefaults, AnswerFormat, REPEATED_FIELDS, arguments_to_text, function_call_to_text, parse, set_defaults,
};

/// The events of a stream with the content of one object; `None`: it is not an answer with choices.
#[must_use]
pub fn events_from_body(body: &[u8], defaults: &AnswerDefaults<'_>, include_usage: bool) -> Option<Vec<Bytes>> {
    let Value::Object(mut object) = parse(std::str::from_utf8(body).ok()?)? else { return None };
    let Some(Value::Array(choices)) = object.remove("choices") else { return None };
    let usage = object.remove("usage").filter(|usage| include_usage && !usage.is_null());
    object.insert("object".into(), defaults.format.chunk_object().into());
    set_defaults(&mut object, defaults);
    let is_repeated = |name: &str| name == "object" || REPEATED_FIELDS.contains(&name);
    let repeated: Map<String, Value> = object
        .iter()
        .filter(|(name, _)| is_repeated(name))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    let mut events = Vec::new();
    for (position, choice) in choices.into_iter().enumerate() {
        let Value::Object(mut choice) = choice else { continue };
        let index = choice.remove("index").filter(Value::is_u64).unwrap_or_else(|| position.into());
        let mut first = repeated.clone();
        // Fields such as citations are sent once.
        let others = object.iter().filter(|(name, _)| position == 0 && !is_repeated(name));
        first.extend(others.map(|(name, value)| (name.clone(), value.clone())));
        match defaults.format {
            AnswerFormat::Chat => events.extend(chat_events(first, &repeated, choice, &index)),
            AnswerFormat::Completion => {
                // Its chunks have the same fields.
                choice.insert("index".into(), index);
                events.push(event(first, json!([choice])));
            }
        }
    }
    if let Some(usage) = usage {
        let mut last = repeated;
        last.insert("usage".into(), usage);
        events.push(event(last, json!([])));
    }
    Some(events)
}

/// The events of one choice of a chat. `first`: the fields of the first chunk; `repeated`: those of the others.
fn chat_events(
    first: Map<String, Value>,
    repeated: &Map<String, Value>,
    mut choice: Map<String, Value>,
    index: &Value,
) -> [Bytes; 3] {
    let finish_reason = choice.remove("finish_reason").unwrap_or_default();
    let mut delta = match choice.remove("message") {
        Some(Value::Object(message)) => message,
        _ => Map::new(),
    };
    let role = delta.remove("role").filter(Value::is_string).unwrap_or_else(|| "assistant".into());
    complete_tool_calls(&mut delta);
    delta.retain(|_, value| !value.is_null());
    let role = json!([{"index": index, "delta": {"role": role, "content": ""}, "finish_reason": null}]);
    choice.insert("index".into(), index.clone());
    choice.insert("delta".into(), delta.into());
    choice.insert("finish_reason".into(), Value::Null);
    let last = json!([{"index": index, "delta": {}, "finish_reason": finish_reason}]);
    [event(first, role), event(repeated.clone(), json!([choice])), event(repeated.clone(), last)]
}

fn event(mut chunk: Map<String, Value>, choices: Value) -> Bytes {
    chunk.insert("choices".into(), choices);
    let json = serde_json::to_string(&chunk).expect("a JSON tree can be written");
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
