//! Further attempts: after all candidates have failed, those whose error may pass are tried again, a few times.
//!
//! Each is made at the candidate that is expected back soonest, after a pause.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use tokio::time::Instant;

use super::{CallTask, queue::Candidate, watch::Watched};
use crate::{
    engine::{
        Engine,
        health::{Health, RestrictedGuard, RestrictedTurn},
    },
    protocol::CallError,
    routing::{
        cooldown::CooldownKind,
        decision::is_transient,
        health::{Availability, RestrictionKind},
    },
};

/// What follows after all candidates have failed.
pub(super) enum FurtherAttempt {
    /// The request is sent to this candidate.
    Send(Candidate),
    /// None now. The restrictions of untried candidates may have ended meanwhile.
    LookAgain,
    /// None.
    None,
}

/// Whether a request may be sent to a candidate.
enum Readiness {
    Send(Candidate),
    /// Later, but it is not worth waiting longer than this.
    Wait(Duration),
    No,
}

impl CallTask {
    /// Keeps a candidate that failed with an error that may pass, for a further attempt.
    pub(super) fn keep_for_further_attempt(&mut self, candidate: Candidate, error: &CallError) {
        if is_transient(error) {
            self.failed.push(Candidate { probe: None, restricted_guard: None, key_index: None, ..candidate });
        }
    }

    /// Pauses, and returns the failed candidate that is expected back soonest. Returns an untried one if the request can be sent
    /// to it meanwhile. `pause`: what is left of the pause, once it is known; `untried`: when an untried candidate is
    /// expected; `awaits_result`: the result of a request to an untried candidate is awaited, so this does not wait longer
    /// than the pause.
    pub(super) async fn further_attempt(
        &mut self,
        pause: &mut Option<Duration>,
        untried: Option<Timestamp>,
        awaits_result: bool,
    ) -> FurtherAttempt {
        let engine = Arc::clone(&self.engine);
        let Some((index, named, wait)) = self.next_further_attempt(pause, untried) else { return FurtherAttempt::None };
        let candidate = self.failed.remove(index);
        let model = candidate.health_keys.model;
        let Some(retry) = Engine::reserve_retry(&engine, model) else {
            self.retry_budget_spent = true;
            return FurtherAttempt::LookAgain;
        };
        self.has_waited |= named.is_some();
        let waiting = named.map(|_| RestrictedGuard::waiting(&engine, &candidate.health_keys));
        let mut watched = self.pause(&candidate, wait).await;
        drop(waiting);
        *pause = Some(Duration::ZERO);
        if matches!(watched, Watched::TimedOut) {
            watched = self.watch_readiness(&candidate, awaits_result).await;
        }
        match watched {
            Watched::Own(Some(candidate)) => {
                retry.make();
                self.budget.use_further_attempt();
                FurtherAttempt::Send(candidate)
            }
            Watched::Other(other) => {
                self.failed.push(candidate);
                // If that one fails, too, the call still waits.
                self.has_waited &= named.is_none();
                FurtherAttempt::Send(other)
            }
            _ if awaits_result => {
                self.failed.push(candidate);
                FurtherAttempt::None
            }
            _ => FurtherAttempt::LookAgain,
        }
    }

    /// The failed candidate that is tried next, the time that its service has named, and the pause before the request. `None`:
    /// no further attempt is allowed or in time, or an untried candidate is expected sooner.
    fn next_further_attempt(
        &self,
        pause: &mut Option<Duration>,
        untried: Option<Timestamp>,
    ) -> Option<(usize, Option<Timestamp>, Duration)> {
        let engine = &self.engine;
        let number = u32::try_from(self.budget.further_attempt()?).unwrap_or(u32::MAX);
        let (index, named) = self.soonest_failed()?;
        let expected = named.unwrap_or_else(|| engine.health.now());
        if untried.is_some_and(|untried| untried < expected) {
            return None;
        }
        let backoff = *pause.get_or_insert_with(|| engine.policies.retry.backoff_delay(number, engine.random_unit()));
        let wait = match named {
            Some(named) => self.named_wait(&self.failed[index], named)?.max(backoff),
            None => backoff,
        };
        self.time.allows(wait).then_some((index, named, wait))
    }

