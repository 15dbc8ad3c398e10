//! Runs plans: several calls concurrently, each with retries and failover over its candidates.
//!
//! Does not print: everything that happens is reported as an [`Event`]. All calls are polled on the task that polls the
//! stream; dropping the stream closes every connection below it.

use std::{collections::HashMap, sync::Arc, time::Duration};

use crate::{
    engine::plan::Plan,
    model::{
        clock::Clock,
        target::{Target, TargetId},
    },
    routing::{
        attempt_budget::{ReservationLimit, RetryBudget},
        health::{Availability, HealthError, HealthKey, HealthMap, HealthSnapshot, HealthStore},
        hedge::HedgeBudget,
        policies::Policies,
        spend::SpendLedger,
        strategy::WrrState,
    },
    transport::{Transport, keys::KeyRing},
};
use parking_lot::Mutex;

mod accumulated_answer;
pub mod attempt;
pub(crate) mod attempt_error;
mod call;
pub mod credentials;
pub mod event;
mod fetch;
mod health;
mod limiter;
pub mod memory;
mod models;
mod order;
pub mod plan;
pub mod record;
mod run;
pub(crate) mod stop_tolerant;
#[cfg(test)]
mod tests;

pub use accumulated_answer::AccumulatedAnswer;
pub use event::{Event, EventKind, NextStep, Notice};
pub use fetch::FetchResponse;
pub use order::ExplainedCandidate;
pub use record::{AttemptRecord, CallRecord, Completion};
pub use run::Run;

/// The retry budgets are removed above this number; so many models can only come from invented names.
const MAX_RETRY_BUDGETS: usize = 1024;

/// Runs plans. One per process: it holds the connections, the resolved keys and the shared limits.
pub struct Engine {
    transport: Arc<dyn Transport>,
    keys: KeyRing,
    policies: Arc<Policies>,
    /// By model at its endpoint.
    retry_budgets: Mutex<HealthMap<RetryBudget>>,
    hedge_budget: Mutex<HedgeBudget>,
    limiters: limiter::EndpointLimiters,
    rng: Mutex<fastrand::Rng>,
    rotation: credentials::KeyRotation,
    health: health::Health,
    ledger: Option<Arc<dyn SpendLedger>>,
    /// State of the smooth weighted round robin, by route.
    wrr_states: Mutex<HashMap<String, WrrState>>,
    /// The process is long-lived (`serve`, `chat`): keys and weighted candidates rotate and are not drawn at random.
    long_lived: bool,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").finish_non_exhaustive()
    }
}

impl Engine {
    /// Creates an engine with the default policies that sends through `transport` and resolves keys with `keys`.
    #[must_use]
    pub fn new(transport: Arc<dyn Transport>, keys: KeyRing) -> Self {
        Self::with_policies(transport, keys, Policies::default())
    }

    /// Creates an engine that sends through `transport` and resolves keys with `keys`.
    #[must_use]
    pub fn with_policies(transport: Arc<dyn Transport>, keys: KeyRing, policies: Policies) -> Self {
        let policies = Arc::new(policies);
        Self {
            transport,
            keys,
            retry_budgets: Mutex::default(),
            hedge_budget: Mutex::new(HedgeBudget::new(policies.hedge)),
            limiters: limiter::EndpointLimiters::default(),
            rng: Mutex::new(fastrand::Rng::new()),
            rotation: credentials::KeyRotation::default(),
            health: health::Health::new(Arc::clone(&policies), None, Duration::MAX),
            policies,
            ledger: None,
            wrr_states: Mutex::default(),
            long_lived: false,
        }
    }

    /// Shares the health of services with other processes through `store`. Error texts of services are removed after
    /// `error_text_retention`, because they may quote the prompt.
    #[must_use]
    pub fn with_health(mut self, store: Arc<dyn HealthStore>, error_text_retention: Duration) -> Self {
        let health = health::Health::new(Arc::clone(&self.policies), Some(store), error_text_retention)
            .with_clock(self.health.clock());
        self.health = if self.long_lived { health.with_long_lived_process() } else { health };
        self
    }

    /// Reads the time of `clock`, for simulations.
    #[must_use]
    pub fn with_clock(self, clock: Clock) -> Self {
        let limiters = self.limiters.with_clock(clock.clone());
        Self { health: self.health.with_clock(clock), limiters, ..self }
    }

    /// The clock that it reads.
    #[cfg(feature = "serve")]
    pub(crate) fn clock(&self) -> Clock {
        self.health.clock()
    }

