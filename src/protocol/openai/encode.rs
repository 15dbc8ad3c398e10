//! Encodes requests as OpenAI JSON.
//!
//! Sends only parameters that were set by the user or the config, since strict services reject unknown ones.

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::{ID, error::rejected_parameters};
use crate::{
    model::{
        ChatRequest, ErrorClass, Image, MAX_TOKENS_FIELDS, Message, OpaqueRequest, Operation, ParamWorkaround, Params,
        Part, Role, target::Target,
    },
    protocol::{CallError, EncodeError, framing::json_splice::RawObject},
};

/// The field that asks for the usage of a streamed answer.
pub(super) const STREAM_OPTIONS: &str = "stream_options";

/// The body of a chat request. A client's raw body in this format is passed through: only the model is replaced, and
/// configured parameters that it does not set and the option to report usage are added.
pub(super) fn encode_chat(target: &Target, chat: &ChatRequest) -> Result<Bytes, EncodeError> {
    let mut object = match chat.raw_request.as_ref().filter(|raw_request| raw_request.protocol == ID) {
        Some(raw_request) => passthrough_fields(target, chat, &raw_request.body).map_err(EncodeError::Body)?,
        None => fields_from_chat(target, chat).map_err(EncodeError::Body)?,
    };
    if let Some(max_tokens) = chat.budget_max_tokens {
        limit_answer_tokens(&mut object, target, chat, max_tokens).map_err(EncodeError::Body)?;
    }
    for workaround in &chat.workarounds {
        match workaround {
            ParamWorkaround::Rename(from, to) => object.rename(from, to),
            ParamWorkaround::Omit(name) => object.remove(name),
            ParamWorkaround::MaxTokens(max_tokens) => {
                object.set(token_limit(&object).0, max_tokens).map_err(EncodeError::Body)?;
            }
        }
    }
    serde_json::to_vec(&object).map(Bytes::from).map_err(EncodeError::Body)
}

