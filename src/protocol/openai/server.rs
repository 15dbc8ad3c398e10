//! The server's side of the OpenAI chat format: a request is read, a reply or an error is written.
//!
//! Owns the shapes that clients rely on. Refuses sockets: whoever serves (the mock, the gateway) brings them.

use bytes::{BufMut, Bytes, BytesMut};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::model::{
    Answer, Call, ChatRequest, DeltaKind, ErrorClass, FinishReason, Image, LIMITS, Message, OpaqueRequest, Original,
    Params, Part, Role, Service, ToolCall, Usage,
};
use crate::protocol::{
    error::shortened,
    framing::lenient::{List, Number, Object, Text},
    openai,
};

/// A request that was read.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The model's name.
    pub model: String,
    /// Whether a streamed reply is to end with its usage.
    pub include_usage: bool,
    /// What is asked, with the body it came in.
    pub call: Call,
}

/// Why a body is no request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// What is wrong.
    pub message: String,
    /// The field that is.
    pub param: Option<&'static str>,
}

impl Refusal {
    fn new(message: impl Into<String>, param: Option<&'static str>) -> Self {
        // It may quote what was sent, however long.
        Self { message: shortened(&message.into()), param }
    }
}

impl Asked {
    /// All that is said in a chat.
    #[must_use]
    pub fn prompt(&self) -> String {
        let messages = self.call.chat().map(|chat| chat.messages.as_slice()).unwrap_or_default();
        messages.iter().map(Message::words).collect::<Vec<_>>().join("\n")
    }
}

#[derive(Deserialize)]
struct WireRequest<'a> {
    #[serde(borrow, default)]
    model: Text<'a>,
    #[serde(default)]
    stream: Option<bool>,
    #[serde(default)]
    stream_options: Object<StreamOptions>,
    #[serde(default)]
    max_tokens: Number,
    #[serde(default)]
    max_completion_tokens: Number,
    #[serde(default)]
    n: Number,
    #[serde(borrow, default)]
    user: Text<'a>,
    #[serde(borrow, default)]
    prompt_cache_key: Text<'a>,
    #[serde(default)]
    tools: Option<Value>,
    #[serde(default)]
    messages: Option<List<WireMessage>>,
}

#[derive(Deserialize)]
struct StreamOptions {
    #[serde(default)]
    include_usage: Option<bool>,
}

#[derive(Deserialize)]
struct WireMessage {
    #[serde(default)]
    role: Value,
    #[serde(default)]
    content: Value,
}

/// Reads a chat request.
///
/// # Errors
/// Why the body is none.
pub fn parse_chat(body: &Bytes) -> Result<Asked, Refusal> {
    let request: WireRequest<'_> = read(body)?;
    let Some(messages) = request.messages else { return Err(Refusal::new("`messages` is missing", Some("messages"))) };
    let mut params = Params { max_tokens: request.max_tokens.0, ..Params::default() };
    let text = |text: Text<'_>| Some(text.into_string()).filter(|text| !text.is_empty()).map(Value::from);
    let extra = [
        (LIMITS[1], request.max_completion_tokens.0.map(Value::from)),
        ("n", request.n.0.map(Value::from)),
        ("user", text(request.user)),
        ("prompt_cache_key", text(request.prompt_cache_key)),
        ("tools", request.tools),
    ];
    params.extra = extra.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect();
    let model = named(request.model)?;
    let chat = ChatRequest {
        messages: messages.0.into_iter().map(message).collect(),
        params,
        stream: request.stream.unwrap_or(false),
        original: Some(Original { protocol: openai::ID, body: body.clone() }),
        ..ChatRequest::default()
    };
    Ok(Asked { model, include_usage: wants_usage(request.stream_options), call: Call::Chat(chat) })
}

/// Reads a request that is only passed on.
///
/// # Errors
/// Why the body is none.
pub fn parse_opaque(service: Service, body: &Bytes) -> Result<Asked, Refusal> {
    #[derive(Deserialize)]
    struct Named<'a> {
        #[serde(borrow, default)]
        model: Text<'a>,
        #[serde(default)]
        stream: Option<bool>,
        #[serde(default)]
        stream_options: Object<StreamOptions>,
    }
    let request: Named<'_> = read(body)?;
    let (model, stream) = (named(request.model)?, request.stream.unwrap_or(false));
    let include_usage = wants_usage(request.stream_options);
    let original = Original { protocol: openai::ID, body: body.clone() };
    Ok(Asked { model, include_usage, call: Call::Opaque(OpaqueRequest { service, original, stream }) })
}

fn read<'b, T: Deserialize<'b>>(body: &'b [u8]) -> Result<T, Refusal> {
    if body
        .trim_ascii_start()
        .first()
        .is_some_and(|first| matches!(first, b'[' | b'"' | b'0'..=b'9' | b'-' | b'n' | b't' | b'f'))
    {
        return Err(Refusal::new("the body is no JSON object", None));
    }
    serde_json::from_slice(body).map_err(|error| {
        let what = if error.is_data() { "a field of the body has a wrong type" } else { "the body is not JSON" };
        Refusal::new(format!("{what}: {error}"), None)
    })
}

