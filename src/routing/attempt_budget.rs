//! Limits the candidates and retries of one request, and the retries of all requests together.
//!
//! A failing service must not receive several times the load of a healthy one; the shared limit keeps a short outage
//! from multiplying the load.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// The attempts of one request: each candidate once, up to eight, and one retry on the same endpoint.
#[derive(Clone, Copy, Debug)]
pub struct AttemptBudget {
    candidates: usize,
    retries: usize,
}

impl Default for AttemptBudget {
    fn default() -> Self {
        Self { candidates: Self::MAX_CANDIDATES, retries: 1 }
    }
}

impl AttemptBudget {
    /// Maximum candidates that one request tries.
    pub const MAX_CANDIDATES: usize = 8;

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

/// Limits retries on the same endpoint to a fifth of the requests in the last ten seconds, but at least three.
#[derive(Debug, Default)]
pub struct RetryBudget {
    requests: VecDeque<Instant>,
    retries: VecDeque<Instant>,
}

const WINDOW: Duration = Duration::from_secs(10);
const MIN_RETRIES: usize = 3;
const REQUESTS_PER_RETRY: usize = 5;
/// Maximum requests recorded per window; more would not change the ratio much.
const MAX_RECORDED: usize = 10_000;

impl RetryBudget {
    /// Records a request.
    pub fn record_request(&mut self, now: Instant) {
        self.expire(now);
        if self.requests.len() < MAX_RECORDED {
            self.requests.push_back(now);
        }
    }

    /// Takes a retry if one is allowed now; returns whether it is.
    pub fn try_retry(&mut self, now: Instant) -> bool {
        self.expire(now);
        let is_allowed = self.retries.len() < (self.requests.len() / REQUESTS_PER_RETRY).max(MIN_RETRIES);
        if is_allowed {
            self.retries.push_back(now);
        }
        is_allowed
    }

    fn expire(&mut self, now: Instant) {
        for times in [&mut self.requests, &mut self.retries] {
            while times.front().is_some_and(|&time| now.saturating_duration_since(time) >= WINDOW) {
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
        let (mut budget, now) = (RetryBudget::default(), Instant::now());
        assert_eq!((0..10).filter(|_| budget.try_retry(now)).count(), 3);
        for _ in 0..50 {
            budget.record_request(now);
        }
        assert_eq!((0..50).filter(|_| budget.try_retry(now)).count(), 7, "ten in total");
        assert!(budget.try_retry(now + WINDOW));
    }

    proptest::proptest! {
        #[test]
        fn retries_never_exceed_the_ratio_for_any_sequence(
            steps in proptest::collection::vec((0u64..2000, proptest::bool::ANY), 1..400),
        ) {
            let (mut budget, start) = (RetryBudget::default(), Instant::now());
            let (mut now, mut requests, mut retries) = (start, Vec::new(), Vec::new());
            for (wait, is_retry) in steps {
                now += Duration::from_millis(wait);
                if !is_retry {
                    budget.record_request(now);
                    requests.push(now);
                    continue;
                }
                let in_window = |times: &[Instant]| times.iter().filter(|time| now - **time < WINDOW).count();
                let limit = (in_window(&requests) / REQUESTS_PER_RETRY).max(MIN_RETRIES);
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
        let mut budget = AttemptBudget::default();
        for remaining in (0..8).rev() {
            budget.use_candidate();
            assert_eq!(budget.candidates(), remaining);
        }
        budget.use_candidate();
        assert_eq!(budget.candidates(), 0);
    }
}
