//! Runs one attempt: waits for a permit and the key, sends the request, reads the answer.
//!
//! Records every request that was sent. Does not retry.

use std::{
    pin::{Pin, pin},
    sync::Arc,
};

use http::HeaderMap;
use tokio::time::Instant;

use super::{CallTask, FirstTokenWait};
use crate::engine::call::queue::Candidate;
use crate::{
    engine::{
        AttemptRecord, Completion, Engine, EventKind, Notice,
        attempt::{Attempt, AttemptEnd, AttemptTimeouts, StartOptions, Step},
        attempt_error::{answer_size_error, memory_error},
        credentials::{Credentials, resolve_credentials},
        health, limiter,
        memory::{AnswerMemory, AnswerPart},
        stop_tolerant::wait_for,
    },
    model::{ErrorClass, FinishReason, ModelRequest, api_key::KeySource},
    protocol::{CallError, reply_reader::DecodedBatch},
    routing::{OnFilter, OnIncomplete},
};

/// An attempt to be started.
#[derive(Clone)]
pub(super) struct AttemptSpec {
    pub(super) candidate: Candidate,
    /// The key, with its index among those of the endpoint.
    pub(super) key: Option<(usize, KeySource)>,
    pub(super) request: Arc<ModelRequest>,
    /// Use a new connection.
    pub(super) fresh_connection: bool,
    /// Keep the raw frames of the response.
    pub(super) retain_frames: bool,
    /// Headers of the client that are sent.
    pub(super) headers: Arc<HeaderMap>,
    /// The memory of the answer.
    pub(super) memory: AnswerMemory,
}

impl AttemptSpec {
    fn key_index(&self) -> Option<usize> {
        self.key.as_ref().map(|(index, _)| *index)
    }

    /// The attempt as the health module records it.
    pub(super) fn attempt_ref(&self, sent_at: jiff::Timestamp) -> health::AttemptRef {
        let probe = self.candidate.probe.as_ref().map(|probe| probe.owner());
        health::AttemptRef {
            target: Arc::clone(&self.candidate.target),
            key_index: self.key_index(),
            sent_at,
            probe,
            operation: self.request.operation(),
            health_keys: Some(Arc::clone(&self.candidate.health_keys)),
        }
    }
}

/// The parts of a successful response head that are recorded.
#[derive(Clone, Default)]
pub(super) struct ResponseInfo {
    is_success: bool,
    request_id: Option<String>,
}

/// A response whose first delta has arrived.
pub(super) struct StartedAttempt {
    pub(super) attempt: Attempt,
    first: DecodedBatch,
    /// The memory of these.
    first_memory: AnswerPart,
    /// The end, if it arrived together with the first deltas.
    end: Option<AttemptEnd>,
    info: ResponseInfo,
    _permit: limiter::Permit,
    _in_flight: health::InFlightGuard,
}

/// An attempt that failed before its first delta.
pub(super) struct FailedStart {
    pub(super) error: CallError,
    pub(super) info: ResponseInfo,
}

/// The result of sending a request; boxed because it is moved several times.
pub(super) type StartResult = Result<Box<StartedAttempt>, FailedStart>;
pub(super) type StartFuture = Pin<Box<dyn Future<Output = StartResult> + Send>>;

/// An attempt and when it started, with its first output.
pub(super) type EndedStart = ((AttemptSpec, Instant), StartResult);

/// A request that was sent and has no result yet.
pub(super) struct PendingAttempt {
    pub(super) spec: AttemptSpec,
    pub(super) started_at: Instant,
    pub(super) start: StartFuture,
}

/// Events that are held may take this many times the limit of an answer.
const HELD_FACTOR: usize = 2;

impl CallTask {
    /// Runs and records one attempt. If it was hedged, the answer may be that of the second request.
    pub(super) async fn run_attempt(&mut self, spec: AttemptSpec) -> Result<Completion, CallError> {
        self.accumulator().begin_attempt(&spec.candidate.target, Instant::now());
        let (attempt, start) = self.start_attempt(spec).await;
        let (result, info) = match start {
            Ok(started) => {
                let info = started.info.clone();
                (self.read_answer(&attempt, started).await, info)
            }
            Err(FailedStart { error, info }) => (Err(error), info),
        };
        self.record_attempt(&attempt.0, attempt.1, info, result.as_ref().err());
        self.accumulator().end_attempt();
        if result.is_err() {
            self.last_failed = Some(attempt.0.candidate);
            // The consumer discards it.
            self.held_output = self.call.memory.new_part();
        }
        result
    }

