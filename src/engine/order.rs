//! Orders the candidates of a call by strategy and health, and explains that order.
//!
//! The strategies themselves are in `routing::strategy`.

use std::sync::Arc;

use super::Engine;
use crate::{
    engine::plan::Call,
    model::target::Target,
    routing::{
        RoutePolicy,
        health::{Availability, HealthKey, HealthState, TargetHealthKeys},
        strategy::{CandidateState, OrderRequest},
    },
};

/// One candidate of a call, and what determines its position.
#[derive(Clone, Debug)]
pub struct ExplainedCandidate {
    /// The target.
    pub target: Arc<Target>,
    /// The state that the strategy uses.
    pub state: CandidateState,
    /// The state that is shown for it.
    pub health_state: HealthState,
    /// Its last error, unless it is available.
    pub last_error: Option<String>,
    /// The spend limit that it has reached.
    pub spend_limit_reached: Option<String>,
    /// Why its spend limits could not be checked; it is still tried.
    pub spend_check_error: Option<String>,
}

impl Engine {
    /// The candidates of `call` in the order they would be tried now, with the reasons.
    #[must_use]
    pub fn explain(&self, call: &Call) -> Vec<ExplainedCandidate> {
        let (health_keys, states, order) = self.order_candidates(call);
        let mut explained: Vec<ExplainedCandidate> = order
            .into_iter()
            .map(|index| {
                let (target, state) = (Arc::clone(&call.candidates[index]), states[index]);
                let restriction = state.availability.restriction();
                let key = restriction.map_or(health_keys[index].model, |restriction| restriction.cause);
                let health_state = HealthState::of(state.availability);
                let last_error =
                    self.health.with_snapshot(|snapshot| Some(snapshot.entry(key)?.last_error.as_ref()?.to_string()));
                let reached_limit = self.ledger.as_ref().map(|ledger| ledger.reached_limit(&target));
                let (spend_limit_reached, spend_check_error) = match reached_limit {
                    Some(Ok(Some(reached))) => (Some(reached.to_string()), None),
                    Some(Err(error)) => (None, Some(error)),
                    _ => (None, None),
                };
                ExplainedCandidate {
                    target,
                    state,
                    health_state,
                    last_error: last_error.filter(|_| state.availability != Availability::Available),
                    spend_limit_reached,
                    spend_check_error,
                }
            })
            .collect();
        explained.sort_by_key(|candidate| candidate.spend_limit_reached.is_some());
        explained
    }

    /// The indices of the candidates of `call` in the order they would be tried now.
    #[must_use]
    pub fn candidate_order(&self, call: &Call) -> Vec<usize> {
        self.order_candidates(call).2
    }

    fn order_candidates(&self, call: &Call) -> (Vec<Arc<TargetHealthKeys>>, Vec<CandidateState>, Vec<usize>) {
        self.health.load(&self.keys);
        let policy = call.route.clone().unwrap_or_default();
        let health_keys = self.health.health_keys(&call.candidates, &self.keys);
        let states = self.candidate_states(call, &policy, &call.candidates, &health_keys);
        let affinity_key = policy.sticky.then(|| call.request.affinity_key());
        let order = self.order_states(&policy, &call.name, affinity_key.as_deref(), &states);
        (health_keys, states, order)
    }

    /// The state of `candidates`, a subsequence of the candidates of `call`; `health_keys` are theirs.
    pub(super) fn candidate_states(
        &self,
        call: &Call,
        policy: &RoutePolicy,
        candidates: &[Arc<Target>],
        health_keys: &[Arc<TargetHealthKeys>],
    ) -> Vec<CandidateState> {
        let (tokens, max_tokens) = (call.estimated_prompt_tokens, call.request.max_tokens());
        let mut weights = call.candidates.iter().zip(policy.weights.iter().copied().chain(std::iter::repeat(1)));
        let mut weight =
            |target| weights.find(|(candidate, _)| Arc::ptr_eq(candidate, target)).map_or(1, |(_, weight)| weight);
        let health = self.health.candidate_health(health_keys.iter());
        let candidates = candidates.iter().zip(health_keys).zip(health);
        candidates
            .map(|((target, keys), health)| CandidateState {
                availability: health.availability,
                weight: weight(target),
                in_flight: health.in_flight,
                latency_ms: health.latency_ms,
                cost: target.expected_cost(tokens, max_tokens),
                id: keys.model.as_u64(),
            })
            .collect()
    }

    /// The order in which the candidates with these states are tried.
    pub(super) fn order_states(
        &self,
        policy: &RoutePolicy,
        route: &str,
        affinity_key: Option<&str>,
        states: &[CandidateState],
    ) -> Vec<usize> {
        let mut random = || self.random_unit();
        let mut wrr_states = self.wrr_states.lock();
        let wrr = self.long_lived.then(|| wrr_states.entry(route.to_owned()).or_default());
        OrderRequest { strategy: policy.strategy, affinity_key, wrr, random: &mut random }.order(states)
    }

    /// The 95th percentile of the time to the first token of a model, or of the total time of its answers in one piece.
    pub(super) fn latency_p95(&self, model: HealthKey, is_streaming: bool) -> Option<std::time::Duration> {
        self.health.with_snapshot(|snapshot| {
            let entry = snapshot.entry(model)?;
            if is_streaming { entry.latency.p95() } else { entry.total.p95() }
        })
    }
}
