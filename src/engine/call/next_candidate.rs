//! Chooses the candidate that a call tries next.
//!
//! Available candidates come first, then restricted ones within the limits of `routing::last_resort`. When all have failed
//! with errors that may pass, a few further attempts follow, each on the candidate that is expected back soonest.

use std::{pin::pin, sync::Arc, time::Duration};

use jiff::Timestamp;
use tokio::time::Instant;

use super::{CallTask, queue::Candidate};
use crate::{
    engine::{
        Notice,
        health::{Health, RestrictedGuard, RestrictedTurn},
    },
    protocol::CallError,
    routing::{
        cooldown::CooldownKind,
        decision::is_transient,
        health::{Availability, RestrictionKind},
    },
};

/// A wait at least this long is shown to the user.
const NOTICE_THRESHOLD: Duration = Duration::from_secs(1);

/// How often a call that waits for a candidate looks for another one.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// What a call waits for that can send no request now.
enum Wait {
    /// The result of a request of another call.
    Result,
    /// The time that the service of this restricted candidate has named.
    RetryAfter { index: usize, until: Timestamp },
}

impl CallTask {
    /// The next candidate to try; `None`: none is left.
    pub(super) async fn next_candidate(&mut self) -> Option<Candidate> {
        if !self.uses_health {
            if let Some(candidate) = self.queue.available.pop_front() {
                return Some(candidate);
            }
            return self.further_attempt(None).await;
        }
        while let Some(candidate) = self.queue.available.pop_front() {
            match self.if_available(candidate) {
                Ok(candidate) => return Some(candidate),
                Err(candidate) => {
                    let availability = self.engine.health.availability(&candidate.health_keys);
                    if let Some(restriction) = availability.restriction() {
                        self.notify_restricted(&candidate, restriction).await;
                    }
                    self.queue.restricted.push(candidate);
                }
            }
        }
        Box::pin(self.last_resort()).await
    }

    /// The candidate, with its probe if it is half-open; `Err`: it is restricted.
    fn if_available(&self, candidate: Candidate) -> Result<Candidate, Candidate> {
        match self.engine.health.availability(&candidate.health_keys) {
            Availability::Available => Ok(candidate),
            Availability::HalfOpen => self.take_probe(candidate),
            Availability::Restricted(_) => Err(candidate),
        }
    }

    /// The restricted candidate that is tried because no other is left. Waits only for a time that a service has named,
    /// and shortly for the result of another request.
    async fn last_resort(&mut self) -> Option<Candidate> {
        let result_wait_ends = Instant::now() + self.engine.policies.last_resort.result_wait;
        loop {
            if !self.time.allows(Duration::ZERO) {
                return None;
            }
            let wait = match self.sendable(false) {
                Ok(candidate) => return Some(candidate),
                Err(wait) => wait,
            };
            let named = match wait {
                Some(Wait::RetryAfter { index, until }) => Some((index, until)),
                _ => None,
            };
            if let Some(candidate) = self.further_attempt(named.map(|(_, until)| until)).await {
                return Some(candidate);
            }
            match (named, wait) {
                (Some((index, until)), _) => {
                    if let Some(candidate) = self.wait_until(index, until).await {
                        return Some(candidate);
                    }
                }
                (None, Some(Wait::Result)) if Instant::now() < result_wait_ends => {
                    let limit = result_wait_ends - Instant::now();
                    let engine = Arc::clone(&self.engine);
                    self.time.time_search(pin!(engine.health.wait_for_change(limit, &engine.keys))).await;
                }
                _ => return None,
            }
        }
    }

