//! Health of endpoints, models and API keys: circuit breakers, cooldowns, probes, last errors and latency.
//!
//! The snapshot is shared by processes and kept in a [`HealthStore`], which `store` implements.
//!
//! Health keys are hashes of base URL, upstream id and the salted hash of the API key, not of config names: correcting
//! the config starts with fresh health.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub use attempt_info::{AttemptHealthKeys, AttemptInfo};
pub use availability::{Availability, Restriction, RestrictionKind};
pub use entry::{HealthEntry, HealthKey, HealthMap, KeyHash, LastError, TargetHealthKeys};
use entry::{LearnedWorkaround, ProbeLease, api_key_name};
pub use policy::{HealthPolicy, ProbePolicy, StallPolicy};
pub use state::HealthState;

use super::{
    breaker::{BreakerState, saturating_add},
    cooldown::{CooldownKind, CooldownScope, HealthEffect, health_effect},
};
use crate::{
    model::{ErrorClass, ParamWorkaround, target::Target},
    protocol::CallError,
};

mod attempt_info;
mod availability;
mod entry;
mod policy;
mod state;

/// Entries not updated for this long are removed.
const MAX_AGE: Duration = Duration::from_secs(30 * 24 * 3600);
/// A learned change is used for this long, since a service may lift its limit.
const WORKAROUND_AGE: Duration = Duration::from_secs(24 * 3600);
/// Maximum learned changes of a model.
const MAX_WORKAROUNDS: usize = 16;
/// Maximum entries; more than any real config has.
const MAX_ENTRIES: usize = 256;

/// All health entries, and the salt of the API key hashes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HealthSnapshot {
    /// The salt of the API key hashes; empty until the first one is computed.
    pub key_salt: String,
    entries: HealthMap<HealthEntry>,
}

/// Stores the snapshot, shared with other and later processes.
pub trait HealthStore: Send + Sync {
    /// Reads the snapshot; an empty one when there is none.
    ///
    /// # Errors
    /// When it cannot be read.
    fn read(&self) -> Result<HealthSnapshot, HealthError>;

    /// Changes the snapshot under a lock.
    ///
    /// # Errors
    /// When it cannot be read or written; `change` may have been called.
    fn update(&self, change: &mut dyn FnMut(&mut HealthSnapshot)) -> Result<HealthUpdate, HealthError>;
}

/// The snapshot after a change, and an error about the old one if it was discarded.
pub type HealthUpdate = (HealthSnapshot, Option<HealthError>);

/// The snapshot could not be read or written.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct HealthError(pub String);

impl HealthSnapshot {
    /// The salt of the API key hashes; `new` if there is none yet.
    #[must_use]
    pub fn salt_or<'s>(&'s self, new: &'s str) -> &'s str {
        if self.key_salt.is_empty() { new } else { &self.key_salt }
    }

    /// The entry with this key.
    #[must_use]
    pub fn entry(&self, health_key: HealthKey) -> Option<&HealthEntry> {
        self.entries.get(&health_key)
    }

    /// All entries, unordered.
    pub fn entries(&self) -> impl Iterator<Item = (HealthKey, &HealthEntry)> {
        self.entries.iter().map(|(health_key, entry)| (*health_key, entry))
    }

    /// The availability of a candidate at `now`.
    #[must_use]
    pub fn availability(&self, target: &TargetHealthKeys, now: Timestamp) -> Availability {
        let service = target
            .service_keys()
            .fold(Availability::Available, |worst, health_key| worst.and(self.entry_availability(health_key, now)));
        let keys = target.keys.iter().map(|key| self.key_availability(*key, now));
        // One available API key is enough.
        keys.min_by_key(|availability| availability.rank()).map_or(service, |best| service.and(best))
    }

    /// The availability of one API key for one model.
    #[must_use]
    pub fn key_availability(&self, (any_model, this_model): (HealthKey, HealthKey), now: Timestamp) -> Availability {
        self.entry_availability(any_model, now).and(self.entry_availability(this_model, now))
    }