fn named(model: Text<'_>) -> Result<String, Refusal> {
    match model.into_string() {
        model if model.is_empty() => Err(Refusal::new("`model` is missing", Some("model"))),
        model => Ok(model),
    }
}

fn wants_usage(options: Object<StreamOptions>) -> bool {
    options.0.and_then(|options| options.include_usage).unwrap_or(false)
}

fn message(message: WireMessage) -> Message {
    let role = match message.role.as_str() {
        Some("system" | "developer") => Role::System,
        Some("assistant") => Role::Assistant,
        Some("tool" | "function") => Role::Tool,
        _ => Role::User,
    };
    let parts = match message.content {
        Value::String(text) => vec![Part::Text(text)],
        Value::Array(parts) => parts.into_iter().filter_map(part).collect(),
        _ => Vec::new(),
    };
    Message { role, parts }
}

fn part(mut part: Value) -> Option<Part> {
    if let Value::String(text) = part {
        return Some(Part::Text(text));
    }
    if let Some(Value::String(text)) = part.get_mut("text").map(Value::take) {
        return Some(Part::Text(text));
    }
    let image = part.get_mut("image_url")?;
    let url = if image.is_object() { image.get_mut("url")?.take() } else { image.take() };
    match url {
        Value::String(url) => Some(Part::Image(Image::Url(url))),
        _ => None,
    }
}

/// Whether a chunk says what was used and nothing else: the one that only comes where it is asked for.
#[must_use]
pub fn is_usage_only(chunk: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Peek {
        #[serde(default)]
        choices: Option<Vec<serde::de::IgnoredAny>>,
        #[serde(default)]
        usage: Option<serde::de::IgnoredAny>,
    }
    let peek: Option<Peek> = serde_json::from_slice(chunk).ok();
    peek.is_some_and(|peek| peek.usage.is_some() && peek.choices.is_some_and(|choices| choices.is_empty()))
}

/// Writes the events of one streamed reply.
#[derive(Clone, Debug)]
pub struct ChunkWriter {
    /// Everything of a chunk before its choices, JSON text that is the same in each.
    prefix: String,
}

impl ChunkWriter {
    /// For a reply with this id (any text), from this model.
    #[must_use]
    pub fn new(id: &str, model: &str, created: i64) -> Self {
        let head = json!({"id": id, "object": "chat.completion.chunk", "created": created, "model": model});
        let head = head.to_string();
        Self { prefix: head.trim_end_matches('}').to_owned() }
    }

    /// The first event, which names the role.
    #[must_use]
    pub fn role(&self) -> Bytes {
        self.choice(0, &json!({"role": "assistant", "content": ""}), None)
    }

    /// The event for one delta of a choice.
    #[must_use]
    pub fn delta(&self, choice: u16, kind: &DeltaKind) -> Bytes {
        match kind {
            DeltaKind::Text(text) => self.choice(choice, &json!({"content": text}), None),
            DeltaKind::Reasoning(text) => self.choice(choice, &json!({"reasoning_content": text}), None),
            DeltaKind::Refusal(text) => self.choice(choice, &json!({"refusal": text}), None),
            DeltaKind::ToolCall(call) => self.choice(choice, &json!({"tool_calls": [tool_call(call)]}), None),
            DeltaKind::Finish(reason) => self.choice(choice, &json!({}), Some(reason)),
            DeltaKind::Usage(usage) => self.event(&json!([]), Some(usage)),
            // The name stands in every chunk already; what is only passed on is no chat.
            DeltaKind::Model(_) | DeltaKind::Opaque(_) => Bytes::new(),
        }
    }

    /// The end of the stream.
    #[must_use]
    pub fn done() -> Bytes {
        Bytes::from_static(b"data: [DONE]\n\n")
    }

    fn choice(&self, choice: u16, delta: &Value, finish: Option<&FinishReason>) -> Bytes {
        self.event(&json!([{"index": choice, "delta": delta, "finish_reason": finish.map(FinishReason::as_str)}]), None)
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

/// A whole reply in one object, with the answer of each choice.
#[must_use]
pub fn reply(id: &str, model: &str, created: i64, choices: &[(u16, Answer)]) -> Value {
    let written = choices.iter().map(|(index, answer)| {
        let mut message = json!({"role": "assistant", "content": answer.text});
        if !answer.refusal.is_empty() {
            message["refusal"] = answer.refusal.as_str().into();
        }
        if !answer.reasoning.is_empty() {
            message["reasoning_content"] = answer.reasoning.as_str().into();
        }
        if !answer.tool_calls.is_empty() {
            message["tool_calls"] = answer.tool_calls.iter().map(tool_call).collect();
        }
        let finish = answer.finish.as_ref().map(FinishReason::as_str);
        json!({"index": index, "message": message, "finish_reason": finish})
    });
    let mut reply = json!({
        "id": id,
        "object": "chat.completion",
        "created": created,
        "model": model,
        "choices": written.collect::<Vec<_>>(),
    });
    if let Some(usage) = choices.iter().find_map(|(_, answer)| answer.usage.as_ref()) {
        reply["usage"] = usage_json(usage);
    }
    reply
}

/// An error as clients expect it.
#[must_use]
pub fn error(class: ErrorClass, code: &str, message: &str) -> Value {
    let kind = match class {
        ErrorClass::Auth => "authentication_error",
        ErrorClass::Forbidden => "permission_error",
        ErrorClass::Rate => "rate_limit_error",
        ErrorClass::Quota => "insufficient_quota",
        ErrorClass::Request | ErrorClass::Context | ErrorClass::Filter | ErrorClass::Model => "invalid_request_error",
        ErrorClass::Overloaded => "overloaded_error",
        _ => "server_error",
    };
    json!({"error": {"message": message, "type": kind, "param": null, "code": code}})
}

/// A list of models, each with its owner.
#[must_use]
pub fn models<'a>(models: impl Iterator<Item = (&'a str, &'a str)>) -> Value {
    let data: Vec<_> = models.map(|(id, owner)| model(id, owner)).collect();
    json!({"object": "list", "data": data})
}

/// One model.
#[must_use]
pub fn model(id: &str, owner: &str) -> Value {
    json!({"id": id, "object": "model", "created": 0, "owned_by": owner})
}

fn tool_call(call: &ToolCall) -> Value {
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
        protocol::{Ending, Protocol, ResponseHead, StreamEnd, openai::OpenAiChat, reply_reader::ReplyReader},
    };

