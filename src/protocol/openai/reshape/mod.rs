//! Converts an answer between a stream of chunks and one object, without losing fields that mmchat does not know.
//!
//! Services answer a request for a stream with an object, and the reverse. Both shapes have the same fields: `delta` in a
//! chunk is a part of `message` in an object. So every field is carried over, whether it is text, log probabilities,
//! images, audio, annotations or a tool call.

use serde_json::{Map, Value};

use super::known_fields;
use crate::{
    model::{ModelRequest, Operation},
    protocol::framing::lenient::replace_lone_surrogates,
};

mod to_events;
mod to_object;

#[cfg(test)]
mod tests;

pub use to_events::events_from_body;
pub use to_object::body_from_events;

/// The format of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnswerFormat {
    /// Its choices have messages.
    Chat,
    /// Its choices have only a text (`/v1/completions`).
    Completion,
}

impl AnswerFormat {
    /// The format of the answer to `request`; `None`: it has only one shape.
    #[must_use]
    pub fn of(request: &ModelRequest) -> Option<Self> {
        match request {
            ModelRequest::Chat(_) => Some(Self::Chat),
            ModelRequest::Opaque(opaque) => (opaque.operation == Operation::Completions).then_some(Self::Completion),
        }
    }

    /// The field `object` of an answer in one object.
    fn object(self) -> &'static str {
        match self {
            Self::Chat => "chat.completion",
            Self::Completion => "text_completion",
        }
    }

    /// The same of a chunk.
    fn chunk_object(self) -> &'static str {
        match self {
            Self::Chat => "chat.completion.chunk",
            Self::Completion => "text_completion",
        }
    }

    fn id_prefix(self) -> &'static str {
        match self {
            Self::Chat => "chatcmpl-",
            Self::Completion => "cmpl-",
        }
    }
}

/// What an answer gets that the service did not send.
#[derive(Clone, Debug)]
pub struct AnswerDefaults<'a> {
    /// The format.
    pub format: AnswerFormat,
    /// The id without its prefix.
    pub id: &'a str,
    /// The time in Unix seconds.
    pub created: i64,
}

/// The top-level fields that every chunk repeats.
const REPEATED_FIELDS: [&str; 5] = ["id", "created", "model", "system_fingerprint", "service_tier"];

/// About the memory that the conversion of `json` takes: each value takes much more than its text.
#[must_use]
pub fn conversion_bytes(json: &[u8]) -> usize {
    const VALUE_BYTES: usize = 150;
    let values = json.iter().filter(|byte| matches!(byte, b',' | b':' | b'[' | b'{')).count();
    json.len().saturating_mul(3).saturating_add(values.saturating_mul(VALUE_BYTES))
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
        object.insert("id".into(), format!("{}{}", defaults.format.id_prefix(), defaults.id).into());
    }
    if is_missing(object.get("created")) {
        object.insert("created".into(), defaults.created.into());
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
