//! Selects the next candidate of a call.
//!
//! Candidates that cannot serve the request are skipped with a notice; unavailable ones are tried last.

use std::{collections::VecDeque, pin::pin, sync::Arc, time::Duration};

use jiff::Timestamp;
use tokio::time::Instant;

use super::CallTask;
use crate::{
    engine::{
        EventKind, Notice,
        health::{Health, Probe, ProbeTurn},
    },
    model::{ErrorClass, target::Target},
    protocol::{CallError, RetryAfter, RetryWhen},
    routing::{
        RoutePolicy,
        health::{Availability, HealthKey, TargetHealthKeys},
    },
};

/// A wait at least this long is shown to the user.
const NOTICE_THRESHOLD: Duration = Duration::from_secs(1);

/// A candidate and its health keys.
#[derive(Clone)]
pub(super) struct Candidate {
    pub(super) target: Arc<Target>,
    pub(super) health_keys: TargetHealthKeys,
    /// The half-open probe, if this request is one.
    pub(super) probe: Option<Arc<Probe>>,
}

/// Candidates not tried yet.
#[derive(Default)]
pub(super) struct CandidateQueue {
    /// Candidates to try first, in this order; half-open ones too.
    pub(super) available: VecDeque<Candidate>,
    /// Candidates that are tried only when they become available, or as the last resort.
    unavailable: Vec<Candidate>,
}

impl CallTask {
    /// Skips candidates that cannot serve the request and puts the others in order.
    pub(super) async fn build_queue(&mut self) -> Result<(), CallError> {
        let mut targets = self.filter_capable(self.call.candidates.clone()).await;
        targets = self.filter_by_spend_limits(targets).await?;
        let uses_health = self.call.route.is_some() && targets.len() > 1;
        self.uses_health = uses_health;
        if uses_health || targets.iter().any(|target| target.endpoint.keys.len() > 1) {
            self.engine.health.load(&self.engine.keys);
        }
        let health_keys = self.engine.health.health_keys(&targets, &self.engine.keys);
        if let Some(policy) = self.call.route.clone().filter(|_| uses_health) {
            self.queue_in_order(&policy, &targets, &health_keys).await;
        } else {
            let candidates = targets.into_iter().zip(health_keys);
            self.queue.available =
                candidates.map(|(target, health_keys)| Candidate { target, health_keys, probe: None }).collect();
        }
        Ok(())
    }

    async fn queue_in_order(
        &mut self,
        policy: &RoutePolicy,
        targets: &[Arc<Target>],
        health_keys: &[TargetHealthKeys],
    ) {
        let engine = Arc::clone(&self.engine);
        let states = engine.candidate_states(&self.call, policy, targets, health_keys);
        let affinity_key =
            policy.sticky.then(|| self.call.affinity_key.clone().unwrap_or_else(|| self.call.request.affinity_key()));
        let order = engine.order_states(policy, &self.call.name, affinity_key.as_deref(), &states);
        for index in order {
            let (target, health_keys) = (Arc::clone(&targets[index]), health_keys[index].clone());
            let candidate = Candidate { target, health_keys, probe: None };
            match states[index].availability {
                Availability::Open { until, cause } => {
                    self.notify_unavailable(&candidate, until, cause).await;
                    self.queue.unavailable.push(candidate);
                }
                Availability::Closed | Availability::HalfOpen => self.queue.available.push_back(candidate),
            }
        }
    }

    /// The next candidate to try; `None`: none is left.
    pub(super) async fn next_candidate(&mut self) -> Option<Candidate> {
        if !self.uses_health {
            return self.queue.available.pop_front();
        }
        while let Some(candidate) = self.queue.available.pop_front() {
            match self.engine.health.availability(&candidate.health_keys) {
                Availability::Closed => return Some(candidate),
                Availability::HalfOpen => match self.take_probe(candidate, false) {
                    Ok(candidate) => return Some(candidate),
                    // Another request has taken the probe.
                    Err(candidate) => self.queue.unavailable.push(candidate),
                },
                // It became unavailable after the queue was built.
                Availability::Open { .. } => self.queue.unavailable.push(candidate),
            }
        }
        self.last_resort().await
    }

