//! Sends the system prompt with another role, or as the start of the user's first message.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::{json, value::RawValue};

use crate::{
    model::SystemRole,
    protocol::framing::{json_splice::RawObject, lenient::LenientString, value_reader::Read},
};

use super::request_summary::PromptText;

/// A message, whose other fields are not parsed.
type Message<'a> = Cow<'a, RawValue>;

/// Changes the messages of a request in place.
pub(super) fn apply(object: &mut RawObject<'_>, role: SystemRole) -> Result<(), serde_json::Error> {
    let Some(messages) = object.get("messages") else { return Ok(()) };
    let messages = messages.to_owned();
    let parsed: Vec<&RawValue> = serde_json::from_str(messages.get())?;
    let parsed = parsed.into_iter().map(Cow::Borrowed).collect();
    let changed = match role {
        SystemRole::System => rename(parsed, "developer", "system"),
        SystemRole::Developer => rename(parsed, "system", "developer"),
        SystemRole::Fold => fold(parsed),
    };
    object.set("messages", &changed?)
}

/// Whether a request has a system prompt.
pub(super) fn is_in(object: &RawObject<'_>) -> bool {
    let messages =
        object.get("messages").and_then(|messages| serde_json::from_str::<Vec<&RawValue>>(messages.get()).ok());
    messages.is_some_and(|messages| messages.iter().any(|message| is_system(message)))
}

fn is_system(message: &RawValue) -> bool {
    matches!(role_of(message).as_str(), "system" | "developer")
}

fn role_of(message: &RawValue) -> LenientString<'_> {
    #[derive(Deserialize)]
    struct WithRole<'a> {
        #[serde(borrow, default)]
        role: LenientString<'a>,
    }
    serde_json::from_str(message.get()).map_or_else(|_| LenientString::default(), |WithRole { role }| role)
}

fn rename<'a>(mut messages: Vec<Message<'a>>, from: &str, to: &str) -> Result<Vec<Message<'a>>, serde_json::Error> {
    for message in messages.iter_mut().filter(|message| role_of(message).as_str() == from) {
        let mut object = RawObject::parse(message.get().as_bytes())?;
        object.set("role", &to)?;
        *message = Cow::Owned(serde_json::value::to_raw_value(&object)?);
    }
    Ok(messages)
}

/// Moves the system prompts to the start of the first message of the user.
fn fold(messages: Vec<Message<'_>>) -> Result<Vec<Message<'_>>, serde_json::Error> {
    let (prompts, mut others): (Vec<_>, Vec<_>) = messages.into_iter().partition(|message| is_system(message));
    let prompts = prompts.iter().map(|message| text_of(message)).filter(|text| !text.is_empty());
    let prompt = prompts.collect::<Vec<_>>().join("\n\n");
    if prompt.is_empty() {
        return Ok(others);
    }
    if let Some(message) = others.iter_mut().find(|message| role_of(message).as_str() == "user") {
        *message = Cow::Owned(with_prompt(message, &prompt)?);
    } else {
        let message = serde_json::value::to_raw_value(&json!({"role": "user", "content": prompt}))?;
        others.insert(0, Cow::Owned(message));
    }
    Ok(others)
}

/// The message with `prompt` at the start of its content.
fn with_prompt(message: &RawValue, prompt: &str) -> Result<Box<RawValue>, serde_json::Error> {
    let mut object = RawObject::parse(message.get().as_bytes())?;
    let content = object.get("content").map(RawValue::get).unwrap_or_default();
    if content.starts_with('[') {
        let mut parts: Vec<&RawValue> = serde_json::from_str(content)?;
        let part = serde_json::value::to_raw_value(&json!({"type": "text", "text": prompt}))?;
        parts.insert(0, &part);
        let parts = serde_json::value::to_raw_value(&parts)?;
        object.set("content", &parts)?;
    } else if content.starts_with('"') {
        let text: String = serde_json::from_str(content)?;
        object.set("content", &format!("{prompt}\n\n{text}"))?;
    } else {
        object.set("content", &prompt)?;
    }
    serde_json::value::to_raw_value(&object)
}

fn text_of(message: &RawValue) -> String {
    serde_json::from_str(message.get()).map(|Read(PromptText(text))| text).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn applied(messages: &Value, role: SystemRole) -> Value {
        let body = json!({"messages": messages}).to_string();
        let mut object = RawObject::parse(body.as_bytes()).expect("an object");
        apply(&mut object, role).expect("valid messages");
        serde_json::from_str(object.get("messages").expect("messages").get()).expect("valid JSON")
    }

    #[test]
    fn system_prompt_is_folded_into_the_first_message_of_the_user() {
        let system = json!({"role": "system", "content": "be brief"});
        let folded = applied(&json!([system, {"role": "user", "content": "hi"}]), SystemRole::Fold);
        assert_eq!(folded, json!([{"role": "user", "content": "be brief\n\nhi"}]));
        let image = json!({"type": "image_url", "image_url": {"url": "u"}});
        let developer = json!({"role": "developer", "content": [{"type": "text", "text": "be brief"}]});
        let parts = json!([{"role": "assistant", "content": "a"}, {"role": "user", "content": [image]}, developer]);
        let want = json!([
            {"role": "assistant", "content": "a"},
            {"role": "user", "content": [{"type": "text", "text": "be brief"}, image]},
        ]);
        assert_eq!(applied(&parts, SystemRole::Fold), want);
        assert_eq!(applied(&json!([system]), SystemRole::Fold), json!([{"role": "user", "content": "be brief"}]));
        let other = json!([{"role": "user", "content": "hi"}]);
        assert_eq!(applied(&other, SystemRole::Fold), other);
    }

    #[test]
    fn role_of_the_system_prompt_is_renamed() {
        let messages = json!([{"role": "system", "content": "a"}, {"role": "user", "content": "b"}]);
        let renamed = applied(&messages, SystemRole::Developer);
        assert_eq!(renamed[0]["role"], "developer");
        assert_eq!(applied(&renamed, SystemRole::System), messages);
    }
}