    fn read(body: &[u8]) -> (Answer, Ending) {
        let head = ResponseHead { status: http::StatusCode::OK, headers: Arc::default() };
        let mut reader =
            ReplyReader::new(OpenAiChat.decoder(&Call::Chat(ChatRequest::default()), &DecodeOptions::default(), &head));
        let mut out: Vec<Delta> = Vec::new();
        reader.push(body, &mut out).expect("an answer");
        let ending = reader.finish(StreamEnd::Eof, &mut out).expect("an answer");
        let mut answer = Answer::default();
        for delta in &out {
            answer.add(delta);
        }
        (answer, ending)
    }

    #[test]
    fn what_is_written_is_read_back() {
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
        let (streamed, ending) = read(&stream);
        assert_eq!(ending, Ending::Finished(FinishReason::Length));
        assert_eq!((streamed.text.as_str(), streamed.reasoning.as_str()), ("a\"b\n", "hm"));
        assert_eq!((streamed.usage, streamed.tool_calls.len()), (Some(usage), 1));
        let (whole, _) = read(reply("id", "m", 0, &[(0, streamed.clone())]).to_string().as_bytes());
        assert_eq!((whole.text, whole.reasoning, whole.usage), (streamed.text, streamed.reasoning, streamed.usage));
    }

    #[test]
    fn requests_are_read_and_refused_with_words() {
        let body = br#"{"model":"m","stream":true,"stream_options":{"include_usage":true},"max_tokens":5,
            "messages":[{"role":"user","content":[{"type":"text","text":"hi"},{"image_url":{"url":"data:x"}}]}],
            "unknown":{"big":1e400}}"#;
        let asked = parse_chat(&Bytes::from_static(body)).expect("a request");
        assert_eq!((asked.model.as_str(), asked.include_usage), ("m", true));
        assert!(asked.call.streams() && asked.call.has_images() && !asked.call.has_tools());
        assert_eq!(asked.call.max_tokens(), Some(5));
        let chat = asked.call.chat().expect("a chat");
        assert_eq!(chat.messages[0].words(), "hi");
        assert_eq!(chat.original.as_ref().map(|original| &original.body[..]), Some(&body[..]));
        for (body, word) in [
            ("{", "JSON"),
            ("[]", "no JSON object"),
            ("", "JSON"),
            ("{}", "messages"),
            (r#"{"messages":[]}"#, "model"),
            (r#"{"model":"m","messages":[],"stream":"yes"}"#, "type"),
        ] {
            let refusal = parse_chat(&Bytes::from_static(body.as_bytes())).expect_err("refused");
            assert!(refusal.message.contains(word), "{body}: {refusal}");
        }
        let deep = [r#"{"model":"m","messages":[],"tools":"#, &"[".repeat(100_000), &"]".repeat(100_000), "}"].concat();
        assert!(parse_chat(&deep.into()).is_err());
    }

    #[test]
    fn other_requests_are_read_for_their_model_alone() {
        let body = Bytes::from_static(br#"{"input":[[1,2],[3]],"model":"e","encoding_format":"base64"}"#);
        let asked = parse_opaque(Service::Embeddings, &body).expect("a request");
        assert_eq!((asked.model.as_str(), asked.call.streams()), ("e", false));
        assert!(matches!(asked.call, Call::Opaque(opaque) if opaque.original.body == body));
    }

    #[test]
    fn a_chunk_of_usage_alone_is_told_from_others() {
        assert!(is_usage_only(br#"{"choices":[],"usage":{"prompt_tokens":1}}"#));
        for other in
            [r#"{"choices":[{"delta":{}}],"usage":{}}"#, r#"{"choices":[]}"#, r#"{"choices":[],"usage":null}"#, "x"]
        {
            assert!(!is_usage_only(other.as_bytes()), "{other}");
        }
    }
}