    /// The unavailable candidate that is tried because no other is left: when its cooldown is over or, since that may
    /// take minutes, a few seconds after its last failure. Only one request at a time may probe it; if all candidates
    /// are being probed by other requests, waits for their results.
    async fn last_resort(&mut self) -> Option<Candidate> {
        let engine = Arc::clone(&self.engine);
        let policy = engine.policies.health.probe;
        let (started, mut notified) = (Instant::now(), false);
        while !self.queue.unavailable.is_empty() && self.budget.candidates() > 0 && self.time.allows(Duration::ZERO) {
            let turns = self
                .queue
                .unavailable
                .iter()
                .map(|candidate| engine.health.probe_turn(&candidate.health_keys, policy.early_delay));
            let (index, turn) = turns.enumerate().min_by_key(|(_, turn)| *turn).expect("the queue is not empty");
            let wait = match turn {
                ProbeTurn::Available => return Some(self.queue.unavailable.remove(index)),
                ProbeTurn::Due(due) => self.wait_until(due),
                ProbeTurn::InProgress(until) => {
                    self.untried_error = Some(probe_in_progress_error(
                        &self.queue.unavailable[index].target,
                        until,
                        engine.health.now(),
                    ));
                    let limit = policy.max_wait.saturating_sub(started.elapsed());
                    if limit.is_zero() {
                        return None;
                    }
                    limit.min(self.time.remaining().unwrap_or(limit))
                }
            };
            if wait.is_zero() {
                let candidate = self.queue.unavailable.remove(index);
                match self.take_probe(candidate, true) {
                    Ok(candidate) => return Some(candidate),
                    // Another request has taken the probe.
                    Err(candidate) => self.queue.unavailable.insert(index, candidate),
                }
            } else if !notified && wait >= NOTICE_THRESHOLD && matches!(turn, ProbeTurn::Due(_)) {
                notified = true;
                self.notify(Notice::AllUnavailable(self.queue.unavailable[index].target.id.clone(), wait)).await;
            }
            let wait = if wait.is_zero() { policy.max_wait } else { wait };
            self.time.time_search(pin!(engine.health.wait_for_change(wait, &engine.keys))).await;
        }
        None
    }

    /// How long it is until `due`; zero if the remaining time is shorter, so that the candidate is tried at once.
    fn wait_until(&self, due: Timestamp) -> Duration {
        let wait = Duration::try_from(due.duration_since(self.engine.health.now())).unwrap_or_default();
        if self.time.allows(wait) { wait } else { Duration::ZERO }
    }

    /// The candidate with its probe, or without one if it needs none; `Err`: another request has the probe.
    fn take_probe(&self, candidate: Candidate, early: bool) -> Result<Candidate, Candidate> {
        let p95 = self.engine.first_token_p95(candidate.health_keys.model);
        let timeouts = self.time.attempt_timeouts(
            &candidate.target,
            self.remaining_candidates(),
            self.call.request.is_streaming(),
            p95,
        );
        let lease = timeouts
            .first_token
            .unwrap_or(timeouts.total)
            .saturating_add(self.engine.policies.health.probe.lease_margin);
        match Health::take_probe(&self.engine, &candidate.target, &candidate.health_keys, lease, early) {
            Ok(probe) => Ok(Candidate { probe: probe.map(Arc::new), ..candidate }),
            Err(()) => Err(candidate),
        }
    }

    /// Takes an available candidate for a hedge request.
    pub(super) fn take_available(&mut self) -> Option<Candidate> {
        let is_available =
            |candidate: &Candidate| self.engine.health.availability(&candidate.health_keys) == Availability::Closed;
        let index = self.queue.available.iter().position(is_available)?;
        self.queue.available.remove(index)
    }

    /// How many candidates may still be tried. Unavailable ones are not counted, so that the time of a responding
    /// candidate is not reduced for them.
    pub(super) fn remaining_candidates(&self) -> usize {
        self.queue.available.len().min(self.budget.candidates())
    }

    /// Whether any other candidate could be tried, including unavailable ones.
    pub(super) fn has_more_candidates(&self) -> bool {
        self.budget.candidates() > 0 && !(self.queue.available.is_empty() && self.queue.unavailable.is_empty())
    }

    /// Skips candidates that are known not to support the request.
    async fn filter_capable(&mut self, targets: Vec<Arc<Target>>) -> Vec<Arc<Target>> {
        let tokens = self.call.estimated_prompt_tokens;
        let too_small_reason = || format!("the prompt of about {tokens} tokens does not fit its context window");
        let mut targets = self.filter_by(targets, |target| target.fits_context(tokens), too_small_reason).await;
        if self.call.request.has_images() {
            let accepts = |target: &Target| target.supports_images != Some(false);
            targets = self.filter_by(targets, accepts, || "it does not accept images".to_owned()).await;
        }
        if self.call.request.has_tools() {
            let supports = |target: &Target| target.supports_tools != Some(false);
            targets = self.filter_by(targets, supports, || "it does not support tools".to_owned()).await;
        }
        targets
    }