    /// Sends the request and waits for the first delta, with a hedge request if the route allows one.
    async fn start_attempt(&mut self, spec: AttemptSpec) -> EndedStart {
        let started_at = Instant::now();
        let is_streaming = spec.request.is_streaming();
        let mut first = match self.send(spec.clone()).await {
            Ok(pending) => pending,
            Err(error) => return ((spec, started_at), Err(FailedStart { error, info: ResponseInfo::default() })),
        };
        let is_probe = first.spec.candidate.probe.is_some();
        let hedge_after = if is_probe {
            Some(self.engine.policies.health.probe.hedge_after)
        } else {
            self.call.route.as_ref().and_then(|policy| policy.hedge_after).filter(|_| is_streaming)
        };
        // A request that must not be processed twice has no hedge request.
        let may_hedge = self.remaining_candidates() > 0 && !self.is_unsafe_to_repeat;
        if let Some(hedge_after) = hedge_after.filter(|_| may_hedge) {
            let (start, _) = self.time.time_search(pin!(wait_for(hedge_after, &mut first.start))).await;
            if let Some(start) = start {
                return ((first.spec, first.started_at), start);
            }
            // Boxed: rare, and a large future otherwise.
            return Box::pin(self.hedge(first, hedge_after)).await;
        }
        self.await_pending(first).await
    }

    /// Awaits the first delta; sends a notice every 30 s if no other candidate is left.
    pub(super) async fn await_pending(&mut self, pending: PendingAttempt) -> EndedStart {
        let PendingAttempt { spec, started_at, start } = pending;
        let target = Arc::clone(&spec.candidate.target);
        self.first_token_wait =
            FirstTokenWait { since: Instant::now(), notices_sent: 0, notify: self.remaining_candidates() == 0 };
        let waiting = self.reporter.notify_while_waiting(&target, &mut self.first_token_wait, start);
        let start = self.time.time_search(pin!(waiting)).await;
        ((spec, started_at), start)
    }

    /// Waits for the permit and the secrets of the request, and sends it.
    pub(super) async fn send(&mut self, spec: AttemptSpec) -> Result<PendingAttempt, CallError> {
        let (engine, remaining_candidates) = (Arc::clone(&self.engine), self.remaining_candidates());
        let target = Arc::clone(&spec.candidate.target);
        let started_at = Instant::now();
        engine.count_request(spec.candidate.health_keys.model, started_at);
        let preparation = async {
            let permit = engine.limiters.acquire(&target.endpoint, engine.policies.timeouts.queue).await?;
            let key = spec.key.as_ref().map(|(_, source)| source);
            Ok((permit, resolve_credentials(&engine.keys, &target.endpoint, key).await?))
        };
        let prepared = self.time.time_preparation(remaining_candidates, pin!(preparation)).await;
        let (permit, credentials) = prepared.unwrap_or_else(|| Err(preparation_timeout()))?;
        let model = spec.candidate.health_keys.model;
        let in_flight = health::InFlightGuard::new(&engine, model, spec.request.is_streaming());
        // A request that may have been processed is not sent to another candidate.
        let other_candidates = if self.is_unsafe_to_repeat { 0 } else { remaining_candidates };
        let is_streaming = spec.request.is_streaming();
        let p95 = engine.latency_p95(model, is_streaming);
        let timeouts = self.time.attempt_timeouts(&target, other_candidates, is_streaming, p95);
        let start = Box::pin(start(engine, spec.clone(), credentials, timeouts, (permit, in_flight)));
        Ok(PendingAttempt { spec, started_at, start })
    }

