//! Encodes requests as OpenAI JSON.
//!
//! Sends only parameters that were set by the user or the config, since strict services reject unknown ones.

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::{ID, system_role};
use crate::{
    model::{
        ChatRequest, Image, MAX_TOKENS_FIELDS, Message, OpaqueRequest, Operation, ParamWorkaround, Params, Part,
        RawRequest, Role, target::Target,
    },
    protocol::{EncodeError, framing::json_splice::RawObject},
};

/// The field that asks for the usage of a streamed answer.
pub(super) const STREAM_OPTIONS: &str = "stream_options";

/// The body of a chat request. A client's raw body in this format is passed through: only the model is replaced, and
/// configured parameters that it does not set and the option to report usage are added.
pub(super) fn encode_chat(target: &Target, chat: &ChatRequest) -> Result<Bytes, EncodeError> {
    let mut object = match chat.raw_request.as_ref().filter(|raw_request| raw_request.protocol == ID) {
        Some(raw_request) => passthrough_fields(target, chat, raw_request).map_err(EncodeError::Body)?,
        None => fields_from_chat(target, chat).map_err(EncodeError::Body)?,
    };
    if let Some(max_tokens) = chat.budget_max_tokens {
        limit_answer_tokens(&mut object, target, chat, max_tokens).map_err(EncodeError::Body)?;
    }
    apply_workarounds(&mut object, &chat.workarounds, target).map_err(EncodeError::Body)?;
    serde_json::to_vec(&object).map(Bytes::from).map_err(EncodeError::Body)
}

fn apply_workarounds<'w>(
    object: &mut RawObject<'_>,
    workarounds: impl IntoIterator<Item = &'w ParamWorkaround>,
    target: &Target,
) -> Result<(), serde_json::Error> {
    for workaround in workarounds {
        match workaround {
            ParamWorkaround::Rename(from, to) => object.rename(from, to),
            ParamWorkaround::Omit(name) => object.remove(name),
            ParamWorkaround::MaxTokens(max_tokens) => object.set(token_limit(object).0, max_tokens)?,
            ParamWorkaround::Stream(false) => {
                object.remove("stream");
                object.remove(STREAM_OPTIONS);
            }
            ParamWorkaround::Stream(true) => {
                object.set("stream", &true)?;
                if !target.endpoint.no_stream_options {
                    request_usage(object)?;
                }
            }
            ParamWorkaround::System(role) => system_role::apply(object, *role)?,
        }
    }
    Ok(())
}

fn fields_from_chat(target: &Target, chat: &ChatRequest) -> Result<RawObject<'static>, serde_json::Error> {
    let mut object = RawObject::default();
    object.set("model", &target.upstream_id)?;
    object.set("messages", &chat.messages.iter().map(encode_message).collect::<Vec<_>>())?;
    if chat.stream {
        object.set("stream", &true)?;
        if !target.endpoint.no_stream_options {
            object.set(STREAM_OPTIONS, &json!({"include_usage": true}))?;
        }
    }
    let (mut model_params, mut request_params) = (parameter_fields(&target.params), parameter_fields(&chat.params));
    // Both field names mean the same limit: the value of the request replaces that of the model.
    if MAX_TOKENS_FIELDS.iter().any(|name| request_params.contains_key(*name)) {
        let [_, newer] = MAX_TOKENS_FIELDS.map(|name| model_params.remove(name));
        // The model is configured with the newer field, so its service requires that name.
        if newer.is_some()
            && let Some(limit) = request_params.remove(MAX_TOKENS_FIELDS[0])
        {
            request_params.entry(MAX_TOKENS_FIELDS[1]).or_insert(limit);
        }
    }
    // Parameters of the request override those of the model.
    for (name, value) in model_params.into_iter().chain(request_params) {
        object.set(&name, &value)?;
    }
    Ok(object)
}

/// The token limit of a request: its field name (`max_tokens` if absent) and the smallest value that is set.
pub(super) fn token_limit(object: &RawObject<'_>) -> (&'static str, Option<u64>) {
    let limit = |name: &str| object.get(name)?.get().parse().ok();
    let name = if object.get(MAX_TOKENS_FIELDS[1]).is_some() { MAX_TOKENS_FIELDS[1] } else { MAX_TOKENS_FIELDS[0] };
    (name, MAX_TOKENS_FIELDS.into_iter().filter_map(limit).min())
}

