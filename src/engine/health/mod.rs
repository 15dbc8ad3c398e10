//! Tracks the health of services in memory and shares it with other processes through a store.
//!
//! Failures and recoveries are written at once, so that other processes use them; latencies are written when the
//! command ends. If the store fails, health is not shared, but requests are not affected. The rules are in
//! `routing::health`.

use std::{collections::HashMap, sync::Arc, time::Duration};

use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::{
    sync::Notify,
    time::{Instant, sleep},
};

use crate::{
    model::{
        ErrorClass,
        target::{Target, TargetId},
    },
    protocol::CallError,
    routing::{
        health::{
            AttemptInfo, Availability, HealthError, HealthKey, HealthMap, HealthSnapshot, HealthStore, KeyHash,
            TargetHealthKeys,
        },
        policies::Policies,
    },
    transport::keys::KeyRing,
};

mod probe;

pub(super) use probe::Probe;

/// How often the store is read while waiting for the result of another process's probe.
const POLL_INTERVAL: Duration = Duration::from_millis(200);

/// An attempt, with what identifies the health entries it affects.
#[derive(Clone)]
pub(super) struct AttemptRef {
    pub(super) target: Arc<Target>,
    /// The index of the key among those of the endpoint; `None`: sent without a key.
    pub(super) key_index: Option<usize>,
    pub(super) sent_at: Timestamp,
    /// The owner id of the probe lease, if it is the probe.
    pub(super) probe: Option<u64>,
}

/// The health snapshot and the updates that are not written yet.
pub(super) struct Health {
    policies: Arc<Policies>,
    cache: Mutex<HealthCache>,
    store: Option<Arc<dyn HealthStore>>,
    /// How long the error texts of services are kept.
    error_text_retention: Duration,
    /// The process serves many requests.
    long_lived: bool,
    changed: Notify,
    /// Wall clock and monotonic clock at creation. Timestamps are derived from the latter, so they never jump.
    epoch: (Timestamp, Instant),
}

#[derive(Default)]
struct HealthCache {
    snapshot: HealthSnapshot,
    is_loaded: bool,
    /// Updates not yet written to the store.
    pending: Vec<PendingUpdate>,
    store_error: Option<HealthError>,
    /// The last write failed: the snapshot in memory has updates that the store lacks, so reads do not replace it.
    write_failed: bool,
    /// Requests in flight, by model.
    in_flight: HealthMap<usize>,
    /// Health keys by target pointer, cached because hashing an API key may read a file.
    keys_by_target: HashMap<usize, (Arc<Target>, TargetHealthKeys)>,
    /// How often each target became unavailable.
    unavailable_counts: HashMap<TargetId, u64>,
    /// The salt of the key hashes in the cached health keys.
    cached_salt: String,
}

/// The health of one candidate.
pub(super) struct CandidateHealth {
    pub(super) availability: Availability,
    /// Requests of this process in flight.
    pub(super) in_flight: usize,
    pub(super) latency_ms: Option<f64>,
}

/// The cache of health keys is cleared above this size; more targets can only come from replaced configs.
const MAX_CACHED_TARGETS: usize = 1024;

/// An update that is not a failure.
struct PendingUpdate {
    attempt: AttemptRef,
    outcome: Outcome,
    at: Timestamp,
}

enum Outcome {
    FirstDelta(Option<Duration>),
    Completed,
    /// The call ended before the probe had a result.
    ProbeReleased,
}

/// When an unavailable candidate may be tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum ProbeTurn {
    /// Now: it is available again.
    Available,
    /// At this time, as the probe.
    Due(Timestamp),
    /// Another request is probing it, until this time at most.
    InProgress(Timestamp),
}

/// A one-shot process writes pending updates at this number; a long-lived one drops the older half.
const MAX_PENDING_UPDATES: usize = 256;

/// Counts a request in flight until dropped.
pub(super) struct InFlightGuard(Arc<super::Engine>, HealthKey);

impl Drop for InFlightGuard {
    fn drop(&mut self) {
        self.0.health.with_cache(|cache| {
            if let Some(count) = cache.in_flight.get_mut(&self.1) {
                *count = count.saturating_sub(1);
            }
        });
    }
}

impl Health {
    pub(super) fn new(
        policies: Arc<Policies>,
        store: Option<Arc<dyn HealthStore>>,
        error_text_retention: Duration,
    ) -> Self {
        let (cache, changed, epoch) = (Mutex::default(), Notify::new(), (Timestamp::now(), Instant::now()));
        Self { policies, cache, store, error_text_retention, long_lived: false, changed, epoch }
    }

