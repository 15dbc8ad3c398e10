//! The time a lane may take.
//!
//! Owns one deadline for everything the lane waits for (keys, a place at an endpoint, connections, answers, pauses),
//! the limit of the search for one that answers, and each candidate's share of both. Time in which a reader takes what
//! came counts as nothing: only what is awaited through here is spent.

use std::{
    pin::{Pin, pin},
    time::Duration,
};

use tokio::time::{Instant, timeout};

use crate::{
    engine::{attempt::Patience, plan::Lane},
    model::{endpoint::is_private, target::Target},
};

/// How long a silent candidate is waited for while there is another to ask.
const SILENT_REMOTE: Duration = Duration::from_secs(10);
const SILENT_SLOW: Duration = Duration::from_secs(60);
/// For the first delta, over all attempts: no candidate is begun after it.
const FIRST_DELTA: Duration = Duration::from_secs(120);

/// What is spent and what is left.
#[derive(Debug)]
pub(super) struct Clock {
    spent: Duration,
    deadline: Option<Duration>,
    /// What was spent while no answer came.
    searched: Duration,
    /// No request is begun when so much was.
    search_limit: Duration,
}

impl Clock {
    pub(super) fn new(lane: &Lane) -> Self {
        let explicit = lane.candidates.iter().filter_map(|target| target.timeouts.first_token).max();
        let search_limit = explicit.map_or(FIRST_DELTA, |longer| longer.max(FIRST_DELTA));
        Self { spent: Duration::ZERO, deadline: lane.deadline, searched: Duration::ZERO, search_limit }
    }

    /// Whether the lane's own deadline has passed.
    pub(super) fn deadline_passed(&self) -> bool {
        self.deadline.is_some_and(|deadline| self.spent >= deadline)
    }

    /// Whether a request may still be begun after a pause of `wait`.
    pub(super) fn allows(&self, wait: Duration) -> bool {
        let in_time = self.deadline.is_none_or(|deadline| self.spent + wait < deadline);
        self.searched + wait < self.search_limit && in_time
    }

    /// Awaits `work`, which is to bring an answer, and counts the time. It is pinned by the caller: a future that is handed
    /// from one `async fn` to the next is copied into each, and lanes are many.
    pub(super) async fn count<T>(&mut self, work: Pin<&mut impl Future<Output = T>>) -> T {
        let before = self.spent;
        let done = self.count_answering(work).await;
        self.searched += self.spent.saturating_sub(before);
        done
    }

    /// Counts time that was spent waiting for an answer.
    pub(super) fn add(&mut self, time: Duration) {
        self.spent += time;
        self.searched += time;
    }

    /// Awaits `work`, more of an answer that comes, and counts the time.
    pub(super) async fn count_answering<T>(&mut self, work: Pin<&mut impl Future<Output = T>>) -> T {
        let begun = Instant::now();
        let done = work.await;
        self.spent += begun.elapsed();
        done
    }

    /// Awaits what must be done before a request can be sent, for no longer than this candidate's share of the time.
    pub(super) async fn prepare<T>(&mut self, others: usize, work: Pin<&mut impl Future<Output = T>>) -> Option<T> {
        match self.share(others) {
            Some(share) => self.count(pin!(timeout(share, work))).await.ok(),
            None => Some(self.count(work).await),
        }
    }

    /// How long `target` may take. An explicit limit wins, else it depends on whether anybody else is left and on what is
    /// `usual` for it (its own 95th percentile); those others keep their share of the time in any case.
    pub(super) fn patience(&self, target: &Target, others: usize, streams: bool, usual: Option<Duration>) -> Patience {
        let mut patience = Patience::of(target.timeouts);
        if patience.first_token.is_none() && others > 0 {
            let slow = target.reasons || is_private(&target.endpoint.base_url);
            let silence = if slow { SILENT_SLOW } else { SILENT_REMOTE };
            let silence = silence.max(usual.unwrap_or_default() * 3);
            patience.first_token = Some(silence.min(split(self.search_limit.saturating_sub(self.searched), others)));
        }
        patience.total = patience.total.min(self.left().unwrap_or(Duration::MAX));
        if let Some(share) = self.share(others).filter(|_| others > 0) {
            patience.first_token = patience.first_token.map(|first| first.min(share));
            if !streams {
                patience.total = patience.total.min(share);
            }
        }
        patience
    }

    /// What is left of the lane's own deadline.
    pub(super) fn left(&self) -> Option<Duration> {
        self.deadline.map(|deadline| deadline.saturating_sub(self.spent))
    }

    /// Of the time left, what one candidate may use up while `others` are to get their turn.
    fn share(&self, others: usize) -> Option<Duration> {
        self.left().map(|left| split(left, others))
    }
}

fn split(time: Duration, others: usize) -> Duration {
    time / u32::try_from(others + 1).unwrap_or(u32::MAX)
}
