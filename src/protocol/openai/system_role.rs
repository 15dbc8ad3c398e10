//! Sends the system prompt with another role, or as the start of the user's first message.

use serde_json::{Map, Value, json};

use crate::{model::SystemRole, protocol::framing::json_splice::RawObject};

/// Changes the messages of a request in place.
pub(super) fn apply(object: &mut RawObject, role: SystemRole) -> Result<(), serde_json::Error> {
    let Some(messages) = object.get("messages") else { return Ok(()) };
    let mut messages: Vec<Value> = serde_json::from_str(messages.get())?;
    match role {
        SystemRole::System => rename(&mut messages, "developer", "system"),
        SystemRole::Developer => rename(&mut messages, "system", "developer"),
        SystemRole::Fold => fold(&mut messages),
    }
    object.set("messages", &messages)
}

fn rename(messages: &mut [Value], from: &str, to: &str) {
    for role in messages.iter_mut().filter_map(|message| message.get_mut("role")) {
        if role == from {
            *role = to.into();
        }
    }
}

/// Moves the system prompts to the start of the first message of the user.
fn fold(messages: &mut Vec<Value>) {
    let is_system = |message: &Value| {
        message.get("role").and_then(Value::as_str).is_some_and(|role| matches!(role, "system" | "developer"))
    };
    let prompts: Vec<String> = messages.iter().filter(|message| is_system(message)).map(text_of).collect();
    let prompt = prompts.into_iter().filter(|text| !text.is_empty()).collect::<Vec<_>>().join("\n\n");
    messages.retain(|message| !is_system(message));
    if prompt.is_empty() {
        return;
    }
    let user = messages
        .iter_mut()
        .filter_map(Value::as_object_mut)
        .find(|message| message.get("role").and_then(Value::as_str) == Some("user"));
    match user {
        Some(message) => prepend(message, &prompt),
        None => messages.insert(0, json!({"role": "user", "content": prompt})),
    }
}

fn prepend(message: &mut Map<String, Value>, prompt: &str) {
    let content = match message.remove("content") {
        Some(Value::Array(mut parts)) => {
            parts.insert(0, json!({"type": "text", "text": prompt}));
            parts.into()
        }
        Some(Value::String(text)) => format!("{prompt}\n\n{text}").into(),
        _ => prompt.into(),
    };
    message.insert("content".into(), content);
}

fn text_of(message: &Value) -> String {
    match message.get("content") {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(parts)) => {
            parts.iter().filter_map(|part| part.get("text")?.as_str()).collect::<Vec<_>>().join("\n\n")
        }
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(messages: &Value, role: SystemRole) -> Value {
        let mut object = RawObject::parse(json!({"messages": messages}).to_string().as_bytes()).expect("an object");
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
