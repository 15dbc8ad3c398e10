//! Records every call in SQLite: request, result, times, tokens and cost, and optionally the prompt and answer.
//!
//! A [`RunWriter`] receives the events of a run and sends each finished call to its own thread, which opens the
//! [`Database`] and writes. `stats`, `history` and `spend` read it. A record that cannot be written causes a warning;
//! it never fails an answer.

mod batch_writer;
mod call_accumulator;
mod convert;
mod database;
mod history;
mod insert;
mod placement;
mod rollup;
mod run_writer;
mod spend;
mod stats;

use jiff::Timestamp;

pub use batch_writer::BatchWriter;
pub use call_accumulator::CallListener;
pub use database::{Database, RecordError};
pub use history::{ConversationLayout, ConversationSummary, SearchHit, StoredTurn};
pub use placement::{Continuation, RunPlacement, StoredRound};
pub use run_writer::{RecordOptions, RunWriter};
pub use spend::SqliteSpendLedger;
pub use stats::{GroupBy, GroupMetrics, Since, StatsRow};

use crate::{
    engine::{AttemptRecord, CallRecord},
    model::{ErrorClass, Usage},
};

/// A finished call: its result, times, usage and, if stored, its content.
#[derive(Clone, Debug)]
pub struct StoredCall {
    /// When the call started.
    pub at: Timestamp,
    /// The command that made the call.
    pub command: &'static str,
    /// The name of the client key, for calls through `serve`.
    pub client: Option<String>,
    /// The index of the call in its plan, from 0.
    pub index: usize,
    /// The requested name: a model or a route.
    pub requested: String,
    /// Whether the requested name is a route.
    pub is_route: bool,
    /// How the call ended.
    pub record: CallRecord,
    /// The usage of the answer.
    pub usage: Option<Usage>,
    /// The usage of each attempt, in order; incomplete ones are billed too.
    pub attempt_usage: Vec<Option<Usage>>,
    /// Prompt and answer; `None` if content is not stored, and then error messages are not stored either.
    pub transcript: Option<Transcript>,
}

impl StoredCall {
    /// The error class of a failed call.
    #[must_use]
    pub fn class(&self) -> Option<ErrorClass> {
        let error = self.record.result.as_ref().err()?;
        // An answer that mmchat itself stopped is not the endpoint's incomplete answer.
        Some(if self.record.incomplete && error.class != ErrorClass::LocalLimit {
            ErrorClass::Incomplete
        } else {
            error.class
        })
    }

    /// Whether an attempt counts as a request to the endpoint. One canceled by mmchat before its first token does not.
    #[must_use]
    pub fn is_counted(&self, attempt: &AttemptRecord) -> bool {
        attempt.class() != Some(ErrorClass::LocalLimit) || attempt.ttft.is_some()
    }

    /// The number of failovers to another model. Attempts that mmchat canceled, such as the slower hedge, do not count.
    #[must_use]
    pub fn failovers(&self) -> u64 {
        let failed = |attempt: &AttemptRecord| attempt.class().is_some_and(|class| class != ErrorClass::LocalLimit);
        let pairs = self.record.attempts.windows(2);
        let moved = pairs.filter(|pair| failed(&pair[0]) && pair[0].target.id != pair[1].target.id);
        moved.count() as u64
    }

    /// The cost of all attempts priced in the currency of the model that answered.
    #[must_use]
    pub fn cost(&self) -> Option<(f64, &str)> {
        let currency = &self.record.target.as_ref()?.price.as_ref()?.currency;
        let costs = self.record.attempts.iter().zip(&self.attempt_usage).filter_map(|(attempt, used)| {
            let price = attempt.target.price.as_ref().filter(|price| price.currency == *currency)?;
            price.cost(used.as_ref()?)
        });
        costs.reduce(|sum, cost| sum + cost).map(|cost| (cost, currency.as_str()))
    }
}

/// The stored content of a call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transcript {
    /// The system prompt.
    pub system: Option<String>,
    /// The last user message.
    pub prompt: String,
    /// The number of images in the user message.
    pub image_count: usize,
    /// The answer.
    pub answer: String,
    /// The reasoning of the model.
    pub reasoning: String,
}

#[cfg(test)]
mod tests;