    /// The failed candidate that is expected back soonest, and the time that its service has named if that is still to come.
    fn soonest_failed(&self) -> Option<(usize, Option<Timestamp>)> {
        let health = &self.engine.health;
        let availability = |candidate: &Candidate| health.availability(&candidate.health_keys);
        let soonest = |(_, availability): &(usize, Availability)| (availability.retry_after(), availability.rank());
        let (index, availability) = self.failed.iter().map(availability).enumerate().min_by_key(soonest)?;
        Some((index, availability.retry_after().filter(|until| *until > health.now())))
    }

    /// How long a further attempt waits for the time that the service has named; `None`: too long, or the call may not wait.
    fn named_wait(&self, candidate: &Candidate, named: Timestamp) -> Option<Duration> {
        let (engine, policy) = (&self.engine, &self.engine.policies.last_resort);
        let now = engine.health.now();
        let wait = |until: Timestamp| Duration::try_from(until.duration_since(now)).unwrap_or_default();
        let may_wait =
            !self.has_waited && wait(named) <= policy.max_wait() && engine.health.may_wait(&candidate.health_keys);
        may_wait.then(|| wait(policy.wait_until(named, now, engine.random_unit())))
    }

    /// Pauses before a further attempt at a candidate.
    async fn pause(&mut self, candidate: &Candidate, wait: Duration) -> Watched<Option<Candidate>> {
        if self.queue.restricted.is_empty() {
            self.back_off(&candidate.target, wait).await;
            return Watched::TimedOut;
        }
        self.notify_backoff(&candidate.target, wait).await;
        self.watch(Instant::now() + wait, |_| None).await
    }

    /// Returns the candidate as soon as a request may be sent to it: at once, after the interval of requests to a model whose rate
    /// limit has no named time, or after the result of another request. `None`: not soon.
    async fn watch_readiness(&mut self, candidate: &Candidate, awaits_result: bool) -> Watched<Option<Candidate>> {
        if !self.uses_health {
            return Watched::Own(Some(candidate.clone()));
        }
        let policy = &self.engine.policies.last_resort;
        let (start, longest) = (Instant::now(), policy.rate_interval.max(policy.result_wait));
        self.watch(start + longest, |call| match call.readiness(candidate) {
            Readiness::Send(candidate) => Some(Some(candidate)),
            Readiness::Wait(limit) => {
                let remaining = limit.saturating_sub(start.elapsed());
                let gives_up = awaits_result || remaining.is_zero() || !call.time.allows(remaining);
                gives_up.then_some(None)
            }
            Readiness::No => Some(None),
        })
        .await
    }

    fn readiness(&self, candidate: &Candidate) -> Readiness {
        let (engine, policy) = (&self.engine, &self.engine.policies.last_resort);
        let candidate = match self.if_available(candidate.clone()) {
            Ok(candidate) => return Readiness::Send(candidate),
            Err(candidate) => candidate,
        };
        let Some(restriction) = engine.health.availability(&candidate.health_keys).restriction() else {
            // Another request has taken or ended its probe meanwhile.
            return Readiness::Wait(policy.result_wait);
        };
        match Health::restricted_turn(engine, &candidate.target, &candidate.health_keys) {
            RestrictedTurn::Send(guard, key_index) => {
                Readiness::Send(Candidate { restricted_guard: Some(Arc::new(guard)), key_index, ..candidate })
            }
            _ if restriction.kind == RestrictionKind::Cooldown(CooldownKind::Backoff) => {
                Readiness::Wait(policy.rate_interval)
            }
            RestrictedTurn::AwaitResult(_) => Readiness::Wait(policy.result_wait),
            RestrictedTurn::WaitUntil(..) | RestrictedTurn::Refuse(_) => Readiness::No,
        }
    }
}
