//! Limits the candidates and retries of one call, and the retries on one model at one endpoint.
//!
//! A failing service must not receive several times the load of a healthy one. The limit counts for each model and
//! endpoint apart, so that the outage of one service does not use up the retries of another.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// The limits of the attempts of one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttemptPolicy {
    /// Maximum candidates that one call tries, each once.
    pub max_candidates: usize,
    /// Retries on the same endpoint at once, before the next candidate is tried.
    pub retries: usize,
    /// Further attempts when all candidates have failed, as the official client libraries make them.
    pub further_attempts: usize,
    /// Maximum attempts of a call for which no candidate is available.
    pub restricted_attempts: usize,
    /// Maximum changes to the request for one candidate that refuses parts of it.
    pub workarounds: usize,
}

impl Default for AttemptPolicy {
    fn default() -> Self {
        Self { max_candidates: 8, retries: 1, further_attempts: 2, restricted_attempts: 2, workarounds: 5 }
    }
}

/// The attempts that one call has left.
#[derive(Clone, Copy, Debug)]
pub struct AttemptBudget {
    policy: AttemptPolicy,
    candidates: usize,
    retries: usize,
    further_attempts: usize,
    /// The attempts left, further ones included, of a call for which no candidate is available.
    restricted_attempts: Option<usize>,
}

impl AttemptBudget {
    /// The budget of a new call.
    #[must_use]
    pub fn new(policy: AttemptPolicy) -> Self {
        let AttemptPolicy { max_candidates, retries, further_attempts, .. } = policy;
        Self { policy, candidates: max_candidates, retries, further_attempts, restricted_attempts: None }
    }

    /// Limits a call for which no candidate is available.
    pub fn limit_to_restricted(&mut self) {
        self.restricted_attempts = Some(self.policy.restricted_attempts);
        self.retries = 0;
    }

    /// Without further attempts after the last candidate, for a client that retries itself.
    #[must_use]
    pub fn without_further_attempts(self) -> Self {
        Self { further_attempts: 0, ..self }
    }

    /// The number of further attempts made so far, if another one is allowed.
    #[must_use]
    pub fn further_attempt(&self) -> Option<usize> {
        (self.further_attempts > 0 && self.restricted_attempts != Some(0))
            .then(|| self.policy.further_attempts.saturating_sub(self.further_attempts))
    }

    /// Uses up one further attempt.
    pub fn use_further_attempt(&mut self) {
        self.further_attempts = self.further_attempts.saturating_sub(1);
    }

    /// The number of candidates that may still be tried.
    #[must_use]
    pub fn candidates(&self) -> usize {
        self.candidates.min(self.restricted_attempts.unwrap_or(usize::MAX))
    }

    /// Uses up one candidate.
    pub fn use_candidate(&mut self) {
        self.candidates = self.candidates.saturating_sub(1);
        self.restricted_attempts = self.restricted_attempts.map(|attempts| attempts.saturating_sub(1));
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

/// The limit of retries on one model at one endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryBudgetPolicy {
    /// Requests and retries older than this are not counted.
    pub window: Duration,
    /// Retries that are always allowed in a window.
    pub min_retries: usize,
    /// Retries in percent of the requests.
    pub max_percent: u32,
}

impl Default for RetryBudgetPolicy {
    fn default() -> Self {
        Self { window: Duration::from_secs(10), min_retries: 3, max_percent: 20 }
    }
}

/// Which retries a reservation counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReservationLimit {
    /// Those made and those reserved.
    All,
    /// Those made.
    Made,
}

/// Limits retries on the same endpoint to a share of the requests.
#[derive(Debug)]
pub struct RetryBudget {
    policy: RetryBudgetPolicy,
    requests: VecDeque<Instant>,
    retries: VecDeque<Instant>,
    /// Retries that are not made yet.
    reserved: usize,
}

/// Maximum requests recorded per window; more would not change the ratio much.
const MAX_RECORDED: usize = 10_000;

impl RetryBudget {
    /// The budget before the first request.
    #[must_use]
    pub fn new(policy: RetryBudgetPolicy) -> Self {
        Self { policy, requests: VecDeque::new(), retries: VecDeque::new(), reserved: 0 }
    }

    /// Records a request, which may be a retry.
    pub fn record_request(&mut self, now: Instant) {
        self.expire(now);
        if self.requests.len() < MAX_RECORDED {
            self.requests.push_back(now);
        }
    }

    /// Reserves one retry, until [`RetryBudget::end_reservation`]; returns false if the budget is used up.
    pub fn reserve(&mut self, now: Instant, limit: ReservationLimit) -> bool {
        self.expire(now);
        // Each retry is recorded as a request, too.
        let first_requests = self.requests.len().saturating_sub(self.retries.len());
        let share = first_requests * self.policy.max_percent as usize / 100;
        let reserved = if limit == ReservationLimit::All { self.reserved } else { 0 };
        let is_allowed = self.retries.len() + reserved < share.max(self.policy.min_retries);
        self.reserved += usize::from(is_allowed);
        is_allowed
    }

    /// Ends a reservation. `made_at`: when the retry was made; `None`: it was not.
    pub fn end_reservation(&mut self, made_at: Option<Instant>) {
        self.reserved = self.reserved.saturating_sub(1);
        self.retries.extend(made_at);
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

    /// Makes a retry, if the budget allows one.
    fn retry_at(budget: &mut RetryBudget, now: Instant) -> bool {
        let is_allowed = budget.reserve(now, ReservationLimit::All);
        if is_allowed {
            budget.end_reservation(Some(now));
            budget.record_request(now);
        }
        is_allowed
    }

    #[test]
    fn reserved_retries_count_until_they_are_given_back() {
        let (mut budget, now) = (RetryBudget::new(RetryBudgetPolicy::default()), Instant::now());
        // The wait before a retry may be longer than the window.
        let later = now + 2 * RetryBudgetPolicy::default().window;
        let (all, made) = (ReservationLimit::All, ReservationLimit::Made);
        assert!((0..3).all(|_| budget.reserve(now, all)));
        assert!(!budget.reserve(later, all));
        budget.end_reservation(None);
        assert!(budget.reserve(later, all) && !budget.reserve(later, all) && budget.reserve(later, made));
    }

    #[test]
    fn retries_are_limited_to_a_fifth_of_the_requests_but_at_least_three() {
        let policy = RetryBudgetPolicy::default();
        let (mut budget, now) = (RetryBudget::new(policy), Instant::now());
        let retry = |budget: &mut RetryBudget| retry_at(budget, now);
        assert_eq!((0..10).filter(|_| retry(&mut budget)).count(), 3);
        for _ in 0..50 {
            budget.record_request(now);
        }
        assert_eq!((0..50).filter(|_| retry(&mut budget)).count(), 7, "ten in total");
        assert!(retry_at(&mut budget, now + policy.window));
    }

    proptest::proptest! {
        #[test]
        fn retries_never_exceed_the_ratio_for_any_sequence(
            steps in proptest::collection::vec((0u64..2000, proptest::bool::ANY), 1..400),
        ) {
            let policy = RetryBudgetPolicy { window: Duration::from_secs(7), min_retries: 2, max_percent: 25 };
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
                let limit = (in_window(&requests) * policy.max_percent as usize / 100).max(policy.min_retries);
                let is_allowed = retry_at(&mut budget, now);
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
