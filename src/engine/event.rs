//! What happens while a plan runs, as a stream of facts. Owns their shapes; every sink matches them exhaustively.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{
    model::{
        Adjustment, ErrorClass, FinishReason,
        target::{Target, TargetId},
    },
    protocol::{ApiError, reply_reader::Read},
};

/// One thing that happened in one lane.
#[derive(Clone, Debug)]
pub struct Event {
    /// Which lane, by its place in the plan.
    pub lane: usize,
    /// When it was noticed; drawing later does not change it.
    pub at: Instant,
    /// What.
    pub kind: EventKind,
}

/// What happened.
#[derive(Clone, Debug)]
pub enum EventKind {
    /// A target is being asked.
    Started(Arc<Target>),
    /// Everything one read of the network added to the answer.
    Deltas(Read),
    /// As `Deltas`, but not to be shown before the answer is whole: the attempt may still fail unseen.
    Held(Read),
    /// The first of an answer, which was just told, came so long after its request was sent.
    Ttft(Duration),
    /// An attempt failed and something else is tried. What it had put out (thinking only, unless `next` is
    /// [`Next::Restart`] or it was held) is no part of the answer.
    Failed {
        /// What failed.
        record: AttemptRecord,
        /// What is tried now.
        next: Next,
    },
    /// Something a person should know.
    Notice(Notice),
    /// The person wants the lane asked once more: what came of it before is no part of its answer.
    Again,
    /// The lane is over, unless it begins again.
    Finished(Box<LaneOutcome>),
}

/// What is tried after a failed attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// The same endpoint, once more.
    Repeat,
    /// The same endpoint with its next key.
    Key,
    /// Another candidate; nothing of the answer was shown yet.
    Candidate(TargetId),
    /// Another candidate, which was asked beside it and has not answered yet.
    Awaited(TargetId),
    /// Another candidate, although a part of an answer was shown.
    Restart(TargetId),
}

/// Something a person should know although nothing failed.
#[derive(Clone, Debug, PartialEq)]
pub enum Notice {
    /// A parameter was refused and the request changed.
    Adjusted(TargetId, Adjustment),
    /// Nothing has come for so long, and there is nobody else to ask.
    Waiting(TargetId, Duration),
    /// A wait before the next try.
    Backoff(TargetId, Duration),
    /// The service said that it was over, but not why.
    NoReason(TargetId),
    /// An error after the answer was complete.
    AfterEnd(TargetId, ApiError),
    /// A candidate was not asked.
    PassedOver(TargetId, String),
    /// A candidate is left alone for so long, because of that.
    SetAside(TargetId, Duration, String),
    /// Everybody is left alone; this one is asked after so long.
    AllAside(TargetId, Duration),
    /// Nothing came of the first for so long; the second is asked as well.
    Hedged(TargetId, TargetId, Duration),
    /// The spend limits of a model could not be checked.
    Unchecked(TargetId, String),
}

impl Notice {
    /// Whom it is about.
    #[must_use]
    pub fn target(&self) -> &TargetId {
        match self {
            Self::Adjusted(target, _)
            | Self::Waiting(target, _)
            | Self::Backoff(target, _)
            | Self::NoReason(target)
            | Self::AfterEnd(target, _)
            | Self::PassedOver(target, _)
            | Self::SetAside(target, ..)
            | Self::AllAside(target, _)
            | Self::Hedged(target, ..)
            | Self::Unchecked(target, _) => target,
        }
    }
}

/// One upstream request, for the record.
#[derive(Clone, Debug)]
pub struct AttemptRecord {
    /// Whom.
    pub target: Arc<Target>,
    /// How it failed; `None`: it answered.
    pub error: Option<ApiError>,
    /// The HTTP status, where there was one.
    pub status: Option<u16>,
    /// When it was sent.
    pub at: Timestamp,
    /// How long it took.
    pub took: Duration,
    /// From sending to the first content, reasoning or tool delta, if one came.
    pub ttft: Option<Duration>,
    /// Which of the endpoint's keys it was sent with, counted from 0; `None`: without one.
    pub key: Option<usize>,
    /// The service's id of the request.
    pub request_id: Option<String>,
}

impl AttemptRecord {
    /// A request that was sent at `at` and took so long; nothing else is known of it.
    #[must_use]
    pub fn new(target: Arc<Target>, at: Timestamp, took: Duration) -> Self {
        Self { target, error: None, status: None, at, took, ttft: None, key: None, request_id: None }
    }

    /// What programs are told of it: `{endpoint, model, class, status, ms, key, request_id, message}`.
    #[must_use]
    pub fn facts(&self) -> Value {
        json!({
            "endpoint": self.target.endpoint.name,
            "model": self.target.id.0,
            "class": self.class().map_or("ok", ErrorClass::as_str),
            "status": self.status,
            "ms": u64::try_from(self.took.as_millis()).unwrap_or(u64::MAX),
            "key": self.key,
            "request_id": self.request_id,
            "message": self.error.as_ref().map(|error| error.message.as_str()),
        })
    }

    /// The class of its failure.
    #[must_use]
    pub fn class(&self) -> Option<ErrorClass> {
        self.error.as_ref().map(|error| error.class)
    }
}

/// How a lane ended.
#[derive(Clone, Debug)]
pub struct LaneOutcome {
    /// The whole answer, or why there is none: why the last one that had begun broke off, else the most telling error.
    pub result: Result<Whole, ApiError>,
    /// An answer had begun and broke off, and no other took its place.
    pub cut: bool,
    /// The person had enough of it.
    pub stopped: bool,
    /// The lane's deadline passed.
    pub deadline_passed: bool,
    /// Who answered, whose answer was cut, or who was asked last.
    pub target: Option<Arc<Target>>,
    /// Every request sent, in order.
    pub attempts: Vec<AttemptRecord>,
    /// From sending the request that was answered to its first content, reasoning or tool delta.
    pub ttft: Option<Duration>,
    /// The same from the start of the lane: as the person felt it.
    pub first: Option<Duration>,
    /// From the start of the lane.
    pub total: Duration,
    /// From the first delta to the last.
    pub generating: Duration,
}

/// A whole answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Whole {
    /// Why it ended; `None`: the service did not say.
    pub reason: Option<FinishReason>,
}