    /// A candidate to which the request can be sent now; `Err`: what to wait for. `has_soft`: the call already waits for a
    /// candidate, so none with a hard restriction is tried.
    fn sendable(&mut self, mut has_soft: bool) -> Result<Candidate, Option<Wait>> {
        if self.budget.candidates() == 0 {
            return Err(None);
        }
        let now = self.engine.health.now();
        let health = &self.engine.health;
        // Nothing ignores a wait that a service has asked for while there is another candidate.
        self.queue.restricted.sort_by_cached_key(|candidate| {
            let availability = health.availability(&candidate.health_keys);
            let (severity, until) = availability.rank();
            (severity, availability.retry_after().is_some(), until)
        });
        let has_tried = !self.accumulator().attempts.is_empty();
        let mut wait = None;
        for index in 0..self.queue.restricted.len() {
            let candidate = self.queue.restricted[index].clone();
            let restriction = self.engine.health.availability(&candidate.health_keys).restriction();
            let (candidate, restriction) = match restriction {
                Some(restriction) => (candidate, restriction),
                None => match self.if_available(candidate) {
                    Ok(candidate) => {
                        self.queue.restricted.remove(index);
                        return Ok(candidate);
                    }
                    // Another request has become its probe meanwhile.
                    Err(candidate) => {
                        let Some(restriction) = self.engine.health.availability(&candidate.health_keys).restriction()
                        else {
                            wait = wait.or(Some(Wait::Result));
                            continue;
                        };
                        (candidate, restriction)
                    }
                },
            };
            // A hard restriction does not end by itself: the candidate is tried only if there never was another.
            if restriction.kind.is_hard() && (has_tried || has_soft) {
                break;
            }
            has_soft |= !restriction.kind.is_hard();
            match Health::restricted_turn(&self.engine, &candidate.target, &candidate.health_keys) {
                RestrictedTurn::Send(guard, key_index) => {
                    self.queue.restricted.remove(index);
                    return Ok(Candidate { restricted_guard: Some(Arc::new(guard)), key_index, ..candidate });
                }
                RestrictedTurn::WaitUntil(until, error) => {
                    self.remember(error);
                    let allowed = Duration::try_from(until.duration_since(now)).unwrap_or_default();
                    if !self.has_waited && self.time.allows(allowed) && !matches!(wait, Some(Wait::RetryAfter { .. })) {
                        wait = Some(Wait::RetryAfter { index, until });
                    }
                }
                RestrictedTurn::AwaitResult(error) => {
                    self.remember(error);
                    wait = wait.or(Some(Wait::Result));
                }
                RestrictedTurn::Refuse(error) => self.remember(error),
            }
        }
        Err(wait)
    }

    /// Keeps the error of a candidate that is not tried, if it is more recoverable than the one kept so far.
    fn remember(&mut self, error: CallError) {
        if self.untried_error.as_ref().is_none_or(|known| known.class.priority() < error.class.priority()) {
            self.untried_error = Some(error);
        }
    }

    /// Waits until the time that the service of a restricted candidate has named, once for each call. Ends earlier if the
    /// candidate becomes available, or with another candidate to which the request can be sent meanwhile.
    async fn wait_until(&mut self, index: usize, named: Timestamp) -> Option<Candidate> {
        self.has_waited = true;
        let (engine, candidate) = (Arc::clone(&self.engine), self.queue.restricted.remove(index));
        let _waiting = RestrictedGuard::waiting(&engine, &candidate.health_keys);
        let now = engine.health.now();
        let until = engine.policies.last_resort.wait_until(named, now, engine.random_unit());
        let wait = |until: Timestamp| Duration::try_from(until.duration_since(now)).unwrap_or_default();
        // The clock may be set meanwhile.
        let (start, end) = (Instant::now(), Instant::now() + wait(until));
        let remaining = || end.saturating_duration_since(Instant::now());
        if remaining() >= NOTICE_THRESHOLD {
            self.notify(Notice::AllUnavailable(candidate.target.id.clone(), remaining())).await;
        }
        let (mut other, mut last_look) = (None, Instant::now());
        while other.is_none() && !remaining().is_zero() && self.time.allows(Duration::ZERO) {
            self.time.time_search(pin!(engine.health.wait_for_change(remaining(), &engine.keys))).await;
            // It is available before that time if another request was answered.
            let is_early = start.elapsed() < wait(named);
            if is_early && engine.health.availability(&candidate.health_keys).retry_after().is_none() {
                break;
            }
            // Each result of another request wakes all that wait.
            if last_look.elapsed() >= LOOK_INTERVAL {
                last_look = Instant::now();
                other = self.sendable(true).ok();
            }
        }
        self.queue.restricted.push(candidate);
        // If the other one fails, too, the call still waits.
        self.has_waited = other.is_none();
        other
    }

    /// Keeps a candidate that failed with an error that may pass, for a further attempt.
    pub(super) fn keep_for_further_attempt(&mut self, candidate: Candidate, error: &CallError) {
        if is_transient(error) {
            self.failed.push(Candidate { probe: None, restricted_guard: None, key_index: None, ..candidate });
        }
    }

