//! Sends a hedge request beside one that is slow, and uses the answer that starts first.
//!
//! A half-open probe is hedged, too, so that its request does not wait for a service that may still be down.

use std::{pin::pin, sync::Arc, time::Duration};

use futures_util::future::{Either, select};
use tokio::time::Instant;

use super::{
    CallTask,
    queue::Candidate,
    send::{
        AttemptSpec, EndedStart, FailedStart, PendingAttempt, ResponseInfo, StartFuture, StartResult, record_failure,
    },
};
use crate::{
    engine::{Engine, NextStep, Notice, memory::AnswerPart},
    model::ErrorClass,
    protocol::CallError,
};

/// What happened first while a hedge request was prepared.
enum FirstResult {
    /// The slow request has a result.
    Start(StartResult),
    /// The hedge request was sent, or could not be.
    Hedge(Result<PendingAttempt, CallError>),
}

impl CallTask {
    /// Sends a hedge request, if another candidate is available and the hedge budget allows one. A probe needs no budget:
    /// there is one for each time that a breaker opens.
    pub(super) async fn hedge(&mut self, mut first: PendingAttempt, hedge_after: Duration) -> EndedStart {
        let uses_budget = first.spec.candidate.probe.is_none();
        // The request is encoded a second time.
        let Ok(_copy) = self.call.memory.try_part(first.spec.request.body_len()) else {
            return self.await_pending(first).await;
        };
        let Some(candidate) = self.take_hedge_candidate(uses_budget) else {
            return self.await_pending(first).await;
        };
        let spec = AttemptSpec {
            key: self.ordered_keys(&candidate).into_iter().next().flatten(),
            request: self.request_for(&candidate),
            fresh_connection: false,
            candidate,
            ..first.spec.clone()
        };
        match self.send_beside(&mut first.start, spec.clone()).await {
            FirstResult::Start(start) => {
                self.refund_hedge(uses_budget);
                self.queue.available.push_front(spec.candidate);
                ((first.spec, first.started_at), start)
            }
            FirstResult::Hedge(Ok(second)) => {
                self.budget.use_candidate();
                self.accumulator().begin_hedge(&second.spec.candidate.target, second.started_at);
                let (slow, hedge) = (&first.spec.candidate.target.id, &second.spec.candidate.target.id);
                self.notify(Notice::Hedged(slow.clone(), hedge.clone(), hedge_after)).await;
                self.race(first, second).await
            }
            FirstResult::Hedge(Err(error)) => {
                self.refund_hedge(uses_budget);
                self.record_attempt(&spec, Instant::now(), ResponseInfo::default(), Some(&error));
                self.await_pending(first).await
            }
        }
    }

    /// Sends the hedge request. Waiting for its key or permit must not delay the result of the slow request.
    async fn send_beside(&mut self, slow: &mut StartFuture, hedge: AttemptSpec) -> FirstResult {
        let started = Instant::now();
        let first_result = match select(slow, Box::pin(self.send(hedge))).await {
            Either::Left((start, _)) => FirstResult::Start(start),
            Either::Right((second, _)) => FirstResult::Hedge(second),
        };
        if let FirstResult::Start(_) = &first_result {
            self.time.add_search_time(started.elapsed());
        }
        first_result
    }

    /// Takes an available candidate for a hedge request, if the hedge budget allows one.
    fn take_hedge_candidate(&mut self, uses_budget: bool) -> Option<Candidate> {
        if uses_budget && !self.engine.hedge_budget().try_take() {
            return None;
        }
        let second = self.take_available();
        if second.is_none() {
            self.refund_hedge(uses_budget);
        }
        second
    }

    fn refund_hedge(&self, uses_budget: bool) {
        if uses_budget {
            self.engine.hedge_budget().refund();
        }
    }

    /// Waits for the first of two requests to produce output; if one fails, for the other.
    async fn race(&mut self, first: PendingAttempt, second: PendingAttempt) -> EndedStart {
        let (first_attempt, second_attempt) = ((first.spec, first.started_at), (second.spec, second.started_at));
        let finished = self.time.time_search(pin!(select(first.start, second.start))).await;
        self.accumulator().end_hedge();
        let (start, other_start, second_won) = match finished {
            Either::Left((start, other_start)) => (start, other_start, false),
            Either::Right((start, other_start)) => (start, other_start, true),
        };
        let (ended, other) = if second_won { (second_attempt, first_attempt) } else { (first_attempt, second_attempt) };
        match start {
            Ok(started) => {
                self.end_slower(&ended.0.candidate, other, other_start);
                if second_won {
                    self.accumulator().switch_attempt(&ended.0.candidate.target, ended.1);
                    self.emit_started(&ended.0.candidate.target).await;
                }
                (ended, Ok(started))
            }
            Err(FailedStart { error, info }) => {
                let target = Arc::clone(&other.0.candidate.target);
                self.record_attempt(&ended.0, ended.1, info, Some(&error));
                self.accumulator().switch_attempt(&target, other.1);
                self.keep_for_further_attempt(ended.0.candidate, &error);
                self.emit_failed(error, NextStep::AwaitHedge(target.id.clone())).await;
                self.emit_started(&target).await;
                self.await_pending(PendingAttempt { spec: other.0, started_at: other.1, start: other_start }).await
            }
        }
    }

    /// Ends the slower of two requests. It is billed, too, so its cost is recorded.
    fn end_slower(&mut self, winner: &Candidate, (spec, started_at): (AttemptSpec, Instant), start: StartFuture) {
        let message = format!("{} answered first", winner.target.id);
        let error = CallError::new(ErrorClass::LocalLimit, message);
        let record = self.attempt_record(&spec, started_at, ResponseInfo::default(), Some(&error));
        self.accumulator().record_unanswered_attempt(record);
        // Its request is held longer than the call.
        match self.call.memory.try_part(spec.request.body_len()) {
            Ok(copy) if spec.candidate.probe.is_some() => {
                tokio::spawn(finish_probe(Arc::clone(&self.engine), spec, started_at, start, copy));
            }
            _ => {
                // Dropping the request cancels it. If the answer of the winner is incomplete, its candidate can still be
                // tried: it had no output.
                drop(start);
                self.queue.available.push_front(Candidate { probe: None, ..spec.candidate });
            }
        }
    }
}

/// Waits for the first delta of a probe that was slower than the candidate beside it: canceled, it would leave the breaker
/// half-open, and the next request would wait for it, too.
async fn finish_probe(
    engine: Arc<Engine>,
    spec: AttemptSpec,
    started_at: Instant,
    start: StartFuture,
    _request: AnswerPart,
) {
    let attempt = spec.attempt_ref(engine.health.timestamp_of(started_at));
    match start.await {
        Ok(started) => {
            let ttft = spec.request.is_streaming().then(|| started.attempt.sent_at().elapsed());
            engine.health.record_first_delta(attempt, ttft, &engine.keys);
        }
        Err(FailedStart { error, .. }) => {
            record_failure(&engine, &spec, &attempt, &error);
            // The call, which may still read another answer, holds the probe.
            engine.health.release_probe(attempt, &engine.keys);
        }
    }
}
