//! Deltas of a model's response and the answer they accumulate into.
//!
//! The last usage wins; a finish reason is never cleared.

/// One increment of an answer. Owns its text, so that the read buffer can be freed.
#[derive(Clone, Debug, PartialEq)]
pub struct Delta {
    /// Index of the choice it belongs to; the command line shows choice 0.
    pub choice: u16,
    /// The content.
    pub kind: DeltaKind,
}

/// Content of a delta.
#[derive(Clone, Debug, PartialEq)]
pub enum DeltaKind {
    /// Text of the answer.
    Text(String),
    /// Reasoning text; never part of the answer.
    Reasoning(String),
    /// A tool call or a fragment of one: the first has the name, later ones append arguments.
    ToolCall(ToolCall),
    /// The model's refusal text.
    Refusal(String),
    /// Tokens so far. Replaces earlier values, because services send running totals.
    Usage(Usage),
    /// Finish reason of the choice.
    Finish(FinishReason),
    /// Model name reported by the service.
    Model(String),
    /// Byte count of a response that is passed through undecoded, or of a part of an answer that is, such as an image.
    Opaque(usize),
    /// Byte count of reasoning that is passed through undecoded.
    OpaqueReasoning(usize),
}

impl DeltaKind {
    /// Whether this is model output, which ends the wait for the first token, rather than metadata.
    #[must_use]
    pub fn is_output(&self) -> bool {
        self.is_answer() || matches!(self, Self::Reasoning(_) | Self::OpaqueReasoning(_))
    }

    /// Whether this is part of the answer itself. Reasoning is not: it is shown separately and can be retracted.
    #[must_use]
    pub fn is_answer(&self) -> bool {
        matches!(self, Self::Text(_) | Self::ToolCall(_) | Self::Refusal(_) | Self::Opaque(_))
    }

    /// The memory of its texts in bytes.
    #[must_use]
    pub fn held_len(&self) -> usize {
        match self {
            Self::Opaque(_) | Self::OpaqueReasoning(_) => 0,
            _ => self.byte_len(),
        }
    }

    /// Size of the model output in bytes.
    #[must_use]
    pub fn byte_len(&self) -> usize {
        match self {
            Self::Text(text) | Self::Reasoning(text) | Self::Refusal(text) => text.len(),
            Self::ToolCall(call) => call.id.len() + call.name.len() + call.arguments.len(),
            Self::Opaque(bytes) | Self::OpaqueReasoning(bytes) => *bytes,
            Self::Usage(_) | Self::Finish(_) | Self::Model(_) => 0,
        }
    }
}

/// A tool call, or a fragment of one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ToolCall {
    /// Index among the tool calls of the answer.
    pub index: u32,
    /// The service's id for it; empty in later fragments.
    pub id: String,
    /// Tool name; empty in later fragments.
    pub name: String,
    /// Arguments as JSON text; fragments are concatenated.
    pub arguments: String,
}

impl ToolCall {
    /// Appends a later fragment of the same call.
    pub fn append(&mut self, fragment: &Self) {
        self.arguments.push_str(&fragment.arguments);
        if self.name.is_empty() {
            self.name.clone_from(&fragment.name);
        }
        if self.id.is_empty() {
            self.id.clone_from(&fragment.id);
        }
    }
}

/// Why an answer ended. Unknown reasons keep the service's own value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FinishReason {
    /// The model finished.
    Stop,
    /// The token limit was reached.
    Length,
    /// A content filter ended it.
    ContentFilter,
    /// The model requested tool calls.
    ToolCalls,
    /// The service aborted the answer (`error`, `network_error`); the service's own value.
    Error(String),
    /// An unknown value, unchanged. Not an error.
    Other(String),
}

impl FinishReason {
    /// The value used by the OpenAI format.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
            Self::ContentFilter => "content_filter",
            Self::ToolCalls => "tool_calls",
            Self::Error(_) => "error",
            Self::Other(reason) => reason,
        }
    }
}

