//! Accumulates one answer from its deltas: the text, the tool calls and the usage.
//!
//! Usage that the service did not report is estimated from the text and marked as estimated.

use crate::model::{Answer, Delta, DeltaKind, Usage, estimate::TokenCounter};

/// The answer accumulated so far.
#[derive(Clone, Debug, Default)]
pub struct AccumulatedAnswer {
    /// What arrived; its text only if `add` was called with `with_text`.
    pub content: Answer,
    /// Estimate of the output tokens, reasoning included; tool calls and other choices are not counted.
    pub output_counter: TokenCounter,
    /// The answer has text or a refusal, not only reasoning.
    pub has_content: bool,
    /// There was more than one choice; only the first is accumulated.
    pub has_other_choices: bool,
}

impl AccumulatedAnswer {
    /// Adds a delta; its text only if `with_text`.
    pub fn add(&mut self, delta: &Delta, with_text: bool) {
        if delta.choice != 0 && delta.kind.is_output() {
            self.has_other_choices = true;
            return;
        }
        self.has_content |= matches!(delta.kind, DeltaKind::Text(_) | DeltaKind::Refusal(_));
        match &delta.kind {
            DeltaKind::Text(text) | DeltaKind::Refusal(text) | DeltaKind::Reasoning(text) => {
                self.output_counter.add(text);
                if with_text {
                    self.content.add(delta);
                }
            }
            _ => self.content.add(delta),
        }
    }

    /// The reported usage, else an estimate from the output, reasoning included; `None` without either.
    #[must_use]
    pub fn current_usage(&self, estimated_prompt_tokens: u64) -> Option<Usage> {
        let has_output = self.output_counter.tokens() > 0;
        self.reported_usage().or_else(|| has_output.then(|| self.estimated_usage(estimated_prompt_tokens)))
    }

    /// An estimate of the usage, marked as such.
    #[must_use]
    pub fn estimated_usage(&self, estimated_prompt_tokens: u64) -> Usage {
        Usage {
            input: Some(estimated_prompt_tokens),
            output: Some(self.output_counter.tokens()),
            estimated: true,
            ..Usage::default()
        }
    }

    /// The reported usage, if it is plausible.
    #[must_use]
    pub fn reported_usage(&self) -> Option<Usage> {
        self.content.usage.filter(Usage::is_plausible)
    }

    /// Whether there is neither content nor a tool call.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.has_content && self.content.tool_calls.is_empty()
    }
}
