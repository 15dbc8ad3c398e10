//! The events of a running plan. Every consumer matches them exhaustively.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{
    model::{
        ErrorClass, FinishReason, ParamWorkaround,
        target::{Target, TargetId},
    },
    protocol::{CallError, reply_reader::DecodedBatch},
};

/// One event of one call.
#[derive(Clone, Debug)]
pub struct Event {
    /// The index of the call in the plan.
    pub call: usize,
    /// When it happened; independent of when it is drawn.
    pub at: Instant,
    /// What happened.
    pub kind: EventKind,
}

/// The kinds of events.
#[derive(Clone, Debug)]
pub enum EventKind {
    /// An attempt at a target started.
    Started(Arc<Target>),
    /// Everything that one read of the network added to the answer.
    Deltas(DecodedBatch),
    /// Like `Deltas`, but not to be shown before the answer is complete: a failed attempt stays invisible.
    BufferedDeltas(DecodedBatch),
    /// Follows the first deltas of an attempt: the time from sending the request to the first of them.
    FirstToken(Duration),
    /// An attempt failed and another is made. Its output (reasoning only, unless `next` is [`NextStep::RestartOutput`]
    /// or the output was buffered) is not part of the answer.
    Failed {
        /// The failed attempt.
        record: AttemptRecord,
        /// What is tried next.
        next: NextStep,
    },
    /// Something to show to the user.
    Notice(Notice),
    /// The user restarted the call: its earlier output is not part of the answer.
    Restarted,
    /// The call ended; it may still be restarted.
    Finished(Box<CallRecord>),
}

/// The next action after a failed attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NextStep {
    /// The same endpoint with the same key.
    RetrySame,
    /// The same endpoint with its next key.
    RotateKey,
    /// Another candidate; no part of the answer was shown.
    Failover(TargetId),
    /// The candidate of the hedged request, which is already running.
    AwaitHedge(TargetId),
    /// Another candidate, although part of an answer was shown.
    RestartOutput(TargetId),
}

/// Something to show to the user although nothing failed.
#[derive(Clone, Debug, PartialEq)]
pub enum Notice {
    /// The service rejected a parameter, and the request was changed.
    WorkaroundApplied(TargetId, ParamWorkaround),
    /// No output yet after this time, and no other candidate is left.
    WaitingForFirstToken(TargetId, Duration),
    /// A wait before the next attempt.
    Backoff(TargetId, Duration),
    /// The answer ended without a finish reason.
    NoFinishReason(TargetId),
    /// An error after the answer was complete.
    ErrorAfterEnd(TargetId, CallError),
    /// A candidate was skipped, with the reason.
    Skipped(TargetId, String),
    /// A candidate is unavailable for this time, with the cause.
    Unavailable(TargetId, Duration, String),
    /// All candidates are unavailable; this one is tried after this time.
    AllUnavailable(TargetId, Duration),
    /// The first had no output after this time; a hedged request was sent to the second.
    Hedged(TargetId, TargetId, Duration),
    /// The spend limits of a model could not be checked.
    SpendUnchecked(TargetId, String),
}

impl Notice {
    /// The model it is about.
    #[must_use]
    pub fn target(&self) -> &TargetId {
        match self {
            Self::WorkaroundApplied(target, _)
            | Self::WaitingForFirstToken(target, _)
            | Self::Backoff(target, _)
            | Self::NoFinishReason(target)
            | Self::ErrorAfterEnd(target, _)
            | Self::Skipped(target, _)
            | Self::Unavailable(target, ..)
            | Self::AllUnavailable(target, _)
            | Self::Hedged(target, ..)
            | Self::SpendUnchecked(target, _) => target,
        }
    }
}

/// One upstream request and its result.
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
    /// How long it took.
    pub took: Duration,
    /// From sending to the first content, reasoning or tool delta, if any.
    pub ttft: Option<Duration>,
    /// The index of the key among those of the endpoint, from 0; `None`: sent without a key.
    pub key_index: Option<usize>,
    /// The request id assigned by the service.
    pub request_id: Option<String>,
}

impl AttemptRecord {
    /// A request sent at `at` that took `took`, with all other fields empty.
    #[must_use]
    pub fn new(target: Arc<Target>, sent_at: Timestamp, took: Duration) -> Self {
        Self { target, error: None, status: None, sent_at, took, ttft: None, key_index: None, request_id: None }
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

    /// The class of its error.
    #[must_use]
    pub fn class(&self) -> Option<ErrorClass> {
        self.error.as_ref().map(|error| error.class)
    }
}

/// How a call ended.
#[derive(Clone, Debug)]
pub struct CallRecord {
    /// The completion, or the error: that of the last incomplete answer, else the most representative one.
    pub result: Result<Completion, CallError>,
    /// The answer is incomplete, and no later attempt replaced it.
    pub incomplete: bool,
    /// The user stopped the call.
    pub stopped: bool,
    /// The deadline of the call passed.
    pub deadline_passed: bool,
    /// The target that answered, whose answer is incomplete, or that was tried last.
    pub target: Option<Arc<Target>>,
    /// Every request sent, in order.
    pub attempts: Vec<AttemptRecord>,
    /// From sending the request that produced the answer to its first content, reasoning or tool delta.
    pub ttft: Option<Duration>,
    /// The same from the start of the call, as the user perceives it.
    pub first_output: Option<Duration>,
    /// The duration of the call.
    pub total: Duration,
    /// From the first delta to the last.
    pub output_duration: Duration,
}

/// A complete answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Completion {
    /// The finish reason; `None`: the service sent none.
    pub finish_reason: Option<FinishReason>,
}
