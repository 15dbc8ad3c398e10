//! The server's side of the OpenAI chat format: a request is read, a reply or an error is written.
//!
//! Owns the shapes that clients rely on. Refuses sockets: whoever serves (the mock, later the gateway) brings them.

use bytes::{BufMut, Bytes, BytesMut};
use serde::Deserialize;
use serde_json::{Value, json};

use super::loose::{List, Number, Object, Text};
use crate::chat::{DeltaKind, ErrorClass, FinishReason, ToolCall, Usage};

/// What a server needs of a chat request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The model's name.
    pub model: String,
    /// Whether the reply is to be streamed.
    pub stream: bool,
    /// Whether a streamed reply is to end with its usage.
    pub include_usage: bool,
    /// Upper limit of the answer, in tokens.
    pub max_tokens: Option<u64>,
    /// The text of all messages.
    pub prompt: String,
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
    content: Value,
}

/// Reads a chat request.
///
/// # Errors
/// A message for the client when the body is no chat request.
pub fn parse_chat(body: &[u8]) -> Result<Asked, String> {
    let request: WireRequest<'_> =
        serde_json::from_slice(body).map_err(|error| format!("the body is not JSON: {error}"))?;
    let Some(messages) = request.messages else { return Err("`messages` is missing".into()) };
    if request.model.as_str().is_empty() {
        return Err("`model` is missing".into());
    }
    let prompt = messages.0.iter().map(|message| text_of(&message.content)).collect::<Vec<_>>().join("\n");
    Ok(Asked {
        stream: request.stream.unwrap_or(false),
        include_usage: request.stream_options.0.and_then(|options| options.include_usage).unwrap_or(false),
        max_tokens: request.max_completion_tokens.0.or(request.max_tokens.0),
        model: request.model.into_string(),
        prompt,
    })
}

fn text_of(content: &Value) -> String {
    match content {
        Value::String(text) => text.clone(),
        Value::Array(parts) => parts.iter().filter_map(|part| part.get("text")?.as_str()).collect(),
        _ => String::new(),
    }
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
        self.choice(&json!({"role": "assistant", "content": ""}), None)
    }

    /// The event for one delta.
    #[must_use]
    pub fn delta(&self, kind: &DeltaKind) -> Bytes {
        match kind {
            DeltaKind::Text(text) => self.choice(&json!({"content": text}), None),
            DeltaKind::Reasoning(text) => self.choice(&json!({"reasoning_content": text}), None),
            DeltaKind::Refusal(text) => self.choice(&json!({"refusal": text}), None),
            DeltaKind::ToolCall(call) => self.choice(&json!({"tool_calls": [tool_call(call)]}), None),
            DeltaKind::Finish(reason) => self.choice(&json!({}), Some(reason)),
            DeltaKind::Usage(usage) => self.event(&json!([]), Some(usage)),
            // The name stands in every chunk already.
            DeltaKind::Model(_) => Bytes::new(),
        }
    }

    /// The end of the stream.
    #[must_use]
    pub fn done() -> Bytes {
        Bytes::from_static(b"data: [DONE]\n\n")
    }

    fn choice(&self, delta: &Value, finish: Option<&FinishReason>) -> Bytes {
        self.event(&json!([{"index": 0, "delta": delta, "finish_reason": finish.map(FinishReason::as_str)}]), None)
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

/// A whole reply in one object.
#[must_use]
pub fn reply(id: &str, model: &str, created: i64, answer: &crate::chat::Answer) -> Value {
    let mut message = json!({"role": "assistant", "content": answer.text});
    if !answer.reasoning.is_empty() {
        message["reasoning_content"] = answer.reasoning.as_str().into();
    }
    if !answer.tool_calls.is_empty() {
        message["tool_calls"] = answer.tool_calls.iter().map(tool_call).collect();
    }
    let finish = answer.finish.as_ref().map(FinishReason::as_str);
    let mut reply = json!({
        "id": id,
        "object": "chat.completion",
        "created": created,
        "model": model,
        "choices": [{"index": 0, "message": message, "finish_reason": finish}],
    });
    if let Some(usage) = &answer.usage {
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

/// A list of models.
#[must_use]
pub fn models<'a>(ids: impl Iterator<Item = &'a str>, owner: &str) -> Value {
    let data: Vec<_> = ids.map(|id| json!({"id": id, "object": "model", "created": 0, "owned_by": owner})).collect();
    json!({"object": "list", "data": data})
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
        chat::{Answer, Delta},
        protocol::{Ending, Protocol, ResponseHead, StreamEnd, openai_chat::OpenAiChat, reply::ReplyReader},
        target::DecodeOptions,
    };

    fn read(body: &[u8]) -> (Answer, Ending) {
        let head = ResponseHead { status: http::StatusCode::OK, headers: Arc::default() };
        let mut reader = ReplyReader::new(OpenAiChat.decoder(&DecodeOptions::default(), &head));
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
            stream.extend_from_slice(&writer.delta(kind));
        }
        stream.extend_from_slice(&ChunkWriter::done());
        let (streamed, ending) = read(&stream);
        assert_eq!(ending, Ending::Finished(FinishReason::Length));
        assert_eq!((streamed.text.as_str(), streamed.reasoning.as_str()), ("a\"b\n", "hm"));
        assert_eq!((streamed.usage, streamed.tool_calls.len()), (Some(usage), 1));
        let (whole, _) = read(reply("id", "m", 0, &streamed).to_string().as_bytes());
        assert_eq!((whole.text, whole.reasoning, whole.usage), (streamed.text, streamed.reasoning, streamed.usage));
    }

    #[test]
    fn requests_are_read_and_refused_with_words() {
        let body = br#"{"model":"m","stream":true,"stream_options":{"include_usage":true},"max_tokens":5,
            "messages":[{"role":"user","content":[{"type":"text","text":"hi"}]}],"unknown":{}}"#;
        let asked = parse_chat(body).expect("a request");
        assert_eq!((asked.model.as_str(), asked.prompt.as_str(), asked.max_tokens), ("m", "hi", Some(5)));
        assert!(asked.stream && asked.include_usage);
        for (body, word) in [("{", "JSON"), ("{}", "messages"), (r#"{"messages":[]}"#, "model")] {
            assert!(parse_chat(body.as_bytes()).expect_err("refused").contains(word));
        }
    }
}
