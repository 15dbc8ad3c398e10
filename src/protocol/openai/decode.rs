//! Decodes frames of a chat response into deltas, and detects its end and errors in a response with status 200.
//!
//! The rules are in `docs/wire.md`, with the services that require them.

use serde_json::Value;

use super::{
    choice::{ChoiceState, MAX_TOOL_CALLS},
    error,
    stream_errors::{OutputSeen, StreamErrors},
    wire::{Choice, Chunk, Content, Function, Message},
};

use crate::{
    model::{Delta, DeltaKind, ErrorClass, FinishReason, ToolCall, target::DecodeOptions},
    protocol::{
        CallError, Decoder, Flow, Frame, FrameKind, ServerKind, StreamEnd, StreamOutcome,
        framing::lenient::replace_lone_surrogates, think_tags::Segment,
    },
};

/// Decodes one chat response, streamed or as one object.
#[derive(Debug)]
pub(super) struct ChatDecoder {
    options: DecodeOptions,
    errors: StreamErrors,
    choices: Vec<ChoiceState>,
    /// The model name was emitted.
    model_emitted: bool,
    /// The end signal was seen, or the body was one complete object.
    done: bool,
    /// What the response has too many of (`choices` or `tool calls`), for the error message.
    exceeded_limit: Option<&'static str>,
    /// The response was one object, not a stream.
    single_body: bool,
    /// The JSON of that object is truncated.
    truncated_body: bool,
    /// The number of choices that were asked for.
    expected_choices: usize,
}

/// Maximum choices; a response with more is rejected as invalid.
const MAX_CHOICES: u64 = 128;

impl ChatDecoder {
    pub(super) fn new(options: DecodeOptions, errors: StreamErrors) -> Self {
        Self {
            options,
            errors,
            choices: Vec::new(),
            model_emitted: false,
            done: false,
            exceeded_limit: None,
            single_body: false,
            truncated_body: false,
            expected_choices: 1,
        }
    }

    /// Waits for this number of choices, if it is known.
    pub(super) fn expecting_choices(self, count: Option<u64>) -> Self {
        let count = count.unwrap_or(1).clamp(1, MAX_CHOICES);
        Self { expected_choices: usize::try_from(count).unwrap_or(1), ..self }
    }

    fn choice_mut(&mut self, index: u16) -> &mut ChoiceState {
        let position = self.choices.iter().position(|choice| choice.index == index).unwrap_or_else(|| {
            self.choices.push(ChoiceState::new(index, self.options));
            self.choices.len() - 1
        });
        &mut self.choices[position]
    }

    fn all_finished(&self) -> bool {
        !self.choices.is_empty() && self.choices.iter().all(|choice| choice.finish_reason.is_some())
    }

    /// Decodes one JSON object; `None`: it cannot be parsed.
    fn decode_object(&mut self, json: &str, event: &[u8], out: &mut Vec<Delta>) -> Result<Option<Flow>, CallError> {
        let Ok(chunk) = serde_json::from_str::<Chunk<'_>>(json) else { return Ok(None) };
        let may_be_error = chunk.error.0
            || chunk.base_resp.0
            || event == b"error"
            || chunk.object.as_str() == "error"
            || (chunk.choices.0.is_empty() && (chunk.usage.0.is_none() || json.contains("err")));
        let error_body = if may_be_error { find_error(json, event) } else { None };
        self.decode_chunk(chunk, out);
        if let Some(error_body) = error_body {
            return Err(self.errors.error(&error_body));
        }
        if let Some(choice) =
            self.choices.iter().find(|choice| matches!(choice.finish_reason, Some(FinishReason::Error(_))))
        {
            let reason = choice.finish_reason.as_ref().map_or("error", |finish| match finish {
                FinishReason::Error(reason) => reason.as_str(),
                _ => finish.as_str(),
            });
            let class = if self.errors.output_seen == OutputSeen::Nothing {
                ErrorClass::InStream
            } else {
                ErrorClass::Incomplete
            };
            let error = CallError::new(class, format!("the service ended the answer with finish reason \"{reason}\""));
            return Err(CallError { status: Some(200), server: self.errors.server, ..error });
        }
        if let Some(items) = self.exceeded_limit {
            let message = format!("the response has too many {items}");
            return Err(CallError { server: self.errors.server, ..CallError::new(ErrorClass::InvalidChunk, message) });
        }
        Ok(Some(self.flow()))
    }

    fn first_choice(&self) -> Option<&ChoiceState> {
        self.choices.iter().find(|choice| choice.index == 0).or(self.choices.first())
    }

