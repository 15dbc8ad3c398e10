//! Chooses the candidate that a call tries next.
//!
//! Available candidates come first, then restricted ones within the limits of `routing::last_resort`, then further attempts
//! at those that have failed.

use std::{pin::pin, sync::Arc, time::Duration};

use jiff::Timestamp;
use tokio::time::Instant;

use super::{CallTask, further_attempt::FurtherAttempt, queue::Candidate, watch::Watched};
use crate::{
    engine::{
        Notice,
        health::{Health, RestrictedGuard, RestrictedTurn},
    },
    routing::health::Availability,
};

/// A wait at least this long is shown to the user.
const NOTICE_THRESHOLD: Duration = Duration::from_secs(1);

/// What a call waits for that can send no request now.
pub(super) enum Wait {
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
            return self.last_resort().await;
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
    pub(super) fn if_available(&self, candidate: Candidate) -> Result<Candidate, Candidate> {
        match self.engine.health.availability(&candidate.health_keys) {
            Availability::Available => Ok(candidate),
            Availability::HalfOpen => self.take_probe(candidate),
            Availability::Restricted(_) => Err(candidate),
        }
    }

    /// The candidate that is tried because no available one is left. Waits only for a time that a service has named, before a
    /// further attempt, and shortly for the result of another request.
    async fn last_resort(&mut self) -> Option<Candidate> {
        let result_wait_ends = Instant::now() + self.engine.policies.last_resort.result_wait;
        let mut pause = None;
        while self.time.allows(Duration::ZERO) {
            let wait = match self.sendable(false) {
                Ok(candidate) => return Some(candidate),
                Err(wait) => wait,
            };
            let awaits_result = matches!(wait, Some(Wait::Result)) && Instant::now() < result_wait_ends;
            let named = match wait {
                Some(Wait::RetryAfter { index, until }) => Some((index, until)),
                _ => None,
            };
            match self.further_attempt(&mut pause, named.map(|(_, until)| until), awaits_result).await {
                FurtherAttempt::Send(candidate) => return Some(candidate),
                // Time may have passed, so the waits of the others have changed.
                FurtherAttempt::LookAgain => continue,
                FurtherAttempt::None => {}
            }
            if let Some((index, until)) = named {
                if let Some(candidate) = self.wait_until(index, until).await {
                    return Some(candidate);
                }
            } else if awaits_result {
                let limit = result_wait_ends.saturating_duration_since(Instant::now());
                let engine = Arc::clone(&self.engine);
                self.time.time_search(pin!(engine.health.wait_for_change(limit, &engine.keys))).await;
            } else {
                return None;
            }
        }
        None
    }

    /// A candidate to which the request can be sent now; `Err`: what to wait for. `has_soft`: the call already waits for a
    /// candidate, so none with a hard restriction is tried.
    pub(super) fn sendable(&mut self, mut has_soft: bool) -> Result<Candidate, Option<Wait>> {
        if self.queue.restricted.is_empty() || self.budget.candidates() == 0 {
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
                    self.remember(&candidate.target.id, error);
                    let allowed = Duration::try_from(until.duration_since(now)).unwrap_or_default();
                    if !self.has_waited && self.time.allows(allowed) && !matches!(wait, Some(Wait::RetryAfter { .. })) {
                        wait = Some(Wait::RetryAfter { index, until });
                    }
                }
                RestrictedTurn::AwaitResult(error) => {
                    self.remember(&candidate.target.id, error);
                    wait = wait.or(Some(Wait::Result));
                }
                RestrictedTurn::Refuse(error) => self.remember(&candidate.target.id, error),
            }
        }
        Err(wait)
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
        // It is available before that time if another request was answered.
        let is_available = |call: &Self| {
            let is_early = start.elapsed() < wait(named);
            let availability = call.engine.health.availability(&candidate.health_keys);
            (is_early && availability.retry_after().is_none()).then_some(())
        };
        let watched = self.watch(end, is_available).await;
        self.queue.restricted.push(candidate);
        let Watched::Other(other) = watched else { return None };
        // If the other one fails, too, the call still waits.
        self.has_waited = false;
        Some(other)
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
