//! Counts the requests in flight to each model, and finds models whose requests all wait for a first delta.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::time::Instant;

use crate::{
    engine::Engine,
    routing::{
        health::{HealthKey, HealthMap},
        policies::StallPolicy,
    },
};

/// The requests in flight, by model.
#[derive(Default)]
pub(super) struct InFlightRequests(HealthMap<ModelRequests>);

/// The requests in flight to one model.
#[derive(Default)]
struct ModelRequests {
    count: usize,
    /// When the streamed requests that wait for their first delta were sent, by id: the oldest first.
    waiting: BTreeMap<u64, Instant>,
    last_delta_at: Option<Instant>,
    next_id: u64,
}

impl InFlightRequests {
    /// The number of requests in flight to `model`.
    pub(super) fn count(&self, model: HealthKey) -> usize {
        self.0.get(&model).map_or(0, |requests| requests.count)
    }

    /// Whether enough requests to `model` have waited too long, and no first delta has arrived in that time. `p95` is
    /// called only if enough of them wait.
    pub(super) fn is_stalled(
        &self,
        policy: &StallPolicy,
        model: HealthKey,
        p95: impl FnOnce() -> Option<Duration>,
        now: Instant,
    ) -> bool {
        let Some(requests) = self.0.get(&model).filter(|requests| requests.waiting.len() >= policy.requests) else {
            return false;
        };
        let limit = policy.min_wait.max(p95().unwrap_or_default().saturating_mul(policy.p95_factor));
        let is_longer = |since: Instant| now.saturating_duration_since(since) > limit;
        let nth_oldest = requests.waiting.values().nth(policy.requests.saturating_sub(1));
        nth_oldest.is_some_and(|since| is_longer(*since)) && requests.last_delta_at.is_none_or(is_longer)
    }

    fn start(&mut self, model: HealthKey, is_streaming: bool, now: Instant) -> u64 {
        let requests = self.0.entry(model).or_default();
        let id = requests.next_id;
        requests.next_id += 1;
        requests.count += 1;
        if is_streaming {
            requests.waiting.insert(id, now);
        }
        id
    }

    fn first_delta(&mut self, model: HealthKey, id: u64, now: Instant) {
        if let Some(requests) = self.0.get_mut(&model) {
            requests.waiting.remove(&id);
            requests.last_delta_at = Some(now);
        }
    }

    fn end(&mut self, model: HealthKey, id: u64) {
        if let Some(requests) = self.0.get_mut(&model) {
            requests.waiting.remove(&id);
            requests.count = requests.count.saturating_sub(1);
            if requests.count == 0 {
                self.0.remove(&model);
            }
        }
    }
}

/// A request in flight until dropped.
pub(in crate::engine) struct InFlightGuard {
    engine: Arc<Engine>,
    model: HealthKey,
    id: u64,
}

impl InFlightGuard {
    /// Counts a request in flight to `model`.
    pub(in crate::engine) fn new(engine: &Arc<Engine>, model: HealthKey, is_streaming: bool) -> Self {
        let id = engine.health.with_cache(|cache| cache.in_flight.start(model, is_streaming, Instant::now()));
        Self { engine: Arc::clone(engine), model, id }
    }

    /// The first delta of the request has arrived.
    pub(in crate::engine) fn first_delta(&self) {
        self.engine.health.with_cache(|cache| cache.in_flight.first_delta(self.model, self.id, Instant::now()));
    }
}

impl Drop for InFlightGuard {
    fn drop(&mut self) {
        self.engine.health.with_cache(|cache| cache.in_flight.end(self.model, self.id));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn model_is_stalled_while_three_requests_wait_and_no_delta_arrives() {
        let (policy, model) = (StallPolicy::default(), HealthKey::try_from("1".to_owned()).expect("valid key"));
        let start = Instant::now();
        let at = |millis: u64| start + Duration::from_millis(millis);
        let mut requests = InFlightRequests::default();
        let ids = [0, 100, 200].map(|millis| requests.start(model, true, at(millis)));
        let not_streamed = requests.start(model, false, at(0));
        let stalled = |requests: &InFlightRequests, p95: Option<u64>, now| {
            requests.is_stalled(&policy, model, || p95.map(Duration::from_millis), at(now))
        };
        assert!(!stalled(&requests, None, 1200) && stalled(&requests, None, 1201));
        assert!(!stalled(&requests, Some(500), 1201) && stalled(&requests, Some(500), 1701));
        let fourth = requests.start(model, true, at(300));
        requests.first_delta(model, fourth, at(1300));
        assert!(!stalled(&requests, None, 2300) && stalled(&requests, None, 2301), "a delta proves that it answers");
        requests.end(model, ids[0]);
        assert!(!stalled(&requests, None, 9000), "only two wait");
        for id in [ids[1], ids[2], fourth, not_streamed] {
            requests.end(model, id);
        }
        assert_eq!((requests.count(model), requests.0.len()), (0, 0));
    }
}