    /// The worst availability of these entries.
    #[must_use]
    pub fn worst_availability(&self, health_keys: &[HealthKey], now: Timestamp) -> Availability {
        health_keys
            .iter()
            .fold(Availability::Available, |worst, health_key| worst.and(self.entry_availability(*health_key, now)))
    }

    /// The availability of a single entry.
    #[must_use]
    pub fn entry_availability(&self, health_key: HealthKey, now: Timestamp) -> Availability {
        let Some(entry) = self.entries.get(&health_key) else { return Availability::Available };
        let restricted = |kind, until| {
            let named = (kind == RestrictionKind::Cooldown(CooldownKind::RetryAfter)).then_some(until);
            Availability::Restricted(Restriction { kind, until, named, cause: health_key })
        };
        let breaker = match entry.breaker.state(now) {
            BreakerState::Closed => Availability::Available,
            BreakerState::HalfOpen => match entry.probe_expiry(now) {
                Some(until) => restricted(RestrictionKind::Probing, until),
                None => Availability::HalfOpen,
            },
            BreakerState::Open(until) => restricted(RestrictionKind::Open, until),
        };
        match entry.cooldown.as_ref().filter(|cooldown| cooldown.until > now) {
            Some(cooldown) => breaker.and(restricted(RestrictionKind::Cooldown(cooldown.kind), cooldown.until)),
            None => breaker,
        }
    }

    /// Acquires the probe of a half-open candidate for the time `lease`. Returns whether the request may be sent, which
    /// is always true for an available candidate.
    pub fn acquire_probe(
        &mut self,
        target: &TargetHealthKeys,
        now: Timestamp,
        (owner, lease): (u64, Duration),
    ) -> bool {
        match self.availability(target, now) {
            Availability::Available => return true,
            Availability::Restricted(_) => return false,
            Availability::HalfOpen => {}
        }
        let until = saturating_add(now, lease);
        for health_key in [target.endpoint, target.model] {
            if let Some(entry) = self.entries.get_mut(&health_key)
                && entry.breaker.state(now) != BreakerState::Closed
            {
                entry.probe_lease = Some(ProbeLease { owner, until });
            }
        }
        true
    }

    /// When the lease of a candidate's current probe expires; `None` without a probe.
    #[must_use]
    pub fn probe_expiry(&self, target: &TargetHealthKeys, now: Timestamp) -> Option<Timestamp> {
        let expiry = |health_key: HealthKey| self.entries.get(&health_key).and_then(|entry| entry.probe_expiry(now));
        expiry(target.endpoint).max(expiry(target.model))
    }

    /// Renews the probe of `owner` for the time `lease`.
    pub fn renew_probe(&mut self, target: &Target, now: Timestamp, (owner, lease): (u64, Duration)) {
        for health_key in [HealthKey::endpoint(&target.endpoint), HealthKey::model(target)] {
            let probe = self.entries.get_mut(&health_key).and_then(|entry| entry.probe_lease.as_mut());
            if let Some(probe) = probe.filter(|probe| probe.owner == owner) {
                probe.until = saturating_add(now, lease);
            }
        }
    }

    /// Whether `owner` still holds the probe of `target`.
    #[must_use]
    pub fn holds_probe(&self, target: &Target, owner: u64) -> bool {
        let probe = |health_key| self.entries.get(&health_key).and_then(|entry| entry.probe_lease.as_ref());
        let health_keys = [HealthKey::endpoint(&target.endpoint), HealthKey::model(target)];
        health_keys.into_iter().filter_map(probe).any(|lease| lease.owner == owner)
    }