    /// Emits the first deltas and reads the rest of the answer.
    async fn read_answer(
        &mut self,
        (spec, started_at): &(AttemptSpec, Instant),
        mut started: Box<StartedAttempt>,
    ) -> Result<Completion, CallError> {
        let (first, end) = (std::mem::take(&mut started.first), started.end.take());
        let attempt = &mut started.attempt;
        let target = Arc::clone(&spec.candidate.target);
        let sent_at = attempt.sent_at();
        // If the next candidate is to answer, nothing of this one is emitted.
        let has_answer = first.deltas.iter().any(|delta| delta.kind.is_answer());
        if !has_answer && end.as_ref().is_some_and(|end| self.fails_over_on_filter(end)) {
            return Err(content_filtered());
        }
        if !self.call.response_headers.is_empty() {
            let headers = attempt.listed_headers(&self.call.response_headers);
            if !headers.is_empty() {
                self.reporter.emit(EventKind::Headers(headers)).await;
            }
        }
        let mut reserved = std::mem::replace(&mut started.first_memory, self.call.memory.new_part());
        reserved.absorb(attempt.take_reserved());
        if !first.is_empty() {
            self.emit_deltas(first, sent_at, reserved).await?;
        }
        let end = if let Some(end) = end {
            end
        } else {
            // Without streaming, the first delta arrives only with the complete response.
            let ttft = self.accumulator().output.ttft.filter(|_| spec.request.is_streaming());
            let health = &self.engine.health;
            health.record_first_delta(spec.attempt_ref(health.timestamp_of(*started_at)), ttft, &self.engine.keys);
            self.accumulator().output.finish_reason = attempt.finish_reason();
            self.read_to_end(attempt).await?
        };
        if self.fails_over_on_filter(&end) {
            return Err(content_filtered());
        }
        if end.finish_reason.is_none() {
            self.notify(Notice::NoFinishReason(target.id.clone())).await;
        }
        if let Some(warning) = end.warning {
            self.notify(Notice::ErrorAfterEnd(target.id.clone(), warning)).await;
        }
        Ok(Completion { finish_reason: end.finish_reason })
    }

    /// Whether an empty answer that a content filter ended fails over to the next candidate (`on_filter = "next"`).
    fn fails_over_on_filter(&self, end: &AttemptEnd) -> bool {
        let filtered = end.finish_reason == Some(FinishReason::ContentFilter) && !self.has_answer();
        filtered && self.call.on_filter == OnFilter::Next && self.has_more_candidates()
    }

    /// Emits deltas until the answer ends.
    async fn read_to_end(&mut self, attempt: &mut Attempt) -> Result<AttemptEnd, CallError> {
        loop {
            let step = self.time.time_output(pin!(attempt.next())).await?;
            match step {
                Step::Done(end) => return Ok(end),
                Step::Read(read) if read.is_empty() => {}
                Step::Read(read) => {
                    let reserved = attempt.take_reserved();
                    self.accumulator().output.finish_reason = None;
                    self.emit_deltas(read, attempt.sent_at(), reserved).await?;
                    // Only now: the consumer has all of it.
                    self.accumulator().output.finish_reason = attempt.finish_reason();
                }
            }
        }
    }

    /// Emits deltas. `reserved`: their memory.
    async fn emit_deltas(
        &mut self,
        read: DecodedBatch,
        sent_at: Instant,
        reserved: AnswerPart,
    ) -> Result<(), CallError> {
        let buffered = self.call.on_incomplete == OnIncomplete::Buffer;
        let retained = self.accumulator().retained_bytes(&read.deltas);
        let (read, _reserved) = if buffered {
            let held = self.held_output.bytes() + retained + read.held_bytes();
            self.held_output.absorb(reserved);
            self.held_output.resize(held).await.map_err(memory_error)?;
            (read.detached(), None)
        } else {
            self.held_output.grow(retained).await.map_err(memory_error)?;
            // Until the consumer has the deltas.
            (read, Some(reserved))
        };
        // The text is limited by the attempt; held events may consist of anything else.
        let max_bytes = self.engine.policies.answer.max_bytes;
        if self.held_output.bytes() > max_bytes.saturating_mul(HELD_FACTOR) {
            return Err(answer_size_error(max_bytes));
        }
        let ttft = {
            let mut accumulator = self.accumulator();
            let ttft = accumulator.add(&read.deltas, sent_at, Instant::now());
            // What was passed through cannot be discarded, not even reasoning.
            accumulator.output.has_answer |= self.call.passthrough && accumulator.output.first_at.is_some();
            ttft
        };
        self.reporter.emit(if buffered { EventKind::BufferedDeltas(read) } else { EventKind::Deltas(read) }).await;
        if let Some(ttft) = ttft {
            self.reporter.emit(EventKind::FirstToken(ttft)).await;
        }
        Ok(())
    }

