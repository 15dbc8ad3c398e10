//! Holds the phase of a gateway: it serves requests, drains those in flight, or ends them.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use tokio::sync::watch;

/// A phase of a gateway, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    /// Requests are accepted.
    Serving,
    /// Requests in flight may finish.
    Draining,
    /// Requests in flight end with an error.
    Ending,
}

/// The phase of a gateway, for all its connections.
#[derive(Debug)]
pub(super) struct CurrentPhase {
    phase: watch::Sender<Phase>,
    /// Whether the last phase is reached; read for every event of every request.
    is_ending: AtomicBool,
}

impl Default for CurrentPhase {
    fn default() -> Self {
        Self { phase: watch::Sender::new(Phase::Serving), is_ending: AtomicBool::new(false) }
    }
}

impl CurrentPhase {
    /// Enters `phase`, unless a later one is reached.
    pub(super) fn enter(&self, phase: Phase) {
        self.is_ending.fetch_or(phase == Phase::Ending, Relaxed);
        self.phase.send_if_modified(|current| {
            let is_later = phase > *current;
            *current = phase.max(*current);
            is_later
        });
    }

    /// Completes when `phase` is reached.
    pub(super) async fn reached(&self, phase: Phase) {
        // The sender belongs to `self`, so that the wait cannot fail.
        let _ = self.phase.subscribe().wait_for(|current| *current >= phase).await;
    }

    pub(super) fn is_draining(&self) -> bool {
        *self.phase.borrow() >= Phase::Draining
    }

    pub(super) fn is_ending(&self) -> bool {
        self.is_ending.load(Relaxed)
    }
}
