//! Requests: what is asked, in OpenAI's words. Sends only what somebody set, since strict services refuse the rest.

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::{ID, error::refused_parameters};
use crate::{
    chat::{Adjustment, ChatRequest, Image, Message, Params, Part, Role},
    protocol::{ApiError, EncodeError, json_splice::RawObject},
    target::Target,
};

/// The body of a chat request. A client's own body in this format is passed on, with only the model, the configured
/// parameters it left open and the wish for usage put in.
pub(super) fn body(target: &Target, chat: &ChatRequest) -> Result<Bytes, EncodeError> {
    let mut object = match chat.original.as_ref().filter(|original| original.protocol == ID) {
        Some(original) => original_fields(target, chat, &original.body).map_err(EncodeError::Body)?,
        None => own_fields(target, chat).map_err(EncodeError::Body)?,
    };
    for adjustment in &chat.adjustments {
        match adjustment {
            Adjustment::Rename(from, to) => object.rename(from, to),
            Adjustment::Omit(name) => object.remove(name),
        }
    }
    serde_json::to_vec(&object).map(Bytes::from).map_err(EncodeError::Body)
}

fn own_fields(target: &Target, chat: &ChatRequest) -> Result<RawObject, serde_json::Error> {
    let mut object = RawObject::default();
    object.set("model", &target.upstream)?;
    object.set("messages", &chat.messages.iter().map(message).collect::<Vec<_>>())?;
    if chat.stream {
        object.set("stream", &true)?;
        if !target.endpoint.no_stream_options {
            object.set("stream_options", &json!({"include_usage": true}))?;
        }
    }
    // The request's own lie on top, whatever they are called in the model's entry.
    for (name, value) in parameters(&target.params).into_iter().chain(parameters(&chat.params)) {
        object.set(&name, &value)?;
    }
    Ok(object)
}

fn original_fields(target: &Target, chat: &ChatRequest, body: &[u8]) -> Result<RawObject, serde_json::Error> {
    let mut object = RawObject::parse(body)?;
    object.set("model", &target.upstream)?;
    for (name, value) in parameters(&target.params) {
        if object.get(&name).is_none() {
            object.set(&name, &value)?;
        }
    }
    if chat.stream && !target.endpoint.no_stream_options && object.get("stream_options").is_none() {
        object.set("stream_options", &json!({"include_usage": true}))?;
    }
    Ok(object)
}

/// Every parameter that is set, by its name on the wire.
fn parameters(params: &Params) -> Map<String, Value> {
    let mut fields = Map::new();
    let mut put = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            fields.insert(name.to_owned(), value);
        }
    };
    put("temperature", params.temperature.map(Value::from));
    put("top_p", params.top_p.map(Value::from));
    put("max_tokens", params.max_tokens.map(Value::from));
    put("seed", params.seed.map(Value::from));
    put("stop", (!params.stop.is_empty()).then(|| Value::from(params.stop.clone())));
    put("reasoning_effort", params.reasoning_effort.clone().map(Value::from));
    for (name, value) in &params.extra {
        fields.insert(name.clone(), value.clone());
    }
    fields
}

fn message(message: &Message) -> Value {
    let role = match message.role {
        Role::System => "system",
        Role::User => "user",
        Role::Assistant => "assistant",
        Role::Tool => "tool",
    };
    let content = match message.parts.as_slice() {
        [Part::Text(text)] => Value::from(text.as_str()),
        parts => parts.iter().map(part).collect(),
    };
    json!({"role": role, "content": content})
}

fn part(part: &Part) -> Value {
    let url = match part {
        Part::Text(text) => return json!({"type": "text", "text": text}),
        Part::Image(Image::Url(url)) => url.clone(),
        Part::Image(Image::Data { media_type, bytes }) => format!("data:{media_type};base64,{}", BASE64.encode(bytes)),
    };
    json!({"type": "image_url", "image_url": {"url": url}})
}

