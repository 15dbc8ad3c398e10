//! The only accumulator of a call's events: its attempts, their times and usage, and the answer.
//!
//! The running call fills it; [`crate::engine::Run`] reads it to end a call that is stopped. Both end the call with one
//! [`CallRecord`], from which every consumer takes its numbers.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use tokio::time::Instant;

use crate::{
    engine::{AccumulatedAnswer, AttemptRecord, CallRecord, Completion, plan::Call},
    model::{Delta, ErrorClass, target::Target},
    protocol::CallError,
};

/// The state of one call so far.
#[derive(Debug)]
pub(in crate::engine) struct CallAccumulator {
    requested: String,
    is_route: bool,
    prompt_tokens: u64,
    retain_text: bool,
    started_at: Instant,
    started_timestamp: Timestamp,
    /// The target of the current attempt, and when the attempt started.
    current: Option<(Arc<Target>, Instant)>,
    /// Every request sent, in order.
    pub(super) attempts: Vec<AttemptRecord>,
    /// The output of the current attempt.
    pub(super) output: OutputTiming,
    answer: AccumulatedAnswer,
    /// The last attempt with an incomplete answer; used until another answer is complete.
    incomplete: Option<Box<IncompleteAnswer>>,
    /// The record, once the call has ended.
    record: Option<Arc<CallRecord>>,
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

/// An attempt whose answer is incomplete.
#[derive(Debug)]
struct IncompleteAnswer {
    target: Arc<Target>,
    error: Option<CallError>,
    timing: OutputTiming,
    answer: AccumulatedAnswer,
}

/// How a call ended, without what its events tell.
#[derive(Debug)]
struct Ending {
    result: Result<Completion, CallError>,
    stopped: bool,
    deadline_passed: bool,
}

impl OutputTiming {
    /// Records deltas that arrived at `at`.
    fn observe(&mut self, deltas: &[Delta], at: Instant) {
        if deltas.iter().any(|delta| delta.kind.is_output()) {
            self.first_at.get_or_insert(at);
            self.last_at = Some(at);
        }
        self.has_answer |= deltas.iter().any(|delta| delta.kind.is_answer());
    }

    /// The time from the first delta to the last.
    fn duration(&self) -> Duration {
        self.first_at.zip(self.last_at).map_or(Duration::ZERO, |(first, last)| last - first)
    }
}

impl CallAccumulator {
    /// A call that starts at `now`.
    pub(in crate::engine) fn new(call: &Call, now: Instant) -> Self {
        Self {
            requested: call.name.clone(),
            is_route: call.route.is_some(),
            prompt_tokens: call.prompt_tokens,
            retain_text: call.retain_text,
            started_at: now,
            started_timestamp: Timestamp::now(),
            current: None,
            attempts: Vec::new(),
            output: OutputTiming::default(),
            answer: AccumulatedAnswer::default(),
            incomplete: None,
            record: None,
        }
    }

    /// An attempt at `target` starts.
    pub(super) fn start_attempt(&mut self, target: &Arc<Target>, now: Instant) {
        self.current = Some((Arc::clone(target), now));
    }

    /// Discards the output of the attempt before.
    pub(super) fn reset_output(&mut self) {
        self.output = OutputTiming::default();
        self.answer = AccumulatedAnswer::default();
    }

    /// Adds deltas of the request sent at `sent_at`; returns the time to first token with the first of them.
    pub(super) fn add(&mut self, deltas: &[Delta], sent_at: Instant, now: Instant) -> Option<Duration> {
        let is_first = self.output.first_at.is_none();
        self.output.observe(deltas, now);
        for delta in deltas {
            self.answer.add(delta, self.retain_text);
        }
        let ttft = self.output.first_at.filter(|_| is_first).map(|first| first - sent_at);
        self.output.ttft = self.output.ttft.or(ttft);
        ttft
    }

