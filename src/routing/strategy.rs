//! Orders the candidates of a route by strategy, session affinity (`sticky`) and health.
//!
//! Restricted candidates come last. The state of the candidates and random numbers are passed in.

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
};

use strum::{EnumString, IntoStaticStr, VariantArray, VariantNames};

use super::{backoff::random_index, health::Availability};

/// The strategy by which a route orders its models.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, EnumString, IntoStaticStr, VariantArray, VariantNames)]
#[strum(serialize_all = "kebab-case")]
pub enum Strategy {
    /// In config order.
    #[default]
    Priority,
    /// By weight: round robin in a long-lived process (`serve`, `chat`), weighted random in other commands.
    Weighted,
    /// In a long-lived process, the one of two random candidates with fewer requests in flight; else config order.
    LeastBusy,
    /// The one of two random candidates with the lower latency; one request in twenty goes to a random candidate.
    Fastest,
    /// By the cost of this request, cheapest first.
    Cheapest,
}

impl Strategy {
    /// The name in the config.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// The state of one candidate.
#[derive(Clone, Copy, Debug)]
pub struct CandidateState {
    /// The availability.
    pub availability: Availability,
    /// The weight under `weighted`; 0: used only when all others failed.
    pub weight: u32,
    /// Requests of this process in flight.
    pub in_flight: usize,
    /// The average time to first token, in milliseconds.
    pub latency_ms: Option<f64>,
    /// The estimated cost of this request, in the currency of the route's models.
    pub cost: Option<f64>,
    /// Identifies the candidate for round robin and session affinity.
    pub id: u64,
}

/// Smooth weighted round robin state of `weighted`: the current weight by candidate id.
#[derive(Clone, Debug, Default)]
pub struct WrrState(HashMap<u64, i64>);

/// The share of requests that go to a random candidate, so that a candidate that was slow is tried again.
const EXPLORATION_RATE: f64 = 0.05;

/// The input for ordering candidates.
#[expect(missing_debug_implementations, reason = "a closure has no Debug")]
pub struct OrderRequest<'a> {
    /// The strategy.
    pub strategy: Strategy,
    /// Requests with the same affinity key go to one candidate while it is available.
    pub affinity_key: Option<&'a str>,
    /// The round robin state of a long-lived process; `None` in other commands.
    pub wrr: Option<&'a mut WrrState>,
    /// Returns random numbers in 0..1.
    pub random: &'a mut dyn FnMut() -> f64,
}

impl OrderRequest<'_> {
    /// The candidate indexes in the order to try them: available ones by strategy, then soft restricted ones by the time
    /// they become available, then hard restricted ones.
    #[must_use]
    pub fn order(mut self, candidates: &[CandidateState]) -> Vec<usize> {
        let (available, mut restricted): (Vec<usize>, Vec<usize>) =
            (0..candidates.len()).partition(|&index| candidates[index].availability.restriction().is_none());
        restricted.sort_by_key(|&index| candidates[index].availability.rank());
        let mut order = if let Some(key) = self.affinity_key {
            rendezvous(&available, candidates, key, self.strategy)
        } else {
            self.rank(available, candidates)
        };
        order.extend(restricted);
        order
    }

    fn rank(&mut self, available: Vec<usize>, candidates: &[CandidateState]) -> Vec<usize> {
        match self.strategy {
            Strategy::Priority => available,
            Strategy::Weighted => match &mut self.wrr {
                Some(state) => smooth_weighted_rr(available, candidates, state),
                None => weighted_random(available, candidates, self.random),
            },
            Strategy::LeastBusy if self.wrr.is_none() => available,
            Strategy::LeastBusy => {
                #[expect(clippy::cast_precision_loss, reason = "requests in flight are few")]
                let in_flight = |index: usize| candidates[index].in_flight as f64;
                power_of_two(available, &in_flight, self.random)
            }
            Strategy::Fastest => rank_by_latency(available, candidates, self.random),
            Strategy::Cheapest => {
                let mut order = available;
                let cost = |index: usize| candidates[index].cost.unwrap_or(f64::INFINITY);
                order.sort_by(|&a, &b| cost(a).total_cmp(&cost(b)));
                order
            }
        }
    }
}

/// Smooth weighted round robin: over a cycle each candidate gets exactly its share, spread as evenly as possible.
fn smooth_weighted_rr(mut available: Vec<usize>, candidates: &[CandidateState], state: &mut WrrState) -> Vec<usize> {
    let mut total = 0;
    for &index in &available {
        total += i64::from(candidates[index].weight);
        *state.0.entry(candidates[index].id).or_default() += i64::from(candidates[index].weight);
    }
    let current = |index: usize| state.0.get(&candidates[index].id).copied().unwrap_or_default();
    // Candidates with weight 0 come last. The sort is stable, so equal candidates keep their order.
    available.sort_by_cached_key(|&index| std::cmp::Reverse((candidates[index].weight > 0, current(index))));
    if let Some(&first) = available.first() {
        *state.0.entry(candidates[first].id).or_default() -= total;
    }
    available
}