    fn flow(&self) -> Flow {
        match self.all_finished() {
            false => Flow::More,
            true if self.choices.len() < self.expected_choices => Flow::ChoicesMissing,
            true => Flow::SoftEnd,
        }
    }

    fn decode_chunk(&mut self, chunk: Chunk<'_>, out: &mut Vec<Delta>) {
        if !self.model_emitted && !chunk.model.as_str().is_empty() {
            self.model_emitted = true;
            out.push(Delta { choice: 0, kind: DeltaKind::Model(chunk.model.into_string()) });
        }
        let mut usage = chunk.usage.0.or(chunk.x_groq.0.and_then(|groq| groq.usage.0));
        for mut choice in chunk.choices.0 {
            usage = usage.or(choice.usage.0.take());
            self.decode_choice(choice, out);
        }
        if let Some(usage) = usage.and_then(|usage| usage.to_usage()) {
            out.push(Delta { choice: 0, kind: DeltaKind::Usage(usage) });
        }
    }

    fn decode_choice(&mut self, choice: Choice<'_>, out: &mut Vec<Delta>) {
        let index = choice.index.0.unwrap_or(0);
        if index >= MAX_CHOICES {
            self.exceeded_limit = Some("choices");
            return;
        }
        #[expect(clippy::cast_possible_truncation, reason = "checked against MAX_CHOICES")]
        let index = index as u16;
        match choice.delta.0.or(choice.message.0) {
            Some(message) => self.decode_message(index, *message, out),
            None => self.decode_content(index, choice.text, out),
        }
        if let Some(reason) = parse_finish_reason(choice.finish_reason.as_str()) {
            // The reason may be repeated (in usage chunks); the first one counts.
            let state = self.choice_mut(index);
            if state.finish_reason.is_none() {
                state.finish_reason = Some(reason);
            }
        }
        self.choice_mut(index);
    }

    fn decode_message(&mut self, index: u16, message: Message<'_>, out: &mut Vec<Delta>) {
        // Services that are renaming the field send both, with the same text.
        let reasoning = match message.reasoning_content.into_text() {
            text if text.is_empty() => message.reasoning.into_text(),
            text => text,
        };
        let reasoning_len = reasoning.len();
        self.emit(index, DeltaKind::Reasoning(reasoning), out);
        self.decode_content(index, message.content, out);
        self.emit(index, DeltaKind::Refusal(message.refusal.into_text()), out);
        for (position, call) in (0..).zip(message.tool_calls.0) {
            let function = call.function.0.unwrap_or_default();
            self.decode_tool_call(index, call.index.0.unwrap_or(position), call.id.into_string(), function, out);
        }
        if let Some(function) = message.function_call.0 {
            self.decode_tool_call(index, 0, String::new(), function, out);
        }
        // They end the wait for the first token, too. Services send the same reasoning as text and undecoded.
        self.emit(index, DeltaKind::OpaqueReasoning(message.other_reasoning.saturating_sub(reasoning_len)), out);
        self.emit(index, DeltaKind::Opaque(message.media), out);
    }

    fn decode_tool_call(&mut self, choice: u16, index: u64, id: String, function: Function<'_>, out: &mut Vec<Delta>) {
        let (name, arguments) = (function.name.into_string(), function.arguments.into_string());
        let index = self.choice_mut(choice).tool_call_position(index, &id, &name);
        match u32::try_from(index) {
            Ok(index) if index < MAX_TOOL_CALLS => {
                self.emit(choice, DeltaKind::ToolCall(ToolCall { index, id, name, arguments }), out);
            }
            _ => self.exceeded_limit = Some("tool calls"),
        }
    }

    fn decode_content(&mut self, index: u16, content: Content, out: &mut Vec<Delta>) {
        match content {
            Content::Empty => {}
            Content::Text(text) => {
                let text = if self.options.cumulative_deltas { self.choice_mut(index).new_suffix(text) } else { text };
                if self.choice_mut(index).think_splitter.is_text() {
                    self.emit(index, DeltaKind::Text(text), out);
                    return;
                }
                let mut segments = Vec::new();
                self.choice_mut(index).think_splitter.push(text, &mut segments);
                self.emit_segments(index, segments, out);
            }
            Content::Parts(parts) => {
                for part in parts {
                    self.emit(index, DeltaKind::Reasoning(part.thinking.into_text()), out);
                    self.emit(index, DeltaKind::Text(part.text.into_text()), out);
                }
            }
        }
    }