fn fields_from_chat(target: &Target, chat: &ChatRequest) -> Result<RawObject, serde_json::Error> {
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
fn token_limit(object: &RawObject) -> (&'static str, Option<u64>) {
    let limit = |name: &str| object.get(name)?.get().parse().ok();
    let name = if object.get(MAX_TOKENS_FIELDS[1]).is_some() { MAX_TOKENS_FIELDS[1] } else { MAX_TOKENS_FIELDS[0] };
    (name, MAX_TOKENS_FIELDS.into_iter().filter_map(limit).min())
}

/// Limits the answer to `max_tokens` and, when no other limit is set, to the rest of the model's context window.
fn limit_answer_tokens(
    object: &mut RawObject,
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

fn passthrough_fields(target: &Target, chat: &ChatRequest, body: &[u8]) -> Result<RawObject, serde_json::Error> {
    let mut object = RawObject::parse(body)?;
    object.remove_case_variants("model");
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
fn request_usage(object: &mut RawObject) -> Result<(), serde_json::Error> {
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
    object.set(STREAM_OPTIONS, &options)
}

/// The body of a pass-through request: the client's body with the upstream model, and configured parameters that the
/// client does not set.
pub(super) fn encode_opaque(target: &Target, opaque: &OpaqueRequest) -> Result<Bytes, EncodeError> {
    let fields = || {
        let mut object = RawObject::parse(&opaque.raw_request.body)?;
        object.remove_case_variants("model");
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

/// The workaround for a rejected parameter: send `max_tokens` under its newer name, else omit the field that the error
/// names. Only fields that were sent are omitted, never `model`, `messages` or `stream`.
pub(super) fn workaround_for(error: &CallError, target: &Target, chat: &ChatRequest) -> Option<ParamWorkaround> {
    let mut sent = encode_chat(target, chat).ok().and_then(|body| RawObject::parse(&body).ok())?;
    // Fields of the client's body are never changed: the client gets the error. Only added fields may be changed.
    if let Some(client_body) = chat.raw_request.as_ref().and_then(|raw| RawObject::parse(&raw.body).ok()) {
        client_body.names().for_each(|name| sent.remove(name));
    }
    let Some(rejected) = rejected_parameters(error) else {
        return lowered_limit(error, target, chat, &sent).map(ParamWorkaround::MaxTokens);
    };
    let is_rejected = |field: &str| rejected.iter().any(|name| name == field);
    if sent.get("max_tokens").is_some() && is_rejected("max_tokens") && error.message.contains("max_completion_tokens")
    {
        return Some(ParamWorkaround::Rename("max_tokens", "max_completion_tokens"));
    }
    rejected
        .iter()
        .find(|name| !matches!(name.as_str(), "model" | "messages" | "stream") && sent.get(name).is_some())
        // Without the token limit, the answer could exceed the cost limit.
        .filter(|name| !(chat.budget_max_tokens.is_some() && MAX_TOKENS_FIELDS.contains(&name.as_str())))
        .map(|name| ParamWorkaround::Omit(name.clone()))
}

/// A smaller token limit, from the number in an error that rejects the current one as too large. Applies only to a
/// limit that was derived from the cost limit, not to one set by the user or the config.
fn lowered_limit(error: &CallError, target: &Target, chat: &ChatRequest, sent: &RawObject) -> Option<u64> {
    /// Smaller numbers in the message are not token limits of any model.
    const MIN_LIMIT: u64 = 256;
    const MIN_CONTEXT: u64 = 1024;
    let is_explicit = chat.params.max_output_tokens().or(target.params.max_output_tokens()).is_some();
    let current = token_limit(sent).1.filter(|_| chat.budget_max_tokens.is_some() && !is_explicit)?;
    let mut numbers = standalone_numbers(&error.message);
    match error.class {
        ErrorClass::Request if MAX_TOKENS_FIELDS.iter().any(|name| error.message.contains(name)) => {
            numbers.filter(|number| (MIN_LIMIT..current).contains(number)).max()
        }
        // The number is the size of the context window, which holds prompt and answer.
        ErrorClass::Context => {
            let context_window = numbers.find(|&number| number >= MIN_CONTEXT && number != current)?;
            let prompt_tokens = chat.estimated_tokens();
            // The estimate may be too low: reserve an eighth of it and 16 tokens.
            let free_tokens = context_window.checked_sub(prompt_tokens + prompt_tokens / 8 + 16)?;
            (free_tokens > 0).then(|| free_tokens.min(current - 1))
        }
        _ => None,
    }
}

/// The standalone integers in a message, excluding those in model names, versions and request ids.
fn standalone_numbers(message: &str) -> impl Iterator<Item = u64> {
    let end = message.to_ascii_lowercase().find("request id").unwrap_or(message.len());
    let words = message[..end].split(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_')));
    words.filter_map(|word| word.trim_end_matches('.').parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{RawRequest, target::testing::target};

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
            raw_request: Some(RawRequest { protocol: ID, body: Bytes::from_static(body) }),
            ..ChatRequest::default()
        };
        let encoded = super::encode_chat(&target("a"), &chat).expect("valid request");
        let want = String::from_utf8_lossy(body).replace("\"route\"", "\"a-upstream\"");
        assert_eq!(String::from_utf8_lossy(&encoded), want);
    }

    #[test]
    fn fields_of_the_client_body_are_not_removed_on_rejection() {
        let body = br#"{"model":"m","messages":[],"tools":[{"type":"function"}],"max_tokens":5}"#;
        let raw_request = Some(RawRequest { protocol: ID, body: Bytes::from_static(body) });
        let chat = ChatRequest { stream: true, raw_request, ..ChatRequest::default() };
        let workaround =
            |message: &str| workaround_for(&CallError::new(ErrorClass::Request, message), &target("a"), &chat);
        assert_eq!(workaround("Unsupported parameter: 'tools[0].function.foo'."), None);
        assert_eq!(workaround("Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."), None);
        let omit = Some(ParamWorkaround::Omit("stream_options".into()));
        assert_eq!(workaround("Unrecognized request argument supplied: stream_options"), omit);
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

    #[test]
    fn limit_from_cost_is_lowered_to_the_number_in_the_error() {
        let workaround = |class: ErrorClass, message: &str, budget_max_tokens: Option<u64>, max_tokens: Option<u64>| {
            let params = Params { max_tokens, ..Params::default() };
            workaround_for(
                &CallError::new(class, message),
                &target("a"),
                &ChatRequest { params, budget_max_tokens, ..chat() },
            )
        };
        let text = "max_tokens is too large: 16384. This model supports at most 4096 completion tokens, whereas you provided 16384.";
        let budget = Some(16_384);
        assert_eq!(workaround(ErrorClass::Request, text, budget, None), Some(ParamWorkaround::MaxTokens(4096)));
        assert_eq!(workaround(ErrorClass::Request, text, budget, Some(16_384)), None, "the limit was set explicitly");
        assert_eq!(workaround(ErrorClass::Request, text, None, None), None);
        let range = "Invalid max_tokens value, the valid range of max_tokens is [1, 8192]";
        assert_eq!(workaround(ErrorClass::Request, range, budget, None), Some(ParamWorkaround::MaxTokens(8192)));
        // The prompt has about 3 tokens, plus the reserve of 16.
        let free = |context: u64| Some(ParamWorkaround::MaxTokens((context - 19).min(16_383)));
        for (context, text) in [
            (
                4096,
                "'max_tokens' is too large: 16384. This model's maximum context length is 4096 tokens and your request has 12 input tokens (16384 > 4096 - 12).",
            ),
            (
                16_385,
                "This model's maximum context length is 16385 tokens. However, you requested 16884 tokens (500 in the messages, 16384 in the completion).",
            ),
            (32_768, "maximum context length is 32768 tokens, however you requested 36384"),
        ] {
            assert_eq!(workaround(ErrorClass::Context, text, budget, None), free(context), "{text}");
        }
        let rename = "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead. (request id: 20251124x4096Kq93z)";
        let renamed = Some(ParamWorkaround::Rename("max_tokens", "max_completion_tokens"));
        assert_eq!(workaround(ErrorClass::Request, rename, budget, None), renamed);
        let vague = "max_tokens is too large for gpt-4o-2024-08-06 (request id: 2025 4096)";
        assert_eq!(workaround(ErrorClass::Request, vague, budget, None), None);
        let chat_with_workaround =
            ChatRequest { budget_max_tokens: budget, workarounds: vec![ParamWorkaround::MaxTokens(4096)], ..chat() };
        assert_eq!(sent(&target("a"), &chat_with_workaround)["max_tokens"], 4096);
    }

    #[test]
    fn rejected_parameter_is_renamed_or_omitted() {
        let mut chat = chat();
        chat.params = Params { temperature: Some(0.0), max_tokens: Some(5), ..Params::default() };
        let workaround = |code: &str, param: Option<&str>, message: &str| {
            let mut error = CallError::new(ErrorClass::Request, message);
            error.code = Some(code.to_owned());
            error.param = param.map(str::to_owned);
            workaround_for(&error, &target("a"), &chat)
        };
        let text = "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.";
        assert_eq!(
            workaround("unsupported_parameter", Some("max_tokens"), text),
            Some(ParamWorkaround::Rename("max_tokens", "max_completion_tokens"))
        );
        let text = "Unsupported value: 'temperature' does not support 0 with this model.";
        assert_eq!(
            workaround("unsupported_value", Some("temperature"), text),
            Some(ParamWorkaround::Omit("temperature".into()))
        );
        assert_eq!(
            workaround("", None, "Unexpected fields: {'stream_options'}"),
            Some(ParamWorkaround::Omit("stream_options".into()))
        );
        assert_eq!(workaround("unsupported_parameter", Some("logprobs"), "no logprobs"), None);
        assert_eq!(workaround("", None, "messages must not be empty"), None);
    }
}
