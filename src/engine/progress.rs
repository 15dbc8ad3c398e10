//! What a lane's events add up to while it is under way.
//!
//! Owns the account of an answer that is stopped before its lane could give one. Refuses to keep its text: that is the
//! view's.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{AttemptRecord, Event, EventKind, LaneOutcome};
use crate::{
    model::{Delta, ErrorClass, target::Target},
    protocol::ApiError,
};

/// How far one lane has come.
#[derive(Clone, Debug)]
pub struct Progress {
    begun: Instant,
    /// Whom the attempt under way asks, and since when.
    asking: Option<(Arc<Target>, Instant)>,
    failed: Vec<AttemptRecord>,
    spoken: Spoken,
    /// The last answer that broke off, which counts until another begins: whose it was, and how far it had come.
    broken_off: Option<(Arc<Target>, Spoken)>,
}

/// How far an attempt's answer has come.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Spoken {
    /// A piece of the answer itself came: what was only thought can be taken back.
    pub(super) answer: bool,
    pub(super) ttft: Option<Duration>,
    pub(super) first: Option<Instant>,
    last: Option<Instant>,
}

impl Spoken {
    /// Takes notice of what came at `at`.
    pub(super) fn hear(&mut self, deltas: &[Delta], at: Instant) {
        if deltas.iter().any(|delta| delta.kind.is_output()) {
            self.first.get_or_insert(at);
            self.last = Some(at);
        }
        self.answer |= deltas.iter().any(|delta| delta.kind.is_answer());
    }

    /// From the first delta to the last.
    pub(super) fn generating(&self) -> Duration {
        self.first.zip(self.last).map_or(Duration::ZERO, |(first, last)| last - first)
    }
}

impl Progress {
    /// A lane that begins at `now`.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self { begun: now, asking: None, failed: Vec::new(), spoken: Spoken::default(), broken_off: None }
    }

    /// Takes notice of what happened.
    pub fn event(&mut self, event: &Event) {
        match &event.kind {
            EventKind::Started(target) => self.asking = Some((Arc::clone(target), event.at)),
            EventKind::Ttft(ttft) => self.spoken.ttft = Some(*ttft),
            EventKind::Deltas(deltas) | EventKind::Held(deltas) => self.spoken.hear(deltas, event.at),
            EventKind::Failed { record, .. } => {
                // A repeat begins here; another candidate says so itself.
                self.asking = Some((Arc::clone(&record.target), event.at));
                self.failed.push(record.clone());
                let spoken = std::mem::take(&mut self.spoken);
                if spoken.answer {
                    self.broken_off = Some((Arc::clone(&record.target), spoken));
                }
            }
            EventKind::Again => *self = Self::new(event.at),
            EventKind::Notice(_) | EventKind::Finished(_) => {}
        }
    }

    /// The account when the person has had enough at `now`.
    #[must_use]
    pub fn interrupted(self, now: Instant) -> LaneOutcome {
        let error = ApiError::new(ErrorClass::Local, "interrupted");
        let asking = self.asking.as_ref().map(|(target, _)| (Arc::clone(target), self.spoken));
        let cut = self.spoken.answer || self.broken_off.is_some();
        let telling = if self.spoken.answer { asking } else { self.broken_off.or(asking) };
        let spoken = telling.as_ref().map(|(_, spoken)| *spoken).unwrap_or_default();
        let under_way = self.asking.map(|(target, since)| {
            let took = now - since;
            let at = jiff::Timestamp::now().checked_sub(took).unwrap_or_default();
            // Its first delta may be here, and its time not told yet.
            let ttft = self.spoken.ttft.or_else(|| self.spoken.first.map(|first| first - since));
            AttemptRecord {
                error: Some(error.clone()),
                status: ttft.map(|_| 200),
                ttft,
                ..AttemptRecord::new(target, at, took)
            }
        });
        LaneOutcome {
            result: Err(error),
            cut,
            stopped: true,
            deadline_passed: false,
            target: telling.map(|(target, _)| target),
            attempts: self.failed.into_iter().chain(under_way).collect(),
            ttft: spoken.ttft,
            first: spoken.first.map(|first| first - self.begun),
            total: now - self.begun,
            generating: spoken.generating(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        engine::Next,
        model::{
            DeltaKind,
            target::{TargetId, testing},
        },
    };

    #[test]
    fn an_interrupted_answer_has_its_attempts_and_times() {
        let begun = Instant::now();
        let at = |ms| begun + Duration::from_millis(ms);
        let (a, b) = (Arc::new(testing::target("a")), Arc::new(testing::target("b")));
        let error = ApiError::new(ErrorClass::Server, "no");
        let took = Duration::from_millis(5);
        let sent = AttemptRecord::new(Arc::clone(&a), jiff::Timestamp::UNIX_EPOCH, took);
        let record = AttemptRecord { error: Some(error), status: Some(500), ..sent };
        let text = Delta { choice: 0, kind: DeltaKind::Text("half".into()) };
        let mut progress = Progress::new(begun);
        for (ms, kind) in [
            (1, EventKind::Started(a)),
            (6, EventKind::Failed { record, next: Next::Candidate(TargetId("b".into())) }),
            (7, EventKind::Started(b)),
            (20, EventKind::Deltas(vec![text.clone()].into())),
            (20, EventKind::Ttft(Duration::from_millis(12))),
            (50, EventKind::Deltas(vec![text].into())),
        ] {
            progress.event(&Event { lane: 0, at: at(ms), kind });
        }
        let outcome = progress.interrupted(at(70));
        let told: Vec<_> =
            outcome.attempts.iter().map(|attempt| (attempt.target.id.0.as_str(), attempt.took)).collect();
        assert_eq!(told, [("a", took), ("b", Duration::from_millis(63))]);
        assert_eq!((outcome.ttft, outcome.cut), (Some(Duration::from_millis(12)), true));
        assert_eq!((outcome.generating, outcome.total), (Duration::from_millis(30), Duration::from_millis(70)));
        assert_eq!(outcome.target.map(|target| target.id.to_string()), Some("b".into()));
    }
}
