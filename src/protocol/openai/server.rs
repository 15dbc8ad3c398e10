//! Parses requests in the OpenAI format, for the gateway and the mock.

use bytes::Bytes;
use serde::Deserialize;

use super::{
    prompt_count::PromptCount,
    request_summary::{IsSet, Messages, Modalities, PromptText, Tools, affinity_start},
    routing_fields,
};
use crate::model::{
    ChatRequest, MAX_TOKENS_FIELDS, ModelRequest, OpaqueRequest, Operation, Params, RawRequest, RequestSummary,
};
use crate::protocol::{
    error::truncate_message,
    framing::{
        lenient::{LenientNumber, LenientObject, LenientString},
        value_reader::Read,
    },
    openai,
};

/// Bytes of the body of a pass-through request that related requests usually share.
const OPAQUE_AFFINITY_BYTES: usize = 256;

/// A parsed request.
#[derive(Clone, Debug)]
pub struct ParsedRequest {
    /// The model name.
    pub model: String,
    /// Whether a streamed response ends with a usage chunk.
    pub include_usage: bool,
    /// The request, with its raw body.
    pub request: ModelRequest,
}

/// The error for a body that is not a valid request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ParseError {
    /// The message.
    pub message: String,
    /// The invalid or missing field.
    pub param: Option<&'static str>,
}

impl ParseError {
    fn new(message: impl Into<String>, param: Option<&'static str>) -> Self {
        // The message may quote text of any length from the body.
        Self { message: truncate_message(&message.into()), param }
    }
}

/// The text of all messages of a chat request; empty if the body is not one.
#[must_use]
pub fn prompt_text(body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Prompt {
        #[serde(default)]
        messages: Read<PromptText>,
    }
    serde_json::from_slice(body).map(|Prompt { messages: Read(text) }| text.0).unwrap_or_default()
}

#[derive(Deserialize)]
struct WireRequest<'a> {
    #[serde(borrow, default)]
    model: LenientString<'a>,
    #[serde(default)]
    stream: Option<bool>,
    #[serde(default)]
    stream_options: LenientObject<StreamOptions>,
    #[serde(default)]
    max_tokens: LenientNumber,
    #[serde(default)]
    max_completion_tokens: LenientNumber,
    #[serde(default)]
    n: LenientNumber,
    #[serde(borrow, default)]
    user: LenientString<'a>,
    #[serde(borrow, default)]
    prompt_cache_key: LenientString<'a>,
    #[serde(default)]
    tools: Read<Tools>,
    #[serde(default)]
    store: Read<IsSet>,
    #[serde(default)]
    web_search_options: Read<IsSet>,
    #[serde(default)]
    modalities: Read<Modalities>,
    #[serde(default)]
    messages: Option<Read<Messages>>,
}

#[derive(Deserialize)]
struct StreamOptions {
    #[serde(default)]
    include_usage: Option<bool>,
}

/// Parses a chat request.
///
/// # Errors
/// When the body is not a valid request.
pub fn parse_chat(body: &Bytes) -> Result<ParsedRequest, ParseError> {
    let request: WireRequest<'_> = deserialize(body)?;
    let Some(messages) = request.messages else {
        return Err(ParseError::new("missing field `messages`", Some("messages")));
    };
    let mut params = Params { max_tokens: request.max_tokens.0, ..Params::default() };
    let extra = [(MAX_TOKENS_FIELDS[1], request.max_completion_tokens.0), ("n", request.n.0)];
    params.extra = extra.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?.into()))).collect();
    let model = require_model(request.model)?;
    let is_set = |text: &&LenientString<'_>| !text.as_str().is_empty();
    let session = [&request.prompt_cache_key, &request.user].into_iter().find(is_set);
    let (Read(tools), Read(messages)) = (request.tools, messages);
    let summary = RequestSummary {
        estimated_tokens: messages.estimated_tokens,
        has_images: messages.has_images,
        has_tools: tools.is_set,
        is_unsafe_to_repeat: tools.has_server_side
            || request.store.0.0
            || request.web_search_options.0.0
            || request.modalities.0.has_other_than_text,
        declines_usage: declines_usage(&request.stream_options),
        affinity_key: session.map_or_else(|| messages.affinity_key(), |text| affinity_start(text.as_str()).to_owned()),
    };
    let chat = ChatRequest {
        params,
        stream: request.stream.unwrap_or(false),
        raw_request: Some(RawRequest { protocol: openai::ID, body: body.clone(), summary, removed_fields: Vec::new() }),
        ..ChatRequest::default()
    };
    Ok(ParsedRequest {
        model,
        include_usage: includes_usage(request.stream_options),
        request: ModelRequest::Chat(chat),
    })
}

impl ParsedRequest {
    /// Removes the fields that choose other models or addresses, for a client that may use only some models.
    pub fn restrict(&mut self) {
        let raw_request = match &mut self.request {
            ModelRequest::Chat(chat) => chat.raw_request.as_mut(),
            ModelRequest::Opaque(opaque) => Some(&mut opaque.raw_request),
        };
        if let Some(raw_request) = raw_request {
            routing_fields::restrict(raw_request);
        }
    }
}