    /// The `capable` targets, or all if none is capable; skips the others with a notice.
    async fn filter_by(
        &mut self,
        targets: Vec<Arc<Target>>,
        capable: impl Fn(&Target) -> bool,
        reason: impl Fn() -> String,
    ) -> Vec<Arc<Target>> {
        let count = targets.iter().filter(|target| capable(target)).count();
        if count == 0 || count == targets.len() {
            return targets;
        }
        let (capable_targets, skipped): (Vec<_>, Vec<_>) = targets.into_iter().partition(|target| capable(target));
        for target in skipped {
            self.notify(Notice::Skipped(target.id.clone(), reason())).await;
        }
        capable_targets
    }

    /// The `targets` that have not reached a spend limit.
    async fn filter_by_spend_limits(&mut self, targets: Vec<Arc<Target>>) -> Result<Vec<Arc<Target>>, CallError> {
        let Some(ledger) = self.engine.ledger.clone() else { return Ok(targets) };
        let (mut affordable, mut over_limit) = (Vec::new(), Vec::new());
        for target in targets {
            match ledger.reached_limit(&target) {
                Ok(None) => affordable.push(target),
                Ok(Some(reached)) => over_limit.push((target, reached.to_string())),
                Err(error) => {
                    self.notify(Notice::SpendUnchecked(target.id.clone(), error)).await;
                    affordable.push(target);
                }
            }
        }
        if affordable.is_empty()
            && let Some((_, reason)) = over_limit.first()
        {
            let hint = Some("raise the limit under [spend] in the config, or wait for the next period".to_owned());
            return Err(CallError { hint, ..CallError::new(ErrorClass::Spend, reason) });
        }
        for (target, reason) in over_limit {
            self.notify(Notice::Skipped(target.id.clone(), reason)).await;
        }
        Ok(affordable)
    }

    /// Skips the remaining candidates with a notice if the time or the attempt budget is used up.
    pub(super) async fn skip_remaining(&mut self) {
        let reason = if !self.time.allows(Duration::ZERO) {
            "no time is left".to_owned()
        } else if self.budget.candidates() == 0 {
            format!("a call tries at most {} models", self.engine.policies.attempts.max_candidates)
        } else {
            return;
        };
        for candidate in std::mem::take(&mut self.queue.available) {
            self.notify(Notice::Skipped(candidate.target.id.clone(), reason.clone())).await;
        }
        self.queue.unavailable.clear();
    }

    /// After a context error: keeps only candidates with a larger context window than the one that failed.
    pub(super) async fn retain_larger_context(&mut self) {
        let Some(failed) = self.accumulator().attempts.last().map(|attempt| Arc::clone(&attempt.target)) else {
            return;
        };
        let larger = |candidate: &Candidate| {
            candidate
                .target
                .context_window
                .zip(failed.context_window)
                .is_some_and(|(window, failed_window)| window > failed_window)
        };
        let (retained, skipped) =
            std::mem::take(&mut self.queue.available).into_iter().partition::<VecDeque<_>, _>(larger);
        self.queue.available = retained;
        self.queue.unavailable.retain(larger);
        for candidate in skipped {
            let reason = "its context window is unknown, or not larger than that of the failed candidate".to_owned();
            self.notify(Notice::Skipped(candidate.target.id.clone(), reason)).await;
        }
    }

    async fn notify_unavailable(&mut self, candidate: &Candidate, until: Timestamp, cause: HealthKey) {
        let error =
            self.engine.health.with_snapshot(|snapshot| Some(snapshot.entry(cause)?.last_error.as_ref()?.to_string()));
        let wait = Duration::try_from(until.duration_since(self.engine.health.now())).unwrap_or_default();
        self.notify(Notice::Unavailable(candidate.target.id.clone(), wait, error.unwrap_or_default())).await;
    }

    pub(super) fn notify(&self, notice: Notice) -> impl Future<Output = ()> + Send + use<'_> {
        self.reporter.emit(EventKind::Notice(notice))
    }
}

fn probe_in_progress_error(target: &Target, until: Timestamp, now: Timestamp) -> CallError {
    let wait = Duration::try_from(until.duration_since(now)).unwrap_or_default();
    let message = format!("all candidates are unavailable after failures; another request is probing {}", target.id);
    let retry_after =
        Some(RetryAfter { raw: format!("{:.0}", wait.as_secs_f64().ceil()), when: RetryWhen::After(wait) });
    CallError { retry_after, ..CallError::new(ErrorClass::Overloaded, message) }
}
