//! Health entries and their keys: one for each endpoint, model, API key, and API key of a model.

use std::{
    hash::{BuildHasherDefault, DefaultHasher, Hash, Hasher},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    model::{Operation, ParamWorkaround, endpoint::Endpoint, sanitize::truncate_chars, target::Target},
    protocol::CallError,
    routing::{
        breaker::{Breaker, BreakerPolicy, BreakerState, saturating_add},
        cooldown::{CooldownDuration, CooldownKind, CooldownPolicy},
        latency::Latency,
    },
};

/// Maximum length of a stored error message, in characters: it is shown in one line of a table.
const MAX_MESSAGE_CHARS: usize = 120;

/// The key of a health entry, a hash of its subject. It may differ between builds; a new entry is then created.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HealthKey(u64);

/// Uses a health key as its own hash, since it is a hash already.
#[derive(Clone, Copy, Debug, Default)]
pub struct IdentityHasher(u64);

impl Hasher for IdentityHasher {
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(byte);
        }
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// A map by health key.
pub type HealthMap<T> = std::collections::HashMap<HealthKey, T, BuildHasherDefault<IdentityHasher>>;

impl From<HealthKey> for String {
    fn from(health_key: HealthKey) -> Self {
        format!("{:016x}", health_key.0)
    }
}

impl TryFrom<String> for HealthKey {
    type Error = std::num::ParseIntError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        u64::from_str_radix(&text, 16).map(Self)
    }
}

impl HealthKey {
    /// The hash as a number.
    #[must_use]
    pub fn as_u64(self) -> u64 {
        self.0
    }

    fn hash_of(parts: impl Hash) -> Self {
        let mut hasher = DefaultHasher::new();
        parts.hash(&mut hasher);
        Self(hasher.finish())
    }

    /// The key of an endpoint, with all its models.
    #[must_use]
    pub fn endpoint(endpoint: &Endpoint) -> Self {
        Self::hash_of(("endpoint", endpoint.base_url.as_str()))
    }

    /// The key of an operation other than a chat at an endpoint, with all its models.
    #[must_use]
    pub fn operation(endpoint: &Endpoint, operation: Operation) -> Self {
        Self::hash_of(("operation", endpoint.base_url.as_str(), <&str>::from(operation)))
    }

    /// The key of a model at its endpoint, with every API key.
    #[must_use]
    pub fn model(target: &Target) -> Self {
        Self::hash_of(("model", target.endpoint.base_url.as_str(), target.upstream_id.as_str()))
    }

    /// The key of an API key at its endpoint, for every model.
    #[must_use]
    pub fn key(endpoint: &Endpoint, key: KeyHash) -> Self {
        Self::hash_of(("key", endpoint.base_url.as_str(), key.0))
    }

    /// The key of an API key at its endpoint, for this model only.
    #[must_use]
    pub fn key_for_model(target: &Target, key: KeyHash) -> Self {
        Self::hash_of(("key", target.endpoint.base_url.as_str(), key.0, target.upstream_id.as_str()))
    }
}

/// The salted hash of an API key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct KeyHash(pub u64);

impl KeyHash {
    /// For a request without an API key, or with an unknown one.
    pub const NONE: Self = Self(0);
}

/// The health of one endpoint, model or API key.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct HealthEntry {
    /// The display name, as of the last update.
    pub name: String,
    #[serde(skip_serializing_if = "Breaker::has_no_failures")]
    pub(super) breaker: Breaker,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) cooldown: Option<Cooldown>,
    /// The lease of the current probe.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) probe_lease: Option<ProbeLease>,
    /// The last failure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<LastError>,
    /// The time to first token.
    #[serde(skip_serializing_if = "Latency::is_empty")]
    pub latency: Latency,
    /// The total time of answers in one piece.
    #[serde(skip_serializing_if = "Latency::is_empty")]
    pub total: Latency,
    /// Changes to requests that the model accepts and the unchanged requests are not.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) workarounds: Vec<LearnedWorkaround>,
    /// When it was last updated.
    pub(super) updated_at: Option<Timestamp>,
}

/// A change to requests that has helped.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct LearnedWorkaround {
    pub(super) change: ParamWorkaround,
    pub(super) at: Timestamp,
}

/// A cooldown.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Cooldown {
    pub(super) until: Timestamp,
    /// The duration in milliseconds.
    pub(super) duration_ms: u64,
    /// The number of cooldowns in a row, for doubling.
    pub(super) consecutive: u32,
    /// Files of earlier versions do not have it.
    #[serde(default)]
    pub(super) kind: CooldownKind,
}

/// The exclusive right to send the probe. It expires, since its process may be killed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct ProbeLease {
    pub(super) owner: u64,
    pub(super) until: Timestamp,
}

/// The last failure of a health entry.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LastError {
    /// The name of the error class.
    pub class: String,
    /// The HTTP status, if a response arrived.
    pub http_status: Option<u16>,
    /// The error message.
    pub message: String,
    /// The time of the failure.
    pub at: Timestamp,
}

impl std::fmt::Display for LastError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let status = self.http_status.map(|status| format!(" {status}")).unwrap_or_default();
        write!(f, "{}{status}", self.class)?;
        if self.message.is_empty() { Ok(()) } else { write!(f, ": {}", self.message) }
    }
}