    /// Marks the process as serving many requests.
    pub(super) fn with_long_lived_process(self) -> Self {
        Self { long_lived: true, ..self }
    }

    /// The current time.
    pub(super) fn now(&self) -> Timestamp {
        self.timestamp_of(Instant::now())
    }

    /// The timestamp of a moment of this process.
    pub(super) fn timestamp_of(&self, moment: Instant) -> Timestamp {
        let elapsed = moment.saturating_duration_since(self.epoch.1);
        self.epoch.0.checked_add(elapsed).unwrap_or(Timestamp::MAX)
    }

    /// Reads the store, if it was not read yet.
    pub(super) fn load(&self, keys: &KeyRing) {
        let needs_load = self.with_cache(|cache| !std::mem::replace(&mut cache.is_loaded, true));
        if needs_load {
            self.reload(keys);
        }
    }

    fn reload(&self, keys: &KeyRing) {
        let Some(store) = self.store.as_ref().filter(|_| !self.with_cache(|cache| cache.write_failed)) else { return };
        let read = store.read();
        self.with_cache(|cache| match read {
            Ok(mut snapshot) => {
                snapshot.prune(&self.policies.health, self.now());
                // Keep the updates that are not written yet.
                for update in &cache.pending {
                    self.apply(&mut snapshot, update, keys);
                }
                cache.snapshot = snapshot;
            }
            Err(error) => cache.store_error = Some(error),
        });
    }

    /// The health keys of candidates, in their order.
    pub(super) fn health_keys(&self, targets: &[Arc<Target>], keys: &KeyRing) -> Vec<TargetHealthKeys> {
        self.with_cache(|cache| {
            if cache.cached_salt != cache.snapshot.key_salt || cache.keys_by_target.len() > MAX_CACHED_TARGETS {
                cache.keys_by_target.clear();
                cache.cached_salt.clone_from(&cache.snapshot.key_salt);
            }
            targets.iter().map(|target| cache.health_keys(target, keys)).collect()
        })
    }

