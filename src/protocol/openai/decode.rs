//! Frames to deltas.
//!
//! Owns what a chunk adds, what ends a reply and what is an error in a 200. Refuses to decide what follows from an
//! ending. The rules, with the services that made them necessary, are in `docs/wire.md`.

use serde_json::Value;

use super::{
    choice::{ChoiceState, MOST_TOOL_CALLS},
    error,
    wire::{Choice, Chunk, Content, Function, Message},
};
use crate::{
    model::{Delta, DeltaKind, ErrorClass, FinishReason, ToolCall, target::DecodeOptions},
    protocol::{
        ApiError, Decoder, Ending, Flow, Frame, FrameKind, ServerKind, StreamEnd,
        framing::lenient::without_lone_surrogates, think_tags::Piece,
    },
};

/// Reads one chat reply, streamed or whole.
#[derive(Debug)]
pub(super) struct ChatDecoder {
    options: DecodeOptions,
    server: ServerKind,
    choices: Vec<ChoiceState>,
    /// The model's name was passed on.
    model_sent: bool,
    /// The service's own end mark was seen, or the body was one whole object.
    done: bool,
    /// How far the reply has come.
    came: Came,
    /// The reply has more of these than any answer.
    too_many: Option<&'static str>,
    /// The reply was one object, not a stream.
    whole_body: bool,
    /// That object broke off in the middle of its JSON.
    broken_body: bool,
}

/// What has come of a reply, as far as it matters to an error after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Came {
    Nothing,
    /// Thinking, which can be taken back.
    Thoughts,
    /// A piece of the answer.
    Answer,
}

/// A service that sends more choices than this is not answering our request.
const MOST_CHOICES: u64 = 128;

impl ChatDecoder {
    pub(super) fn new(options: DecodeOptions, server: ServerKind) -> Self {
        Self {
            options,
            server,
            choices: Vec::new(),
            model_sent: false,
            done: false,
            came: Came::Nothing,
            too_many: None,
            whole_body: false,
            broken_body: false,
        }
    }

    fn choice(&mut self, index: u16) -> &mut ChoiceState {
        let at = self.choices.iter().position(|choice| choice.index == index).unwrap_or_else(|| {
            self.choices.push(ChoiceState::new(index, self.options));
            self.choices.len() - 1
        });
        &mut self.choices[at]
    }

    fn ended_softly(&self) -> bool {
        !self.choices.is_empty() && self.choices.iter().all(|choice| choice.finish.is_some())
    }

    /// One JSON object. `Ok(None)`: it could not be read.
    fn object(&mut self, json: &str, event: &[u8], out: &mut Vec<Delta>) -> Result<Option<Flow>, ApiError> {
        let Ok(chunk) = serde_json::from_str::<Chunk<'_>>(json) else { return Ok(None) };
        let suspicious = chunk.error.0
            || chunk.base_resp.0
            || event == b"error"
            || chunk.object.as_str() == "error"
            || (chunk.choices.0.is_empty() && chunk.usage.0.is_none());
        let failure = if suspicious { error_in(json, event) } else { None };
        self.chunk(chunk, out);
        if let Some(is_error) = failure {
            return Err(error::in_stream(&is_error, self.server, self.came));
        }
        if let Some(choice) = self.choices.iter().find(|choice| matches!(choice.finish, Some(FinishReason::Error(_)))) {
            let word = choice.finish.as_ref().map_or("error", |finish| match finish {
                FinishReason::Error(word) => word.as_str(),
                _ => finish.as_str(),
            });
            let class = if self.came == Came::Nothing { ErrorClass::InStream } else { ErrorClass::Cut };
            let error = ApiError::new(class, format!("the service ended the answer with `{word}`"));
            return Err(ApiError { status: Some(200), server: self.server, ..error });
        }
        if let Some(what) = self.too_many {
            let message = format!("the reply has too many {what}");
            return Err(ApiError { server: self.server, ..ApiError::new(ErrorClass::Garbled, message) });
        }
        Ok(Some(if self.ended_softly() { Flow::SoftEnd } else { Flow::More }))
    }

