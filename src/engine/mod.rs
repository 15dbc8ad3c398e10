//! Runs plans: lanes at once, each through its candidates until one answers.
//!
//! Owns retry, failover, fan-in and cancellation. Refuses to know what is printed: everything that happens is an
//! [`Event`]. All lanes are polled by whoever polls the stream, on one task; dropping the stream drops every
//! connection below it.

use std::sync::{Arc, Mutex};

use futures_util::{Stream, StreamExt, stream};

use crate::{keys::KeyRing, plan::Plan, route::attempts::RepeatLimiter, transport::Transport};

mod credentials;
pub mod event;
mod gate;
mod lane;
mod models;
mod progress;
#[cfg(test)]
mod tests;

pub use event::{AttemptRecord, Event, EventKind, LaneOutcome, Next, Notice, Whole};
pub use progress::Progress;

/// Runs plans. One per process: it holds the connections, the keys and the shared limits.
pub struct Engine {
    transport: Arc<dyn Transport>,
    keys: KeyRing,
    repeats: Mutex<RepeatLimiter>,
    gates: gate::Gates,
    chance: Mutex<fastrand::Rng>,
    rotation: credentials::Rotation,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").finish_non_exhaustive()
    }
}

impl Engine {
    /// An engine that sends through `transport` with the keys of `keys`.
    #[must_use]
    pub fn new(transport: Arc<dyn Transport>, keys: KeyRing) -> Self {
        Self {
            transport,
            keys,
            repeats: Mutex::default(),
            gates: gate::Gates::default(),
            chance: Mutex::new(fastrand::Rng::new()),
            rotation: credentials::Rotation::default(),
        }
    }

    /// Runs `plan`. Each lane ends with exactly one [`EventKind::Finished`]; one that waits for its turn says nothing.
    pub fn run(self: &Arc<Self>, plan: Plan) -> impl Stream<Item = Event> + Send + use<> {
        let engine = Arc::clone(self);
        let lanes = plan.lanes.into_iter().enumerate();
        // The next lane begins when one is over.
        stream::iter(lanes)
            .map(move |(index, lane)| lane::run(Arc::clone(&engine), index, lane).boxed())
            .flatten_unordered(plan.at_once)
    }

    fn chance(&self) -> f64 {
        self.chance.lock().expect("no code panics while it holds this lock").f64()
    }
}