    /// Records how an attempt ended, in the attempts of the call and in the health of the target.
    pub(super) fn record_attempt(
        &mut self,
        spec: &AttemptSpec,
        started_at: Instant,
        info: ResponseInfo,
        error: Option<&CallError>,
    ) {
        let engine = &self.engine;
        let attempt = spec.attempt_ref(engine.health.timestamp_of(started_at));
        if let Some(error) = error {
            record_failure(engine, spec, &attempt, error);
        } else {
            let total = (!spec.request.is_streaming()).then(|| started_at.elapsed());
            engine.health.record_success(attempt, total, &engine.keys);
        }
        let record = self.attempt_record(spec, started_at, info, error);
        self.accumulator().record_attempt(record);
    }

    pub(super) fn attempt_record(
        &self,
        spec: &AttemptSpec,
        started_at: Instant,
        info: ResponseInfo,
        error: Option<&CallError>,
    ) -> AttemptRecord {
        let (target, sent_at) = (Arc::clone(&spec.candidate.target), self.engine.health.timestamp_of(started_at));
        AttemptRecord {
            status: error.and_then(|error| error.status).or(info.is_success.then_some(200)),
            request_id: info.request_id.or_else(|| error.and_then(|error| error.request_id.clone())),
            error: error.cloned(),
            key_index: spec.key_index(),
            ..AttemptRecord::new(target, sent_at, started_at.elapsed())
        }
    }
}

/// Sends the request and reads up to its first delta.
async fn start(
    engine: Arc<Engine>,
    spec: AttemptSpec,
    credentials: Credentials,
    timeouts: AttemptTimeouts,
    (permit, in_flight): (limiter::Permit, health::InFlightGuard),
) -> StartResult {
    let options = StartOptions {
        target: &spec.candidate.target,
        credentials: &credentials,
        request: &spec.request,
        timeouts,
        fresh_connection: spec.fresh_connection,
        retain_frames: spec.retain_frames,
        headers: &spec.headers,
        memory: &spec.memory,
        max_answer_bytes: engine.policies.answer.max_bytes,
    };
    let attempt = Attempt::start(&*engine.transport, options).await;
    let mut attempt = attempt.map_err(|error| FailedStart { error, info: ResponseInfo::default() })?;
    let info = ResponseInfo { is_success: true, request_id: attempt.request_id().map(str::to_owned) };
    let mut first = DecodedBatch::default();
    let mut first_memory = spec.memory.new_part();
    let end = loop {
        match attempt.next().await {
            Err(error) => return Err(FailedStart { error, info }),
            Ok(Step::Done(end)) => break Some(end),
            Ok(Step::Read(read)) => {
                if read.deltas.iter().any(|delta| delta.kind.is_output()) {
                    // Not later: a slow client must not make the model look slow.
                    in_flight.first_delta();
                    first.extend(read);
                    break None;
                }
                let read = read.detached();
                // Nothing is read while another answer gives back the memory.
                let held = first_memory.bytes() + read.held_bytes();
                first_memory.absorb(attempt.take_reserved());
                if let Err(full) = first_memory.resize(held).await {
                    return Err(FailedStart { error: memory_error(full), info });
                }
                first.extend(read);
            }
        }
    };
    Ok(Box::new(StartedAttempt { attempt, first, first_memory, end, info, _permit: permit, _in_flight: in_flight }))
}

/// Records the failure of an attempt in the health of its target.
pub(super) fn record_failure(engine: &Engine, spec: &AttemptSpec, attempt: &health::AttemptRef, error: &CallError) {
    // A path that only lacks this operation affects only the operation.
    let is_of_operation = spec.request.as_chat().is_none() && error.class != ErrorClass::Path;
    if !(is_of_operation && is_unsupported_operation(error)) {
        engine.health.record_failure(attempt, &engine.keys, error, engine.random_unit());
    }
}

/// Whether the endpoint or model does not support the operation. If the request is not a chat, such an error says nothing
/// about the health for chats.
fn is_unsupported_operation(error: &CallError) -> bool {
    use ErrorClass as C;
    matches!(error.class, C::Path | C::Forbidden | C::Model | C::NoChannel) || matches!(error.status, Some(405 | 501))
}

fn content_filtered() -> CallError {
    CallError::new(ErrorClass::Filter, "a content filter withheld the answer")
}

fn preparation_timeout() -> CallError {
    let message = "timed out before the request was sent: waiting for a key or a request slot of the endpoint";
    CallError::new(ErrorClass::LocalLimit, message)
}