    /// The health of candidates, in their order.
    pub(super) fn candidate_health<'p>(
        &self,
        candidates: impl Iterator<Item = &'p TargetHealthKeys>,
    ) -> Vec<CandidateHealth> {
        let now = self.now();
        self.with_cache(|cache| {
            let health = |keys: &TargetHealthKeys| CandidateHealth {
                availability: cache.snapshot.availability(keys, now),
                in_flight: cache.in_flight.get(&keys.model).copied().unwrap_or_default(),
                latency_ms: cache.snapshot.entry(keys.model).and_then(|entry| entry.latency.average()),
            };
            candidates.map(health).collect()
        })
    }

    pub(super) fn availability(&self, keys: &TargetHealthKeys) -> Availability {
        let now = self.now();
        self.with_cache(|cache| cache.snapshot.availability(keys, now))
    }

    /// When an unavailable candidate may be tried: when its cooldown is over, or `early_delay` after its last failure.
    pub(super) fn probe_turn(&self, keys: &TargetHealthKeys, early_delay: Duration) -> ProbeTurn {
        let now = self.now();
        self.with_cache(|cache| {
            match (cache.snapshot.availability(keys, now), cache.snapshot.probe_expiry(keys, now)) {
                (Availability::Closed, _) => ProbeTurn::Available,
                (_, Some(until)) => ProbeTurn::InProgress(until),
                (Availability::HalfOpen, None) => ProbeTurn::Due(now),
                (Availability::Open { until, cause }, None) => {
                    let failed_at =
                        cache.snapshot.entry(cause).and_then(|entry| entry.last_error.as_ref()).map(|error| error.at);
                    let early = failed_at.and_then(|failed_at| failed_at.checked_add(early_delay).ok());
                    ProbeTurn::Due(early.map_or(until, |early| early.min(until)).max(now))
                }
            }
        })
    }

    /// How often `target` became unavailable.
    pub(super) fn unavailable_count(&self, target: &TargetId) -> u64 {
        self.with_cache(|cache| cache.unavailable_counts.get(target).copied().unwrap_or_default())
    }

    /// The availability of each key of a candidate.
    pub(super) fn key_availability(&self, health_keys: &TargetHealthKeys) -> Vec<Availability> {
        let now = self.now();
        self.with_cache(|cache| health_keys.keys.iter().map(|key| cache.snapshot.key_availability(*key, now)).collect())
    }

    /// Calls `read` with the snapshot.
    pub(super) fn with_snapshot<T>(&self, read: impl FnOnce(&HealthSnapshot) -> T) -> T {
        self.with_cache(|cache| read(&cache.snapshot))
    }

    /// Waits until the health may have changed, in this or another process, for at most `limit`.
    pub(super) async fn wait_for_change(&self, limit: Duration, keys: &KeyRing) {
        tokio::select! {
            () = self.changed.notified() => {}
            () = sleep(POLL_INTERVAL.min(limit)) => self.reload(keys),
        }
    }

    /// Records a failed attempt.
    pub(super) fn record_failure(&self, attempt: &AttemptRef, keys: &KeyRing, error: &CallError, random: f64) {
        let now = self.now();
        // Errors caused by the request itself do not affect health, so the store need not be updated.
        if !HealthSnapshot::affects_health(&self.policies.health, error, now) {
            return;
        }
        // Texts of connection errors come from the operating system, not from the service.
        let keeps_text = !self.error_text_retention.is_zero() || error.class == ErrorClass::Connect;
        let error_without_text = (!keeps_text).then(|| CallError { message: String::new(), ..error.clone() });
        let error = error_without_text.as_ref().unwrap_or(error);
        let is_unavailable = |health: &Self| {
            let health_keys = health.health_keys(std::slice::from_ref(&attempt.target), keys);
            matches!(health.availability(&health_keys[0]), Availability::Open { .. })
        };
        let was_unavailable = is_unavailable(self);
        self.modify(keys, |snapshot| {
            let attempt = attempt_for_snapshot(snapshot, attempt, keys);
            snapshot.record_failure(&self.policies.health, &attempt, error, now, random);
        });
        if !was_unavailable && is_unavailable(self) {
            self.with_cache(|cache| {
                // Limited, because clients can invent model names.
                if cache.unavailable_counts.len() < MAX_CACHED_TARGETS
                    || cache.unavailable_counts.contains_key(&attempt.target.id)
                {
                    *cache.unavailable_counts.entry(attempt.target.id.clone()).or_default() += 1;
                }
            });
        }
    }

    /// Records the first delta of an attempt.
    pub(super) fn record_first_delta(&self, attempt: AttemptRef, ttft: Option<Duration>, keys: &KeyRing) {
        self.record_update(attempt, keys, Outcome::FirstDelta(ttft));
    }

    /// Records a complete answer.
    pub(super) fn record_success(&self, attempt: AttemptRef, keys: &KeyRing) {
        self.record_update(attempt, keys, Outcome::Completed);
    }

    fn record_update(&self, attempt: AttemptRef, keys: &KeyRing, outcome: Outcome) {
        let update = PendingUpdate { at: self.now(), attempt, outcome };
        let write_now = self.with_cache(|cache| {
            let affects_others = match (&update.outcome, update.attempt.probe) {
                // A probe with a result has already released its lease.
                (Outcome::ProbeReleased, Some(owner)) if !cache.snapshot.holds_probe(&update.attempt.target, owner) => {
                    return false;
                }
                (Outcome::ProbeReleased, _) => true,
                _ => {
                    let attempt = attempt_for_snapshot(&mut cache.snapshot, &update.attempt, keys);
                    cache.snapshot.has_failures(&attempt)
                }
            };
            self.apply(&mut cache.snapshot, &update, keys);
            cache.pending.push(update);
            let is_full = cache.pending.len() >= MAX_PENDING_UPDATES;
            // A long-lived process writes such updates periodically, so that no request waits for the write.
            if is_full && self.long_lived {
                cache.pending.drain(..MAX_PENDING_UPDATES / 2);
            }
            affects_others || is_full && !self.long_lived
        });
        self.changed.notify_waiters();
        if write_now && let Some(error) = self.persist(keys) {
            self.with_cache(|cache| cache.store_error = Some(error));
        }
    }

    /// Writes pending updates to the store; returns the last error of the store, if any.
    pub(super) fn persist(&self, keys: &KeyRing) -> Option<HealthError> {
        if let Some(store) = &self.store
            && self.with_cache(|cache| !cache.pending.is_empty())
        {
            self.write_through(&**store, keys, &mut |_| {});
        }
        self.with_cache(|cache| cache.store_error.take())
    }

    /// Changes the snapshot in the store and in memory; only in memory if the store fails.
    fn modify<T>(&self, keys: &KeyRing, mut act: impl FnMut(&mut HealthSnapshot) -> T) -> T {
        let mut output = None;
        let written = match &self.store {
            Some(store) => self.write_through(&**store, keys, &mut |snapshot| output = Some(act(snapshot))),
            None => false,
        };
        let output = match output {
            Some(output) if written => output,
            _ => self.with_cache(|cache| act(&mut cache.snapshot)),
        };
        self.changed.notify_waiters();
        output
    }

    /// Writes pending updates and the change of `act` to the store; returns whether that succeeded.
    fn write_through(&self, store: &dyn HealthStore, keys: &KeyRing, act: &mut dyn FnMut(&mut HealthSnapshot)) -> bool {
        let (now, pending) = (self.now(), self.with_cache(|cache| std::mem::take(&mut cache.pending)));
        // Without a retention nothing is removed: this process stores no texts, and other processes remove theirs.
        let retention = Some(self.error_text_retention).filter(|retention| !retention.is_zero());
        let oldest = retention.and_then(|retention| now.checked_sub(retention).ok());
        let result = store.update(&mut |snapshot| {
            snapshot.prune(&self.policies.health, now);
            snapshot.clear_messages_before(oldest.unwrap_or(Timestamp::MIN));
            for update in &pending {
                self.apply(snapshot, update, keys);
            }
            act(snapshot);
        });
        let succeeded = result.is_ok();
        self.with_cache(|cache| {
            cache.write_failed = !succeeded;
            match result {
                Ok((snapshot, error)) => {
                    cache.snapshot = snapshot;
                    cache.store_error = error.or(cache.store_error.take());
                }
                Err(error) => {
                    // The next write includes these updates; above the limit, the oldest are dropped.
                    cache.pending.splice(0..0, pending);
                    let excess = cache.pending.len().saturating_sub(MAX_PENDING_UPDATES);
                    cache.pending.drain(..excess);
                    cache.store_error = Some(error);
                }
            }
        });
        self.changed.notify_waiters();
        succeeded
    }

    /// Counts a request in flight to the model.
    pub(super) fn track_in_flight(engine: &Arc<super::Engine>, model: HealthKey) -> InFlightGuard {
        engine.health.with_cache(|cache| *cache.in_flight.entry(model).or_default() += 1);
        InFlightGuard(Arc::clone(engine), model)
    }

    fn apply(&self, snapshot: &mut HealthSnapshot, update: &PendingUpdate, keys: &KeyRing) {
        let attempt = attempt_for_snapshot(snapshot, &update.attempt, keys);
        match update.outcome {
            Outcome::FirstDelta(ttft) => snapshot.record_first_delta(&self.policies.health, &attempt, ttft, update.at),
            Outcome::Completed => snapshot.record_success(&self.policies.health, &attempt, update.at),
            Outcome::ProbeReleased => {
                if let Some(owner) = attempt.probe {
                    snapshot.release_probe(attempt.target, owner);
                }
            }
        }
    }

    fn with_cache<T>(&self, act: impl FnOnce(&mut HealthCache) -> T) -> T {
        act(&mut self.cache.lock())
    }
}

