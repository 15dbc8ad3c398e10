//! The attempt budget: how often one request may be tried, and how many repeats all requests together may cost.
//!
//! Owns both limits. A failing service must not be asked several times as often as a healthy one; the shared limit
//! is what keeps a minute's outage from multiplying the load.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// What one request may spend: every candidate once, up to eight, and one repeat on the same endpoint.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    candidates: usize,
    repeats: usize,
}

impl Default for Budget {
    fn default() -> Self {
        Self { candidates: Self::CANDIDATES, repeats: 1 }
    }
}

impl Budget {
    /// How many candidates one request may ask.
    pub const CANDIDATES: usize = 8;

    /// How many candidates may still be asked.
    #[must_use]
    pub fn candidates(&self) -> usize {
        self.candidates
    }

    /// Spends one candidate.
    pub fn candidate(&mut self) {
        self.candidates = self.candidates.saturating_sub(1);
    }

    /// Whether a repeat is left.
    #[must_use]
    pub fn may_repeat(&self) -> bool {
        self.repeats > 0
    }

    /// Spends one repeat.
    pub fn repeat(&mut self) {
        self.repeats = self.repeats.saturating_sub(1);
    }
}

/// Repeats on the same endpoint: at most a fifth of the requests of the last ten seconds, and never less than three.
#[derive(Debug, Default)]
pub struct RepeatLimiter {
    requests: VecDeque<Instant>,
    repeats: VecDeque<Instant>,
}

const WINDOW: Duration = Duration::from_secs(10);
const ALWAYS: usize = 3;
const SHARE: usize = 5;
/// Beyond so many requests in the window the share is known well enough.
const MOST_KEPT: usize = 10_000;

impl RepeatLimiter {
    /// Notes a request.
    pub fn request(&mut self, now: Instant) {
        self.forget(now);
        if self.requests.len() < MOST_KEPT {
            self.requests.push_back(now);
        }
    }

    /// Takes a repeat, if one is allowed now.
    pub fn repeat(&mut self, now: Instant) -> bool {
        self.forget(now);
        let allowed = self.repeats.len() < (self.requests.len() / SHARE).max(ALWAYS);
        if allowed {
            self.repeats.push_back(now);
        }
        allowed
    }

    fn forget(&mut self, now: Instant) {
        for times in [&mut self.requests, &mut self.repeats] {
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
    fn repeats_are_a_fifth_of_the_requests_but_never_less_than_three() {
        let (mut limiter, now) = (RepeatLimiter::default(), Instant::now());
        assert_eq!((0..10).filter(|_| limiter.repeat(now)).count(), 3);
        for _ in 0..50 {
            limiter.request(now);
        }
        assert_eq!((0..50).filter(|_| limiter.repeat(now)).count(), 7, "ten in all");
        assert!(limiter.repeat(now + WINDOW));
    }

    proptest::proptest! {
        #[test]
        fn no_sequence_of_requests_and_repeats_takes_more_than_the_share(
            steps in proptest::collection::vec((0u64..2000, proptest::bool::ANY), 1..400),
        ) {
            let (mut limiter, begun) = (RepeatLimiter::default(), Instant::now());
            let (mut now, mut requests, mut repeats) = (begun, Vec::new(), Vec::new());
            for (wait, repeat) in steps {
                now += Duration::from_millis(wait);
                if !repeat {
                    limiter.request(now);
                    requests.push(now);
                    continue;
                }
                let within = |times: &[Instant]| times.iter().filter(|time| now - **time < WINDOW).count();
                let most = (within(&requests) / SHARE).max(ALWAYS);
                let taken = limiter.repeat(now);
                proptest::prop_assert_eq!(taken, within(&repeats) < most);
                if taken {
                    repeats.push(now);
                }
            }
        }
    }

    #[test]
    fn a_request_asks_at_most_eight_candidates() {
        let mut budget = Budget::default();
        for left in (0..8).rev() {
            budget.candidate();
            assert_eq!(budget.candidates(), left);
        }
        budget.candidate();
        assert_eq!(budget.candidates(), 0);
    }
}
