//! Tracks the health of services in memory and shares it with other processes through a store.
//!
//! Failures and recoveries are written at once, so that other processes use them; latencies are written when the
//! command ends. If the store fails, health is not shared, but requests are not affected. The rules are in
//! `routing::health`.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::{
    sync::Notify,
    time::{Instant, sleep},
};

use crate::{
    model::{
        ErrorClass, Operation, ParamWorkaround,
        clock::Clock,
        target::{Target, TargetId},
    },
    protocol::CallError,
    routing::{
        health::{
            AttemptHealthKeys, AttemptInfo, Availability, HealthError, HealthKey, HealthSnapshot, HealthStore, KeyHash,
            TargetHealthKeys,
        },
        policies::Policies,
    },
    transport::keys::KeyRing,
};

mod cache;
mod in_flight;
mod probe;
mod restricted;

use cache::HealthCache;
pub(super) use in_flight::InFlightGuard;
pub(super) use probe::Probe;
pub(super) use restricted::{RestrictedGuard, RestrictedTurn};

/// How often the store is read while a request waits for a candidate that another process may use, too.
const POLL_INTERVAL: Duration = Duration::from_millis(200);
/// A clock that goes back by more seconds was set.
const MAX_CLOCK_STEP_S: i64 = 1;

/// An attempt, with what identifies the health entries it affects.
#[derive(Clone)]
pub(super) struct AttemptRef {
    pub(super) target: Arc<Target>,
    /// The index of the key among those of the endpoint; `None`: sent without a key.
    pub(super) key_index: Option<usize>,
    pub(super) sent_at: Timestamp,
    /// The owner id of the probe lease, if it is the probe.
    pub(super) probe: Option<u64>,
    /// The operation; `None` for a chat.
    pub(super) operation: Option<Operation>,
    /// The health keys of the target, if they are known.
    pub(super) health_keys: Option<Arc<TargetHealthKeys>>,
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
    /// The salt of the key hashes, if the snapshot has none.
    new_salt: String,
    clock: Clock,
    /// The last time that was read, in Unix seconds.
    latest: AtomicI64,
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
    /// With its total time, if the answer came in one piece.
    Completed(Option<Duration>),
    /// The model accepts the requests with these changes only.
    Learned(Vec<ParamWorkaround>),
    /// The call ended before the probe had a result.
    ProbeReleased,
}

/// A one-shot process writes pending updates at this number; a long-lived one drops the older half.
const MAX_PENDING_UPDATES: usize = 256;

impl Health {
    pub(super) fn new(
        policies: Arc<Policies>,
        store: Option<Arc<dyn HealthStore>>,
        error_text_retention: Duration,
    ) -> Self {
        let (cache, changed, clock) = (Mutex::default(), Notify::new(), Clock::default());
        let new_salt = format!("{:032x}", fastrand::u128(..));
        Self {
            policies,
            cache,
            store,
            error_text_retention,
            long_lived: false,
            changed,
            new_salt,
            clock,
            latest: AtomicI64::new(i64::MIN),
        }
    }

    /// Marks the process as serving many requests.
    pub(super) fn with_long_lived_process(self) -> Self {
        Self { long_lived: true, ..self }
    }

    /// Reads the time of `clock`.
    pub(super) fn with_clock(self, clock: Clock) -> Self {
        Self { clock, ..self }
    }

    /// The clock that it reads.
    pub(super) fn clock(&self) -> Clock {
        self.clock.clone()
    }

    /// The current time. After the clock was set back, what lies too far in the future is shortened.
    pub(super) fn now(&self) -> Timestamp {
        let now = self.clock.now();
        let latest = self.latest.swap(now.as_second(), Ordering::Relaxed);
        if now.as_second() < latest.saturating_sub(MAX_CLOCK_STEP_S) {
            self.with_cache(|cache| cache.snapshot.prune(&self.policies.health, now));
        }
        now
    }

    /// The timestamp of a moment of this process.
    pub(super) fn timestamp_of(&self, moment: Instant) -> Timestamp {
        let now = self.clock.now();
        now.checked_sub(jiff::SignedDuration::try_from(moment.elapsed()).unwrap_or_default()).unwrap_or(now)
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
        let (read, now) = (store.read(), self.now());
        self.with_cache(|cache| match read {
            Ok(mut snapshot) => {
                snapshot.prune(&self.policies.health, now);
                // Keep the updates that are not written yet.
                for update in &cache.pending {
                    self.apply(&mut snapshot, update, keys);
                }
                cache.snapshot = snapshot;
                cache.loaded_at = Some(Instant::now());
            }
            Err(error) => cache.store_error = Some(error),
        });
    }

    /// The health keys of candidates, in their order.
    pub(super) fn health_keys(&self, targets: &[Arc<Target>], keys: &KeyRing) -> Vec<Arc<TargetHealthKeys>> {
        self.with_cache(|cache| {
            let salt = cache.snapshot.salt_or(&self.new_salt);
            if *cache.cached_salt != *salt || cache.keys_by_target.len() > MAX_CACHED_TARGETS {
                let salt = Arc::from(salt);
                cache.keys_by_target.clear();
                cache.cached_salt = salt;
            }
            targets.iter().map(|target| cache.health_keys(target, keys)).collect()
        })
    }

