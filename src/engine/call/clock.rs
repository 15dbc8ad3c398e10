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
};

/// First-token timeout while other candidates are left; the longer one is for reasoning models and private addresses.
const FIRST_TOKEN_TIMEOUT: Duration = Duration::from_secs(10);
const SLOW_FIRST_TOKEN_TIMEOUT: Duration = Duration::from_secs(60);
/// Limit of the time to the first delta, over all attempts: after it no attempt is started.
const SEARCH_LIMIT: Duration = Duration::from_secs(120);

/// The time spent and its limits.
#[derive(Debug)]
pub(super) struct Clock {
    spent: Duration,
    deadline: Option<Duration>,
    /// The time spent without an answer.
    search_time: Duration,
    /// No request is started after this much search time.
    search_limit: Duration,
}

impl Clock {
    pub(super) fn new(call: &Call) -> Self {
        let explicit = call.candidates.iter().filter_map(|target| target.timeouts.first_token).max();
        let search_limit = explicit.map_or(SEARCH_LIMIT, |timeout| timeout.max(SEARCH_LIMIT));
        Self { spent: Duration::ZERO, deadline: call.deadline, search_time: Duration::ZERO, search_limit }
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

    /// Awaits `work`, more of an answer that has started, and counts the time.
    pub(super) async fn time_output<T>(&mut self, work: Pin<&mut impl Future<Output = T>>) -> T {
        let begun = Instant::now();
        let output = work.await;
        self.spent += begun.elapsed();
        output
    }

    /// Awaits preparations of a request, for at most this candidate's share of the time; `None`: timed out.
    pub(super) async fn time_preparation<T>(
        &mut self,
        others: usize,
        work: Pin<&mut impl Future<Output = T>>,
    ) -> Option<T> {
        match self.share(others) {
            Some(share) => self.time_search(pin!(timeout(share, work))).await.ok(),
            None => Some(self.time_search(work).await),
        }
    }

    /// The timeouts of an attempt at `target`. An explicit first-token timeout wins; otherwise there is one only if
    /// other candidates are left, at least three times `p95`, the 95th percentile of the target's time to first token.
    /// In any case the other candidates keep their share of the time.
    pub(super) fn attempt_timeouts(
        &self,
        target: &Target,
        others: usize,
        streams: bool,
        p95: Option<Duration>,
    ) -> AttemptTimeouts {
        let mut timeouts = AttemptTimeouts::from_timeouts(target.timeouts);
        if timeouts.first_token.is_none() && others > 0 {
            let slow = target.is_reasoning || is_private(&target.endpoint.base_url);
            let first_token = if slow { SLOW_FIRST_TOKEN_TIMEOUT } else { FIRST_TOKEN_TIMEOUT };
            let first_token = first_token.max(p95.unwrap_or_default() * 3);
            let share = split(self.search_limit.saturating_sub(self.search_time), others);
            timeouts.first_token = Some(first_token.min(share));
        }
        timeouts.total = timeouts.total.min(self.remaining().unwrap_or(Duration::MAX));
        if let Some(share) = self.share(others).filter(|_| others > 0) {
            timeouts.first_token = timeouts.first_token.map(|first| first.min(share));
            if !streams {
                timeouts.total = timeouts.total.min(share);
            }
        }
        timeouts
    }

    /// The time left until the deadline of the call.
    pub(super) fn remaining(&self) -> Option<Duration> {
        self.deadline.map(|deadline| deadline.saturating_sub(self.spent))
    }

    /// The share of the time left for one candidate if `others` are to follow.
    fn share(&self, others: usize) -> Option<Duration> {
        self.remaining().map(|left| split(left, others))
    }
}

fn split(time: Duration, others: usize) -> Duration {
    time / u32::try_from(others + 1).unwrap_or(u32::MAX)
}
