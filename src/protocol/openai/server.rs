//! The server side of the OpenAI format: parses requests and writes responses and errors, for the gateway and the mock.

use bytes::{BufMut, Bytes, BytesMut};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    prompt_count::PromptCount,
    request_summary::{IsSet, Messages, Modalities, PromptText, Tools, affinity_start},
    routing_fields,
};
use crate::model::{
    Answer, ChatRequest, DeltaKind, ErrorClass, FinishReason, MAX_TOKENS_FIELDS, ModelRequest, OpaqueRequest,
    Operation, Params, RawRequest, RequestSummary, ToolCall, Usage,
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

/// Whether a chunk has only usage, and is therefore sent only to clients that set `include_usage`. A chunk that also has
/// citations or filters is sent.
#[must_use]
pub fn is_usage_only(chunk: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Peek {
        #[serde(default)]
        choices: Option<Vec<serde::de::IgnoredAny>>,
        #[serde(default)]
        usage: Option<serde::de::IgnoredAny>,
        #[serde(flatten)]
        others: serde_json::Map<String, Value>,
    }
    // What every chunk repeats, and details of the usage.
    const REPEATED: [&str; 9] =
        ["id", "object", "created", "model", "system_fingerprint", "service_tier", "provider", "obfuscation", "x_groq"];
    let peek: Option<Peek> = serde_json::from_slice(chunk).ok();
    peek.is_some_and(|peek| {
        let has_others = peek.others.iter().any(|(name, value)| !value.is_null() && !REPEATED.contains(&&**name));
        peek.usage.is_some() && peek.choices.is_some_and(|choices| choices.is_empty()) && !has_others
    })
}

/// Writes the events of one streamed response.
#[derive(Clone, Debug)]
pub struct ChunkWriter {
    /// The JSON text before `choices`, which is the same in each chunk.
    prefix: String,
}

impl ChunkWriter {
    /// A writer for a response with this id (any string) and model.
    #[must_use]
    pub fn new(id: &str, model: &str, created: i64) -> Self {
        let fields = json!({"id": id, "object": "chat.completion.chunk", "created": created, "model": model});
        let object = fields.to_string();
        Self { prefix: object.trim_end_matches('}').to_owned() }
    }

    /// The first event, with the role.
    #[must_use]
    pub fn role(&self) -> Bytes {
        self.choice(0, &json!({"role": "assistant", "content": ""}), None)
    }

    /// The event for a delta of a choice; empty if the format has no event for it.
    #[must_use]
    pub fn delta(&self, choice: u16, kind: &DeltaKind) -> Bytes {
        match kind {
            DeltaKind::Text(text) => self.choice(choice, &json!({"content": text}), None),
            DeltaKind::Reasoning(text) => self.choice(choice, &json!({"reasoning_content": text}), None),
            DeltaKind::Refusal(text) => self.choice(choice, &json!({"refusal": text}), None),
            DeltaKind::ToolCall(call) => self.choice(choice, &json!({"tool_calls": [tool_call_json(call)]}), None),
            DeltaKind::Finish(reason) => self.choice(choice, &json!({}), Some(reason)),
            DeltaKind::Usage(usage) => self.event(&json!([]), Some(usage)),
            // Every chunk has the model name already; pass-through data is not part of a chat.
            DeltaKind::Model(_) | DeltaKind::Opaque(_) => Bytes::new(),
        }
    }

    /// The end signal of a stream.
    #[must_use]
    pub fn done() -> Bytes {
        Bytes::from_static(b"data: [DONE]\n\n")
    }

    fn choice(&self, choice: u16, delta: &Value, finish_reason: Option<&FinishReason>) -> Bytes {
        let finish_reason = finish_reason.map(FinishReason::as_str);
        self.event(&json!([{"index": choice, "delta": delta, "finish_reason": finish_reason}]), None)
    }

    fn event(&self, choices: &Value, usage: Option<&Usage>) -> Bytes {
        let mut out = BytesMut::with_capacity(self.prefix.len() + 128);
        out.put_slice(b"data: ");
        out.put_slice(self.prefix.as_bytes());
        out.put_slice(b",\"choices\":");
        out.put_slice(choices.to_string().as_bytes());
        if let Some(usage) = usage {
            out.put_slice(b",\"usage\":");
            out.put_slice(usage_json(usage).to_string().as_bytes());
        }
        out.put_slice(b"}\n\n");
        out.freeze()
    }
}

/// A complete response, with the answer of each choice.
#[must_use]
pub fn response_body(id: &str, model: &str, created: i64, choices: &[(u16, Answer)]) -> Value {
    let encoded_choices = choices.iter().map(|(index, answer)| {
        let mut message = json!({"role": "assistant", "content": answer.text});
        if !answer.refusal.is_empty() {
            message["refusal"] = answer.refusal.as_str().into();
        }
        if !answer.reasoning.is_empty() {
            message["reasoning_content"] = answer.reasoning.as_str().into();
        }
        if !answer.tool_calls.is_empty() {
            message["tool_calls"] = answer.tool_calls.iter().map(tool_call_json).collect();
        }
        let finish_reason = answer.finish_reason.as_ref().map(FinishReason::as_str);
        json!({"index": index, "message": message, "finish_reason": finish_reason})
    });
    let mut body = json!({
        "id": id,
        "object": "chat.completion",
        "created": created,
        "model": model,
        "choices": encoded_choices.collect::<Vec<_>>(),
    });
    if let Some(usage) = choices.iter().find_map(|(_, answer)| answer.usage.as_ref()) {
        body["usage"] = usage_json(usage);
    }
    body
}

/// An error body.
#[must_use]
pub fn error_body(class: ErrorClass, code: &str, message: &str) -> Value {
    let error_type = match class {
        ErrorClass::Auth => "authentication_error",
        ErrorClass::Forbidden => "permission_error",
        ErrorClass::Rate => "rate_limit_error",
        ErrorClass::Quota => "insufficient_quota",
        ErrorClass::Request | ErrorClass::Context | ErrorClass::Filter | ErrorClass::Model => "invalid_request_error",
        ErrorClass::Overloaded => "overloaded_error",
        _ => "server_error",
    };
    json!({"error": {"message": message, "type": error_type, "param": null, "code": code}})
}

/// A model, as a list of models has it.
#[derive(Clone, Copy, Debug)]
pub struct ListedModel<'a> {
    /// The id.
    pub id: &'a str,
    /// `owned_by`.
    pub owner: &'a str,
    /// The context window in tokens, if it is known.
    pub context_window: Option<u64>,
    /// The time of its creation, in Unix seconds.
    pub created: i64,
}

