//! Limits the candidates and retries of one call, and the retries of all calls together.
//!
//! A failing service must not receive several times the load of a healthy one; the shared limit keeps a short outage
//! from multiplying the load.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// The limits of the attempts of one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttemptPolicy {
    /// Maximum candidates that one call tries, each once.
    pub max_candidates: usize,
    /// Retries on the same endpoint.
    pub retries: usize,
}

impl Default for AttemptPolicy {
    fn default() -> Self {
        Self { max_candidates: 8, retries: 1 }
    }
}

/// The attempts that one call has left.
#[derive(Clone, Copy, Debug)]
pub struct AttemptBudget {
    candidates: usize,
    retries: usize,
}

impl AttemptBudget {
    /// The budget of a new call.
    #[must_use]
    pub fn new(policy: AttemptPolicy) -> Self {
        Self { candidates: policy.max_candidates, retries: policy.retries }
    }

    /// The number of candidates that may still be tried.
    #[must_use]
    pub fn candidates(&self) -> usize {
        self.candidates
    }

    /// Uses up one candidate.
    pub fn use_candidate(&mut self) {
        self.candidates = self.candidates.saturating_sub(1);
    }

    /// Whether another retry is allowed.
    #[must_use]
    pub fn may_retry(&self) -> bool {
        self.retries > 0
    }

    /// Uses up one retry.
    pub fn use_retry(&mut self) {
        self.retries = self.retries.saturating_sub(1);
    }
}

/// The limit of retries of all requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryBudgetPolicy {
    /// Requests and retries older than this are not counted.
    pub window: Duration,
    /// Retries that are always allowed in a window.
    pub min_retries: usize,
    /// One retry is allowed for this many requests.
    pub requests_per_retry: usize,
}

impl Default for RetryBudgetPolicy {
    fn default() -> Self {
        Self { window: Duration::from_secs(10), min_retries: 3, requests_per_retry: 5 }
    }
}

/// Limits retries on the same endpoint to a share of the requests.
#[derive(Debug)]
pub struct RetryBudget {
    policy: RetryBudgetPolicy,
    requests: VecDeque<Instant>,
    retries: VecDeque<Instant>,
}

/// Maximum requests recorded per window; more would not change the ratio much.
const MAX_RECORDED: usize = 10_000;

impl RetryBudget {
    /// The budget at the start of the process.
    #[must_use]
    pub fn new(policy: RetryBudgetPolicy) -> Self {
        Self { policy, requests: VecDeque::new(), retries: VecDeque::new() }
    }

    /// Records a request.
    pub fn record_request(&mut self, now: Instant) {
        self.expire(now);
        if self.requests.len() < MAX_RECORDED {
            self.requests.push_back(now);
        }
    }

    /// Takes one retry from the budget; returns false if the budget is used up.
    pub fn try_retry(&mut self, now: Instant) -> bool {
        self.expire(now);
        let share = self.requests.len() / self.policy.requests_per_retry.max(1);
        let is_allowed = self.retries.len() < share.max(self.policy.min_retries);
        if is_allowed {
            self.retries.push_back(now);
        }
        is_allowed
    }

    fn expire(&mut self, now: Instant) {
        let window = self.policy.window;
        for times in [&mut self.requests, &mut self.retries] {
            while times.front().is_some_and(|&time| now.saturating_duration_since(time) >= window) {
                times.pop_front();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_are_limited_to_a_fifth_of_the_requests_but_at_least_three() {
        let policy = RetryBudgetPolicy::default();
        let (mut budget, now) = (RetryBudget::new(policy), Instant::now());
        assert_eq!((0..10).filter(|_| budget.try_retry(now)).count(), 3);
        for _ in 0..50 {
            budget.record_request(now);
        }
        assert_eq!((0..50).filter(|_| budget.try_retry(now)).count(), 7, "ten in total");
        assert!(budget.try_retry(now + policy.window));
    }

    proptest::proptest! {
        #[test]
        fn retries_never_exceed_the_ratio_for_any_sequence(
            steps in proptest::collection::vec((0u64..2000, proptest::bool::ANY), 1..400),
        ) {
            let policy = RetryBudgetPolicy { window: Duration::from_secs(7), min_retries: 2, requests_per_retry: 4 };
            let (mut budget, start) = (RetryBudget::new(policy), Instant::now());
            let (mut now, mut requests, mut retries) = (start, Vec::new(), Vec::new());
            for (wait, is_retry) in steps {
                now += Duration::from_millis(wait);
                if !is_retry {
                    budget.record_request(now);
                    requests.push(now);
                    continue;
                }
                let in_window = |times: &[Instant]| times.iter().filter(|time| now - **time < policy.window).count();
                let limit = (in_window(&requests) / policy.requests_per_retry).max(policy.min_retries);
                let is_allowed = budget.try_retry(now);
                proptest::prop_assert_eq!(is_allowed, in_window(&retries) < limit);
                if is_allowed {
                    retries.push(now);
                }
            }
        }
    }

    #[test]
    fn request_tries_at_most_eight_candidates() {
        let mut budget = AttemptBudget::new(AttemptPolicy::default());
        for remaining in (0..8).rev() {
            budget.use_candidate();
            assert_eq!(budget.candidates(), remaining);
        }
        budget.use_candidate();
        assert_eq!(budget.candidates(), 0);
    }
}
