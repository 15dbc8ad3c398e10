//! Tracks the time of a call against its deadline and its search limit, and derives the timeouts of each attempt.
//!
//! The deadline covers everything that the call waits for: keys, permits, connections, answers and pauses. The search
//! limit covers the time without an answer. Only time awaited through this module counts, not that of a slow consumer.

use std::{
    pin::{Pin, pin},
    time::Duration,
};

use tokio::time::{Instant, timeout};

use crate::{
    engine::{attempt::AttemptTimeouts, plan::Call},
    model::{endpoint::is_private, target::Target},
    routing::policies::TimeoutPolicy,
};

/// The time spent and its limits.
#[derive(Debug)]
pub(super) struct TimeBudget {
    policy: TimeoutPolicy,
    spent: Duration,
    deadline: Option<Duration>,
    /// The time spent without an answer.
    search_time: Duration,
    /// No request is started after this much search time.
    search_limit: Duration,
}

impl TimeBudget {
    pub(super) fn new(policy: TimeoutPolicy, call: &Call) -> Self {
        let max_first_token = call.candidates.iter().filter_map(|target| target.timeouts.first_token).max();
        let search_limit = max_first_token.map_or(policy.search, |timeout| timeout.max(policy.search));
        Self { policy, spent: Duration::ZERO, deadline: call.deadline, search_time: Duration::ZERO, search_limit }
    }

    /// Whether the deadline of the call has passed.
    pub(super) fn deadline_passed(&self) -> bool {
        self.deadline.is_some_and(|deadline| self.spent >= deadline)
    }

    /// Whether a request may still be started after a pause of `wait`.
    pub(super) fn allows(&self, wait: Duration) -> bool {
        let in_time = self.deadline.is_none_or(|deadline| self.spent + wait < deadline);
        self.search_time + wait < self.search_limit && in_time
    }

    /// Awaits `work` and counts the time as search time. The caller pins it: a future that is passed by value from one
    /// `async fn` to the next is copied into each, and there are many calls.
    pub(super) async fn time_search<T>(&mut self, work: Pin<&mut impl Future<Output = T>>) -> T {
        let before = self.spent;
        let output = self.time_output(work).await;
        self.search_time += self.spent.saturating_sub(before);
        output
    }

    /// Adds search time that was measured elsewhere.
    pub(super) fn add_search_time(&mut self, time: Duration) {
        self.spent += time;
        self.search_time += time;
    }

    /// Awaits `work`, which reads the rest of an answer that has started, and counts the time.
    pub(super) async fn time_output<T>(&mut self, work: Pin<&mut impl Future<Output = T>>) -> T {
        let started = Instant::now();
        let output = work.await;
        self.spent += started.elapsed();
        output
    }

    /// Awaits the preparation of a request, for at most this candidate's share of the time; `None`: timed out.
    pub(super) async fn time_preparation<T>(
        &mut self,
        remaining_candidates: usize,
        work: Pin<&mut impl Future<Output = T>>,
    ) -> Option<T> {
        match self.share(remaining_candidates) {
            Some(share) => self.time_search(pin!(timeout(share, work))).await.ok(),
            None => Some(self.time_search(work).await),
        }
    }

    /// The timeouts of an attempt at `target`. Without an explicit first-token timeout, there is one only while other
    /// candidates are left: at least a multiple of `p95`, the 95th percentile of the target's time to first token, and at
    /// most the candidate's share of the remaining search time. With a deadline, no first-token timeout exceeds the
    /// candidate's share of the time until then; otherwise an explicit one is used as it is.
    pub(super) fn attempt_timeouts(
        &self,
        target: &Target,
        remaining_candidates: usize,
        is_streaming: bool,
        p95: Option<Duration>,
    ) -> AttemptTimeouts {
        let mut timeouts = AttemptTimeouts::new(target.timeouts, &self.policy);
        if timeouts.first_token.is_none() && remaining_candidates > 0 {
            let is_slow = target.is_reasoning || is_private(&target.endpoint.base_url);
            let policy = &self.policy;
            let first_token = if is_slow { policy.slow_first_token } else { policy.first_token };
            let first_token = first_token.max(p95.unwrap_or_default().saturating_mul(policy.first_token_p95_factor));
            let share = split(self.search_limit.saturating_sub(self.search_time), remaining_candidates);
            timeouts.first_token = Some(first_token.min(share));
        }
        if let Some(one_piece) = self.policy.one_piece.filter(|_| !is_streaming && remaining_candidates > 0) {
            let slowest = p95.unwrap_or_default().saturating_mul(self.policy.first_token_p95_factor);
            // After the search limit, no other candidate could be tried.
            timeouts.one_piece = Some(one_piece.max(slowest)).filter(|limit| self.allows(*limit));
        }
        timeouts.total = timeouts.total.min(self.remaining().unwrap_or(Duration::MAX));
        if let Some(share) = self.share(remaining_candidates).filter(|_| remaining_candidates > 0) {
            timeouts.first_token = timeouts.first_token.map(|first_token| first_token.min(share));
            if !is_streaming {
                timeouts.total = timeouts.total.min(share);
            }
        }
        timeouts
    }

    /// The time left until the deadline of the call.
    pub(super) fn remaining(&self) -> Option<Duration> {
        self.deadline.map(|deadline| deadline.saturating_sub(self.spent))
    }

    /// The share of the remaining time of one candidate if `remaining_candidates` may follow it.
    fn share(&self, remaining_candidates: usize) -> Option<Duration> {
        self.remaining().map(|remaining| split(remaining, remaining_candidates))
    }
}

fn split(time: Duration, remaining_candidates: usize) -> Duration {
    time / u32::try_from(remaining_candidates + 1).unwrap_or(u32::MAX)
}
