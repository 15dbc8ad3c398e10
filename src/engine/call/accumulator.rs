//! Accumulates the attempts of a call, their times and usage, and the answer.
//!
//! The running call fills the accumulator and ends it with a [`CallRecord`]; if the call is stopped,
//! [`crate::engine::Run`] ends it. Every consumer takes its numbers from that record.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use tokio::time::Instant;

use crate::{
    engine::{AccumulatedAnswer, AttemptRecord, CallRecord, Completion, plan::Call},
    model::{Delta, DeltaKind, ErrorClass, FinishReason, target::Target},
    protocol::CallError,
};

/// The attempts and the answer of one call so far.
#[derive(Debug)]
pub(in crate::engine) struct CallAccumulator {
    requested: String,
    is_route: bool,
    estimated_prompt_tokens: u64,
    retain_text: bool,
    started_at: Instant,
    started_timestamp: Timestamp,
    /// The target of the current attempt, and when the attempt started.
    current: Option<(Arc<Target>, Instant)>,
    /// The target of a hedge request beside the current attempt, and when it started.
    hedge: Option<(Arc<Target>, Instant)>,
    /// The attempts that have ended, in order.
    pub(super) attempts: Vec<AttemptRecord>,
    /// The output of the current attempt.
    pub(super) output: OutputTiming,
    answer: AccumulatedAnswer,
    /// The last attempt with an incomplete answer; used until another answer is complete.
    incomplete: Option<Box<IncompleteAnswer>>,
    /// The record, once the call has ended.
    record: Option<Arc<CallRecord>>,
}

/// When the output of one attempt arrived, and whether all of it has.
#[derive(Clone, Debug, Default)]
pub(super) struct OutputTiming {
    /// Part of the answer itself arrived. Reasoning alone can still be discarded.
    pub(super) has_answer: bool,
    pub(super) ttft: Option<Duration>,
    pub(super) first_at: Option<Instant>,
    last_at: Option<Instant>,
    /// The finish reason, once only the usage may be missing.
    pub(super) finish_reason: Option<FinishReason>,
}

/// An attempt whose answer is incomplete.
#[derive(Debug)]
struct IncompleteAnswer {
    target: Arc<Target>,
    error: Option<CallError>,
    timing: OutputTiming,
    answer: AccumulatedAnswer,
}

/// What the record needs besides the accumulated state.
#[derive(Debug)]
struct CallEnd {
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
    /// The accumulator of a call that starts at `now`, which the wall clock shows as `timestamp`.
    pub(in crate::engine) fn new(call: &Call, now: Instant, timestamp: Timestamp) -> Self {
        Self {
            requested: call.name.clone(),
            is_route: call.route.is_some(),
            estimated_prompt_tokens: call.estimated_prompt_tokens,
            retain_text: call.retain_text,
            started_at: now,
            started_timestamp: timestamp,
            current: None,
            hedge: None,
            attempts: Vec::new(),
            output: OutputTiming::default(),
            answer: AccumulatedAnswer::default(),
            incomplete: None,
            record: None,
        }
    }

    /// Starts an attempt at `target` and discards the output of the previous one.
    pub(super) fn begin_attempt(&mut self, target: &Arc<Target>, now: Instant) {
        self.switch_attempt(target, now);
        self.output = OutputTiming::default();
        self.answer = AccumulatedAnswer::default();
    }

    /// Starts a hedge request to `target` beside the current attempt.
    pub(super) fn begin_hedge(&mut self, target: &Arc<Target>, started_at: Instant) {
        self.hedge = Some((Arc::clone(target), started_at));
    }

    /// Ends the race of the current attempt and its hedge request.
    pub(super) fn end_hedge(&mut self) {
        self.hedge = None;
    }

    /// Makes the other request of a hedged attempt, sent at `started_at`, the current one.
    pub(super) fn switch_attempt(&mut self, target: &Arc<Target>, started_at: Instant) {
        self.current = Some((Arc::clone(target), started_at));
    }

    /// Ends the current attempt, which has been recorded. Its answer is kept if it is incomplete, in case no later answer
    /// is complete.
    pub(super) fn end_attempt(&mut self) {
        self.current = None;
        if self.output.has_answer && self.attempts.last().is_some_and(|attempt| attempt.error.is_some()) {
            self.keep_incomplete_answer();
        }
    }

