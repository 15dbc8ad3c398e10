//! Runs one call: tries its candidates in order, with retries, key rotation and failover, until one answers.
//!
//! `routing::decision` decides what follows a failure. The work is an `async` function that reports through a
//! [`CallState`]; [`run`] turns it into a stream that is polled on the caller's task, so dropping the stream stops
//! everything. The only tasks that it spawns renew the lease of a probe and wait for its first delta, and end with the probe.

use std::{collections::VecDeque, pin::pin, sync::Arc, task::Poll, time::Duration};

use futures_util::{Stream, stream::poll_fn};
use http::HeaderMap;
use parking_lot::MutexGuard;
use tokio::time::{Instant, sleep};

mod accumulator;
mod final_error;
mod further_attempt;
mod hedge;
mod next_candidate;
mod queue;
mod report;
mod send;
mod time_budget;
mod watch;

pub(super) use accumulator::CallAccumulator;
use queue::{Candidate, CandidateQueue};
pub(super) use report::CallState;
use report::{FirstTokenWait, Reporter};
use send::AttemptSpec;
use time_budget::TimeBudget;

use super::{AttemptRecord, Completion, Engine, Event, EventKind, NextStep, Notice, RetryReservation};
use crate::{
    engine::{memory::AnswerPart, plan::Call},
    model::{
        ErrorClass, ModelRequest, ParamWorkaround,
        api_key::KeySource,
        target::{Target, TargetId},
    },
    protocol::{CallError, protocol_of},
    routing::{
        OnIncomplete,
        attempt_budget::AttemptBudget,
        decision::{Decision, RetryContext, decide},
    },
};

/// Runs one call as a stream of events. Each event is put in the state and taken from it before the work continues.
pub(super) fn run(engine: Arc<Engine>, index: usize, call: Call) -> (Arc<CallState>, impl Stream<Item = Event> + Send) {
    let state = Arc::new(CallState::new(CallAccumulator::new(&call, Instant::now(), engine.health.now())));
    let mut task = CallTask::new(engine, index, call, Arc::clone(&state));
    let mut work = Some(Box::pin(async move { task.execute().await }));
    let shared = Arc::clone(&state);
    let events = poll_fn(move |context| {
        if let Some(future) = &mut work
            && future.as_mut().poll(context).is_ready()
        {
            work = None;
        }
        match shared.take_event() {
            Some(event) => Poll::Ready(Some(event)),
            None if work.is_some() => Poll::Pending,
            None => Poll::Ready(None),
        }
    });
    (state, events)
}

/// A running call: what it has left to try.
struct CallTask {
    engine: Arc<Engine>,
    call: Call,
    reporter: Reporter,
    time: TimeBudget,
    /// Candidates not tried yet.
    queue: CandidateQueue,
    /// Candidates that failed with an error that may pass.
    failed: Vec<Candidate>,
    /// The candidate of the last failed attempt, which may be that of a hedge request.
    last_failed: Option<Candidate>,
    budget: AttemptBudget,
    first_token_wait: FirstTokenWait,
    /// The last error of each candidate that is not tried because of it.
    untried_errors: Vec<(TargetId, CallError)>,
    /// The health of the candidates decides which is tried.
    uses_health: bool,
    /// The call has waited as long as a service asked for, which it does once, unless it tried another candidate meanwhile.
    has_waited: bool,
    /// Headers of the client that are sent.
    headers: Arc<HeaderMap>,
    /// The memory of the output that the consumer or the accumulator holds.
    held_output: AnswerPart,
    /// The request must not be processed twice.
    is_unsafe_to_repeat: bool,
    /// Too many requests to the model have been repeated, so this one was not.
    retry_budget_spent: bool,
}

/// The result of trying one candidate.
enum CandidateResult {
    Complete(Completion),
    Failed(CallError, Decision),
}

/// The changes to the request that were found in this call.
#[derive(Default)]
struct NewWorkarounds {
    count: usize,
    /// Those that later requests need, too.
    general: Vec<ParamWorkaround>,
}

/// A key of an endpoint with its index; `None`: the endpoint needs no key.
type IndexedKey = Option<(usize, KeySource)>;

