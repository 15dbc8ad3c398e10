//! Collects the answers of a round, complete or partial, with their metrics.

use std::time::Duration;

use crate::{
    engine::{CallRecord, Event, EventKind},
    model::Usage,
};

/// An answer, which may be partial.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Answer {
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
pub(crate) struct AnswerCollector {
    answers: Vec<Answer>,
}

impl AnswerCollector {
    /// A collector for a round of `count` calls.
    #[must_use]
    pub(crate) fn new(count: usize) -> Self {
        Self { answers: vec![Answer::default(); count] }
    }

    /// Takes the answer of a call from its record. A restart adds a record, whose cost is added to that of the earlier one.
    pub(crate) fn on_event(&mut self, event: &Event) {
        if let (Some(answer), EventKind::Finished(record)) = (self.answers.get_mut(event.call), &event.kind) {
            let earlier = answer.cost.take();
            *answer = Answer::from(&**record);
            answer.cost = match (answer.cost.take(), earlier) {
                (Some((cost, currency)), Some((before, other))) if currency == other => Some((cost + before, currency)),
                (own, earlier) => own.or(earlier),
            };
        }
    }

    /// The answers, in the order of the calls.
    #[must_use]
    pub(crate) fn into_answers(self) -> Vec<Answer> {
        self.answers
    }
}

impl From<&CallRecord> for Answer {
    fn from(record: &CallRecord) -> Self {
        let answer = &record.answer.content;
        Self {
            text: if answer.text.is_empty() { &answer.refusal } else { &answer.text }.clone(),
            is_complete: record.result.is_ok(),
            usage: record.usage,
            cost: record.cost().map(|(cost, currency)| (cost, currency.to_owned())),
            ttft: record.ttft,
        }
    }
}