    fn emit_segments(&mut self, index: u16, segments: Vec<Segment>, out: &mut Vec<Delta>) {
        for segment in segments {
            let kind = match segment {
                Segment::Text(text) => DeltaKind::Text(text),
                Segment::Reasoning(text) => DeltaKind::Reasoning(text),
            };
            self.emit(index, kind, out);
        }
    }

    /// Emits a delta unless it is empty.
    fn emit(&mut self, choice: u16, kind: DeltaKind, out: &mut Vec<Delta>) {
        let is_empty = match &kind {
            DeltaKind::Text(text) | DeltaKind::Reasoning(text) | DeltaKind::Refusal(text) => text.is_empty(),
            DeltaKind::ToolCall(call) => *call == ToolCall { index: call.index, ..ToolCall::default() },
            DeltaKind::Opaque(bytes) | DeltaKind::OpaqueReasoning(bytes) => *bytes == 0,
            DeltaKind::Usage(_) | DeltaKind::Finish(_) | DeltaKind::Model(_) => false,
        };
        if !is_empty {
            if kind.is_output() {
                self.errors.record_output(if kind.is_answer() { OutputSeen::Answer } else { OutputSeen::Reasoning });
            }
            out.push(Delta { choice, kind });
        }
    }

    /// Recovers the payload of a malformed frame: lone surrogates, several objects in one event, or a second frame
    /// appended to a truncated one.
    fn recover(&mut self, data: &str, event: &[u8], out: &mut Vec<Delta>) -> Result<Flow, CallError> {
        if let Some(flow) = self.decode_repaired(data, event, out)? {
            return Ok(flow);
        }
        let (mut remaining, mut frame_lost, mut flow) = (data, false, None);
        while let Some((frame, after_frame)) = split_first_frame(remaining) {
            let decoded = match self.decode_payload(frame, event, out)? {
                None => self.decode_repaired(frame, event, out)?,
                decoded => decoded,
            };
            frame_lost |= decoded.is_none();
            flow = decoded.or(flow);
            remaining = after_frame;
            if flow == Some(Flow::End) {
                break;
            }
        }
        if let Some(flow) = flow.or(frame_lost.then_some(Flow::InvalidChunk)) {
            let is_complete = flow == Flow::End || remaining.trim().is_empty();
            return Ok(if frame_lost || !is_complete { Flow::InvalidChunk } else { flow });
        }
        if let Some((_, last_payload)) = data.rsplit_once("data:")
            && let Some(flow) = self.decode_payload(last_payload.trim(), event, out)?
        {
            return Ok(flow);
        }
        Ok(Flow::InvalidChunk)
    }

    /// Decodes an object after replacing lone surrogate escapes; `None`: it has none, or cannot be parsed.
    fn decode_repaired(&mut self, data: &str, event: &[u8], out: &mut Vec<Delta>) -> Result<Option<Flow>, CallError> {
        match replace_lone_surrogates(data) {
            Some(repaired) => self.decode_object(&repaired, event, out),
            None => Ok(None),
        }
    }

    /// Decodes one payload: the end signal or an object; `None`: it cannot be parsed.
    fn decode_payload(&mut self, data: &str, event: &[u8], out: &mut Vec<Delta>) -> Result<Option<Flow>, CallError> {
        if is_end_signal(data) {
            self.done = true;
            return Ok(Some(Flow::End));
        }
        self.decode_object(data, event, out)
    }

    fn decode_body(&mut self, data: &str, out: &mut Vec<Delta>) -> Result<Flow, CallError> {
        if data.starts_with('[')
            && let Some(Value::Array(items)) = parse_tree(data)
            && items.first().is_some_and(|item| error::is_error_body(item, b""))
        {
            return Err(self.errors.error(&items[0]));
        }
        if self.decode_object(data, b"", out)?.is_none() {
            match serde_json::from_str::<serde::de::IgnoredAny>(data) {
                Err(error) if error.is_eof() => self.truncated_body = true,
                _ => return self.recover(data, b"", out),
            }
            return Ok(Flow::More);
        }
        self.done = true;
        self.single_body = true;
        Ok(Flow::End)
    }
}

impl Decoder for ChatDecoder {
    fn finish_reason(&self) -> Option<FinishReason> {
        let has_choices = self.choices.len() >= self.expected_choices;
        self.first_choice().filter(|_| self.all_finished() && has_choices)?.finish_reason.clone()
    }