/// Limits the answer to `max_tokens` and, when no other limit is set, to the rest of the model's context window.
fn limit_answer_tokens(
    object: &mut RawObject<'_>,
    target: &Target,
    chat: &ChatRequest,
    max_tokens: u64,
) -> Result<(), serde_json::Error> {
    let (name, requested) = token_limit(object);
    let free_context = || target.context_window.map(|window| window.saturating_sub(chat.estimated_tokens()).max(1));
    let limit = requested.or_else(free_context).map_or(max_tokens, |limit| limit.min(max_tokens));
    for name in MAX_TOKENS_FIELDS {
        object.remove(name);
    }
    object.set(name, &limit)
}

/// The fields of a client's body that are passed on.
fn client_fields(raw_request: &RawRequest) -> Result<RawObject<'_>, serde_json::Error> {
    let mut object = RawObject::parse(&raw_request.body)?;
    object.remove_case_variants("model");
    for name in &raw_request.removed_fields {
        object.remove(name);
    }
    Ok(object)
}

fn passthrough_fields<'b>(
    target: &Target,
    chat: &ChatRequest,
    raw_request: &'b RawRequest,
) -> Result<RawObject<'b>, serde_json::Error> {
    let mut object = client_fields(raw_request)?;
    object.set("model", &target.upstream_id)?;
    let has_token_limit = MAX_TOKENS_FIELDS.iter().any(|name| object.get(name).is_some());
    for (name, value) in parameter_fields(&target.params) {
        if object.get(&name).is_none() && !(has_token_limit && MAX_TOKENS_FIELDS.contains(&name.as_str())) {
            object.set(&name, &value)?;
        }
    }
    if chat.stream && !target.endpoint.no_stream_options {
        request_usage(&mut object)?;
    }
    Ok(object)
}

/// Requests a usage report at the end of the stream, unless the client sets `include_usage`.
fn request_usage(object: &mut RawObject<'_>) -> Result<(), serde_json::Error> {
    const USAGE: &str = "include_usage";
    let client_options =
        object.get(STREAM_OPTIONS).map(serde_json::value::RawValue::get).filter(|options| *options != "null");
    let mut options = match client_options {
        None => RawObject::default(),
        // A value that is not an object is passed on unchanged, so that the service rejects it.
        Some(client_options) => match RawObject::parse(client_options.as_bytes()) {
            Ok(options) if options.get(USAGE).is_none() => options,
            _ => return Ok(()),
        },
    };
    options.set(USAGE, &true)?;
    let options = serde_json::value::to_raw_value(&options)?;
    object.set(STREAM_OPTIONS, &options)
}

/// The body of a pass-through request: the client's body with the upstream model, and configured parameters that the
/// client does not set.
pub(super) fn encode_opaque(target: &Target, opaque: &OpaqueRequest) -> Result<Bytes, EncodeError> {
    let fields = || {
        let mut object = client_fields(&opaque.raw_request)?;
        object.set("model", &target.upstream_id)?;
        // Sampling parameters do not apply to embeddings, reranking and images.
        let defaults = match opaque.operation {
            Operation::Completions => parameter_fields(&target.params),
            Operation::Embeddings | Operation::Rerank | Operation::Images => target.params.extra.clone(),
        };
        for (name, value) in defaults.iter().filter(|(name, _)| object.get(name).is_none()).collect::<Vec<_>>() {
            object.set(name, value)?;
        }
        if opaque.stream && opaque.operation == Operation::Completions && !target.endpoint.no_stream_options {
            request_usage(&mut object)?;
        }
        // These are about chats.
        let is_of_chat =
            |change: &&ParamWorkaround| matches!(change, ParamWorkaround::Stream(_) | ParamWorkaround::System(_));
        let workarounds = opaque.workarounds.iter().filter(|change| !is_of_chat(change));
        apply_workarounds(&mut object, workarounds, target)?;
        serde_json::to_vec(&object)
    };
    fields().map(Bytes::from).map_err(EncodeError::Body)
}