/// Tokens used. Input includes cached tokens, output includes reasoning; `None` means "not reported".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Prompt tokens, including cached ones.
    pub input: Option<u64>,
    /// Answer tokens, including reasoning.
    pub output: Option<u64>,
    /// Part of `input` that was read from a cache.
    pub cached: Option<u64>,
    /// Part of `output` that was reasoning.
    pub reasoning: Option<u64>,
    /// Whether the counts are estimated, because the service reported none.
    pub estimated: bool,
}

impl Usage {
    /// Whether the counts are plausible for one answer. More than 100 million tokens is a bug of the service and
    /// would distort every total.
    #[must_use]
    pub fn is_plausible(&self) -> bool {
        const MAX_TOKENS: u64 = 100_000_000;
        [self.input, self.output, self.cached, self.reasoning].into_iter().flatten().all(|tokens| tokens <= MAX_TOKENS)
    }
}

/// The accumulated deltas of choice 0.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// Answer text.
    pub text: String,
    /// Reasoning text.
    pub reasoning: String,
    /// Refusal text, if any.
    pub refusal: String,
    /// Requested tool calls.
    pub tool_calls: Vec<ToolCall>,
    /// Finish reason; `None`: the service reported none.
    pub finish_reason: Option<FinishReason>,
    /// Token usage, as last reported.
    pub usage: Option<Usage>,
    /// Model name reported by the service.
    pub model: Option<String>,
}

impl Answer {
    /// Adds one delta. Output and finish reasons of choices other than the first are ignored.
    pub fn add(&mut self, delta: &Delta) {
        if delta.choice != 0 && delta.kind.is_output() {
            return;
        }
        match &delta.kind {
            DeltaKind::Text(text) => self.text.push_str(text),
            DeltaKind::Reasoning(text) => self.reasoning.push_str(text),
            DeltaKind::Refusal(text) => self.refusal.push_str(text),
            DeltaKind::ToolCall(fragment) => self.add_tool_call(fragment),
            DeltaKind::Usage(usage) => self.usage = Some(*usage),
            DeltaKind::Finish(reason) if delta.choice == 0 => self.finish_reason = Some(reason.clone()),
            DeltaKind::Finish(_) => {}
            DeltaKind::Model(model) => self.model = Some(model.clone()),
            DeltaKind::Opaque(_) | DeltaKind::OpaqueReasoning(_) => {}
        }
    }

    fn add_tool_call(&mut self, fragment: &ToolCall) {
        match self.tool_calls.iter_mut().find(|call| call.index == fragment.index) {
            Some(call) => call.append(fragment),
            None => self.tool_calls.push(fragment.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delta(choice: u16, kind: DeltaKind) -> Delta {
        Delta { choice, kind }
    }

    #[test]
    fn tool_call_fragments_are_joined_by_index() {
        let mut answer = Answer::default();
        let first_fragment = ToolCall { index: 0, id: "a".into(), name: "get".into(), arguments: "{\"c".into() };
        let second_fragment = ToolCall { index: 0, arguments: "\":1}".into(), ..ToolCall::default() };
        answer.add(&delta(0, DeltaKind::ToolCall(first_fragment)));
        answer.add(&delta(0, DeltaKind::ToolCall(second_fragment)));
        assert_eq!(answer.tool_calls.len(), 1);
        assert_eq!(answer.tool_calls[0].arguments, "{\"c\":1}");
    }

    #[test]
    fn last_usage_wins_and_other_choices_are_ignored() {
        let mut answer = Answer::default();
        for output in [3, 7] {
            answer.add(&delta(0, DeltaKind::Usage(Usage { output: Some(output), ..Usage::default() })));
        }
        answer.add(&delta(1, DeltaKind::Text("other".into())));
        answer.add(&delta(1, DeltaKind::Finish(FinishReason::Length)));
        assert_eq!(answer.usage.and_then(|usage| usage.output), Some(7));
        assert_eq!(answer.text, "");
        assert_eq!(answer.finish_reason, None);
    }
}