    fn chunk(&mut self, chunk: Chunk<'_>, out: &mut Vec<Delta>) {
        if !self.model_sent && !chunk.model.as_str().is_empty() {
            self.model_sent = true;
            out.push(Delta { choice: 0, kind: DeltaKind::Model(chunk.model.into_string()) });
        }
        let mut usage = chunk.usage.0.or(chunk.x_groq.0.and_then(|groq| groq.usage.0));
        for mut choice in chunk.choices.0 {
            usage = usage.or(choice.usage.0.take());
            self.one_choice(choice, out);
        }
        if let Some(usage) = usage.and_then(|usage| usage.usage()) {
            out.push(Delta { choice: 0, kind: DeltaKind::Usage(usage) });
        }
    }

    fn one_choice(&mut self, choice: Choice<'_>, out: &mut Vec<Delta>) {
        let index = choice.index.0.unwrap_or(0);
        if index >= MOST_CHOICES {
            self.too_many = Some("choices");
            return;
        }
        #[expect(clippy::cast_possible_truncation, reason = "checked against MOST_CHOICES")]
        let index = index as u16;
        match choice.delta.0.or(choice.message.0) {
            Some(message) => self.message(index, *message, out),
            None => self.content(index, choice.text, out),
        }
        if let Some(reason) = finish_reason(choice.finish_reason.as_str()) {
            // A reason may come twice (usage chunks repeat it); the first one counts.
            let state = self.choice(index);
            if state.finish.is_none() {
                state.finish = Some(reason);
            }
        }
        self.choice(index);
    }

    fn message(&mut self, index: u16, message: Message<'_>, out: &mut Vec<Delta>) {
        // Services in the middle of a rename send both: they hold the same text.
        let reasoning = match message.reasoning_content.into_text() {
            text if text.is_empty() => message.reasoning.into_text(),
            text => text,
        };
        self.put(index, DeltaKind::Reasoning(reasoning), out);
        self.content(index, message.content, out);
        self.put(index, DeltaKind::Refusal(message.refusal.into_text()), out);
        for (position, call) in (0..).zip(message.tool_calls.0) {
            let function = call.function.0.unwrap_or_default();
            self.tool_call(index, call.index.0.unwrap_or(position), call.id.into_string(), function, out);
        }
        if let Some(function) = message.function_call.0 {
            self.tool_call(index, 0, String::new(), function, out);
        }
    }

    fn tool_call(&mut self, choice: u16, index: u64, id: String, function: Function<'_>, out: &mut Vec<Delta>) {
        let (name, arguments) = (function.name.into_string(), function.arguments.into_string());
        let index = self.choice(choice).call(index, &id, &name);
        match u32::try_from(index) {
            Ok(index) if index < MOST_TOOL_CALLS => {
                self.put(choice, DeltaKind::ToolCall(ToolCall { index, id, name, arguments }), out);
            }
            _ => self.too_many = Some("calls of tools"),
        }
    }

    fn content(&mut self, index: u16, content: Content, out: &mut Vec<Delta>) {
        match content {
            Content::Nothing => {}
            Content::Text(text) => {
                let text = if self.options.cumulative_deltas { self.choice(index).news(text) } else { text };
                if self.choice(index).think.is_past() {
                    self.put(index, DeltaKind::Text(text), out);
                    return;
                }
                let mut pieces = Vec::new();
                self.choice(index).think.push(text, &mut pieces);
                self.pieces(index, pieces, out);
            }
            Content::Parts(parts) => {
                for part in parts {
                    self.put(index, DeltaKind::Reasoning(part.thinking.into_text()), out);
                    self.put(index, DeltaKind::Text(part.text.into_text()), out);
                }
            }
        }
    }