impl CallTask {
    fn new(engine: Arc<Engine>, index: usize, mut call: Call, state: Arc<CallState>) -> Self {
        let headers = std::mem::take(&mut call.headers);
        let is_unsafe_to_repeat = call.request.is_unsafe_to_repeat();
        let held_output = call.memory.new_part();
        Self {
            queue: CandidateQueue::default(),
            failed: Vec::new(),
            last_failed: None,
            time: TimeBudget::new(engine.policies.timeouts, &call),
            budget: if call.client_retries {
                AttemptBudget::new(engine.policies.attempts).without_further_attempts()
            } else {
                AttemptBudget::new(engine.policies.attempts)
            },
            engine,
            call,
            reporter: Reporter { call: index, state },
            first_token_wait: FirstTokenWait { since: Instant::now(), notices_sent: 0, notify: false },
            untried_errors: Vec::new(),
            uses_health: false,
            has_waited: false,
            headers: Arc::new(headers),
            held_output,
            is_unsafe_to_repeat,
            retry_budget_spent: false,
        }
    }

    async fn execute(&mut self) {
        let result = self.try_candidates().await;
        if result.is_ok() {
            // The consumer holds the output until it has sent it.
            self.call.memory.complete();
            std::mem::replace(&mut self.held_output, self.call.memory.new_part()).keep();
        }
        let record = self.accumulator().finish(result, self.time.deadline_passed(), Instant::now());
        self.reporter.emit(EventKind::Finished(record)).await;
    }

