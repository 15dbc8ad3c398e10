//! Tracks the attempts and times of a running call, so that a stopped call still gets a complete outcome.
//!
//! Does not store the text of the answer; the views do.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{AttemptRecord, CallRecord, Event, EventKind};
use crate::{
    model::{Delta, ErrorClass, target::Target},
    protocol::CallError,
};

/// The progress of one call.
#[derive(Clone, Debug)]
pub struct CallProgress {
    started_at: Instant,
    /// The target of the current attempt, and when the attempt started.
    current: Option<(Arc<Target>, Instant)>,
    failed_attempts: Vec<AttemptRecord>,
    output: OutputTiming,
    /// The target and timing of the last incomplete answer; used until another answer begins.
    incomplete: Option<(Arc<Target>, OutputTiming)>,
}

/// When the output of one attempt arrived.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct OutputTiming {
    /// Part of the answer itself arrived. Reasoning alone can still be discarded.
    pub(super) has_answer: bool,
    pub(super) ttft: Option<Duration>,
    pub(super) first_at: Option<Instant>,
    last_at: Option<Instant>,
}

impl OutputTiming {
    /// Records deltas that arrived at `at`.
    pub(super) fn observe(&mut self, deltas: &[Delta], at: Instant) {
        if deltas.iter().any(|delta| delta.kind.is_output()) {
            self.first_at.get_or_insert(at);
            self.last_at = Some(at);
        }
        self.has_answer |= deltas.iter().any(|delta| delta.kind.is_answer());
    }

    /// The time from the first delta to the last.
    pub(super) fn duration(&self) -> Duration {
        self.first_at.zip(self.last_at).map_or(Duration::ZERO, |(first, last)| last - first)
    }
}

impl CallProgress {
    /// A call that starts at `now`.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self {
            started_at: now,
            current: None,
            failed_attempts: Vec::new(),
            output: OutputTiming::default(),
            incomplete: None,
        }
    }

    /// Applies an event of the call.
    pub fn apply(&mut self, event: &Event) {
        match &event.kind {
            EventKind::Started(target) => self.current = Some((Arc::clone(target), event.at)),
            EventKind::FirstToken(ttft) => self.output.ttft = Some(*ttft),
            EventKind::Deltas(deltas) | EventKind::BufferedDeltas(deltas) => self.output.observe(deltas, event.at),
            EventKind::Failed { record, .. } => {
                // A repeat starts now; another candidate sends its own `Started`.
                self.current = Some((Arc::clone(&record.target), event.at));
                self.failed_attempts.push(record.clone());
                let timing = std::mem::take(&mut self.output);
                if timing.has_answer {
                    self.incomplete = Some((Arc::clone(&record.target), timing));
                }
            }
            EventKind::Restarted => *self = Self::new(event.at),
            EventKind::Notice(_) | EventKind::Finished(_) => {}
        }
    }

    /// The outcome of a call that the user stops at `now`.
    #[must_use]
    pub fn into_interrupted_outcome(self, now: Instant) -> CallRecord {
        let error = CallError::new(ErrorClass::LocalLimit, "interrupted");
        let current = self.current.as_ref().map(|(target, _)| (Arc::clone(target), self.output));
        let incomplete = self.output.has_answer || self.incomplete.is_some();
        let representative = if self.output.has_answer { current } else { self.incomplete.or(current) };
        let timing = representative.as_ref().map(|(_, timing)| *timing).unwrap_or_default();
        let running_attempt = self.current.map(|(target, since)| {
            let took = now - since;
            let at = jiff::Timestamp::now().checked_sub(took).unwrap_or_default();
            // `FirstToken` follows the first delta and may not have been received yet.
            let ttft = self.output.ttft.or_else(|| self.output.first_at.map(|first| first - since));
            AttemptRecord {
                error: Some(error.clone()),
                status: ttft.map(|_| 200),
                ttft,
                ..AttemptRecord::new(target, at, took)
            }
        });
        CallRecord {
            result: Err(error),
            incomplete,
            stopped: true,
            deadline_passed: false,
            target: representative.map(|(target, _)| target),
            attempts: self.failed_attempts.into_iter().chain(running_attempt).collect(),
            ttft: timing.ttft,
            first_output: timing.first_at.map(|first| first - self.started_at),
            total: now - self.started_at,
            output_duration: timing.duration(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        engine::NextStep,
        model::{
            DeltaKind,
            target::{TargetId, testing},
        },
    };

    #[test]
    fn interrupted_call_has_its_attempts_and_times() {
        let begun = Instant::now();
        let at = |ms| begun + Duration::from_millis(ms);
        let (a, b) = (Arc::new(testing::target("a")), Arc::new(testing::target("b")));
        let error = CallError::new(ErrorClass::Server, "no");
        let took = Duration::from_millis(5);
        let sent = AttemptRecord::new(Arc::clone(&a), jiff::Timestamp::UNIX_EPOCH, took);
        let record = AttemptRecord { error: Some(error), status: Some(500), ..sent };
        let text = Delta { choice: 0, kind: DeltaKind::Text("partial".into()) };
        let mut progress = CallProgress::new(begun);
        for (ms, kind) in [
            (1, EventKind::Started(a)),
            (6, EventKind::Failed { record, next: NextStep::Failover(TargetId("b".into())) }),
            (7, EventKind::Started(b)),
            (20, EventKind::Deltas(vec![text.clone()].into())),
            (20, EventKind::FirstToken(Duration::from_millis(12))),
            (50, EventKind::Deltas(vec![text].into())),
        ] {
            progress.apply(&Event { call: 0, at: at(ms), kind });
        }
        let outcome = progress.into_interrupted_outcome(at(70));
        let attempts: Vec<_> =
            outcome.attempts.iter().map(|attempt| (attempt.target.id.0.as_str(), attempt.took)).collect();
        assert_eq!(attempts, [("a", took), ("b", Duration::from_millis(63))]);
        assert_eq!((outcome.ttft, outcome.incomplete), (Some(Duration::from_millis(12)), true));
        assert_eq!((outcome.output_duration, outcome.total), (Duration::from_millis(30), Duration::from_millis(70)));
        assert_eq!(outcome.target.map(|target| target.id.to_string()), Some("b".into()));
    }
}
