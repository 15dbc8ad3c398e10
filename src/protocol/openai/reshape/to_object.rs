//! Joins the chunks of a stream to one object.

use serde_json::{Map, Value, json};

use super::{
    AnswerDefaults, AnswerFormat, REPEATED_FIELDS, arguments_to_text, function_call_to_text, parse, set_defaults,
};
use crate::protocol::openai::decode::{is_end_signal, split_first_frame};

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
            let known = merged.entry(name.clone()).or_insert(Value::Null);
            if known.is_null() || is_reason && *known == "" {
                *known = value;
            } else if !is_reason {
                merge(&name, known, value, self.is_cumulative);
            }
        }
    }

    fn into_body(mut self, defaults: &AnswerDefaults<'_>) -> String {
        self.choices.sort_by_key(|(index, _)| *index);
        let choices = self.choices.into_iter().map(|(index, mut choice)| {
            if defaults.format == AnswerFormat::Completion {
                choice.insert("index".to_owned(), index.into());
                return Value::Object(choice);
            }
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
        self.fields.insert("object".into(), defaults.format.object().into());
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
    // Lists such as log probabilities have many items, and no index; in `top_logprobs`, names are tokens.
    let index = next.get("index").filter(|index| name != "top_logprobs" && index.is_u64());
    if index.is_none() && (name != "tool_calls" || is_new(&next)) {
        return items.push(next);
    }
    let continues = |item: &Value| {
        let same_index = index.is_none_or(|index| item.get("index") == Some(index));
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