    fn accumulator(&self) -> MutexGuard<'_, CallAccumulator> {
        self.reporter.state.accumulator()
    }

    /// Whether part of the answer of the current attempt arrived.
    fn has_answer(&self) -> bool {
        self.accumulator().output.has_answer
    }

    /// Emits that an attempt at `target` starts.
    fn emit_started(&self, target: &Arc<Target>) -> impl Future<Output = ()> + Send + use<'_> {
        self.reporter.emit(EventKind::Started(Arc::clone(target)))
    }

    /// Tries one candidate after the other.
    async fn try_candidates(&mut self) -> Result<Completion, CallError> {
        self.engine.count_call();
        self.build_queue().await?;
        let mut next = self.next_candidate().await;
        while let Some(candidate) = next {
            self.budget.use_candidate();
            let (error, decision) = match self.try_candidate(&candidate).await {
                CandidateResult::Complete(completion) => return Ok(completion),
                CandidateResult::Failed(error, decision) => (error, decision),
            };
            // Releases the lease of a half-open probe.
            drop(candidate);
            if let Some(failed) = self.last_failed.take() {
                self.keep_for_further_attempt(failed, &error);
            }
            if self.has_answer() && self.call.on_incomplete == OnIncomplete::Error {
                return Err(error);
            }
            match decision {
                Decision::GiveUp => return Err(error),
                Decision::FailoverLarger => self.retain_larger_context().await,
                _ => {}
            }
            self.skip_remaining().await;
            next = self.next_candidate().await;
            if let Some(next) = &next {
                self.announce_failover(error, next).await;
            }
        }
        Err(self.representative_error())
    }

    /// Announces that the next candidate is tried.
    fn announce_failover(&self, error: CallError, next: &Candidate) -> impl Future<Output = ()> + Send + use<'_> {
        let is_answer_shown = self.has_answer() && self.call.on_incomplete == OnIncomplete::Restart;
        let is_same = self.accumulator().attempts.last().is_some_and(|failed| failed.target.id == next.target.id);
        let next = next.target.id.clone();
        self.emit_failed(
            error,
            match (is_answer_shown, is_same) {
                (true, _) => NextStep::RestartOutput(next),
                (false, true) => NextStep::RetrySame,
                (false, false) => NextStep::Failover(next),
            },
        )
    }

    fn emit_failed(&self, error: CallError, next: NextStep) -> impl Future<Output = ()> + Send + use<'_> {
        let record = self.accumulator().attempts.last().cloned().expect("every failed attempt is recorded");
        self.reporter.emit(EventKind::Failed { record: AttemptRecord { error: Some(error), ..record }, next })
    }

    /// Tries one candidate with each of its keys, at most one retry at once, and the changes to the request that the
    /// model asks for.
    async fn try_candidate(&mut self, candidate: &Candidate) -> CandidateResult {
        let target = &candidate.target;
        self.emit_started(target).await;
        let mut keys = self.ordered_keys(candidate);
        let mut spec = self.first_attempt(candidate, keys.pop_front().flatten());
        let mut new_workarounds = NewWorkarounds::default();
        loop {
            let error = match Box::pin(self.run_attempt(spec.clone())).await {
                Ok(completion) => {
                    self.remember_workarounds(&spec, new_workarounds);
                    return CandidateResult::Complete(completion);
                }
                Err(error) => error,
            };
            if let Some(decision) = self.decide_without_retry(candidate, &error) {
                return CandidateResult::Failed(error, decision);
            }
            let in_time = self.time.allows(Duration::ZERO);
            if in_time && self.apply_workaround(target, &error, &mut spec.request, &mut new_workarounds).await {
                self.emit_failed(error, NextStep::RetrySame).await;
                continue;
            }
            match self.decide(candidate, &error, !keys.is_empty()) {
                Decision::RotateKey if in_time => {
                    spec.key = keys.pop_front().flatten();
                    self.emit_failed(error, NextStep::RotateKey).await;
                }
                Decision::RetrySame { delay, new_connection } => {
                    let Some(retry) = self.reserve_retry(candidate, delay) else {
                        return CandidateResult::Failed(error, Decision::Failover);
                    };
                    spec.fresh_connection = new_connection;
                    self.emit_failed(error.clone(), NextStep::RetrySame).await;
                    self.back_off(target, delay).await;
                    // Other requests may have failed in the meantime.
                    if self.became_unavailable(candidate) {
                        return CandidateResult::Failed(error, Decision::Failover);
                    }
                    retry.make();
                    self.budget.use_retry();
                }
                Decision::RotateKey => {
                    return CandidateResult::Failed(error, Decision::Failover);
                }
                decision => return CandidateResult::Failed(error, decision),
            }
        }
    }

    fn first_attempt(&self, candidate: &Candidate, key: IndexedKey) -> AttemptSpec {
        let base_url = &candidate.target.endpoint.base_url;
        // A pooled connection to a server that just failed may be about to close.
        let same_server = |record: &AttemptRecord| record.target.endpoint.base_url.origin() == base_url.origin();
        let fresh_connection = self.accumulator().attempts.iter().any(same_server);
        AttemptSpec {
            candidate: candidate.clone(),
            key,
            request: self.request_for(candidate),
            fresh_connection,
            retain_frames: self.call.passthrough,
            headers: Arc::clone(&self.headers),
            memory: self.call.memory.clone(),
        }
    }

    /// The decision after a failure for which the candidate is not tried again: part of its answer arrived, or its hedge
    /// request failed last.
    fn decide_without_retry(&self, candidate: &Candidate, error: &CallError) -> Option<Decision> {
        if self.has_answer() {
            let decision = self.decide(candidate, error, false);
            let is_final = error.class == ErrorClass::LocalLimit || self.is_unsafe_to_repeat;
            let gives_up = is_final && decision == Decision::GiveUp;
            return Some(if gives_up { decision } else { Decision::Failover });
        }
        if self.is_last_attempt_at(&candidate.target) {
            return None;
        }
        Some(match self.decide(candidate, error, false) {
            decision @ (Decision::GiveUp | Decision::FailoverLarger) => decision,
            _ => Decision::Failover,
        })
    }

    /// Whether the last attempt was one at `target`, and not its hedge request.
    fn is_last_attempt_at(&self, target: &Target) -> bool {
        self.accumulator().attempts.last().is_none_or(|attempt| attempt.target.id == target.id)
    }

    /// The keys of the candidate's endpoint in the order they are tried; restricted keys only if all are restricted.
    pub(super) fn ordered_keys(&self, candidate: &Candidate) -> VecDeque<IndexedKey> {
        let endpoint = &candidate.target.endpoint;
        let key = |index: usize| Some((index, endpoint.keys[index].clone()));
        if let Some(index) = candidate.key_index {
            return VecDeque::from([key(index)]);
        }
        let mut order = self.engine.rotation.order(endpoint, self.engine.long_lived, || self.engine.random_unit());
        if order.is_empty() {
            return VecDeque::from([None]);
        }
        let availability = self.engine.health.key_availability(&candidate.health_keys);
        let is_restricted =
            |index: usize| availability.get(index).is_some_and(|availability| availability.restriction().is_some());
        if order.iter().all(|&index| is_restricted(index)) {
            order.sort_by_key(|&index| availability[index].rank());
        } else {
            order.retain(|&index| !is_restricted(index));
        }
        order.into_iter().map(key).collect()
    }

    /// The request with the changes that the model is known to need.
    pub(super) fn request_for(&self, candidate: &Candidate) -> Arc<ModelRequest> {
        let learned = self.engine.health.workarounds(candidate.health_keys.model);
        let mut request = Arc::clone(&self.call.request);
        let fixed = &candidate.target.workarounds;
        if !fixed.is_empty() || !learned.is_empty() {
            // What the config says comes last, and a role that it sets replaces the learned one.
            let is_role = |workaround: &ParamWorkaround| matches!(workaround, ParamWorkaround::System(_));
            let sets_role = fixed.iter().any(is_role);
            let learned = learned.into_iter().filter(|workaround| !(sets_role && is_role(workaround)));
            Arc::make_mut(&mut request).add_workarounds(learned.chain(fixed.iter().cloned()));
        }
        request
    }

    async fn apply_workaround(
        &mut self,
        target: &Target,
        error: &CallError,
        request: &mut Arc<ModelRequest>,
        new: &mut NewWorkarounds,
    ) -> bool {
        let protocol = protocol_of(&target.endpoint);
        if new.count >= self.engine.policies.attempts.workarounds {
            return false;
        }
        let Some(workaround) = protocol.workaround(error, target, request) else { return false };
        new.count += 1;
        if protocol.is_general(error, &workaround) {
            new.general.push(workaround.clone());
        }
        self.notify(Notice::WorkaroundApplied(target.id.clone(), workaround.clone())).await;
        Arc::make_mut(request).add_workarounds([workaround]);
        true
    }

    /// Remembers the changes that have helped, unless the answer is that of the hedge request.
    fn remember_workarounds(&self, spec: &AttemptSpec, new: NewWorkarounds) {
        if !new.general.is_empty() && self.is_last_attempt_at(&spec.candidate.target) {
            let attempt = spec.attempt_ref(self.engine.health.now());
            self.engine.health.record_workarounds(attempt, new.general, &self.engine.keys);
        }
    }

    fn decide(&self, candidate: &Candidate, error: &CallError, has_more_keys: bool) -> Decision {
        let context = RetryContext {
            has_available_candidates: self.remaining_candidates() > 0,
            has_more_keys,
            // A probe is a single request, and so is one to a restricted candidate.
            may_retry_same: self.budget.may_retry()
                && candidate.probe.is_none()
                && candidate.restricted_guard.is_none()
                && !self.became_unavailable(candidate),
            is_gateway: candidate.target.endpoint.gateway,
            is_unsafe_to_repeat: self.is_unsafe_to_repeat,
            on_filter: self.call.on_filter,
        };
        decide(&self.engine.policies.retry, error, context, self.engine.health.now(), self.engine.random_unit())
    }

    /// Whether the candidate became unavailable while others are left to try.
    fn became_unavailable(&self, candidate: &Candidate) -> bool {
        self.remaining_candidates() > 0
            && self.engine.health.availability(&candidate.health_keys).restriction().is_some()
    }

    /// Reserves a retry; `None` if the budget of the model, or the time left after a pause of `wait`, allows none.
    fn reserve_retry(&self, candidate: &Candidate, wait: Duration) -> Option<RetryReservation> {
        self.time.allows(wait).then(|| Engine::reserve_retry(&self.engine, candidate.health_keys.model)).flatten()
    }

    async fn back_off(&mut self, target: &Target, wait: Duration) {
        self.notify_backoff(target, wait).await;
        self.time.time_search(pin!(sleep(wait))).await;
    }

    async fn notify_backoff(&self, target: &Target, wait: Duration) {
        if wait >= Duration::from_secs(1) {
            self.notify(Notice::Backoff(target.id.clone(), wait)).await;
        }
    }
}