    /// Releases the probe of `owner`, which has a result or was abandoned.
    pub fn release_probe(&mut self, target: &Target, owner: u64) {
        for health_key in [HealthKey::endpoint(&target.endpoint), HealthKey::model(target)] {
            if let Some(entry) = self.entries.get_mut(&health_key)
                && entry.probe_lease.as_ref().is_some_and(|lease| lease.owner == owner)
            {
                entry.probe_lease = None;
                // Remove an entry that held only the probe.
                if *entry == (HealthEntry { updated_at: entry.updated_at, ..HealthEntry::default() }) {
                    self.entries.remove(&health_key);
                }
            }
        }
    }

    /// Whether a failure affects the health of the target.
    #[must_use]
    pub fn affects_health(policy: &HealthPolicy, error: &CallError, now: Timestamp) -> bool {
        health_effect(&policy.cooldown, error, now).is_some()
    }

    /// Records a failed attempt. `random` is in 0..1. A probe keeps its lease: it may continue with another key.
    pub fn record_failure(
        &mut self,
        policy: &HealthPolicy,
        attempt: &AttemptInfo<'_>,
        error: &CallError,
        now: Timestamp,
        random: f64,
    ) {
        let Some(effect) = health_effect(&policy.cooldown, error, now) else { return };
        if attempt.probe.is_some() && effect == HealthEffect::ModelFailure {
            self.record_probe_of_endpoint(policy, attempt, error.status.is_some(), now, random);
        }
        let entry = self.failed_entry(effect, attempt, now);
        entry.last_error = Some(LastError::new(error, now));
        let trip = match effect {
            HealthEffect::EndpointUnreachable => policy.breaker.endpoint,
            HealthEffect::ModelFailure => policy.breaker.model,
            HealthEffect::Cooldown { kind, requested, time, .. } => {
                entry.start_cooldown(&policy.cooldown, kind, requested, time, now);
                return;
            }
        };
        entry.breaker.record_failure(&policy.breaker, trip, attempt.sent_at, now, random);
    }

    /// Records whether a failed probe reached the endpoint, whose half-open breaker it may have probed, too.
    fn record_probe_of_endpoint(
        &mut self,
        policy: &HealthPolicy,
        attempt: &AttemptInfo<'_>,
        has_response: bool,
        now: Timestamp,
        random: f64,
    ) {
        let Some(entry) = self.entries.get_mut(&attempt.endpoint_key()) else { return };
        if has_response {
            entry.breaker.record_success(&policy.breaker, attempt.sent_at, now);
        } else if entry.breaker.state(now) == BreakerState::HalfOpen {
            entry.breaker.record_failure(&policy.breaker, policy.breaker.endpoint, attempt.sent_at, now, random);
        }
    }

    /// The entry that a failure affects.
    fn failed_entry(&mut self, effect: HealthEffect, attempt: &AttemptInfo<'_>, now: Timestamp) -> &mut HealthEntry {
        let target = attempt.target;
        let model = attempt.model_key();
        let (health_key, name) = match effect {
            HealthEffect::EndpointUnreachable | HealthEffect::Cooldown { scope: CooldownScope::Endpoint, .. } => {
                (attempt.endpoint_key(), target.endpoint.name.clone())
            }
            HealthEffect::Cooldown { scope: CooldownScope::Operation, .. } => {
                match attempt.operation.zip(attempt.operation_key()) {
                    None => (attempt.endpoint_key(), target.endpoint.name.clone()),
                    Some((operation, health_key)) => {
                        (health_key, format!("{} {}", target.endpoint.name, <&str>::from(operation)))
                    }
                }
            }
            HealthEffect::Cooldown { scope: CooldownScope::Key, .. } => {
                (attempt.api_key_keys().0, api_key_name(&target.endpoint, attempt.key_index))
            }
            HealthEffect::Cooldown { scope: CooldownScope::KeyForModel, .. } => {
                // Creates the entry of the model, by which `status` finds a model that is not in the config.
                self.entry_mut(model, target.id.to_string(), now);
                let name = format!("{} with {}", target.id, api_key_name(&target.endpoint, attempt.key_index));
                (attempt.api_key_keys().1, name)
            }
            HealthEffect::ModelFailure | HealthEffect::Cooldown { scope: CooldownScope::Model, .. } => {
                (model, target.id.to_string())
            }
        };
        self.entry_mut(health_key, name, now)
    }

