//! Writes responses, errors and model lists in the OpenAI format, for the gateway and the mock.

use bytes::{BufMut, Bytes, BytesMut};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::model::{Answer, DeltaKind, ErrorClass, FinishReason, ToolCall, Usage};

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
            DeltaKind::Model(_) | DeltaKind::Opaque(_) | DeltaKind::OpaqueReasoning(_) => Bytes::new(),
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
        model::{ChatRequest, Delta, ModelRequest, target::DecodeOptions},
        protocol::{
            Protocol, ResponseHead, SentRequest, StreamEnd, StreamOutcome, openai::OpenAiChat,
            reply_reader::ReplyReader,
        },
    };

    fn decode(body: &[u8]) -> (Answer, StreamOutcome) {
        let head = ResponseHead { status: http::StatusCode::OK, headers: Arc::default() };
        let mut reader = ReplyReader::new(OpenAiChat.decoder(
            &ModelRequest::Chat(ChatRequest::default()),
            &DecodeOptions::default(),
            &head,
            SentRequest::default(),
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
    fn usage_only_chunk_is_detected() {
        assert!(is_usage_only(br#"{"choices":[],"usage":{"prompt_tokens":1}}"#));
        for other in
            [r#"{"choices":[{"delta":{}}],"usage":{}}"#, r#"{"choices":[]}"#, r#"{"choices":[],"usage":null}"#, "x"]
        {
            assert!(!is_usage_only(other.as_bytes()), "{other}");
        }
    }
}