/// Draws all candidates one after the other, with probability proportional to weight.
fn weighted_random(
    mut remaining: Vec<usize>,
    candidates: &[CandidateState],
    random: &mut dyn FnMut() -> f64,
) -> Vec<usize> {
    let mut order = Vec::with_capacity(remaining.len());
    while !remaining.is_empty() {
        let total: f64 = remaining.iter().map(|&index| f64::from(candidates[index].weight)).sum();
        let mut point = random() * total;
        let position = remaining.iter().position(|&index| {
            point -= f64::from(candidates[index].weight);
            point < 0.0
        });
        order.push(remaining.remove(position.unwrap_or(0)));
    }
    order
}

/// Power of two choices: the better of two random candidates comes first, then the others, best first.
fn power_of_two(available: Vec<usize>, metric: &dyn Fn(usize) -> f64, random: &mut dyn FnMut() -> f64) -> Vec<usize> {
    let first_position = match available.len() {
        0 | 1 => 0,
        count => {
            let first_choice = random_index(count, random());
            let second_choice = (first_choice + 1 + random_index(count - 1, random())) % count;
            // Both are random, so either may win a tie.
            if metric(available[second_choice]) < metric(available[first_choice]) {
                second_choice
            } else {
                first_choice
            }
        }
    };
    first_then_best(available, first_position, metric)
}

/// Moves the candidate at `first_position` to the front and sorts the others by `metric`, lowest first.
fn first_then_best(mut available: Vec<usize>, first_position: usize, metric: &dyn Fn(usize) -> f64) -> Vec<usize> {
    if available.is_empty() {
        return available;
    }
    let first = available.remove(first_position);
    available.sort_by(|&a, &b| metric(a).total_cmp(&metric(b)));
    available.insert(0, first);
    available
}

fn rank_by_latency(
    available: Vec<usize>,
    candidates: &[CandidateState],
    random: &mut dyn FnMut() -> f64,
) -> Vec<usize> {
    let mut latencies: Vec<f64> = available.iter().filter_map(|&index| candidates[index].latency_ms).collect();
    latencies.sort_by(f64::total_cmp);
    // A candidate without samples is ranked with the median latency.
    let median = latencies.get(latencies.len() / 2).copied().unwrap_or_default();
    #[expect(clippy::cast_precision_loss, reason = "requests in flight are few")]
    let metric =
        |index: usize| candidates[index].latency_ms.unwrap_or(median) * (candidates[index].in_flight as f64 + 1.0);
    if available.len() > 1 && random() < EXPLORATION_RATE {
        let first_position = random_index(available.len(), random());
        return first_then_best(available, first_position, &metric);
    }
    power_of_two(available, &metric, random)
}