    /// The health of candidates, in their order.
    pub(super) fn candidate_health<'p>(
        &self,
        candidates: impl Iterator<Item = &'p Arc<TargetHealthKeys>>,
    ) -> Vec<CandidateHealth> {
        let now = self.now();
        self.with_cache(|cache| {
            let stall = &self.policies.health.stall;
            let health = |keys: &Arc<TargetHealthKeys>| CandidateHealth {
                availability: cache.availability(stall, keys, now),
                in_flight: cache.in_flight.count(keys.model),
                latency_ms: cache.snapshot.entry(keys.model).and_then(|entry| entry.latency.average()),
            };
            candidates.map(health).collect()
        })
    }

    pub(super) fn availability(&self, keys: &TargetHealthKeys) -> Availability {
        let now = self.now();
        self.with_cache(|cache| cache.availability(&self.policies.health.stall, keys, now))
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
            () = sleep(POLL_INTERVAL.min(limit)) => {
                // Many requests may wait at the same time.
                let is_old = |at: Instant| at.elapsed() >= POLL_INTERVAL / 2;
                if self.store.is_some() && self.with_cache(|cache| cache.loaded_at.is_none_or(is_old)) {
                    self.reload(keys);
                }
            }
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
            health.availability(&health_keys[0]).restriction().is_some()
        };
        let was_unavailable = is_unavailable(self);
        self.modify(keys, |snapshot| {
            let attempt = self.attempt_for_snapshot(snapshot, attempt, keys);
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
    pub(super) fn record_success(&self, attempt: AttemptRef, total: Option<Duration>, keys: &KeyRing) {
        self.record_update(attempt, keys, Outcome::Completed(total));
    }

    /// Records changes that the model needs, for later requests.
    pub(super) fn record_workarounds(&self, attempt: AttemptRef, changes: Vec<ParamWorkaround>, keys: &KeyRing) {
        self.record_update(attempt, keys, Outcome::Learned(changes));
    }

    /// The changes that the model needs, as far as they are known.
    pub(super) fn workarounds(&self, model: HealthKey) -> Vec<ParamWorkaround> {
        let now = self.now();
        self.with_snapshot(|snapshot| snapshot.workarounds(model, now).cloned().collect())
    }

    /// Releases the lease of a probe that has ended without a result.
    pub(super) fn release_probe(&self, attempt: AttemptRef, keys: &KeyRing) {
        self.record_update(attempt, keys, Outcome::ProbeReleased);
    }

    fn record_update(&self, attempt: AttemptRef, keys: &KeyRing, outcome: Outcome) {
        let update = PendingUpdate { at: self.now(), attempt, outcome };
        let write_now = self.with_cache(|cache| {
            let affects_others = match (&update.outcome, update.attempt.probe) {
                // A probe with a result has already released its lease.
                (Outcome::ProbeReleased, Some(owner)) if !cache.snapshot.holds_probe(&update.attempt.target, owner) => {
                    return false;
                }
                (Outcome::ProbeReleased | Outcome::Learned(_), _) => true,
                _ => {
                    let attempt = self.attempt_for_snapshot(&mut cache.snapshot, &update.attempt, keys);
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
    pub(super) fn modify<T>(&self, keys: &KeyRing, mut act: impl FnMut(&mut HealthSnapshot) -> T) -> T {
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

    fn apply(&self, snapshot: &mut HealthSnapshot, update: &PendingUpdate, keys: &KeyRing) {
        let attempt = self.attempt_for_snapshot(snapshot, &update.attempt, keys);
        match &update.outcome {
            Outcome::FirstDelta(ttft) => snapshot.record_first_delta(&self.policies.health, &attempt, *ttft, update.at),
            Outcome::Completed(total) => {
                snapshot.record_success(&self.policies.health, &attempt, update.at);
                if let Some(total) = total {
                    snapshot.record_total(&attempt, *total, update.at);
                }
            }
            Outcome::Learned(changes) => snapshot.record_workarounds(&attempt, changes, update.at),
            Outcome::ProbeReleased => {
                if let Some(owner) = attempt.probe {
                    snapshot.release_probe(attempt.target, owner);
                }
            }
        }
    }

    fn attempt_for_snapshot<'t>(
        &self,
        snapshot: &mut HealthSnapshot,
        attempt: &'t AttemptRef,
        keys: &KeyRing,
    ) -> AttemptInfo<'t> {
        if snapshot.key_salt.is_empty() && attempt.key_index.is_some() {
            snapshot.key_salt.clone_from(&self.new_salt);
        }
        // Another process may have chosen another salt meanwhile.
        let has_salt = |known: &&TargetHealthKeys| attempt.key_index.is_none() || *known.salt == *snapshot.key_salt;
        let known = attempt.health_keys.as_deref().filter(has_salt);
        let health_keys = known.map_or_else(
            || {
                let source = attempt.key_index.and_then(|index| attempt.target.endpoint.keys.get(index));
                let hash = source.and_then(|key| keys.hash(key, &snapshot.key_salt));
                AttemptHealthKeys::WithKey(hash.map_or(KeyHash::NONE, KeyHash))
            },
            AttemptHealthKeys::Known,
        );
        AttemptInfo {
            target: &attempt.target,
            key_index: attempt.key_index,
            sent_at: attempt.sent_at,
            probe: attempt.probe,
            operation: attempt.operation,
            health_keys,
        }
    }

    fn with_cache<T>(&self, act: impl FnOnce(&mut HealthCache) -> T) -> T {
        act(&mut self.cache.lock())
    }
}