/// A model list of the entries that [`model_entry`] makes.
#[must_use]
pub fn model_list(entries: impl Iterator<Item = Value>) -> Value {
    json!({"object": "list", "data": entries.collect::<Vec<_>>()})
}

/// An entry of a model list. OpenAI's has no context window; clients read it under the name that OpenRouter uses, too.
#[must_use]
pub fn model_entry(model: &ListedModel<'_>) -> Value {
    let ListedModel { id, owner, context_window, created } = *model;
    let mut entry = json!({"id": id, "object": "model", "created": created, "owned_by": owner});
    if let Some(context_window) = context_window {
        entry["context"] = context_window.into();
        entry["context_length"] = context_window.into();
    }
    entry
}

fn tool_call_json(call: &ToolCall) -> Value {
    let function = json!({"name": call.name, "arguments": call.arguments});
    json!({"index": call.index, "id": call.id, "type": "function", "function": function})
}

fn usage_json(usage: &Usage) -> Value {
    let (input, output) = (usage.input.unwrap_or(0), usage.output.unwrap_or(0));
    let mut json = json!({"prompt_tokens": input, "completion_tokens": output, "total_tokens": input + output});
    if let Some(cached) = usage.cached {
        json["prompt_tokens_details"] = json!({"cached_tokens": cached});
    }
    if let Some(reasoning) = usage.reasoning {
        json["completion_tokens_details"] = json!({"reasoning_tokens": reasoning});
    }
    json
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        model::{Delta, target::DecodeOptions},
        protocol::{Protocol, ResponseHead, StreamEnd, StreamOutcome, openai::OpenAiChat, reply_reader::ReplyReader},
    };

    fn decode(body: &[u8]) -> (Answer, StreamOutcome) {
        let head = ResponseHead { status: http::StatusCode::OK, headers: Arc::default() };
        let mut reader = ReplyReader::new(OpenAiChat.decoder(
            &ModelRequest::Chat(ChatRequest::default()),
            &DecodeOptions::default(),
            &head,
        ));
        let mut out: Vec<Delta> = Vec::new();
        reader.push(body, &mut out).expect("valid response");
        let outcome = reader.finish(StreamEnd::Eof, &mut out).expect("valid response");
        let mut answer = Answer::default();
        for delta in &out {
            answer.add(delta);
        }
        (answer, outcome)
    }

    #[test]
    fn written_responses_are_decoded_to_the_same_answer() {
        let usage = Usage { input: Some(3), output: Some(9), cached: Some(1), reasoning: Some(4), estimated: false };
        let call = ToolCall { index: 0, id: "c".into(), name: "f".into(), arguments: "{}".into() };
        let kinds = [
            DeltaKind::Reasoning("hm".into()),
            DeltaKind::Text("a\"b\n".into()),
            DeltaKind::ToolCall(call),
            DeltaKind::Finish(FinishReason::Length),
            DeltaKind::Usage(usage),
        ];
        let writer = ChunkWriter::new("id", "m", 0);
        let mut stream = writer.role().to_vec();
        for kind in &kinds {
            stream.extend_from_slice(&writer.delta(0, kind));
        }
        stream.extend_from_slice(&ChunkWriter::done());
        let (streamed, outcome) = decode(&stream);
        assert_eq!(outcome, StreamOutcome::Finished(FinishReason::Length));
        assert_eq!((streamed.text.as_str(), streamed.reasoning.as_str()), ("a\"b\n", "hm"));
        assert_eq!((streamed.usage, streamed.tool_calls.len()), (Some(usage), 1));
        let (single, _) = decode(response_body("id", "m", 0, &[(0, streamed.clone())]).to_string().as_bytes());
        assert_eq!((single.text, single.reasoning, single.usage), (streamed.text, streamed.reasoning, streamed.usage));
    }

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

    #[test]
    fn usage_only_chunk_is_detected() {
        assert!(is_usage_only(br#"{"choices":[],"usage":{"prompt_tokens":1}}"#));
        for other in
            [r#"{"choices":[{"delta":{}}],"usage":{}}"#, r#"{"choices":[]}"#, r#"{"choices":[],"usage":null}"#, "x"]
        {
            assert!(!is_usage_only(other.as_bytes()), "{other}");
        }
    }
}