    fn pieces(&mut self, index: u16, pieces: Vec<Piece>, out: &mut Vec<Delta>) {
        for piece in pieces {
            let kind = match piece {
                Piece::Text(text) => DeltaKind::Text(text),
                Piece::Reasoning(text) => DeltaKind::Reasoning(text),
            };
            self.put(index, kind, out);
        }
    }

    /// Passes a delta on, unless it adds nothing.
    fn put(&mut self, choice: u16, kind: DeltaKind, out: &mut Vec<Delta>) {
        let empty = match &kind {
            DeltaKind::Text(text) | DeltaKind::Reasoning(text) | DeltaKind::Refusal(text) => text.is_empty(),
            DeltaKind::ToolCall(call) => *call == ToolCall { index: call.index, ..ToolCall::default() },
            DeltaKind::Usage(_) | DeltaKind::Finish(_) | DeltaKind::Model(_) | DeltaKind::Opaque(_) => false,
        };
        if !empty {
            if kind.is_output() {
                self.came = self.came.max(if kind.is_answer() { Came::Answer } else { Came::Thoughts });
            }
            out.push(Delta { choice, kind });
        }
    }

    /// What was lost on the way: the inner frame of two glued ones, escapes no parser takes, several objects in one
    /// event.
    fn rescued(&mut self, data: &str, event: &[u8], out: &mut Vec<Delta>) -> Result<Flow, ApiError> {
        if let Some(flow) = self.mended(data, event, out)? {
            return Ok(flow);
        }
        let (mut rest, mut lost, mut flow) = (data, false, None);
        while let Some((frame, after)) = first_frame(rest) {
            let read = match self.payload(frame, event, out)? {
                None => self.mended(frame, event, out)?,
                read => read,
            };
            lost |= read.is_none();
            flow = read.or(flow);
            rest = after;
            if flow == Some(Flow::End) {
                break;
            }
        }
        if let Some(flow) = flow.or(lost.then_some(Flow::Garbled)) {
            let over = flow == Flow::End || rest.trim().is_empty();
            return Ok(if lost || !over { Flow::Garbled } else { flow });
        }
        if let Some((_, inner)) = data.rsplit_once("data:")
            && let Some(flow) = self.payload(inner.trim(), event, out)?
        {
            return Ok(flow);
        }
        Ok(Flow::Garbled)
    }

    /// An object with escapes that stand for half a character.
    fn mended(&mut self, data: &str, event: &[u8], out: &mut Vec<Delta>) -> Result<Option<Flow>, ApiError> {
        match without_lone_surrogates(data) {
            Some(mended) => self.object(&mended, event, out),
            None => Ok(None),
        }
    }

    /// One payload: the end mark or an object.
    fn payload(&mut self, data: &str, event: &[u8], out: &mut Vec<Delta>) -> Result<Option<Flow>, ApiError> {
        if is_done(data) {
            self.done = true;
            return Ok(Some(Flow::End));
        }
        self.object(data, event, out)
    }

    fn body(&mut self, data: &str, out: &mut Vec<Delta>) -> Result<Flow, ApiError> {
        if data.starts_with('[')
            && let Some(Value::Array(items)) = tree(data)
            && items.first().is_some_and(|item| error::is_error(item, b""))
        {
            return Err(error::in_stream(&items[0], self.server, self.came));
        }
        if self.object(data, b"", out)?.is_none() {
            match serde_json::from_str::<serde::de::IgnoredAny>(data) {
                Err(problem) if problem.is_eof() => self.broken_body = true,
                _ => return self.rescued(data, b"", out),
            }
            return Ok(Flow::More);
        }
        self.done = true;
        self.whole_body = true;
        Ok(Flow::End)
    }
}

impl Decoder for ChatDecoder {
    fn frame(&mut self, frame: &Frame, out: &mut Vec<Delta>) -> Result<Flow, ApiError> {
        let data = std::str::from_utf8(&frame.data).expect("the framer delivers valid UTF-8").trim();
        match frame.kind {
            FrameKind::Page => Err(error::page(&frame.data, self.server)),
            FrameKind::Body => self.body(data, out),
            FrameKind::Event if data.is_empty() || data == "null" => {
                Ok(if self.ended_softly() { Flow::SoftEnd } else { Flow::More })
            }
            FrameKind::Event => match self.payload(data, &frame.event, out)? {
                Some(flow) => Ok(flow),
                None if frame.event.as_ref() == b"error" => {
                    Err(error::in_stream(&Value::from(data), self.server, self.came))
                }
                None => self.rescued(data, &frame.event, out),
            },
        }
    }

