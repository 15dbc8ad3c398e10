//! The events of a running plan. Every consumer matches them exhaustively.

use std::{sync::Arc, time::Duration};

use http::HeaderMap;
use tokio::time::Instant;

use super::record::{AttemptRecord, CallRecord};

use crate::{
    model::{
        ParamWorkaround,
        target::{Target, TargetId},
    },
    protocol::{CallError, reply_reader::DecodedBatch},
};

/// One event of one call.
#[derive(Clone, Debug)]
pub struct Event {
    /// The index of the call in the plan.
    pub call: usize,
    /// When it happened, not when it is shown.
    pub at: Instant,
    /// What happened.
    pub kind: EventKind,
}

/// The kinds of events.
#[derive(Clone, Debug)]
pub enum EventKind {
    /// An attempt at a target started.
    Started(Arc<Target>),
    /// The headers of the response that the client gets, before the first deltas of an attempt.
    Headers(Arc<HeaderMap>),
    /// Everything that one read of the network added to the answer.
    Deltas(DecodedBatch),
    /// Like `Deltas`, but not shown until the call ends, so that the output of a failed attempt is never shown.
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
    /// Information for the user.
    Notice(Notice),
    /// The user restarted the call: its earlier output is not part of the answer.
    Restarted,
    /// The call ended; it may still be restarted.
    Finished(Arc<CallRecord>),
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
    /// The candidate of the hedge request, which is already running.
    AwaitHedge(TargetId),
    /// Another candidate, although part of an answer was shown.
    RestartOutput(TargetId),
}

/// Information for the user that is not a failed attempt.
#[derive(Clone, Debug, PartialEq)]
pub enum Notice {
    /// The service rejected a parameter, and the request was changed.
    WorkaroundApplied(TargetId, ParamWorkaround),
    /// There is no output after this time, and no other candidate is left.
    WaitingForFirstToken(TargetId, Duration),
    /// A wait before the next attempt.
    Backoff(TargetId, Duration),
    /// The answer ended without a finish reason.
    NoFinishReason(TargetId),
    /// The service sent an error after the answer was complete.
    ErrorAfterEnd(TargetId, CallError),
    /// A candidate was skipped, with the reason.
    Skipped(TargetId, String),
    /// A candidate is unavailable for this time, with the cause.
    Unavailable(TargetId, Duration, String),
    /// All candidates are unavailable; this one is tried once this time has passed.
    AllUnavailable(TargetId, Duration),
    /// The first target had no output after this time; a hedge request was sent to the second.
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