/// What to change after a refusal: once `max_tokens` under its newer name, else without the field that was named.
/// Only fields that were really sent are left out; `model` and `messages` never.
pub(super) fn adjustment(error: &ApiError, target: &Target, chat: &ChatRequest) -> Option<Adjustment> {
    let refused = refused_parameters(error)?;
    let sent = body(target, chat).ok().and_then(|body| RawObject::parse(&body).ok())?;
    let names = |field: &str| refused.iter().any(|name| name == field);
    if sent.get("max_tokens").is_some() && names("max_tokens") && error.message.contains("max_completion_tokens") {
        return Some(Adjustment::Rename("max_tokens", "max_completion_tokens"));
    }
    refused
        .iter()
        .find(|name| !matches!(name.as_str(), "model" | "messages" | "stream") && sent.get(name).is_some())
        // Without the limit the answer would cost more than somebody wants to pay.
        .filter(|name| !(chat.capped && name.starts_with("max_")))
        .map(|name| Adjustment::Omit(name.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        chat::{ErrorClass, Original},
        target::testing::target,
    };

    fn sent(target: &Target, chat: &ChatRequest) -> Value {
        serde_json::from_slice(&body(target, chat).expect("encodes")).expect("JSON")
    }

    fn chat() -> ChatRequest {
        ChatRequest {
            messages: vec![Message::text(Role::System, "be brief"), Message::text(Role::User, "hi")],
            stream: true,
            ..ChatRequest::default()
        }
    }

    #[test]
    fn only_what_was_set_is_sent() {
        assert_eq!(
            sent(&target("a"), &chat()),
            json!({
                "model": "a-upstream",
                "messages": [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hi"}],
                "stream": true,
                "stream_options": {"include_usage": true},
            })
        );
        let plain = sent(&target("a"), &ChatRequest { stream: false, ..chat() });
        assert!(plain.get("stream").is_none() && plain.get("stream_options").is_none());
    }

    #[test]
    fn the_request_wins_over_the_model_and_extra_goes_as_it_is() {
        let mut target = target("a");
        target.params.temperature = Some(0.2);
        target.params.extra.insert("enable_thinking".into(), json!(false));
        let mut chat = chat();
        chat.params.temperature = Some(0.9);
        let sent = sent(&target, &chat);
        assert_eq!((&sent["temperature"], &sent["enable_thinking"]), (&json!(0.9), &json!(false)));
    }

    #[test]
    fn pictures_go_as_data_and_addresses_as_they_are() {
        let data = Image::Data { media_type: "image/png", bytes: Bytes::from_static(b"\x89PNG") };
        let parts =
            vec![Part::Text("look".into()), Part::Image(data), Part::Image(Image::Url("https://h/a.png?x=1".into()))];
        let messages = vec![Message { role: Role::User, parts }];
        let sent = sent(&target("a"), &ChatRequest { messages, ..ChatRequest::default() });
        assert_eq!(
            sent["messages"][0]["content"],
            json!([
                {"type": "text", "text": "look"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw=="}},
                {"type": "image_url", "image_url": {"url": "https://h/a.png?x=1"}},
            ])
        );
    }

    #[test]
    fn a_clients_body_keeps_fields_nobody_here_knows() {
        let body =
            br#"{"model":"route","logit_bias":{"50256":-100},"n":null,"big":12345678901234567890123,"messages":[]}"#;
        let chat = ChatRequest {
            original: Some(Original { protocol: ID, body: Bytes::from_static(body) }),
            ..ChatRequest::default()
        };
        let encoded = super::body(&target("a"), &chat).expect("encodes");
        let want = String::from_utf8_lossy(body).replace("\"route\"", "\"a-upstream\"");
        assert_eq!(String::from_utf8_lossy(&encoded), want);
    }

    #[test]
    fn a_refused_parameter_is_renamed_or_left_out() {
        let mut chat = chat();
        chat.params = Params { temperature: Some(0.0), max_tokens: Some(5), ..Params::default() };
        let ask = |code: &str, param: Option<&str>, message: &str| {
            let mut error = ApiError::new(ErrorClass::Request, message);
            error.code = Some(code.to_owned());
            error.param = param.map(str::to_owned);
            adjustment(&error, &target("a"), &chat)
        };
        let text = "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.";
        assert_eq!(
            ask("unsupported_parameter", Some("max_tokens"), text),
            Some(Adjustment::Rename("max_tokens", "max_completion_tokens"))
        );
        let text = "Unsupported value: 'temperature' does not support 0 with this model.";
        assert_eq!(ask("unsupported_value", Some("temperature"), text), Some(Adjustment::Omit("temperature".into())));
        assert_eq!(
            ask("", None, "Unexpected fields: {'stream_options'}"),
            Some(Adjustment::Omit("stream_options".into()))
        );
        assert_eq!(ask("unsupported_parameter", Some("logprobs"), "no logprobs"), None);
        assert_eq!(ask("", None, "messages must not be empty"), None);
    }
}