    /// Adds the record of an attempt. Its usage is that of the output since [`CallAccumulator::reset_output`].
    pub(super) fn record_attempt(&mut self, attempt: AttemptRecord) {
        let output = self.answer.current_usage(self.prompt_tokens);
        // A complete answer is billed although it is empty.
        let usage = output.or_else(|| attempt.error.is_none().then(|| self.answer.estimated_usage(self.prompt_tokens)));
        self.attempts.push(AttemptRecord { usage, ttft: self.output.ttft, ..attempt });
    }

    /// Keeps the answer of the last attempt, which is incomplete, in case no later one is complete.
    pub(super) fn keep_incomplete_answer(&mut self) {
        let Some(attempt) = self.attempts.last() else { return };
        self.incomplete = Some(Box::new(IncompleteAnswer {
            target: Arc::clone(&attempt.target),
            error: attempt.error.clone(),
            timing: self.output,
            answer: std::mem::take(&mut self.answer),
        }));
    }

    /// Ends the call.
    pub(super) fn finish(
        &mut self,
        result: Result<Completion, CallError>,
        deadline_passed: bool,
        now: Instant,
    ) -> Arc<CallRecord> {
        let incomplete = self.incomplete.take().filter(|_| result.is_err());
        let result = incomplete.as_ref().and_then(|incomplete| incomplete.error.clone()).map_or(result, Err);
        let last = self.attempts.last().map(|attempt| Arc::clone(&attempt.target));
        self.end(Ending { result, stopped: false, deadline_passed }, (incomplete, last), now)
    }

    /// Ends a call that the user stops at `now`, unless it has ended.
    pub(in crate::engine) fn interrupt(&mut self, now: Instant) -> Arc<CallRecord> {
        if let Some(record) = &self.record {
            return Arc::clone(record);
        }
        let error = CallError::new(ErrorClass::LocalLimit, "interrupted");
        let current = self.current.take();
        if let Some((target, since)) = &current {
            let took = now.saturating_duration_since(*since);
            let sent_at = Timestamp::now().checked_sub(took).unwrap_or_default();
            self.attempts.push(AttemptRecord {
                error: Some(error.clone()),
                status: self.output.ttft.map(|_| 200),
                ttft: self.output.ttft,
                usage: self.answer.current_usage(self.prompt_tokens),
                ..AttemptRecord::new(Arc::clone(target), sent_at, took)
            });
        }
        if self.output.has_answer {
            self.keep_incomplete_answer();
        }
        let incomplete = self.incomplete.take();
        let ending = Ending { result: Err(error), stopped: true, deadline_passed: false };
        self.end(ending, (incomplete, current.map(|(target, _)| target)), now)
    }

    fn end(
        &mut self,
        ending: Ending,
        (incomplete, last): (Option<Box<IncompleteAnswer>>, Option<Arc<Target>>),
        now: Instant,
    ) -> Arc<CallRecord> {
        let is_incomplete = incomplete.is_some();
        let (target, timing, answer) = match incomplete {
            Some(incomplete) => (Some(incomplete.target), incomplete.timing, incomplete.answer),
            None => (last, self.output, std::mem::take(&mut self.answer)),
        };
        let answered = ending.result.is_ok() || is_incomplete;
        let usage = answer.current_usage(self.prompt_tokens);
        let record = Arc::new(CallRecord {
            requested: std::mem::take(&mut self.requested),
            is_route: self.is_route,
            started_at: self.started_timestamp,
            result: ending.result,
            incomplete: is_incomplete,
            stopped: ending.stopped,
            deadline_passed: ending.deadline_passed,
            target,
            attempts: std::mem::take(&mut self.attempts),
            ttft: timing.ttft,
            first_output: timing.first_at.map(|first| first - self.started_at),
            total: now.saturating_duration_since(self.started_at),
            output_duration: timing.duration(),
            usage: usage.or_else(|| answered.then(|| answer.estimated_usage(self.prompt_tokens))),
            answer,
        });
        self.record = Some(Arc::clone(&record));
        record
    }
}