/// Rendezvous hashing: the relative order of two candidates depends only on the key and on them. When a candidate
/// becomes unavailable or available again, requests assigned to the others do not move.
fn rendezvous(available: &[usize], candidates: &[CandidateState], key: &str, strategy: Strategy) -> Vec<usize> {
    let score = |index: usize| {
        let mut hasher = DefaultHasher::new();
        (key, candidates[index].id).hash(&mut hasher);
        #[expect(clippy::cast_precision_loss, reason = "a number in 0..1")]
        let uniform = ((hasher.finish() >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
        let weight = if strategy == Strategy::Weighted { f64::from(candidates[index].weight) } else { 1.0 };
        -weight / uniform.ln()
    };
    let mut order = available.to_vec();
    order.sort_by(|&a, &b| score(b).total_cmp(&score(a)));
    order
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop_assert, prop_assert_eq, prop_assume, proptest};

    use super::*;
    use crate::routing::health::{HealthKey, Restriction, RestrictionKind};

    fn candidate(id: u64) -> CandidateState {
        CandidateState {
            availability: Availability::Available,
            weight: 1,
            in_flight: 0,
            latency_ms: None,
            cost: None,
            id,
        }
    }

    fn order(strategy: Strategy, candidates: &[CandidateState], mut random: impl FnMut() -> f64) -> Vec<usize> {
        OrderRequest { strategy, affinity_key: None, wrr: None, random: &mut random }.order(candidates)
    }

    fn unavailable(until: &str) -> Availability {
        let cause = HealthKey::try_from("1".to_owned()).expect("valid hex number");
        let until = until.parse().expect("valid timestamp");
        Availability::Restricted(Restriction { kind: RestrictionKind::Open, until, named: None, cause })
    }

    #[test]
    fn unavailable_candidates_come_last_by_time() {
        let late = CandidateState { availability: unavailable("2026-01-01T00:00:09Z"), ..candidate(0) };
        let soon = CandidateState { availability: unavailable("2026-01-01T00:00:01Z"), ..candidate(1) };
        let candidates =
            [late, candidate(2), soon, CandidateState { availability: Availability::HalfOpen, ..candidate(3) }];
        assert_eq!(order(Strategy::Priority, &candidates, || 0.0), [1, 3, 2, 0]);
    }

    #[test]
    fn cheapest_comes_first_and_unknown_price_last() {
        let costs = [Some(3.0), None, Some(1.0), Some(2.0)];
        let candidates: Vec<CandidateState> =
            costs.iter().map(|&cost| CandidateState { cost, ..candidate(0) }).collect();
        assert_eq!(order(Strategy::Cheapest, &candidates, || 0.0), [2, 3, 0, 1]);
    }

    #[test]
    fn faster_of_two_comes_first_and_sometimes_a_random_one() {
        let latencies = [Some(300.0), Some(100.0), None];
        let candidates: Vec<CandidateState> =
            latencies.iter().map(|&latency_ms| CandidateState { latency_ms, ..candidate(0) }).collect();
        let mut random = fastrand::Rng::with_seed(7);
        let mut first_counts = [0; 3];
        for _ in 0..3000 {
            first_counts[order(Strategy::Fastest, &candidates, || random.f64())[0]] += 1;
        }
        assert!(
            first_counts[1] > 1900 && first_counts[0] > 20 && first_counts[0] + first_counts[2] > 900,
            "{first_counts:?}"
        );
    }

    #[test]
    fn less_busy_of_two_comes_first_in_a_long_lived_process() {
        let candidates: Vec<CandidateState> =
            [5, 0].map(|in_flight| CandidateState { in_flight, ..candidate(in_flight as u64) }).to_vec();
        let mut state = WrrState::default();
        let request = OrderRequest {
            strategy: Strategy::LeastBusy,
            affinity_key: None,
            wrr: Some(&mut state),
            random: &mut || 0.3,
        };
        assert_eq!(request.order(&candidates), [1, 0]);
        assert_eq!(order(Strategy::LeastBusy, &candidates, || 0.3), [0, 1]);
    }

    #[test]
    fn affinity_key_maps_to_one_candidate_and_others_do_not_move() {
        let candidates: Vec<CandidateState> = (0..5).map(candidate).collect();
        let choose = |candidates: &[CandidateState], key: &str| {
            let mut random = || 0.5;
            let request =
                OrderRequest { strategy: Strategy::Priority, affinity_key: Some(key), wrr: None, random: &mut random };
            request.order(candidates)[0]
        };
        let mut one_unavailable = candidates.clone();
        one_unavailable[2].availability = unavailable("2026-01-01T00:00:09Z");
        let mut shares = [0; 5];
        for number in 0..1000 {
            let key = format!("user {number}");
            let chosen = choose(&candidates, &key);
            shares[chosen] += 1;
            assert_eq!(choose(&candidates, &key), chosen);
            assert!(chosen == 2 || choose(&one_unavailable, &key) == chosen);
        }
        assert!(shares.iter().all(|&share| share > 140), "{shares:?}");
    }

    proptest! {
        #[test]
        fn weights_are_exact_over_a_cycle(weights in proptest::collection::vec(0u32..9, 1..7), cycles in 1usize..4) {
            prop_assume!(weights.iter().any(|&weight| weight > 0));
            let candidates: Vec<CandidateState> =
                weights.iter().zip(0..).map(|(&weight, id)| CandidateState { weight, ..candidate(id) }).collect();
            let total: u32 = weights.iter().sum();
            let (mut state, mut served) = (WrrState::default(), vec![0; candidates.len()]);
            for _ in 0..total as usize * cycles {
                let request = OrderRequest {
                    strategy: Strategy::Weighted, affinity_key: None, wrr: Some(&mut state), random: &mut || 0.0,
                };
                served[request.order(&candidates)[0]] += 1;
            }
            let want: Vec<usize> = weights.iter().map(|&weight| weight as usize * cycles).collect();
            prop_assert_eq!(served, want);
        }

        #[test]
        fn every_order_has_each_candidate_once(
            weights in proptest::collection::vec(0u32..4, 1..9), strategy in 0usize..5, seed in any::<u64>(), long_lived in any::<bool>()
        ) {
            let candidates: Vec<CandidateState> =
                weights.iter().zip(0..).map(|(&weight, id)| CandidateState { weight, ..candidate(id) }).collect();
            let (mut rng, mut state) = (fastrand::Rng::with_seed(seed), WrrState::default());
            let mut random = || rng.f64();
            let request = OrderRequest {
                strategy: <Strategy as VariantArray>::VARIANTS[strategy], affinity_key: None,
                wrr: long_lived.then_some(&mut state), random: &mut random,
            };
            let mut order = request.order(&candidates);
            let zero_first = candidates[order[0]].weight == 0 && weights.iter().any(|&weight| weight > 0);
            prop_assert!(!(zero_first && strategy == 1), "a candidate with weight 0 came first");
            order.sort_unstable();
            prop_assert_eq!(order, (0..candidates.len()).collect::<Vec<_>>());
        }
    }
}
