//! What is remembered of one answer while it comes, and what should be known of how it ended.
//!
//! Owns the figures nobody reported (estimated from the text, and marked) and the wording of warnings. Refuses to know
//! where anything is shown.

use crate::{
    chat::{Answer, Delta, DeltaKind, FinishReason, Usage, estimate::Counter, sanitise::one_line},
    engine::LaneOutcome,
};

/// One answer so far.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// With the text only where it is wanted.
    pub(super) answer: Answer,
    /// The estimate of its tokens, thinking included.
    pub(super) tokens: Counter,
    /// Some of it is more than thinking.
    pub(super) any_content: bool,
    /// There was more than one choice, of which the first is shown.
    other_choices: bool,
}

impl Kept {
    /// Remembers a delta; its text only `with_text`.
    pub(super) fn add(&mut self, delta: &Delta, with_text: bool) {
        if delta.choice != 0 && delta.kind.is_output() {
            self.other_choices = true;
            return;
        }
        self.any_content |= matches!(delta.kind, DeltaKind::Text(_) | DeltaKind::Refusal(_));
        match &delta.kind {
            DeltaKind::Text(text) | DeltaKind::Refusal(text) | DeltaKind::Reasoning(text) => {
                self.tokens.add(text);
                if with_text {
                    self.answer.add(delta);
                }
            }
            _ => self.answer.add(delta),
        }
    }

    /// The usage reported, or ours, marked. Nothing when there was no answer at all.
    pub(super) fn usage(&self, outcome: &LaneOutcome, prompt_tokens: u64) -> Option<Usage> {
        let estimated = || Usage {
            input: Some(prompt_tokens),
            output: Some(self.tokens.tokens()),
            estimated: true,
            ..Usage::default()
        };
        self.answer.usage.or_else(|| (outcome.result.is_ok() || outcome.cut).then(estimated))
    }

    /// Whether there is nothing to read, not even a call of a tool.
    pub(super) fn is_empty(&self) -> bool {
        !self.any_content && self.answer.tool_calls.is_empty()
    }

    /// What should be known of an answer that is whole, one line each.
    pub(super) fn warnings(&self, reason: Option<&FinishReason>) -> Option<String> {
        let choices = "warning: the service sent several choices; only the first is shown";
        let lines: Vec<_> =
            self.other_choices.then(|| choices.to_owned()).into_iter().chain(self.ending(reason)).collect();
        (!lines.is_empty()).then(|| lines.join("\n"))
    }

    /// What should be known of how it ended.
    fn ending(&self, reason: Option<&FinishReason>) -> Option<String> {
        let any_content = self.any_content;
        let thought = self.tokens.tokens() > 0;
        Some(match reason {
            Some(FinishReason::Length) if !any_content && thought => {
                "warning: the token limit was used up by reasoning: there is no answer (raise --max-tokens)".to_owned()
            }
            Some(FinishReason::Length) => {
                "warning: the answer stopped at the token limit (finish_reason: length)".to_owned()
            }
            Some(FinishReason::ContentFilter) if !any_content => {
                "warning: a content filter withheld the answer (finish_reason: content_filter)".to_owned()
            }
            Some(FinishReason::ContentFilter) => {
                "warning: a content filter ended the answer (finish_reason: content_filter)".to_owned()
            }
            Some(FinishReason::ToolCalls) => {
                let names: Vec<_> = self.answer.tool_calls.iter().map(|call| one_line(&call.name)).collect();
                format!("warning: the model asked for tools ({}), which are not called here", names.join(", "))
            }
            Some(FinishReason::Other(word)) => {
                format!("warning: the answer ended with an unknown finish_reason: {}", one_line(word))
            }
            Some(FinishReason::Stop) | None if self.is_empty() => {
                let thought = if thought { ": there was only reasoning" } else { "" };
                format!("warning: the answer is empty{thought}")
            }
            Some(FinishReason::Stop | FinishReason::Error(_)) | None => return None,
        })
    }
}
