//! The record of every call: what was asked of whom, how it went, what it took and cost; and, where the person wants it,
//! what was said.
//!
//! The flow: a [`Recorder`] listens to a run's events and hands each answer that is over to a thread of its own, which
//! opens the database ([`Database`]) and writes. `stats`, `history` and `spend` read it. Owns that a record which cannot be
//! kept costs a warning and never an answer. Refuses rendering.

mod batch_writer;
mod call_accumulator;
mod database;
mod history;
mod insert;
mod placement;
mod rollup;
mod run_writer;
mod spend;
mod stats;

use jiff::Timestamp;

pub use batch_writer::Scribe;
pub use call_accumulator::Listener;
pub use database::{Database, RecordError};
pub use history::{Conversation, Exchange, Found, Shape};
pub use placement::{GoesOn, Kept, RunPlace};
pub use run_writer::{RecordOptions, Recorder};
pub use spend::Ledger;
pub use stats::{By, Figures, Since, StatsRow};

use crate::{
    engine::{AttemptRecord, LaneOutcome},
    model::{ErrorClass, Usage},
};

/// One answer, or what became of it.
#[derive(Clone, Debug)]
pub struct CallRecord {
    /// When the lane began.
    pub at: Timestamp,
    /// Which command asked.
    pub command: &'static str,
    /// The name of the key that was brought, where a program asked.
    pub client: Option<String>,
    /// Its place among those that were asked at once, from 0.
    pub lane: usize,
    /// The name that was asked for.
    pub asked: String,
    /// That name is a route's.
    pub is_route: bool,
    /// How it went.
    pub outcome: LaneOutcome,
    /// Its tokens.
    pub usage: Option<Usage>,
    /// The tokens of each of its requests, in their order; those that broke off are paid for, too.
    pub used: Vec<Option<Usage>>,
    /// What was said; `None`: it is not kept, and neither is what services say of it.
    pub said: Option<Said>,
}

impl CallRecord {
    /// The class of its failure.
    #[must_use]
    pub fn class(&self) -> Option<ErrorClass> {
        let error = self.outcome.result.as_ref().err()?;
        // What we stopped ourselves was not cut by anybody.
        Some(if self.outcome.cut && error.class != ErrorClass::Local { ErrorClass::Cut } else { error.class })
    }

    /// Whether one of its requests counts as a call of the service: what we stopped ourselves before it said anything is none.
    #[must_use]
    pub fn counts(&self, attempt: &AttemptRecord) -> bool {
        attempt.class() != Some(ErrorClass::Local) || attempt.ttft.is_some()
    }

    /// How often another model was asked because one failed. What was only stopped ourselves, as the slower of two, did not.
    #[must_use]
    pub fn failovers(&self) -> u64 {
        let failed = |attempt: &AttemptRecord| attempt.class().is_some_and(|class| class != ErrorClass::Local);
        let pairs = self.outcome.attempts.windows(2);
        let moved = pairs.filter(|pair| failed(&pair[0]) && pair[0].target.id != pair[1].target.id);
        moved.count() as u64
    }

    /// What it cost with all its requests, in the money of the model that answered.
    #[must_use]
    pub fn cost(&self) -> Option<(f64, &str)> {
        let currency = &self.outcome.target.as_ref()?.price.as_ref()?.currency;
        let costs = self.outcome.attempts.iter().zip(&self.used).filter_map(|(attempt, used)| {
            let price = attempt.target.price.as_ref().filter(|price| price.currency == *currency)?;
            price.cost(used.as_ref()?)
        });
        costs.reduce(|sum, cost| sum + cost).map(|cost| (cost, currency.as_str()))
    }
}

/// What was said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Said {
    /// The system text.
    pub system: Option<String>,
    /// What the person asked.
    pub prompt: String,
    /// Pictures that were asked about.
    pub images: usize,
    /// The answer.
    pub answer: String,
    /// What the model thought.
    pub reasoning: String,
}

#[cfg(test)]
mod tests;
