//! What comes back from a model: deltas as they arrive, and the answer they add up to.
//!
//! Owns the adding up (the last usage wins, a finish reason is never cleared). Refuses to know where a delta came
//! from or how it is shown.

/// One piece of an answer. Owns its text, so that the buffer it was read from can go.
#[derive(Clone, Debug, PartialEq)]
pub struct Delta {
    /// Which of several choices it belongs to; the command line shows choice 0.
    pub choice: u16,
    /// What it adds.
    pub kind: DeltaKind,
}

/// What one delta adds.
#[derive(Clone, Debug, PartialEq)]
pub enum DeltaKind {
    /// Text of the answer.
    Text(String),
    /// Text of the model's thinking; never part of the answer.
    Reasoning(String),
    /// A piece of a tool call: the first names it, later ones add arguments.
    ToolCall(ToolCall),
    /// The model's own words for declining.
    Refusal(String),
    /// Tokens so far. Replaces what came before: services send running totals.
    Usage(Usage),
    /// Why the choice ended.
    Finish(FinishReason),
    /// The model the service says it used.
    Model(String),
    /// So many bytes of a reply that is only passed on.
    Opaque(usize),
}

impl DeltaKind {
    /// Whether this is output of the model (and so ends the wait for the first token), not bookkeeping.
    #[must_use]
    pub fn is_output(&self) -> bool {
        self.is_answer() || matches!(self, Self::Reasoning(_))
    }

    /// Whether this is part of the answer itself: thinking goes beside it and can be taken back.
    #[must_use]
    pub fn is_answer(&self) -> bool {
        matches!(self, Self::Text(_) | Self::ToolCall(_) | Self::Refusal(_) | Self::Opaque(_))
    }

    /// The bytes of the model's own words in it.
    #[must_use]
    pub fn size(&self) -> usize {
        match self {
            Self::Text(text) | Self::Reasoning(text) | Self::Refusal(text) => text.len(),
            Self::ToolCall(call) => call.id.len() + call.name.len() + call.arguments.len(),
            Self::Opaque(bytes) => *bytes,
            Self::Usage(_) | Self::Finish(_) | Self::Model(_) => 0,
        }
    }
}

/// A call of a tool, or a piece of one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ToolCall {
    /// Its place among the calls of this answer.
    pub index: u32,
    /// The service's id for it; empty in later pieces.
    pub id: String,
    /// The tool's name; empty in later pieces.
    pub name: String,
    /// Arguments, as JSON text; pieces are to be joined.
    pub arguments: String,
}

impl ToolCall {
    /// Adds a later piece of the same call.
    pub fn join(&mut self, piece: &Self) {
        self.arguments.push_str(&piece.arguments);
        if self.name.is_empty() {
            self.name.clone_from(&piece.name);
        }
        if self.id.is_empty() {
            self.id.clone_from(&piece.id);
        }
    }
}

/// Why an answer ended. The service's own word is kept where it is none of the known ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FinishReason {
    /// The model was done.
    Stop,
    /// The token limit was reached.
    Length,
    /// A content filter ended it.
    ContentFilter,
    /// The model wants tools called.
    ToolCalls,
    /// The service gave up in the middle (`error`, `network_error`); its own word.
    Error(String),
    /// A word not known here, kept as it came. No error.
    Other(String),
}

impl FinishReason {
    /// The common word for it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
            Self::ContentFilter => "content_filter",
            Self::ToolCalls => "tool_calls",
            Self::Error(_) => "error",
            Self::Other(word) => word,
        }
    }
}

/// Tokens used. Input includes cached tokens, output includes reasoning; `None` means "not reported".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Tokens of the prompt, cached ones included.
    pub input: Option<u64>,
    /// Tokens of the answer, reasoning included.
    pub output: Option<u64>,
    /// Those of `input` that were read from a cache.
    pub cached: Option<u64>,
    /// Those of `output` that were thinking.
    pub reasoning: Option<u64>,
    /// True when the service sent none and the figures are ours.
    pub estimated: bool,
}

impl Usage {
    /// Whether these can be the figures of one answer: what is beyond a hundred million tokens is a fault of the service, and
    /// would spoil every sum it goes into.
    #[must_use]
    pub fn is_believable(&self) -> bool {
        const MOST: u64 = 100_000_000;
        [self.input, self.output, self.cached, self.reasoning].into_iter().flatten().all(|tokens| tokens <= MOST)
    }
}

/// The sum of the deltas of choice 0.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// The whole text.
    pub text: String,
    /// The whole thinking text.
    pub reasoning: String,
    /// Words of refusal, if any.
    pub refusal: String,
    /// Tools the model wants called.
    pub tool_calls: Vec<ToolCall>,
    /// Why it ended; `None` when no reason was given.
    pub finish: Option<FinishReason>,
    /// Tokens, as last reported.
    pub usage: Option<Usage>,
    /// The model the service says it used.
    pub model: Option<String>,
}

impl Answer {
    /// Adds one delta. Other choices than the first are passed over.
    pub fn add(&mut self, delta: &Delta) {
        if delta.choice != 0 && delta.kind.is_output() {
            return;
        }
        match &delta.kind {
            DeltaKind::Text(text) => self.text.push_str(text),
            DeltaKind::Reasoning(text) => self.reasoning.push_str(text),
            DeltaKind::Refusal(text) => self.refusal.push_str(text),
            DeltaKind::ToolCall(piece) => self.add_tool_call(piece),
            DeltaKind::Usage(usage) => self.usage = Some(*usage),
            DeltaKind::Finish(reason) if delta.choice == 0 => self.finish = Some(reason.clone()),
            DeltaKind::Finish(_) => {}
            DeltaKind::Model(model) => self.model = Some(model.clone()),
            DeltaKind::Opaque(_) => {}
        }
    }

    fn add_tool_call(&mut self, piece: &ToolCall) {
        match self.tool_calls.iter_mut().find(|call| call.index == piece.index) {
            Some(call) => call.join(piece),
            None => self.tool_calls.push(piece.clone()),
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
    fn pieces_of_a_tool_call_are_joined_by_index() {
        let mut answer = Answer::default();
        let first = ToolCall { index: 0, id: "a".into(), name: "get".into(), arguments: "{\"c".into() };
        let second = ToolCall { index: 0, arguments: "\":1}".into(), ..ToolCall::default() };
        answer.add(&delta(0, DeltaKind::ToolCall(first)));
        answer.add(&delta(0, DeltaKind::ToolCall(second)));
        assert_eq!(answer.tool_calls.len(), 1);
        assert_eq!(answer.tool_calls[0].arguments, "{\"c\":1}");
    }

    #[test]
    fn the_last_usage_wins_and_other_choices_stay_out() {
        let mut answer = Answer::default();
        for output in [3, 7] {
            answer.add(&delta(0, DeltaKind::Usage(Usage { output: Some(output), ..Usage::default() })));
        }
        answer.add(&delta(1, DeltaKind::Text("other".into())));
        answer.add(&delta(1, DeltaKind::Finish(FinishReason::Length)));
        assert_eq!(answer.usage.and_then(|usage| usage.output), Some(7));
        assert_eq!(answer.text, "");
        assert_eq!(answer.finish, None);
    }
}
