//! Requests: what is asked, in OpenAI's words. Sends only what somebody set, since strict services refuse the rest.

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::{ID, error::refused_parameters};
use crate::{
    model::{
        Adjustment, ChatRequest, ErrorClass, Image, LIMITS, Message, OpaqueRequest, Params, Part, Role, Service,
        target::Target,
    },
    protocol::{ApiError, EncodeError, framing::json_splice::RawObject},
};

/// The body of a chat request. A client's own body in this format is passed on, with only the model, the configured
/// parameters it left open and the wish for usage put in.
pub(super) fn body(target: &Target, chat: &ChatRequest) -> Result<Bytes, EncodeError> {
    let mut object = match chat.original.as_ref().filter(|original| original.protocol == ID) {
        Some(original) => original_fields(target, chat, &original.body).map_err(EncodeError::Body)?,
        None => own_fields(target, chat).map_err(EncodeError::Body)?,
    };
    if let Some(most) = chat.capped {
        hold_to(&mut object, target, chat, most).map_err(EncodeError::Body)?;
    }
    for adjustment in &chat.adjustments {
        match adjustment {
            Adjustment::Rename(from, to) => object.rename(from, to),
            Adjustment::Omit(name) => object.remove(name),
            Adjustment::Limit(most) => {
                object.set(limit_of(&object).0, most).map_err(EncodeError::Body)?;
            }
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
    let (mut beneath, mut own) = (parameters(&target.params), parameters(&chat.params));
    // The limit of tokens is one, whatever it is called: the request's own takes the place of the model's.
    if LIMITS.iter().any(|name| own.contains_key(*name)) {
        let [_, newer] = LIMITS.map(|name| beneath.remove(name));
        // Whoever named the newer field knows that the service wants it.
        if newer.is_some()
            && let Some(limit) = own.remove(LIMITS[0])
        {
            own.entry(LIMITS[1]).or_insert(limit);
        }
    }
    // The request's own lie on top, whatever they are called in the model's entry.
    for (name, value) in beneath.into_iter().chain(own) {
        object.set(&name, &value)?;
    }
    Ok(object)
}

/// The limit of tokens in a request: its name there, or the usual one, and how many; of two the smaller.
fn limit_of(object: &RawObject) -> (&'static str, Option<u64>) {
    let read = |name: &str| object.get(name)?.get().parse().ok();
    let name = if object.get(LIMITS[1]).is_some() { LIMITS[1] } else { LIMITS[0] };
    (name, LIMITS.into_iter().filter_map(read).min())
}

/// Limits the answer to `most` tokens, and to what the model's context has room for where nobody else limits it.
fn hold_to(object: &mut RawObject, target: &Target, chat: &ChatRequest, most: u64) -> Result<(), serde_json::Error> {
    let (name, wanted) = limit_of(object);
    let room = || target.context.map(|context| context.saturating_sub(chat.estimated_tokens()).max(1));
    let limit = wanted.or_else(room).map_or(most, |wanted| wanted.min(most));
    for name in LIMITS {
        object.remove(name);
    }
    object.set(name, &limit)
}

fn original_fields(target: &Target, chat: &ChatRequest, body: &[u8]) -> Result<RawObject, serde_json::Error> {
    let mut object = RawObject::parse(body)?;
    object.remove_other_spellings("model");
    object.set("model", &target.upstream)?;
    let limited = LIMITS.iter().any(|name| object.get(name).is_some());
    for (name, value) in parameters(&target.params) {
        if object.get(&name).is_none() && !(limited && LIMITS.contains(&name.as_str())) {
            object.set(&name, &value)?;
        }
    }
    if chat.stream && !target.endpoint.no_stream_options {
        ask_for_usage(&mut object)?;
    }
    Ok(object)
}

/// Asks for the tokens of a stream, where the client left that open.
fn ask_for_usage(object: &mut RawObject) -> Result<(), serde_json::Error> {
    const OPTIONS: &str = "stream_options";
    const USAGE: &str = "include_usage";
    let given = object.get(OPTIONS).map(serde_json::value::RawValue::get).filter(|options| *options != "null");
    let mut options = match given {
        None => RawObject::default(),
        // What is no object is the service's to refuse.
        Some(given) => match RawObject::parse(given.as_bytes()) {
            Ok(options) if options.get(USAGE).is_none() => options,
            _ => return Ok(()),
        },
    };
    options.set(USAGE, &true)?;
    object.set(OPTIONS, &options)
}

/// The body of a request that is only passed on: the client's own, with the model put in, and what the config adds for
/// this model where the client left it open.
pub(super) fn opaque(target: &Target, opaque: &OpaqueRequest) -> Result<Bytes, EncodeError> {
    let fields = || {
        let mut object = RawObject::parse(&opaque.original.body)?;
        object.remove_other_spellings("model");
        object.set("model", &target.upstream)?;
        // How an answer is made is no matter of vectors and the like.
        let added = match opaque.service {
            Service::Completions => parameters(&target.params),
            Service::Embeddings | Service::Rerank | Service::Images => target.params.extra.clone(),
        };
        for (name, value) in added.iter().filter(|(name, _)| object.get(name).is_none()).collect::<Vec<_>>() {
            object.set(name, value)?;
        }
        if opaque.stream && opaque.service == Service::Completions && !target.endpoint.no_stream_options {
            ask_for_usage(&mut object)?;
        }
        serde_json::to_vec(&object)
    };
    fields().map(Bytes::from).map_err(EncodeError::Body)
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
    let mut sent = body(target, chat).ok().and_then(|body| RawObject::parse(&body).ok())?;
    // What a program sent is its own affair, refusals too: only what was added to it can be taken back.
    if let Some(theirs) = chat.original.as_ref().and_then(|original| RawObject::parse(&original.body).ok()) {
        theirs.names().for_each(|name| sent.remove(name));
    }
    let Some(refused) = refused_parameters(error) else {
        return smaller_limit(error, target, chat, &sent).map(Adjustment::Limit);
    };
    let names = |field: &str| refused.iter().any(|name| name == field);
    if sent.get("max_tokens").is_some() && names("max_tokens") && error.message.contains("max_completion_tokens") {
        return Some(Adjustment::Rename("max_tokens", "max_completion_tokens"));
    }
    refused
        .iter()
        .find(|name| !matches!(name.as_str(), "model" | "messages" | "stream") && sent.get(name).is_some())
        // Without the limit the answer would cost more than somebody wants to pay.
        .filter(|name| !(chat.capped.is_some() && LIMITS.contains(&name.as_str())))
        .map(|name| Adjustment::Omit(name.clone()))
}

/// A smaller limit, from the figure a service names when ours was too large for it: one that only the price set, so that
/// nobody asked for it.
fn smaller_limit(error: &ApiError, target: &Target, chat: &ChatRequest, sent: &RawObject) -> Option<u64> {
    /// No model's answers are shorter, and no model reads less.
    const LEAST: u64 = 256;
    const LEAST_CONTEXT: u64 = 1024;
    let asked_for = chat.params.most_tokens().or(target.params.most_tokens()).is_some();
    let ours = limit_of(sent).1.filter(|_| chat.capped.is_some() && !asked_for)?;
    let mut named = figures(&error.message);
    match error.class {
        ErrorClass::Request if LIMITS.iter().any(|name| error.message.contains(name)) => {
            named.filter(|figure| (LEAST..ours).contains(figure)).max()
        }
        // The figure is prompt and answer together.
        ErrorClass::Context => {
            let context = named.find(|&figure| figure >= LEAST_CONTEXT && figure != ours)?;
            let prompt = chat.estimated_tokens();
            let room = context.checked_sub(prompt + prompt / 8 + 16)?;
            (room > 0).then(|| room.min(ours - 1))
        }
        _ => None,
    }
}

/// The whole numbers in a message that stand by themselves: none of a model's name, a version or an id.
fn figures(message: &str) -> impl Iterator<Item = u64> {
    let end = message.to_ascii_lowercase().find("request id").unwrap_or(message.len());
    let words = message[..end].split(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_')));
    words.filter_map(|word| word.trim_end_matches('.').parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Original, target::testing::target};

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
    fn what_a_client_sent_is_not_taken_back_for_it() {
        let body = br#"{"model":"m","messages":[],"tools":[{"type":"function"}],"max_tokens":5}"#;
        let original = Some(Original { protocol: ID, body: Bytes::from_static(body) });
        let chat = ChatRequest { stream: true, original, ..ChatRequest::default() };
        let refused = |message: &str| adjustment(&ApiError::new(ErrorClass::Request, message), &target("a"), &chat);
        assert_eq!(refused("Unsupported parameter: 'tools[0].function.foo'."), None);
        assert_eq!(refused("Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."), None);
        let ours = Some(Adjustment::Omit("stream_options".into()));
        assert_eq!(refused("Unrecognized request argument supplied: stream_options"), ours);
    }

    #[test]
    fn an_answer_is_held_to_its_price_by_one_limit_under_its_name() {
        let limits = |own: &[(&str, u64)], beneath: &[(&str, u64)], context: Option<u64>| {
            let extra = |fields: &[(&str, u64)]| {
                let extra = fields.iter().map(|(name, value)| ((*name).to_owned(), Value::from(*value))).collect();
                Params { extra, ..Params::default() }
            };
            let target = Target { params: extra(beneath), context, ..target("a") };
            let chat = ChatRequest { params: extra(own), capped: Some(100), ..chat() };
            let sent = sent(&target, &chat);
            LIMITS.map(|name| sent.get(name).and_then(Value::as_u64))
        };
        let [older, newer] = LIMITS;
        assert_eq!(limits(&[], &[], None), [Some(100), None]);
        assert_eq!(limits(&[], &[(newer, 100_000)], None), [None, Some(100)]);
        assert_eq!(limits(&[], &[(older, 7)], None), [Some(7), None], "the model's own is less");
        assert_eq!(limits(&[(older, 50)], &[(newer, 7)], None), [None, Some(50)], "the request's own counts");
        for beneath in [&[][..], &[(newer, 7)]] {
            assert_eq!(limits(&[(older, 500), (newer, 90)], beneath, None), [None, Some(90)]);
        }
        assert!(limits(&[], &[], Some(60))[0].is_some_and(|limit| limit < 60), "its context has no room for more");
    }

    #[test]
    fn a_limit_that_only_the_price_set_gives_way_to_what_the_service_names() {
        let named = |class: ErrorClass, message: &str, capped: Option<u64>, own: Option<u64>| {
            let params = Params { max_tokens: own, ..Params::default() };
            adjustment(&ApiError::new(class, message), &target("a"), &ChatRequest { params, capped, ..chat() })
        };
        let text = "max_tokens is too large: 16384. This model supports at most 4096 completion tokens, whereas you provided 16384.";
        let capped = Some(16_384);
        assert_eq!(named(ErrorClass::Request, text, capped, None), Some(Adjustment::Limit(4096)));
        assert_eq!(named(ErrorClass::Request, text, capped, Some(16_384)), None, "somebody asked for it");
        assert_eq!(named(ErrorClass::Request, text, None, None), None);
        let range = "Invalid max_tokens value, the valid range of max_tokens is [1, 8192]";
        assert_eq!(named(ErrorClass::Request, range, capped, None), Some(Adjustment::Limit(8192)));
        // The prompt is about 3 tokens, for which a little more is kept free.
        let room = |context: u64| Some(Adjustment::Limit((context - 19).min(16_383)));
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
            assert_eq!(named(ErrorClass::Context, text, capped, None), room(context), "{text}");
        }
        let rename = "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead. (request id: 20251124x4096Kq93z)";
        let renamed = Some(Adjustment::Rename("max_tokens", "max_completion_tokens"));
        assert_eq!(named(ErrorClass::Request, rename, capped, None), renamed);
        let vague = "max_tokens is too large for gpt-4o-2024-08-06 (request id: 2025 4096)";
        assert_eq!(named(ErrorClass::Request, vague, capped, None), None);
        let adjusted = ChatRequest { capped, adjustments: vec![Adjustment::Limit(4096)], ..chat() };
        assert_eq!(sent(&target("a"), &adjusted)["max_tokens"], 4096);
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
