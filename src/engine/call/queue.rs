//! Builds the queue of candidates of a call: those that can serve the request, in the order they are tried.
//!
//! The others are skipped with a notice.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use super::CallTask;
use crate::{
    engine::{
        EventKind, Notice,
        health::{Probe, RestrictedGuard},
    },
    model::{ErrorClass, target::Target},
    protocol::CallError,
    routing::{
        RoutePolicy,
        health::{Availability, HealthKey, Restriction, TargetHealthKeys},
    },
};

/// A candidate and its health keys.
#[derive(Clone)]
pub(super) struct Candidate {
    pub(super) target: Arc<Target>,
    pub(super) health_keys: Arc<TargetHealthKeys>,
    /// The half-open probe, if this request is one.
    pub(super) probe: Option<Arc<Probe>>,
    /// Counts the request, if it is sent although the candidate is restricted.
    pub(super) restricted_guard: Option<Arc<RestrictedGuard>>,
    /// The only key to use; `None`: any.
    pub(super) key_index: Option<usize>,
}

impl Candidate {
    fn new(target: Arc<Target>, health_keys: Arc<TargetHealthKeys>) -> Self {
        Self { target, health_keys, probe: None, restricted_guard: None, key_index: None }
    }
}

/// Candidates not tried yet.
#[derive(Default)]
pub(super) struct CandidateQueue {
    /// Candidates to try first, in this order; half-open ones too.
    pub(super) available: VecDeque<Candidate>,
    /// Candidates that are tried only if no other is available.
    pub(super) restricted: Vec<Candidate>,
    /// Candidates that are not tried, because no time or no attempt is left.
    pub(super) skipped: Vec<Candidate>,
}

impl CallTask {
    /// Skips candidates that cannot serve the request and puts the others in order.
    pub(super) async fn build_queue(&mut self) -> Result<(), CallError> {
        let mut targets = self.filter_capable(self.call.candidates.clone()).await;
        targets = self.filter_by_spend_limits(targets).await?;
        // On the command line, a single model is asked whatever happened before.
        self.uses_health =
            self.engine.policies.last_resort.is_limited || self.call.route.is_some() && targets.len() > 1;
        self.engine.health.load(&self.engine.keys);
        let mut health_keys = self.engine.health.health_keys(&targets, &self.engine.keys);
        if let Some(operation) = self.call.request.operation() {
            for (keys, target) in health_keys.iter_mut().zip(&targets) {
                Arc::make_mut(keys).operation = Some(HealthKey::operation(&target.endpoint, operation));
            }
        }
        if self.uses_health {
            let policy = self.call.route.clone().unwrap_or_default();
            self.queue_in_order(&policy, &targets, &health_keys).await;
            if self.queue.available.is_empty() && self.engine.policies.last_resort.is_limited {
                self.budget.limit_to_restricted();
            }
        } else {
            let candidates = targets.into_iter().zip(health_keys);
            self.queue.available =
                candidates.map(|(target, health_keys)| Candidate::new(target, health_keys)).collect();
        }
        Ok(())
    }

    async fn queue_in_order(
        &mut self,
        policy: &RoutePolicy,
        targets: &[Arc<Target>],
        health_keys: &[Arc<TargetHealthKeys>],
    ) {
        let engine = Arc::clone(&self.engine);
        let states = engine.candidate_states(&self.call, policy, targets, health_keys);
        let affinity_key =
            policy.sticky.then(|| self.call.affinity_key.clone().unwrap_or_else(|| self.call.request.affinity_key()));
        let order = engine.order_states(policy, &self.call.name, affinity_key.as_deref(), &states);
        for index in order {
            let candidate = Candidate::new(Arc::clone(&targets[index]), Arc::clone(&health_keys[index]));
            match states[index].availability {
                Availability::Available | Availability::HalfOpen => self.queue.available.push_back(candidate),
                Availability::Restricted(restriction) => {
                    self.notify_restricted(&candidate, restriction).await;
                    self.queue.restricted.push(candidate);
                }
            }
        }
    }

    /// Takes an available candidate for a hedge request.
    pub(super) fn take_available(&mut self) -> Option<Candidate> {
        let is_available =
            |candidate: &Candidate| self.engine.health.availability(&candidate.health_keys) == Availability::Available;
        let index = self.queue.available.iter().position(is_available)?;
        self.queue.available.remove(index)
    }

    /// How many candidates may still be tried. Restricted ones are not counted, so that the time of a responding
    /// candidate is not reduced for them.
    pub(super) fn remaining_candidates(&self) -> usize {
        self.queue.available.len().min(self.budget.candidates())
    }

    /// Whether any other candidate could be tried, including restricted ones.
    pub(super) fn has_more_candidates(&self) -> bool {
        self.budget.candidates() > 0 && !(self.queue.available.is_empty() && self.queue.restricted.is_empty())
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
            self.queue.skipped.push(candidate);
        }
        self.queue.skipped.append(&mut self.queue.restricted);
    }

    /// After a context error: keeps only candidates whose context window is larger than that of the failed one, or unknown.
    pub(super) async fn retain_larger_context(&mut self) {
        let Some(failed) = self.accumulator().attempts.last().map(|attempt| Arc::clone(&attempt.target)) else {
            return;
        };
        let larger = |candidate: &Candidate| {
            // An unknown window may be larger; a candidate is tried only once, so this costs one request.
            candidate
                .target
                .context_window
                .zip(failed.context_window)
                .is_none_or(|(window, failed_window)| window > failed_window)
        };
        let (retained, skipped) =
            std::mem::take(&mut self.queue.available).into_iter().partition::<VecDeque<_>, _>(larger);
        self.queue.available = retained;
        self.queue.restricted.retain(larger);
        self.failed.retain(larger);
        for candidate in skipped {
            let reason = "its context window is not larger than that of the failed candidate".to_owned();
            self.notify(Notice::Skipped(candidate.target.id.clone(), reason)).await;
        }
    }

    pub(super) async fn notify_restricted(&mut self, candidate: &Candidate, restriction: Restriction) {
        let health = &self.engine.health;
        let error =
            health.with_snapshot(|snapshot| Some(snapshot.entry(restriction.cause)?.last_error.as_ref()?.to_string()));
        let wait = Duration::try_from(restriction.until.duration_since(health.now())).unwrap_or_default();
        self.notify(Notice::Unavailable(candidate.target.id.clone(), wait, error.unwrap_or_default())).await;
    }

    pub(super) fn notify(&self, notice: Notice) -> impl Future<Output = ()> + Send + use<'_> {
        self.reporter.emit(EventKind::Notice(notice))
    }
}
