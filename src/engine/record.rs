//! The record of a finished call: its result, its attempts with their usage and cost, its times and its answer.
//!
//! Views, the stored record, the log and the metrics all take their numbers from it.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use serde_json::{Value, json};

use super::AccumulatedAnswer;

use crate::{
    model::{ErrorClass, FinishReason, Usage, target::Target},
    protocol::CallError,
};

/// One attempt at a target and its result: an upstream request, or one that failed before it was sent.
#[derive(Clone, Debug)]
pub struct AttemptRecord {
    /// The target.
    pub target: Arc<Target>,
    /// Why it failed; `None`: it succeeded.
    pub error: Option<CallError>,
    /// The HTTP status, if a response arrived.
    pub status: Option<u16>,
    /// When it was sent.
    pub sent_at: Timestamp,
    /// From sending the request to its end.
    pub took: Duration,
    /// From sending to the first token (text, reasoning or tool call), if any.
    pub ttft: Option<Duration>,
    /// The index of the key among those of the endpoint, from 0; `None`: sent without a key.
    pub key_index: Option<usize>,
    /// The request id assigned by the service.
    pub request_id: Option<String>,
    /// The tokens used: reported, else estimated from the output; `None` without output. A failed attempt with output is
    /// billed too.
    pub usage: Option<Usage>,
}

impl AttemptRecord {
    /// A request sent at `sent_at` that took `took`, with all other fields empty.
    #[must_use]
    pub fn new(target: Arc<Target>, sent_at: Timestamp, took: Duration) -> Self {
        Self {
            target,
            error: None,
            status: None,
            sent_at,
            took,
            ttft: None,
            key_index: None,
            request_id: None,
            usage: None,
        }
    }

    /// As JSON: `{endpoint, model, class, status, ms, key, request_id, message}`.
    #[must_use]
    pub fn to_json(&self) -> Value {
        json!({
            "endpoint": self.target.endpoint.name,
            "model": self.target.id.0,
            "class": self.class().map_or("ok", ErrorClass::as_str),
            "status": self.status,
            "ms": u64::try_from(self.took.as_millis()).unwrap_or(u64::MAX),
            "key": self.key_index,
            "request_id": self.request_id,
            "message": self.error.as_ref().map(|error| error.message.as_str()),
        })
    }

    /// The cost of its usage and the currency, if the target has a price.
    #[must_use]
    pub fn cost(&self) -> Option<(f64, &str)> {
        let price = self.target.price.as_ref()?;
        Some((price.cost(self.usage.as_ref()?)?, &price.currency))
    }

    /// Whether it counts as a request to the endpoint. One canceled by mmchat before its first token does not.
    #[must_use]
    pub fn is_counted(&self) -> bool {
        self.class() != Some(ErrorClass::LocalLimit) || self.ttft.is_some()
    }

    /// The class of its error.
    #[must_use]
    pub fn class(&self) -> Option<ErrorClass> {
        self.error.as_ref().map(|error| error.class)
    }
}

/// How a call ended. Every call ends with exactly one record, also a stopped one; a restarted call has another.
#[derive(Clone, Debug)]
pub struct CallRecord {
    /// The requested name: a model or a route.
    pub requested: String,
    /// Whether the requested name is a route.
    pub is_route: bool,
    /// When the call started.
    pub started_at: Timestamp,
    /// The completion, or the error: that of the last incomplete answer, else the most representative one.
    pub result: Result<Completion, CallError>,
    /// The answer is incomplete, and no later attempt replaced it.
    pub incomplete: bool,
    /// The user stopped the call.
    pub stopped: bool,
    /// The deadline of the call passed.
    pub deadline_passed: bool,
    /// The target that answered or whose answer is incomplete; else the one tried last.
    pub target: Option<Arc<Target>>,
    /// All attempts, in the order in which they ended.
    pub attempts: Vec<AttemptRecord>,
    /// From sending the request that produced the answer to its first token.
    pub ttft: Option<Duration>,
    /// From the start of the call to the same token, as the user perceives it.
    pub first_output: Option<Duration>,
    /// The duration of the call.
    pub total: Duration,
    /// From the first delta to the last.
    pub output_duration: Duration,
    /// The answer, which may be incomplete; its text only if the call retains it.
    pub answer: AccumulatedAnswer,
    /// The usage of the answer: reported, else estimated and marked as such.
    pub usage: Option<Usage>,
}

impl CallRecord {
    /// The record of a call to `requested` that starts now, with all other fields empty.
    #[must_use]
    pub fn new(requested: impl Into<String>, result: Result<Completion, CallError>) -> Self {
        Self {
            requested: requested.into(),
            is_route: false,
            started_at: Timestamp::now(),
            result,
            incomplete: false,
            stopped: false,
            deadline_passed: false,
            target: None,
            attempts: Vec::new(),
            ttft: None,
            first_output: None,
            total: Duration::ZERO,
            output_duration: Duration::ZERO,
            answer: AccumulatedAnswer::default(),
            usage: None,
        }
    }

    /// The error class of a failed call.
    #[must_use]
    pub fn class(&self) -> Option<ErrorClass> {
        let error = self.result.as_ref().err()?;
        // An answer that mmchat itself stopped is not the endpoint's incomplete answer.
        Some(if self.incomplete && error.class != ErrorClass::LocalLimit {
            ErrorClass::Incomplete
        } else {
            error.class
        })
    }

    /// The number of failovers to another model. Attempts that mmchat canceled, such as the slower hedge, do not count.
    #[must_use]
    pub fn failovers(&self) -> u64 {
        let failed = |attempt: &AttemptRecord| attempt.class().is_some_and(|class| class != ErrorClass::LocalLimit);
        let pairs = self.attempts.windows(2);
        let failovers = pairs.filter(|pair| failed(&pair[0]) && pair[0].target.id != pair[1].target.id);
        failovers.count() as u64
    }

    /// The cost of all attempts that are priced in the currency of the model that answered.
    #[must_use]
    pub fn cost(&self) -> Option<(f64, &str)> {
        let currency = &self.target.as_ref()?.price.as_ref()?.currency;
        let costs = self.attempts.iter().filter_map(AttemptRecord::cost);
        let costs = costs.filter(|(_, cost_currency)| cost_currency == currency).map(|(cost, _)| cost);
        costs.reduce(|sum, cost| sum + cost).map(|cost| (cost, currency.as_str()))
    }
}

/// A complete answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Completion {
    /// The finish reason; `None`: the service sent none.
    pub finish_reason: Option<FinishReason>,
}