    /// After all candidates have failed: waits, and returns the one that is expected back soonest. `None`: no further
    /// attempt is allowed, or an untried candidate is expected at `untried` before that.
    async fn further_attempt(&mut self, untried: Option<Timestamp>) -> Option<Candidate> {
        let engine = Arc::clone(&self.engine);
        let number = self.budget.further_attempt()?;
        let now = engine.health.now();
        let backoff =
            engine.policies.retry.backoff_delay(u32::try_from(number).unwrap_or(u32::MAX), engine.random_unit());
        let availability = |candidate: &Candidate| engine.health.availability(&candidate.health_keys);
        let soonest = |(_, availability): &(usize, Availability)| (availability.retry_after(), availability.rank());
        let (index, availability) = self.failed.iter().map(availability).enumerate().min_by_key(soonest)?;
        let until = availability.retry_after().filter(|until| *until > now).unwrap_or(now);
        if untried.is_some_and(|untried| untried < until) {
            return None;
        }
        let mut wait = backoff;
        if until > now {
            let until = engine.policies.last_resort.wait_until(until, now, engine.random_unit());
            let named_wait = Duration::try_from(until.duration_since(now)).unwrap_or_default();
            let policy = &engine.policies.last_resort;
            if self.has_waited
                || named_wait > policy.max_wait()
                || !engine.health.may_wait(&self.failed[index].health_keys)
            {
                return None;
            }
            self.has_waited = true;
            wait = wait.max(named_wait);
        }
        let candidate = self.failed[index].clone();
        if !self.time.allows(wait) {
            return None;
        }
        if !engine.take_retry(candidate.health_keys.model) {
            self.retry_budget_spent = true;
            return None;
        }
        self.failed.remove(index);
        self.budget.use_further_attempt();
        let _waiting = (until > now).then(|| RestrictedGuard::waiting(&engine, &candidate.health_keys));
        self.back_off(&candidate.target.clone(), wait).await;
        if !self.uses_health {
            return Some(candidate);
        }
        self.restricted_attempt(candidate).await
    }

    /// The candidate, once a request may be sent to it: at once, or after the interval of requests to a model whose rate limit
    /// has no named time. `None`: neither.
    async fn restricted_attempt(&mut self, mut candidate: Candidate) -> Option<Candidate> {
        let engine = Arc::clone(&self.engine);
        let end = Instant::now() + engine.policies.last_resort.rate_interval;
        loop {
            candidate = match self.if_available(candidate) {
                Ok(candidate) => return Some(candidate),
                Err(candidate) => candidate,
            };
            let turn = Health::restricted_turn(&engine, &candidate.target, &candidate.health_keys);
            if let RestrictedTurn::Send(guard, key_index) = turn {
                return Some(Candidate { restricted_guard: Some(Arc::new(guard)), key_index, ..candidate });
            }
            let restriction = engine.health.availability(&candidate.health_keys).restriction();
            let is_rate = restriction
                .is_some_and(|restriction| restriction.kind == RestrictionKind::Cooldown(CooldownKind::Backoff));
            // The result of a request to a candidate that was not tried yet is awaited instead.
            let has_untried = !self.queue.restricted.is_empty();
            let remaining = end.saturating_duration_since(Instant::now());
            if !is_rate || has_untried || remaining.is_zero() || !self.time.allows(remaining) {
                return None;
            }
            self.time.time_search(pin!(engine.health.wait_for_change(remaining, &engine.keys))).await;
        }
    }

    /// The candidate with its probe; `Err`: another request has the probe.
    fn take_probe(&self, candidate: Candidate) -> Result<Candidate, Candidate> {
        let is_streaming = self.call.request.is_streaming();
        let p95 = self.engine.latency_p95(candidate.health_keys.model, is_streaming);
        let timeouts = self.time.attempt_timeouts(&candidate.target, self.remaining_candidates(), is_streaming, p95);
        let lease = timeouts.first_output(is_streaming).saturating_add(self.engine.policies.health.probe.lease_margin);
        match Health::take_probe(&self.engine, &candidate.target, &candidate.health_keys, lease) {
            Ok(probe) => Ok(Candidate { probe: probe.map(Arc::new), ..candidate }),
            Err(()) => Err(candidate),
        }
    }
}