    fn decode_frame(&mut self, frame: &Frame, out: &mut Vec<Delta>) -> Result<Flow, CallError> {
        let data = std::str::from_utf8(&frame.data).expect("the framer delivers valid UTF-8").trim();
        match frame.kind {
            FrameKind::Page => Err(error::page_error(&frame.data, self.errors.server)),
            FrameKind::Body => self.decode_body(data, out),
            FrameKind::Event if data.is_empty() || data == "null" => Ok(self.flow()),
            FrameKind::Event => match self.decode_payload(data, &frame.event, out)? {
                Some(flow) => Ok(flow),
                None if frame.event.as_ref() == b"error" => Err(self.errors.error(&Value::from(data))),
                None => self.recover(data, &frame.event, out),
            },
        }
    }

    fn finish(&mut self, end: StreamEnd, out: &mut Vec<Delta>) -> Result<StreamOutcome, CallError> {
        let mut buffered = Vec::new();
        for choice in &mut self.choices {
            let mut segments = Vec::new();
            choice.think_splitter.finish(&mut segments);
            buffered.push((choice.index, segments));
        }
        for (index, segments) in buffered {
            self.emit_segments(index, segments, out);
        }
        for choice in &self.choices {
            if let Some(reason) = &choice.finish_reason {
                out.push(Delta { choice: choice.index, kind: DeltaKind::Finish(reason.clone()) });
            }
        }
        // One-API and new-api send their own `[DONE]` when their upstream stream breaks off.
        let is_done_unreliable = self.errors.server == ServerKind::OneApi && !self.single_body;
        // The first of several choices may be finished while another one is incomplete. A service may ignore `n`, so
        // that a regular end after fewer choices is the end of the answer.
        let has_choices = self.choices.len() >= self.expected_choices || end != StreamEnd::Broken;
        let is_complete = self.all_finished() && has_choices || self.done && !is_done_unreliable;
        if let Some(reason) =
            self.first_choice().filter(|_| is_complete).and_then(|choice| choice.finish_reason.clone())
        {
            return Ok(StreamOutcome::Finished(reason));
        }
        Ok(match self.errors.output_seen {
            OutputSeen::Nothing if self.truncated_body => StreamOutcome::Incomplete,
            OutputSeen::Nothing => StreamOutcome::Empty,
            OutputSeen::Reasoning | OutputSeen::Answer if self.done && !is_done_unreliable => {
                StreamOutcome::NoFinishReason
            }
            OutputSeen::Reasoning | OutputSeen::Answer => StreamOutcome::Incomplete,
        })
    }
}

pub(super) fn find_error(json: &str, event: &[u8]) -> Option<Value> {
    parse_tree(json).filter(|value| error::is_error_body(value, event))
}

/// Parses JSON into a tree. `None` for more than 1 MiB: errors are small, and a tree takes many times the memory of its
/// text.
fn parse_tree(json: &str) -> Option<Value> {
    const MAX_LEN: usize = 1024 * 1024;
    (json.len() <= MAX_LEN).then(|| serde_json::from_str(json).ok()).flatten()
}

/// Splits off the complete object or end signal at the start of `data`, which may contain several frames.
pub(super) fn split_first_frame(data: &str) -> Option<(&str, &str)> {
    let data = data.trim_start();
    let data = data.strip_prefix("data:").unwrap_or(data).trim_start();
    if data.starts_with(DONE) {
        return Some(data.split_at(DONE.len()));
    }
    let mut values = serde_json::Deserializer::from_str(data).into_iter::<serde::de::IgnoredAny>();
    let is_complete = data.starts_with('{') && values.next().is_some_and(|value| value.is_ok());
    is_complete.then(|| data.split_at(values.byte_offset()))
}

const DONE: &str = "[DONE]";

pub(super) fn is_end_signal(data: &str) -> bool {
    data.trim().trim_matches('"') == DONE
}

/// Maps a service's finish reason; `None` for "" and "null", which some services send in unfinished chunks.
fn parse_finish_reason(reason: &str) -> Option<FinishReason> {
    Some(match reason {
        "" | "null" | "None" => return None,
        "stop" | "eos" | "end_turn" | "STOP" | "stop_sequence" | "eos_token" | "COMPLETE" | "complete" => {
            FinishReason::Stop
        }
        "length" | "max_tokens" | "MAX_TOKENS" | "model_length" => FinishReason::Length,
        "content_filter" | "sensitive" | "SAFETY" | "content_filtered" | "RECITATION" | "refusal" => {
            FinishReason::ContentFilter
        }
        "tool_calls" | "function_call" | "tool_use" => FinishReason::ToolCalls,
        "error" | "network_error" | "ERROR" => FinishReason::Error(reason.to_owned()),
        other => FinishReason::Other(other.to_owned()),
    })
}