/// Parses a pass-through request.
///
/// # Errors
/// When the body is not a valid request.
pub fn parse_opaque(operation: Operation, body: &Bytes) -> Result<ParsedRequest, ParseError> {
    #[derive(Deserialize)]
    struct OpaqueFields<'a> {
        #[serde(borrow, default)]
        model: LenientString<'a>,
        #[serde(default)]
        stream: Option<bool>,
        #[serde(default)]
        stream_options: LenientObject<StreamOptions>,
        #[serde(default)]
        n: LenientNumber,
        #[serde(default)]
        prompt: PromptCount,
    }
    let request: OpaqueFields<'_> = deserialize(body)?;
    let (model, stream) = (require_model(request.model)?, request.stream.unwrap_or(false));
    let declines_usage = declines_usage(&request.stream_options);
    let include_usage = includes_usage(request.stream_options);
    let start = String::from_utf8_lossy(&body[..body.len().min(OPAQUE_AFFINITY_BYTES)]).into_owned();
    let summary = RequestSummary {
        declines_usage,
        affinity_key: start,
        is_unsafe_to_repeat: operation == Operation::Images,
        ..RequestSummary::default()
    };
    let raw_request = RawRequest { protocol: openai::ID, body: body.clone(), summary, removed_fields: Vec::new() };
    let choices = request.n.0.filter(|&count| count > 0).unwrap_or(1).saturating_mul(request.prompt.0);
    let choice_count = (operation == Operation::Completions).then_some(choices);
    Ok(ParsedRequest {
        model,
        include_usage,
        request: ModelRequest::Opaque(OpaqueRequest {
            operation,
            raw_request,
            stream,
            choice_count,
            workarounds: Vec::new(),
        }),
    })
}

fn deserialize<'b, T: Deserialize<'b>>(body: &'b [u8]) -> Result<T, ParseError> {
    if body
        .trim_ascii_start()
        .first()
        .is_some_and(|first_byte| matches!(first_byte, b'[' | b'"' | b'0'..=b'9' | b'-' | b'n' | b't' | b'f'))
    {
        return Err(ParseError::new("the body is not a JSON object", None));
    }
    serde_json::from_slice(body).map_err(|error| {
        let problem =
            if error.is_data() { "a field in the body has the wrong type" } else { "the body is not valid JSON" };
        ParseError::new(format!("{problem}: {error}"), None)
    })
}

fn require_model(model: LenientString<'_>) -> Result<String, ParseError> {
    match model.into_string() {
        model if model.is_empty() => Err(ParseError::new("missing field `model`", Some("model"))),
        model => Ok(model),
    }
}

fn declines_usage(options: &LenientObject<StreamOptions>) -> bool {
    options.0.as_ref().is_some_and(|options| options.include_usage == Some(false))
}

fn includes_usage(options: LenientObject<StreamOptions>) -> bool {
    options.0.and_then(|options| options.include_usage).unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn valid_requests_are_parsed_and_invalid_ones_rejected_with_a_message() {
        let body = br#"{"model":"m","stream":true,"stream_options":{"include_usage":true},"max_tokens":5,
            "messages":[{"role":"user","content":[{"type":"text","text":"hi"},{"image_url":{"url":"data:x"}}]}],
            "unknown":{"big":1e400}}"#;
        let parsed = parse_chat(&Bytes::from_static(body)).expect("valid request");
        assert_eq!((parsed.model.as_str(), parsed.include_usage), ("m", true));
        assert!(parsed.request.is_streaming() && parsed.request.has_images() && !parsed.request.has_tools());
        assert_eq!(parsed.request.max_tokens(), Some(5));
        let chat = parsed.request.as_chat().expect("chat request");
        assert_eq!(prompt_text(body), "hi");
        assert_eq!(chat.raw_request.as_ref().map(|raw_request| &raw_request.body[..]), Some(&body[..]));
        for (body, expected) in [
            ("{", "JSON"),
            ("[]", "not a JSON object"),
            ("", "JSON"),
            ("{}", "messages"),
            (r#"{"messages":[]}"#, "model"),
            (r#"{"model":"m","messages":[],"stream":"yes"}"#, "type"),
        ] {
            let error = parse_chat(&Bytes::from_static(body.as_bytes())).expect_err("invalid request");
            assert!(error.message.contains(expected), "{body}: {error}");
        }
        let deeply_nested =
            [r#"{"model":"m","messages":[],"tools":"#, &"[".repeat(100_000), &"]".repeat(100_000), "}"].concat();
        parse_chat(&deeply_nested.into()).expect("values that are passed on are not parsed");
    }

    #[test]
    fn requests_with_effects_beyond_their_answer_are_unsafe_to_repeat() {
        for (field, is_unsafe) in [
            (r#""store":true"#, true),
            (r#""store":false"#, false),
            (r#""web_search_options":{}"#, true),
            (r#""web_search_options":null"#, false),
            (r#""modalities":["text","audio"]"#, true),
            (r#""modalities":["text"]"#, false),
            (r#""tools":[{"type":"web_search"}]"#, true),
            (r#""tools":[{"type":"function"}]"#, false),
        ] {
            let body = format!(r#"{{"model":"m","messages":[],{field}}}"#);
            let parsed = parse_chat(&body.into()).expect("valid request");
            assert_eq!(parsed.request.is_unsafe_to_repeat(), is_unsafe, "{field}");
        }
    }

    #[test]
    fn pass_through_requests_are_parsed_for_their_model_only() {
        let body = Bytes::from_static(br#"{"input":[[1,2],[3]],"model":"e","encoding_format":"base64"}"#);
        let parsed = parse_opaque(Operation::Embeddings, &body).expect("valid request");
        assert_eq!((parsed.model.as_str(), parsed.request.is_streaming()), ("e", false));
        assert!(matches!(parsed.request, ModelRequest::Opaque(opaque) if opaque.raw_request.body == body));
    }
}
