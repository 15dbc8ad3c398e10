//! Collects the answers of a round, complete or partial, with their metrics.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use crate::{
    engine::{AccumulatedAnswer, CallRecord, CallProgress, Event, EventKind},
    model::{Usage, target::Target},
};

/// An answer, which may be partial.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answer {
    /// The text, or the refusal.
    pub text: String,
    /// Whether the answer is complete.
    pub is_complete: bool,
    /// The token usage.
    pub usage: Option<Usage>,
    /// The cost and its currency.
    pub cost: Option<(f64, String)>,
    /// The time to its first token.
    pub ttft: Option<Duration>,
}

/// Collects the answers of the calls of one round.
#[derive(Debug)]
pub struct AnswerCollector {
    calls: Vec<CollectedCall>,
}

#[derive(Debug)]
struct CollectedCall {
    prompt_tokens: u64,
    accumulator: AccumulatedAnswer,
    /// The current target.
    target: Option<Arc<Target>>,
    /// `None` once the call is finished.
    progress: Option<CallProgress>,
    answer: Answer,
}

impl AnswerCollector {
    /// A collector for calls that start at `now`, with the estimated number of tokens of each prompt.
    #[must_use]
    pub fn new(prompts: impl IntoIterator<Item = u64>, now: Instant) -> Self {
        let collected = |prompt_tokens| CollectedCall {
            prompt_tokens,
            accumulator: AccumulatedAnswer::default(),
            progress: Some(CallProgress::new(now)),
            target: None,
            answer: Answer::default(),
        };
        Self { calls: prompts.into_iter().map(collected).collect() }
    }

    /// Handles an event.
    pub fn on_event(&mut self, event: &Event) {
        let Some(collected) = self.calls.get_mut(event.call) else { return };
        if let Some(progress) = &mut collected.progress {
            progress.apply(event);
        }
        match &event.kind {
            EventKind::Deltas(deltas) | EventKind::BufferedDeltas(deltas) => {
                for delta in deltas {
                    collected.accumulator.add(delta, true);
                }
            }
            EventKind::Failed { record, .. } => {
                collected.accumulator.reset_after_failure(&record.target, collected.prompt_tokens);
            }
            EventKind::Restarted => {
                collected.accumulator.reset_after_restart(collected.target.as_deref(), collected.prompt_tokens);
                collected.progress = Some(CallProgress::new(event.at));
            }
            EventKind::Finished(outcome) => collected.finish(outcome),
            EventKind::Started(target) => collected.target = Some(Arc::clone(target)),
            EventKind::FirstToken(_) | EventKind::Notice(_) => {}
        }
    }

    /// Ends the round at `now` and returns the answers so far.
    #[must_use]
    pub fn into_answers(self, now: Instant) -> Vec<Answer> {
        let finish = |mut collected: CollectedCall| {
            if let Some(progress) = collected.progress.take() {
                collected.finish(&progress.into_interrupted_outcome(now));
            }
            collected.answer
        };
        self.calls.into_iter().map(finish).collect()
    }
}

impl CollectedCall {
    fn finish(&mut self, outcome: &CallRecord) {
        self.progress = None;
        self.accumulator.finish(outcome, self.prompt_tokens);
        let usage = self.accumulator.usage(outcome, self.prompt_tokens);
        let cost = self.accumulator.cost(usage.as_ref(), outcome).map(|(cost, currency)| (cost, currency.to_owned()));
        let answer = &self.accumulator.answer;
        let text = if answer.text.is_empty() { &answer.refusal } else { &answer.text }.clone();
        self.answer = Answer { text, is_complete: outcome.result.is_ok(), usage, cost, ttft: outcome.ttft };
    }
}
