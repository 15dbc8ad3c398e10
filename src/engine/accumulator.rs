//! Accumulates one answer from its deltas: the text, the usage and the cost, including the cost of failed attempts.
//!
//! Usage that the service did not report is estimated from the text and marked as estimated.

use super::CallRecord;
use crate::model::{Answer, Delta, DeltaKind, Usage, estimate::TokenCounter, target::Target};

/// One answer, accumulated so far.
#[derive(Clone, Debug, Default)]
pub struct AccumulatedAnswer {
    /// The answer; its text only if `add` was called with `with_text`.
    pub answer: Answer,
    /// Estimate of the output tokens, reasoning included.
    pub tokens: TokenCounter,
    /// The answer has text or a refusal, not only reasoning.
    pub has_content: bool,
    /// There was more than one choice; only the first is accumulated.
    pub has_other_choices: bool,
    /// The cost of each earlier, failed request, with its currency.
    failed_costs: Vec<Option<(String, f64)>>,
    /// An earlier incomplete answer; it counts unless a later attempt has content.
    incomplete_answer: Option<Box<AccumulatedAnswer>>,
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
                self.tokens.add(text);
                if with_text {
                    self.answer.add(delta);
                }
            }
            _ => self.answer.add(delta),
        }
    }

    /// Starts over because the request to `target` failed. Its output is discarded, its cost still counts.
    pub fn reset_after_failure(&mut self, target: &Target, prompt_tokens: u64) {
        let mut failed = std::mem::take(self);
        self.failed_costs.clone_from(&failed.failed_costs);
        self.failed_costs.push(failed.own_cost(target, prompt_tokens));
        let before = failed.incomplete_answer.take();
        self.incomplete_answer = if failed.has_content { Some(Box::new(failed)) } else { before };
    }

    /// Starts over because the user restarted the call. The output of `target` is discarded, its cost still counts.
    pub fn reset_after_restart(&mut self, target: Option<&Target>, prompt_tokens: u64) {
        let before = std::mem::take(self);
        self.failed_costs.clone_from(&before.failed_costs);
        self.failed_costs.push(target.and_then(|target| before.own_cost(target, prompt_tokens)));
    }

    /// Ends the answer. If the last request failed without output, the earlier incomplete answer takes its place.
    pub fn finish(&mut self, outcome: &CallRecord, prompt_tokens: u64) {
        if outcome.result.is_ok() || !self.is_empty() {
            return;
        }
        let Some(earlier) = self.incomplete_answer.take() else { return };
        let last = outcome.attempts.last().and_then(|attempt| self.own_cost(&attempt.target, prompt_tokens));
        let mut wasted = std::mem::replace(self, *earlier).failed_costs;
        // The cost of that answer is computed from its own usage.
        wasted.remove(self.failed_costs.len());
        wasted.push(last);
        self.failed_costs = wasted;
    }

    fn own_cost(&self, target: &Target, prompt_tokens: u64) -> Option<(String, f64)> {
        let price = target.price.as_ref()?;
        Some((price.currency.clone(), price.cost(&self.current_usage(prompt_tokens)?)?))
    }

    /// The usage of a request that produced output, reasoning included: as reported, else estimated.
    #[must_use]
    pub fn current_usage(&self, prompt_tokens: u64) -> Option<Usage> {
        let has_output = self.tokens.tokens() > 0;
        self.reported_usage().or_else(|| has_output.then(|| self.estimated_usage(prompt_tokens)))
    }

    /// The cost of `usage` plus that of earlier failed requests, in the currency of the target that answered.
    #[must_use]
    pub fn cost<'o>(&self, usage: Option<&Usage>, outcome: &'o CallRecord) -> Option<(f64, &'o str)> {
        let price = outcome.target.as_ref()?.price.as_ref()?;
        let own = usage.and_then(|usage| price.cost(usage));
        let wasted = self
            .failed_costs
            .iter()
            .flatten()
            .filter(|(currency, _)| *currency == price.currency)
            .map(|(_, cost)| *cost);
        let sum = own.into_iter().chain(wasted).reduce(|one, other| one + other)?;
        Some((sum, &price.currency))
    }

    /// The reported usage, else an estimate, marked as such; `None` if there was no output at all, not even reasoning.
    #[must_use]
    pub fn usage(&self, outcome: &CallRecord, prompt_tokens: u64) -> Option<Usage> {
        let answered = outcome.result.is_ok() || outcome.incomplete;
        self.current_usage(prompt_tokens).or_else(|| answered.then(|| self.estimated_usage(prompt_tokens)))
    }

    /// An estimate of the usage, marked as such.
    #[must_use]
    pub fn estimated_usage(&self, prompt_tokens: u64) -> Usage {
        Usage { input: Some(prompt_tokens), output: Some(self.tokens.tokens()), estimated: true, ..Usage::default() }
    }

    /// The reported usage, if it is plausible.
    #[must_use]
    pub fn reported_usage(&self) -> Option<Usage> {
        self.answer.usage.filter(Usage::is_plausible)
    }

    /// Whether there is neither content nor a tool call.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.has_content && self.answer.tool_calls.is_empty()
    }
}
