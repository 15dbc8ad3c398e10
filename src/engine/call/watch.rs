//! Waits, and looks meanwhile whether the request can be sent to an untried candidate.

use std::{pin::pin, sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{CallTask, queue::Candidate};

/// How often a call that waits for a candidate looks for another one.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// How a wait ended.
pub(super) enum Watched<T> {
    /// With what was waited for.
    Own(T),
    /// With an untried candidate, to which the request can be sent.
    Other(Candidate),
    /// At its time, or at the deadline of the call.
    TimedOut,
}

impl CallTask {
    /// Waits until `end`, until `own` has a value after a change of the health, or until the request can be sent to an untried
    /// candidate.
    pub(super) async fn watch<T>(&mut self, end: Instant, mut own: impl FnMut(&Self) -> Option<T>) -> Watched<T> {
        let engine = Arc::clone(&self.engine);
        let mut last_look = Instant::now();
        loop {
            if let Some(own) = own(self) {
                return Watched::Own(own);
            }
            let remaining = end.saturating_duration_since(Instant::now());
            if remaining.is_zero() || !self.time.allows(Duration::ZERO) {
                return Watched::TimedOut;
            }
            // Untried candidates also become sendable by the passing of time.
            let limit = if self.queue.restricted.is_empty() { remaining } else { remaining.min(LOOK_INTERVAL) };
            self.time.time_search(pin!(engine.health.wait_for_change(limit, &engine.keys))).await;
            // Each result of another request wakes all that wait.
            if last_look.elapsed() >= LOOK_INTERVAL {
                last_look = Instant::now();
                if let Ok(other) = self.sendable(true) {
                    return Watched::Other(other);
                }
            }
        }
    }
}
