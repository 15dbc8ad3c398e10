//! Holds the lease of a half-open probe, the single request that tests whether an unavailable candidate has recovered.
//!
//! The lease is renewed while the request runs and released when it is dropped. `routing::health` decides when a probe
//! is due.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use jiff::Timestamp;
use tokio::{task::JoinHandle, time::sleep};

use super::{AttemptRef, Health, RestrictedGuard};
use crate::{
    engine::Engine,
    model::target::Target,
    routing::health::{Availability, TargetHealthKeys},
};

/// The lease of a probe; released when dropped without a result.
pub(in crate::engine) struct Probe {
    engine: Arc<Engine>,
    target: Arc<Target>,
    owner: u64,
    /// The task that renews the lease.
    renewal: JoinHandle<()>,
    /// Counts it among the requests to a restricted candidate.
    _guard: RestrictedGuard,
}

impl Probe {
    fn new(
        engine: &Arc<Engine>,
        target: &Arc<Target>,
        health_keys: &TargetHealthKeys,
        owner: u64,
        lease: Duration,
    ) -> Self {
        let renewal = tokio::spawn(renew(Arc::downgrade(engine), Arc::clone(target), owner, lease));
        let guard = RestrictedGuard::probe(engine, health_keys);
        Self { engine: Arc::clone(engine), target: Arc::clone(target), owner, renewal, _guard: guard }
    }

    pub(in crate::engine) fn owner(&self) -> u64 {
        self.owner
    }
}

async fn renew(engine: Weak<Engine>, target: Arc<Target>, owner: u64, lease: Duration) {
    loop {
        // At least a moment, so that a lease of 0 does not make this task busy.
        sleep((lease / 2).max(Duration::from_millis(10))).await;
        let Some(engine) = engine.upgrade() else { return };
        if !engine.health.with_snapshot(|snapshot| snapshot.holds_probe(&target, owner)) {
            return;
        }
        let now = engine.health.now();
        engine.health.modify(&engine.keys, |snapshot| snapshot.renew_probe(&target, now, (owner, lease)));
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.renewal.abort();
        let attempt = AttemptRef {
            target: Arc::clone(&self.target),
            key_index: None,
            sent_at: Timestamp::MIN,
            probe: Some(self.owner),
            operation: None,
            health_keys: None,
        };
        let engine = Arc::clone(&self.engine);
        engine.health.release_probe(attempt, &engine.keys);
    }
}

impl Health {
    /// Takes the probe of a half-open candidate. `Ok(None)`: it is available and needs no probe; `Err`: another request
    /// has it, or the candidate is restricted.
    pub(in crate::engine) fn take_probe(
        engine: &Arc<Engine>,
        target: &Arc<Target>,
        health_keys: &TargetHealthKeys,
        lease: Duration,
    ) -> Result<Option<Probe>, ()> {
        let health = &engine.health;
        let (now, owner) = (health.now(), fastrand::u64(1..));
        let lease = lease.min(health.policies.health.probe.max_lease);
        let (available, taken) = health.modify(&engine.keys, |snapshot| {
            let available = snapshot.availability(health_keys, now) == Availability::Available;
            (available, snapshot.acquire_probe(health_keys, now, (owner, lease)))
        });
        if taken { Ok((!available).then(|| Probe::new(engine, target, health_keys, owner, lease))) } else { Err(()) }
    }
}