impl LastError {
    pub(super) fn new(error: &CallError, at: Timestamp) -> Self {
        let message = truncate_chars(&error.message, MAX_MESSAGE_CHARS);
        Self { class: error.class.as_str().to_owned(), http_status: error.status, message, at }
    }
}

/// The health keys that the availability of a target depends on.
#[derive(Clone, Debug)]
pub struct TargetHealthKeys {
    /// The endpoint.
    pub endpoint: HealthKey,
    /// The operation, unless it is a chat.
    pub operation: Option<HealthKey>,
    /// The model.
    pub model: HealthKey,
    /// Each API key: for every model, and for this model.
    pub keys: Vec<(HealthKey, HealthKey)>,
    /// The salt of the hashes of the API keys.
    pub salt: Arc<str>,
}

impl TargetHealthKeys {
    /// The health keys of `target` with these API keys, without their salt.
    #[must_use]
    pub fn new(target: &Target, keys: &[KeyHash]) -> Self {
        let keys = if keys.is_empty() { &[KeyHash::NONE] } else { keys };
        Self {
            endpoint: HealthKey::endpoint(&target.endpoint),
            operation: None,
            model: HealthKey::model(target),
            keys: keys.iter().map(|key| api_key_health_keys(target, *key)).collect(),
            salt: Arc::default(),
        }
    }
}

impl TargetHealthKeys {
    /// The health keys that every request depends on, whatever its API key.
    pub(super) fn service_keys(&self) -> impl Iterator<Item = HealthKey> {
        [self.endpoint, self.model].into_iter().chain(self.operation)
    }
}

/// The health keys of an API key: for every model, and for this model.
pub(super) fn api_key_health_keys(target: &Target, key: KeyHash) -> (HealthKey, HealthKey) {
    (HealthKey::key(&target.endpoint, key), HealthKey::key_for_model(target, key))
}

impl HealthEntry {
    /// When the lease of the current probe expires; `None` without a probe.
    pub(super) fn probe_expiry(&self, now: Timestamp) -> Option<Timestamp> {
        self.probe_lease.as_ref().map(|lease| lease.until).filter(|until| *until > now)
    }

    /// Whether requests are restricted now. A half-open entry counts only if it was updated in the last hour.
    pub(super) fn is_restricted(&self, now: Timestamp) -> bool {
        let is_recent = || {
            self.updated_at
                .is_some_and(|updated_at| now.duration_since(updated_at) < jiff::SignedDuration::from_hours(1))
        };
        let breaker_restricts = match self.breaker.state(now) {
            BreakerState::Closed => false,
            BreakerState::Open(_) => true,
            BreakerState::HalfOpen => is_recent(),
        };
        breaker_restricts || self.is_cooling_down(now) || self.probe_expiry(now).is_some()
    }

    /// Whether it is in a cooldown.
    pub(super) fn is_cooling_down(&self, now: Timestamp) -> bool {
        self.cooldown.as_ref().is_some_and(|cooldown| cooldown.until > now)
    }

    /// Starts a cooldown, or prolongs the current one: for the time that the service requested, else for `time`.
    pub(super) fn start_cooldown(
        &mut self,
        policy: &CooldownPolicy,
        kind: CooldownKind,
        requested: Option<Duration>,
        time: CooldownDuration,
        now: Timestamp,
    ) {
        let none = Cooldown { until: Timestamp::MIN, duration_ms: 0, consecutive: 0, kind };
        let previous = self.cooldown.take().unwrap_or(none);
        let doubled = || time.initial.saturating_mul(2u32.saturating_pow(previous.consecutive.min(8)));
        let duration = requested.unwrap_or_else(|| doubled().min(time.max)).min(policy.max);
        // Requests that were in flight at the same time count as one failure.
        let consecutive = previous.consecutive.saturating_add(u32::from(previous.until <= now));
        let until = saturating_add(now, duration);
        let duration_ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        // Of two cooldowns that have not ended, the stricter one stays, and of the same kind the longer one.
        let previous_stays = previous.until > now && (previous.kind, previous.until) >= (kind, until);
        self.cooldown = Some(if previous_stays {
            Cooldown { consecutive, ..previous }
        } else {
            Cooldown { until, duration_ms, consecutive, kind }
        });
    }

    /// Ends the cooldown, since a request sent at `sent` got its first delta. The count for doubling is reset only by a
    /// complete answer.
    pub(super) fn record_first_delta(&mut self, sent: Timestamp, now: Timestamp) {
        if let Some(cooldown) =
            self.cooldown.as_mut().filter(|_| self.last_error.as_ref().is_none_or(|error| error.at <= sent))
        {
            cooldown.until = cooldown.until.min(now);
        }
    }

    /// Records the complete answer of a request sent at `sent`.
    pub(super) fn record_success(&mut self, policy: &BreakerPolicy, sent: Timestamp, now: Timestamp) {
        self.breaker.record_success(policy, sent, now);
        // A later error is more recent than the request: its cooldown stays.
        if self.last_error.as_ref().is_none_or(|error| error.at <= sent) {
            self.cooldown = None;
        }
    }
}

/// The display name of an API key, whose value is never shown.
pub(super) fn api_key_name(endpoint: &Endpoint, index: Option<usize>) -> String {
    match index {
        None => format!("{} (no key)", endpoint.name),
        Some(index) if endpoint.keys.len() > 1 => format!("{} key {}", endpoint.name, index + 1),
        Some(_) => format!("{} key", endpoint.name),
    }
}
