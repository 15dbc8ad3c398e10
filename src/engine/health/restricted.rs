//! Sends requests to restricted candidates within the limits of `routing::last_resort`, and makes the error of the others.

use std::sync::Arc;

use jiff::Timestamp;

use super::Health;
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

/// Counts a request to a restricted key and model as in flight or waiting, until dropped.
pub(in crate::engine) struct RestrictedGuard {
    engine: Arc<Engine>,
    key: HealthKey,
    is_waiting: bool,
}

impl RestrictedGuard {
    fn new(engine: &Arc<Engine>, key: HealthKey, is_waiting: bool) -> Self {
        engine.health.with_cache(|cache| {
            if cache.restricted.len() >= MAX_COUNTED {
                cache.restricted.retain(|_, requests| requests.in_flight > 0 || requests.waiting > 0);
            }
            *count(cache.restricted.entry(key).or_default(), is_waiting) += 1;
        });
        Self { engine: Arc::clone(engine), key, is_waiting }
    }

    /// Counts a request that waits for `health_keys` to become available.
    pub(in crate::engine) fn waiting(engine: &Arc<Engine>, health_keys: &TargetHealthKeys) -> Self {
        Self::new(engine, health_keys.keys[0].1, true)
    }

    /// Counts the probe of a half-open candidate.
    pub(in crate::engine) fn probe(engine: &Arc<Engine>, health_keys: &TargetHealthKeys) -> Self {
        Self::new(engine, health_keys.keys[0].1, false)
    }
}

impl Drop for RestrictedGuard {
    fn drop(&mut self) {
        self.engine.health.with_cache(|cache| {
            if let Some(requests) = cache.restricted.get_mut(&self.key) {
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
    /// Whether another request may wait for the candidate.
    pub(in crate::engine) fn may_wait(&self, health_keys: &TargetHealthKeys) -> bool {
        let waiting =
            self.with_cache(|cache| cache.restricted.get(&health_keys.keys[0].1).map(|requests| requests.waiting));
        waiting.unwrap_or_default() < self.policies.last_resort.max_waiting
    }

    /// What a request does whose candidate is restricted. Each key of the endpoint has limits of its own.
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
                let requests = cache.restricted.get(&key).copied().unwrap_or_default();
                let turn = last_resort::turn(&health.policies.last_resort, restriction, failure, &requests, now);
                if turn == Turn::Send {
                    cache.restricted.entry(key).or_default().last_sent = Some(now);
                }
                (turn, remembered_error(target, restriction, last_error, now))
            });
            let turn = match turn {
                Turn::Send => {
                    let key_index = (!target.endpoint.keys.is_empty()).then_some(index);
                    return RestrictedTurn::Send(RestrictedGuard::new(engine, key, false), key_index);
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
