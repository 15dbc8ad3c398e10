//! Sends requests to restricted candidates within the limits of `routing::last_resort`, and makes the error of the others.

use std::sync::Arc;

use jiff::Timestamp;

use super::{Health, HealthCache};
use crate::{
    engine::Engine,
    model::{ErrorClass, target::Target},
    protocol::{CallError, RetryAfter},
    routing::{
        health::{Availability, HealthKey, Restriction, TargetHealthKeys},
        last_resort::{self, LastFailure, RestrictedRequests, Turn},
    },
};

/// The counts are removed above this number of keys and models, if no request needs them.
const MAX_COUNTED: usize = 1024;

/// What a request does that has only restricted candidates.
pub(in crate::engine) enum RestrictedTurn {
    /// It is sent with this key of the endpoint.
    Send(RestrictedGuard, Option<usize>),
    /// It waits for the result of a request in flight.
    AwaitResult(CallError),
    /// It waits until the time that the service has named.
    WaitUntil(Timestamp, CallError),
    /// It fails with this error.
    Refuse(CallError),
}

/// Counts a request to a restricted model as in flight or waiting, until dropped.
pub(in crate::engine) struct RestrictedGuard {
    engine: Arc<Engine>,
    model: HealthKey,
    is_waiting: bool,
}

impl RestrictedGuard {
    /// Counts a request that waits for the model of `health_keys` to become available.
    pub(in crate::engine) fn waiting(engine: &Arc<Engine>, health_keys: &TargetHealthKeys) -> Self {
        Self::counted(engine, health_keys.model, true)
    }

    /// Counts the probe of a half-open candidate.
    pub(in crate::engine) fn probe(engine: &Arc<Engine>, health_keys: &TargetHealthKeys) -> Self {
        Self::counted(engine, health_keys.model, false)
    }

    fn counted(engine: &Arc<Engine>, model: HealthKey, is_waiting: bool) -> Self {
        let (health, now) = (&engine.health, engine.health.now());
        health.with_cache(|cache| *count(health.requests_to(cache, model, now), is_waiting) += 1);
        Self { engine: Arc::clone(engine), model, is_waiting }
    }
}

impl Drop for RestrictedGuard {
    fn drop(&mut self) {
        self.engine.health.with_cache(|cache| {
            if let Some(requests) = cache.restricted.get_mut(&self.model) {
                let count = count(requests, self.is_waiting);
                *count = count.saturating_sub(1);
            }
        });
        self.engine.health.changed.notify_waiters();
    }
}

fn count(requests: &mut RestrictedRequests, is_waiting: bool) -> &mut usize {
    if is_waiting { &mut requests.waiting } else { &mut requests.in_flight }
}

impl Health {
    /// The counts of a model or a key.
    fn requests_to<'c>(
        &self,
        cache: &'c mut HealthCache,
        health_key: HealthKey,
        now: Timestamp,
    ) -> &'c mut RestrictedRequests {
        let restricted = &mut cache.restricted;
        if restricted.len() >= MAX_COUNTED && !restricted.contains_key(&health_key) {
            restricted.retain(|_, requests| requests.is_needed(&self.policies.last_resort, now));
        }
        restricted.entry(health_key).or_default()
    }

    /// Whether another request may wait for the candidate.
    pub(in crate::engine) fn may_wait(&self, health_keys: &TargetHealthKeys) -> bool {
        let waiting =
            self.with_cache(|cache| cache.restricted.get(&health_keys.model).map(|requests| requests.waiting));
        waiting.unwrap_or_default() < self.policies.last_resort.max_waiting
    }

    /// What a request does whose candidate is restricted. Requests are counted for the model, and each key of the endpoint
    /// has intervals of its own.
    pub(in crate::engine) fn restricted_turn(
        engine: &Arc<Engine>,
        target: &Target,
        health_keys: &TargetHealthKeys,
    ) -> RestrictedTurn {
        let health = &engine.health;
        let now = health.now();
        let mut best = None;
        for (index, restriction) in health.key_restrictions(health_keys, now) {
            let key = health_keys.keys[index].1;
            let (turn, error) = health.with_cache(|cache| {
                let last_error = cache.snapshot.entry(restriction.cause).and_then(|entry| entry.last_error.as_ref());
                let failure = last_error
                    .map(|error| LastFailure { at: error.at, is_timeout: error.class == ErrorClass::Timeout.as_str() });
                let last_sent = cache.restricted.get(&key).and_then(|requests| requests.last_sent);
                let counts = cache.restricted.get(&health_keys.model).copied().unwrap_or_default();
                let requests = RestrictedRequests { last_sent, ..counts };
                let turn = last_resort::turn(&health.policies.last_resort, restriction, failure, &requests, now);
                let error = remembered_error(target, restriction, last_error, now);
                if turn == Turn::Send {
                    // Counted under the same lock, so that no other request is sent in between.
                    health.requests_to(cache, key, now).last_sent = Some(now);
                    health.requests_to(cache, health_keys.model, now).in_flight += 1;
                }
                (turn, error)
            });
            let turn = match turn {
                Turn::Send => {
                    let key_index = (!target.endpoint.keys.is_empty()).then_some(index);
                    let (engine, model) = (Arc::clone(engine), health_keys.model);
                    return RestrictedTurn::Send(RestrictedGuard { engine, model, is_waiting: false }, key_index);
                }
                Turn::WaitUntil(until) => RestrictedTurn::WaitUntil(until, error),
                Turn::AwaitResult => RestrictedTurn::AwaitResult(error),
                Turn::Refuse => RestrictedTurn::Refuse(error),
            };
            // The keys are sorted, so the first wait is the shortest.
            if best.is_none()
                || matches!((&best, &turn), (Some(RestrictedTurn::Refuse(_)), RestrictedTurn::WaitUntil(..)))
            {
                best = Some(turn);
            }
        }
        best.unwrap_or_else(|| RestrictedTurn::Refuse(CallError::new(ErrorClass::LocalLimit, "no key is available")))
    }

    /// The restriction of the candidate with each of its keys, the one that ends first at the front.
    fn key_restrictions(&self, health_keys: &TargetHealthKeys, now: Timestamp) -> Vec<(usize, Restriction)> {
        let mut restrictions: Vec<(usize, Availability)> = self.with_cache(|cache| {
            let one_key = |key| TargetHealthKeys { keys: vec![key], ..health_keys.clone() };
            let availability = |key| cache.availability(&self.policies.health.stall, &one_key(key), now);
            health_keys.keys.iter().map(|key| availability(*key)).enumerate().collect()
        });
        restrictions.sort_by_key(|(_, availability)| availability.rank());
        restrictions
            .into_iter()
            .filter_map(|(index, availability)| Some((index, availability.restriction()?)))
            .collect()
    }
}

/// The error that a service gave last, for a request that is not sent to it.
fn remembered_error(
    target: &Target,
    restriction: Restriction,
    last_error: Option<&crate::routing::health::LastError>,
    now: Timestamp,
) -> CallError {
    let wait = std::time::Duration::try_from(restriction.until.duration_since(now)).unwrap_or_default();
    let class = last_error.and_then(|error| error.class.parse().ok()).unwrap_or(ErrorClass::Overloaded);
    let text = last_error.map(ToString::to_string).unwrap_or_default();
    CallError {
        status: last_error.and_then(|error| error.http_status),
        retry_after: Some(RetryAfter::after(wait)),
        remembered: true,
        ..CallError::new(class, format!("{} is not available: {text}", target.id))
    }
}