    /// The memory that `deltas` take when they are added, in bytes.
    pub(super) fn retained_bytes(&self, deltas: &[Delta]) -> usize {
        let is_retained = |delta: &&Delta| self.retain_text || matches!(delta.kind, DeltaKind::ToolCall(_));
        deltas.iter().filter(is_retained).map(|delta| delta.kind.held_len()).sum()
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

    /// Adds the record of an attempt. Its usage is that of the output since [`CallAccumulator::begin_attempt`].
    pub(super) fn record_attempt(&mut self, attempt: AttemptRecord) {
        let usage = self.answer.current_usage(self.estimated_prompt_tokens);
        // A complete answer is billed even if it is empty, and so is an incomplete one that has only tool calls.
        let is_billed = attempt.error.is_none() || self.output.has_answer;
        let usage = usage.or_else(|| is_billed.then(|| self.answer.estimated_usage(self.estimated_prompt_tokens)));
        self.attempts.push(AttemptRecord { usage, ttft: self.output.ttft, ..attempt });
    }

    /// Adds the record of a request that mmchat canceled before its first delta: the service bills the prompt.
    pub(super) fn record_unanswered_attempt(&mut self, attempt: AttemptRecord) {
        let usage = AccumulatedAnswer::default().estimated_usage(self.estimated_prompt_tokens);
        self.attempts.push(AttemptRecord { usage: Some(usage), ..attempt });
    }

    fn keep_incomplete_answer(&mut self) {
        let Some(attempt) = self.attempts.last() else { return };
        self.incomplete = Some(Box::new(IncompleteAnswer {
            target: Arc::clone(&attempt.target),
            error: attempt.error.clone(),
            timing: self.output.clone(),
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
        let last_target = self.attempts.last().map(|attempt| Arc::clone(&attempt.target));
        self.end(CallEnd { result, stopped: false, deadline_passed }, (incomplete, last_target), now)
    }

    /// Ends the call because the user stops it at `now`. If it has already ended, returns its record. An answer that only
    /// waits for its usage is complete.
    pub(in crate::engine) fn interrupt(&mut self, now: Instant) -> Arc<CallRecord> {
        if let Some(record) = &self.record {
            return Arc::clone(record);
        }
        let error = CallError::new(ErrorClass::LocalLimit, "interrupted");
        let mut result = Err(error.clone());
        if let Some((target, started_at)) = self.hedge.take() {
            let record = self.stopped_attempt(target, started_at, now);
            self.record_unanswered_attempt(AttemptRecord { error: Some(error.clone()), ..record });
        }
        if let Some((target, started_at)) = self.current.take() {
            if let Some(finish_reason) = self.output.finish_reason.clone() {
                result = Ok(Completion { finish_reason: Some(finish_reason) });
            }
            self.record_attempt(AttemptRecord {
                error: result.is_err().then_some(error),
                status: self.output.ttft.map(|_| 200),
                ..self.stopped_attempt(target, started_at, now)
            });
            self.end_attempt();
        } else {
            // Between two attempts: the output of the last one failed and is recorded.
            self.output = OutputTiming::default();
            self.answer = AccumulatedAnswer::default();
        }
        let incomplete = self.incomplete.take().filter(|_| result.is_err());
        let last_target = self.attempts.last().map(|attempt| Arc::clone(&attempt.target));
        let stopped = result.is_err();
        self.end(CallEnd { result, stopped, deadline_passed: false }, (incomplete, last_target), now)
    }

    /// The record of a request that ends now.
    fn stopped_attempt(&self, target: Arc<Target>, started_at: Instant, now: Instant) -> AttemptRecord {
        let sent_at = self.started_timestamp.checked_add(started_at - self.started_at);
        let sent_at = sent_at.unwrap_or(self.started_timestamp);
        AttemptRecord::new(target, sent_at, now.saturating_duration_since(started_at))
    }

    fn end(
        &mut self,
        ending: CallEnd,
        (incomplete, last_target): (Option<Box<IncompleteAnswer>>, Option<Arc<Target>>),
        now: Instant,
    ) -> Arc<CallRecord> {
        let is_incomplete = incomplete.is_some();
        let (target, timing, answer) = match incomplete {
            Some(incomplete) => (Some(incomplete.target), incomplete.timing, incomplete.answer),
            None => (last_target, self.output.clone(), std::mem::take(&mut self.answer)),
        };
        let answered = ending.result.is_ok() || is_incomplete;
        let usage = answer.current_usage(self.estimated_prompt_tokens);
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
            usage: usage.or_else(|| answered.then(|| answer.estimated_usage(self.estimated_prompt_tokens))),
            answer,
        });
        self.record = Some(Arc::clone(&record));
        record
    }
}