    /// Records the first delta of an attempt: endpoint, model and key are available again.
    pub fn record_first_delta(
        &mut self,
        policy: &HealthPolicy,
        attempt: &AttemptInfo<'_>,
        ttft: Option<Duration>,
        now: Timestamp,
    ) {
        let target = attempt.target;
        if let Some(owner) = attempt.probe {
            self.release_probe(target, owner);
        }
        // The breaker of an endpoint counts failed connections, and this connection succeeded.
        if let Some(endpoint) = self.entries.get_mut(&attempt.endpoint_key()) {
            endpoint.breaker.record_success(&policy.breaker, attempt.sent_at, now);
        }
        let model = self.entry_mut(attempt.model_key(), target.id.to_string(), now);
        model.breaker.record_first_delta(attempt.sent_at);
        if let Some(ttft) = ttft {
            model.latency.record(ttft, now);
        }
        for health_key in attempt.all_keys() {
            if let Some(entry) = self.entries.get_mut(&health_key) {
                entry.record_first_delta(attempt.sent_at, now);
            }
        }
    }

    /// Records the total time of an answer in one piece.
    pub fn record_total(&mut self, attempt: &AttemptInfo<'_>, total: Duration, now: Timestamp) {
        self.entry_mut(attempt.model_key(), attempt.target.id.to_string(), now).total.record(total, now);
    }

    /// Records a complete answer: resets the failures of its endpoint, model and key.
    pub fn record_success(&mut self, policy: &HealthPolicy, attempt: &AttemptInfo<'_>, now: Timestamp) {
        let target = attempt.target;
        if let Some(owner) = attempt.probe {
            self.release_probe(target, owner);
        }
        let model = self.entry_mut(attempt.model_key(), target.id.to_string(), now);
        model.record_success(&policy.breaker, attempt.sent_at, now);
        for health_key in attempt.all_keys().filter(|health_key| *health_key != attempt.model_key()) {
            if let Some(entry) = self.entries.get_mut(&health_key) {
                entry.record_success(&policy.breaker, attempt.sent_at, now);
            }
        }
    }

    /// The changes to requests that the model needs.
    pub fn workarounds(&self, model: HealthKey, now: Timestamp) -> impl Iterator<Item = &ParamWorkaround> {
        let learned = self.entries.get(&model).map(|entry| entry.workarounds.as_slice()).unwrap_or_default();
        learned.iter().filter(move |learned| is_recent(learned.at, now)).map(|learned| &learned.change)
    }

    /// Records changes to a request that the model has accepted, while it had refused the unchanged request.
    pub fn record_workarounds(&mut self, attempt: &AttemptInfo<'_>, changes: &[ParamWorkaround], now: Timestamp) {
        let entry = self.entry_mut(attempt.model_key(), attempt.target.id.to_string(), now);
        for change in changes {
            entry.workarounds.retain(|learned| learned.change != *change);
            entry.workarounds.push(LearnedWorkaround { change: change.clone(), at: now });
        }
        let excess = entry.workarounds.len().saturating_sub(MAX_WORKAROUNDS);
        entry.workarounds.drain(..excess);
    }

    /// Whether endpoint, model or key has recorded failures: a success must then be shared with other processes.
    #[must_use]
    pub fn has_failures(&self, attempt: &AttemptInfo<'_>) -> bool {
        let has_failed = |entry: &HealthEntry| !entry.breaker.is_clean() || entry.cooldown.is_some();
        attempt.all_keys().filter_map(|health_key| self.entries.get(&health_key)).any(has_failed)
    }