    /// Enforces the spend limits of `ledger`.
    #[must_use]
    pub fn with_ledger(mut self, ledger: Arc<dyn SpendLedger>) -> Self {
        self.ledger = Some(ledger);
        self
    }

    /// In a long-lived process, keys and weighted candidates rotate instead of being drawn at random.
    #[must_use]
    pub fn with_long_lived_process(mut self) -> Self {
        self.long_lived = true;
        self.health = self.health.with_long_lived_process();
        self
    }

    /// Seeds the random numbers, for reproducible tests.
    #[must_use]
    pub fn with_seed(self, seed: u64) -> Self {
        Self { rng: Mutex::new(fastrand::Rng::with_seed(seed)), ..self }
    }

    /// Uses keys again that services have rejected, since the config has changed.
    pub fn retry_rejected_keys(&self) {
        self.health.modify(&self.keys, HealthSnapshot::retry_rejected_keys);
    }

    /// Writes pending health updates to the store, and returns the error of a failed read or write, if any.
    pub fn persist_health(&self) -> Option<HealthError> {
        self.health.persist(&self.keys)
    }

    /// The keys resolved so far.
    #[must_use]
    pub fn keys(&self) -> &KeyRing {
        &self.keys
    }

    /// The availability of `target`: whether requests are sent to it.
    #[must_use]
    pub fn availability(&self, target: &Arc<Target>) -> Availability {
        let health_keys = self.health.health_keys(std::slice::from_ref(target), &self.keys);
        self.health.availability(&health_keys[0])
    }

    /// How often `target` became unavailable since this engine was created.
    #[must_use]
    pub fn unavailable_count(&self, target: &TargetId) -> u64 {
        self.health.unavailable_count(target)
    }

    /// The number of requests queued at each endpoint that has limits.
    #[must_use]
    pub fn queued_by_endpoint(&self) -> Vec<(String, usize)> {
        self.limiters.queued_by_endpoint()
    }

    /// Runs `plan`. Each call ends with one [`EventKind::Finished`]; a restarted call ends once more. A call over the
    /// concurrency limit emits no events until it is started.
    pub fn run(self: &Arc<Self>, plan: Plan) -> Run {
        Run::new(Arc::clone(self), plan)
    }

    fn random_unit(&self) -> f64 {
        self.rng.lock().f64()
    }

    /// Counts an upstream request to `model`; the limit of retries is a share of these.
    fn count_request(&self, model: HealthKey, now: tokio::time::Instant) {
        let mut budgets = self.retry_budgets.lock();
        // Limited, because clients can invent model names.
        if budgets.len() >= MAX_RETRY_BUDGETS && !budgets.contains_key(&model) {
            budgets.clear();
        }
        let budget = budgets.entry(model).or_insert_with(|| RetryBudget::new(self.policies.retry_budget));
        budget.record_request(now.into_std());
    }

    /// Counts a call; hedge requests are limited to a share of the calls.
    fn count_call(&self) {
        self.hedge_budget().record_call();
    }

    /// Reserves a retry of a request to `model`; `None`: its budget is used up.
    fn reserve_retry(engine: &Arc<Self>, model: HealthKey) -> Option<RetryReservation> {
        let now = tokio::time::Instant::now().into_std();
        // On the command line, calls to a model in a cooldown are sent. Those that wait must not make the others fail at once,
        // and the next ones start.
        let limit = if engine.policies.last_resort.is_limited { ReservationLimit::All } else { ReservationLimit::Made };
        let is_allowed = engine.retry_budgets.lock().get_mut(&model).is_none_or(|budget| budget.reserve(now, limit));
        is_allowed.then(|| RetryReservation { engine: Arc::clone(engine), model, is_made: false })
    }

    /// The budget of hedge requests.
    fn hedge_budget(&self) -> parking_lot::MutexGuard<'_, HedgeBudget> {
        self.hedge_budget.lock()
    }
}

/// A retry that is counted although it is not made yet; given back when dropped.
struct RetryReservation {
    engine: Arc<Engine>,
    model: HealthKey,
    is_made: bool,
}

impl RetryReservation {
    /// Counts the retry as made.
    fn make(mut self) {
        self.is_made = true;
    }
}

impl Drop for RetryReservation {
    fn drop(&mut self) {
        let made_at = self.is_made.then(|| tokio::time::Instant::now().into_std());
        if let Some(budget) = self.engine.retry_budgets.lock().get_mut(&self.model) {
            budget.end_reservation(made_at);
        }
    }
}