impl HealthCache {
    fn health_keys(&mut self, target: &Arc<Target>, keys: &KeyRing) -> TargetHealthKeys {
        let address = Arc::as_ptr(target).addr();
        if let Some((_, cached)) = self.keys_by_target.get(&address) {
            return cached.clone();
        }
        let hash = |key| keys.hash(key, &self.snapshot.key_salt).map_or(KeyHash::NONE, KeyHash);
        let hashes: Vec<KeyHash> = target.endpoint.keys.iter().map(hash).collect();
        let health_keys = TargetHealthKeys::new(target, &hashes);
        // Without a salt there are no entries of keys yet, and the hashes will change when it is set.
        if !self.cached_salt.is_empty() {
            self.keys_by_target.insert(address, (Arc::clone(target), health_keys.clone()));
        }
        health_keys
    }
}

fn attempt_for_snapshot<'t>(snapshot: &mut HealthSnapshot, attempt: &'t AttemptRef, keys: &KeyRing) -> AttemptInfo<'t> {
    if snapshot.key_salt.is_empty() && attempt.key_index.is_some() {
        snapshot.key_salt = format!("{:032x}", fastrand::u128(..));
    }
    let source = attempt.key_index.and_then(|index| attempt.target.endpoint.keys.get(index));
    let hash = source.and_then(|key| keys.hash(key, &snapshot.key_salt));
    let key = hash.map_or(KeyHash::NONE, KeyHash);
    AttemptInfo {
        target: &attempt.target,
        key,
        key_index: attempt.key_index,
        sent_at: attempt.sent_at,
        probe: attempt.probe,
    }
}