    /// Removes these entries; returns the number removed.
    pub fn remove(&mut self, health_keys: impl IntoIterator<Item = HealthKey>) -> usize {
        health_keys.into_iter().filter_map(|health_key| self.entries.remove(&health_key)).count()
    }

    /// Removes all entries; returns the number removed.
    pub fn clear(&mut self) -> usize {
        std::mem::take(&mut self.entries).len()
    }

    /// Clears error messages older than `before`, but keeps the failures.
    pub fn clear_messages_before(&mut self, before: Timestamp) {
        for error in self.entries.values_mut().filter_map(|entry| entry.last_error.as_mut()) {
            if error.at < before {
                error.message.clear();
            }
        }
    }

    /// Ends the cooldowns of rejected keys: a change of the config may be the answer to the rejection.
    pub fn retry_rejected_keys(&mut self) {
        for entry in self.entries.values_mut() {
            let is_rejected = |error: &LastError| error.class == ErrorClass::Auth.as_str();
            if entry.last_error.as_ref().is_some_and(is_rejected) {
                entry.cooldown = None;
            }
        }
    }

    /// Prepares the snapshot for storage: limits future times after a clock jump, and removes old and excess entries.
    pub fn prune(&mut self, policy: &HealthPolicy, now: Timestamp) {
        for entry in self.entries.values_mut() {
            entry.breaker.clamp(&policy.breaker, now);
            entry.latency.clear_invalid();
            entry.total.clear_invalid();
            entry.workarounds.retain(|learned| is_recent(learned.at, now));
            if let Some(lease) = &mut entry.probe_lease {
                lease.until = lease.until.min(saturating_add(now, policy.probe.max_lease));
            }
            if let Some(cooldown) = &mut entry.cooldown {
                cooldown.until = cooldown
                    .until
                    .min(saturating_add(now, policy.cooldown.max.min(Duration::from_millis(cooldown.duration_ms))));
            }
            entry.updated_at = entry.updated_at.map(|updated_at| updated_at.min(now));
        }
        let oldest = now.checked_sub(jiff::SignedDuration::try_from(MAX_AGE).unwrap_or_default());
        let oldest = oldest.unwrap_or(Timestamp::MIN);
        self.entries.retain(|_, entry| entry.updated_at.is_some_and(|updated_at| updated_at >= oldest));
        self.retain_latest(MAX_ENTRIES, now);
    }

    /// Truncates error messages to `max` characters, so that more entries fit into the file.
    pub fn truncate_messages(&mut self, max: usize) {
        for error in self.entries.values_mut().filter_map(|entry| entry.last_error.as_mut()) {
            if let Some((end, _)) = error.message.char_indices().nth(max) {
                error.message.truncate(end);
            }
        }
    }

    /// Removes entries until `max` remain: unrestricted ones first, and among those the oldest. Returns the number that
    /// remains.
    pub fn retain_latest(&mut self, max: usize, now: Timestamp) -> usize {
        if self.entries.len() > max {
            let mut by_priority: Vec<(bool, Option<Timestamp>, HealthKey)> = self
                .entries
                .iter()
                .map(|(health_key, entry)| (entry.is_restricted(now), entry.updated_at, *health_key))
                .collect();
            by_priority.sort_unstable();
            for (_, _, health_key) in &by_priority[..by_priority.len() - max] {
                self.entries.remove(health_key);
            }
        }
        self.entries.len()
    }

    fn entry_mut(&mut self, health_key: HealthKey, name: String, now: Timestamp) -> &mut HealthEntry {
        let entry = self.entries.entry(health_key).or_default();
        entry.name = name;
        entry.updated_at = Some(now);
        entry
    }
}

fn is_recent(learned_at: Timestamp, now: Timestamp) -> bool {
    learned_at <= now && saturating_add(learned_at, WORKAROUND_AGE) > now
}

#[cfg(test)]
mod tests;