    fn finish(&mut self, _end: StreamEnd, out: &mut Vec<Delta>) -> Result<Ending, ApiError> {
        let mut rest = Vec::new();
        for choice in &mut self.choices {
            let mut pieces = Vec::new();
            choice.think.finish(&mut pieces);
            rest.push((choice.index, pieces));
        }
        for (index, pieces) in rest {
            self.pieces(index, pieces, out);
        }
        for choice in &self.choices {
            if let Some(reason) = &choice.finish {
                out.push(Delta { choice: choice.index, kind: DeltaKind::Finish(reason.clone()) });
            }
        }
        // One-API and new-api write `[DONE]` themselves when their upstream breaks off.
        let forged = self.server == ServerKind::OneApi && !self.whole_body;
        let first = self.choices.iter().find(|choice| choice.index == 0).or(self.choices.first());
        // Of several choices the first may have ended while another one broke off.
        let all = self.ended_softly() || self.done && !forged;
        if let Some(reason) = first.filter(|_| all).and_then(|choice| choice.finish.clone()) {
            return Ok(Ending::Finished(reason));
        }
        Ok(match self.came {
            Came::Nothing if self.broken_body => Ending::Cut,
            Came::Nothing => Ending::Empty,
            Came::Thoughts | Came::Answer if self.done && !forged => Ending::DoneOnly,
            Came::Thoughts | Came::Answer => Ending::Cut,
        })
    }
}

pub(super) fn error_in(json: &str, event: &[u8]) -> Option<Value> {
    tree(json).filter(|value| error::is_error(value, event))
}

/// The whole of a small JSON text; errors are small, and a tree takes many times the room of its text.
fn tree(json: &str) -> Option<Value> {
    const LARGEST: usize = 1024 * 1024;
    (json.len() <= LARGEST).then(|| serde_json::from_str(json).ok()).flatten()
}

/// The whole object or the end mark that `data` begins with, and what follows it: frames that were glued into one.
fn first_frame(data: &str) -> Option<(&str, &str)> {
    let data = data.trim_start();
    let data = data.strip_prefix("data:").unwrap_or(data).trim_start();
    if data.starts_with(DONE) {
        return Some(data.split_at(DONE.len()));
    }
    let mut values = serde_json::Deserializer::from_str(data).into_iter::<serde::de::IgnoredAny>();
    let whole = data.starts_with('{') && values.next().is_some_and(|value| value.is_ok());
    whole.then(|| data.split_at(values.byte_offset()))
}

const DONE: &str = "[DONE]";

pub(super) fn is_done(data: &str) -> bool {
    data.trim().trim_matches('"') == DONE
}

/// The common word for a service's own; `None` while there is none ("" and "null" are what some send meanwhile).
fn finish_reason(word: &str) -> Option<FinishReason> {
    Some(match word {
        "" | "null" | "None" => return None,
        "stop" | "eos" | "end_turn" | "STOP" | "stop_sequence" | "eos_token" | "COMPLETE" | "complete" => {
            FinishReason::Stop
        }
        "length" | "max_tokens" | "MAX_TOKENS" | "model_length" => FinishReason::Length,
        "content_filter" | "sensitive" | "SAFETY" | "content_filtered" | "RECITATION" | "refusal" => {
            FinishReason::ContentFilter
        }
        "tool_calls" | "function_call" | "tool_use" => FinishReason::ToolCalls,
        "error" | "network_error" | "ERROR" => FinishReason::Error(word.to_owned()),
        other => FinishReason::Other(other.to_owned()),
    })
}