/// The parameters that are set, by wire name.
fn parameter_fields(params: &Params) -> Map<String, Value> {
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

fn encode_message(message: &Message) -> Value {
    let role = match message.role {
        Role::System => "system",
        Role::User => "user",
        Role::Assistant => "assistant",
        Role::Tool => "tool",
    };
    let content = match message.parts.as_slice() {
        [Part::Text(text)] => Value::from(text.as_str()),
        parts => parts.iter().map(encode_part).collect(),
    };
    json!({"role": role, "content": content})
}

fn encode_part(part: &Part) -> Value {
    let url = match part {
        Part::Text(text) => return json!({"type": "text", "text": text}),
        Part::Image(Image::Url(url)) => url.clone(),
        Part::Image(Image::Data { media_type, bytes }) => format!("data:{media_type};base64,{}", BASE64.encode(bytes)),
    };
    json!({"type": "image_url", "image_url": {"url": url}})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{RequestSummary, target::testing::target};

    fn sent(target: &Target, chat: &ChatRequest) -> Value {
        serde_json::from_slice(&encode_chat(target, chat).expect("valid request")).expect("valid JSON")
    }

    fn chat() -> ChatRequest {
        ChatRequest {
            messages: vec![Message::text(Role::System, "be brief"), Message::text(Role::User, "hi")],
            stream: true,
            ..ChatRequest::default()
        }
    }

    #[test]
    fn unset_parameters_are_not_sent() {
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
    fn request_parameters_override_the_model_and_extra_is_sent_unchanged() {
        let mut target = target("a");
        target.params.temperature = Some(0.2);
        target.params.extra.insert("enable_thinking".into(), json!(false));
        let mut chat = chat();
        chat.params.temperature = Some(0.9);
        let sent = sent(&target, &chat);
        assert_eq!((&sent["temperature"], &sent["enable_thinking"]), (&json!(0.9), &json!(false)));
    }

    #[test]
    fn image_data_is_sent_as_data_url_and_image_urls_unchanged() {
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
    fn unknown_fields_of_a_client_body_are_preserved() {
        let body =
            br#"{"model":"route","logit_bias":{"50256":-100},"n":null,"big":12345678901234567890123,"messages":[]}"#;
        let chat = ChatRequest {
            raw_request: Some(RawRequest {
                protocol: ID,
                body: Bytes::from_static(body),
                summary: RequestSummary::default(),
                removed_fields: Vec::new(),
            }),
            ..ChatRequest::default()
        };
        let encoded = super::encode_chat(&target("a"), &chat).expect("valid request");
        let want = String::from_utf8_lossy(body).replace("\"route\"", "\"a-upstream\"");
        assert_eq!(String::from_utf8_lossy(&encoded), want);
    }

    #[test]
    fn cost_limit_sets_one_token_limit_under_the_name_in_use() {
        let limits = |request_limits: &[(&str, u64)], model_limits: &[(&str, u64)], context_window: Option<u64>| {
            let extra = |fields: &[(&str, u64)]| {
                let extra = fields.iter().map(|(name, value)| ((*name).to_owned(), Value::from(*value))).collect();
                Params { extra, ..Params::default() }
            };
            let target = Target { params: extra(model_limits), context_window, ..target("a") };
            let chat = ChatRequest { params: extra(request_limits), budget_max_tokens: Some(100), ..chat() };
            let sent = sent(&target, &chat);
            MAX_TOKENS_FIELDS.map(|name| sent.get(name).and_then(Value::as_u64))
        };
        let [older, newer] = MAX_TOKENS_FIELDS;
        assert_eq!(limits(&[], &[], None), [Some(100), None]);
        assert_eq!(limits(&[], &[(newer, 100_000)], None), [None, Some(100)]);
        assert_eq!(limits(&[], &[(older, 7)], None), [Some(7), None], "the limit of the model is smaller");
        assert_eq!(
            limits(&[(older, 50)], &[(newer, 7)], None),
            [None, Some(50)],
            "the limit of the request overrides that of the model"
        );
        for model_limits in [&[][..], &[(newer, 7)]] {
            assert_eq!(limits(&[(older, 500), (newer, 90)], model_limits, None), [None, Some(90)]);
        }
        assert!(limits(&[], &[], Some(60))[0].is_some_and(|limit| limit < 60), "limited by the context window");
    }
}
