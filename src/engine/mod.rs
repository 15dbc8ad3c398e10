//! Runs plans: lanes at once, each through its candidates until one answers.
//!
//! Owns retry, failover, fan-in and cancellation. Refuses to know what is printed: everything that happens is an
//! [`Event`]. All lanes are polled by whoever polls the stream, on one task; dropping the stream drops every
//! connection below it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use crate::{
    engine::plan::Plan,
    model::target::{Target, TargetId},
    routing::{
        attempts::RepeatLimiter,
        health::{HealthError, HealthStore, Standing},
        hedge::Hedges,
        spend::SpendLedger,
        strategy::Wheel,
    },
    transport::{Transport, keys::KeyRing},
};

mod accumulator;
pub mod attempt;
mod call;
mod credentials;
pub mod event;
mod fetch;
mod health;
mod limiter;
mod models;
mod order;
pub mod plan;
mod progress;
mod run;
#[cfg(test)]
mod tests;

pub use accumulator::Account;
pub use event::{AttemptRecord, Event, EventKind, LaneOutcome, Next, Notice, Whole};
pub use fetch::Fetched;
pub use order::Explained;
pub use progress::Progress;
pub use run::Run;

/// Runs plans. One per process: it holds the connections, the keys and the shared limits.
pub struct Engine {
    transport: Arc<dyn Transport>,
    keys: KeyRing,
    repeats: Mutex<RepeatLimiter>,
    hedges: Mutex<Hedges>,
    gates: limiter::Gates,
    chance: Mutex<fastrand::Rng>,
    rotation: credentials::Rotation,
    health: health::Health,
    ledger: Option<Arc<dyn SpendLedger>>,
    /// Where the turns of `weighted` routes stand, by route.
    wheels: Mutex<HashMap<String, Wheel>>,
    /// This process lives on after one request: turns are taken one after the other.
    resident: bool,
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
            hedges: Mutex::default(),
            gates: limiter::Gates::default(),
            chance: Mutex::new(fastrand::Rng::new()),
            rotation: credentials::Rotation::default(),
            health: health::Health::new(None, Duration::MAX),
            ledger: None,
            wheels: Mutex::default(),
            resident: false,
        }
    }

    /// With what other processes know of failing services, and told what this one learns. What services say is
    /// kept for as long as `words`: they may quote what they were asked.
    #[must_use]
    pub fn with_health(mut self, store: Arc<dyn HealthStore>, words: Duration) -> Self {
        let health = health::Health::new(Some(store), words);
        self.health = if self.resident { health.resident() } else { health };
        self
    }

    /// With limits of what may be spent.
    #[must_use]
    pub fn with_ledger(mut self, ledger: Arc<dyn SpendLedger>) -> Self {
        self.ledger = Some(ledger);
        self
    }

    /// In a process that lives on after one request.
    #[must_use]
    pub fn resident(mut self) -> Self {
        self.resident = true;
        self.health = self.health.resident();
        self
    }

    /// With chance that can be repeated.
    #[must_use]
    pub fn seeded(self, seed: u64) -> Self {
        Self { chance: Mutex::new(fastrand::Rng::with_seed(seed)), ..self }
    }

    /// Writes down what was learned of services, for the next process; what kept that from being done.
    pub fn remember(&self) -> Option<HealthError> {
        self.health.write(&self.keys)
    }

    /// The keys it has looked up.
    #[must_use]
    pub fn keys(&self) -> &KeyRing {
        &self.keys
    }

    /// How `target` stands: whether requests to it go out, or it is left alone.
    #[must_use]
    pub fn standing(&self, target: &Arc<Target>) -> Standing {
        let places = self.health.places(std::slice::from_ref(target), &self.keys);
        self.health.standing(&places[0])
    }

    /// How often `target` began to be left alone, since this engine was made.
    #[must_use]
    pub fn openings(&self, target: &TargetId) -> u64 {
        self.health.openings(target)
    }

    /// How many requests wait for a place at each endpoint that has limits.
    #[must_use]
    pub fn waiting(&self) -> Vec<(String, usize)> {
        self.gates.waiting()
    }

    /// Runs `plan`. Each lane ends with exactly one [`EventKind::Finished`]; one that waits for its turn says nothing, and
    /// begins when another is over.
    pub fn run(self: &Arc<Self>, plan: Plan) -> Run {
        Run::new(Arc::clone(self), plan)
    }

    fn chance(&self) -> f64 {
        self.chance.lock().expect("no code panics while it holds this lock").f64()
    }

    /// Notes an upstream request, of which repeats are a share.
    fn note_request(&self, now: tokio::time::Instant) {
        self.repeats.lock().expect("no code panics while it holds this lock").request(now.into_std());
    }

    /// Notes a lane, of which second requests are a share.
    fn note_lane(&self) {
        self.hedges().request();
    }

    fn take_repeat(&self) -> bool {
        let now = tokio::time::Instant::now().into_std();
        self.repeats.lock().expect("no code panics while it holds this lock").repeat(now)
    }

    /// The allowance of second requests.
    fn hedges(&self) -> std::sync::MutexGuard<'_, Hedges> {
        self.hedges.lock().expect("no code panics while it holds this lock")
    }
}
