//! A place that can be asked: its fingerprint, and what is known of it.
//!
//! Owns what a place is called and how it is written down. Refuses to judge: what a failure does to it is the
//! snapshot's.

use std::hash::{BuildHasherDefault, DefaultHasher, Hash, Hasher};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    model::{endpoint::Endpoint, target::Target},
    protocol::ApiError,
    routing::{
        breaker::{Breaker, State},
        latency::Latency,
    },
};

/// A message is for one line of a table.
const LONGEST_MESSAGE: usize = 120;

/// The fingerprint of a place. It need not be the same in another build: what is forgotten then is learned again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PlaceId(u64);

/// Finds places by their fingerprint, which is a hash already.
#[derive(Clone, Copy, Debug, Default)]
pub struct ByFingerprint(u64);

impl Hasher for ByFingerprint {
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

/// Something of each place.
pub type ByPlace<T> = std::collections::HashMap<PlaceId, T, BuildHasherDefault<ByFingerprint>>;

impl From<PlaceId> for String {
    fn from(id: PlaceId) -> Self {
        format!("{:016x}", id.0)
    }
}

impl TryFrom<String> for PlaceId {
    type Error = std::num::ParseIntError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        u64::from_str_radix(&text, 16).map(Self)
    }
}

impl PlaceId {
    /// The fingerprint as a number.
    #[must_use]
    pub fn number(self) -> u64 {
        self.0
    }

    fn of(what: impl Hash) -> Self {
        let mut hasher = DefaultHasher::new();
        what.hash(&mut hasher);
        Self(hasher.finish())
    }

    /// The endpoint, whatever model.
    #[must_use]
    pub fn endpoint(endpoint: &Endpoint) -> Self {
        Self::of(("endpoint", endpoint.base_url.as_str()))
    }

    /// The model at its endpoint, whatever key.
    #[must_use]
    pub fn model(target: &Target) -> Self {
        Self::of(("model", target.endpoint.base_url.as_str(), target.upstream.as_str()))
    }

    /// A key at its endpoint, for every model.
    #[must_use]
    pub fn key(endpoint: &Endpoint, key: KeyHash) -> Self {
        Self::of(("key", endpoint.base_url.as_str(), key.0))
    }

    /// A key at its endpoint, for this model alone.
    #[must_use]
    pub fn key_for_model(target: &Target, key: KeyHash) -> Self {
        Self::of(("key", target.endpoint.base_url.as_str(), key.0, target.upstream.as_str()))
    }
}

/// The salted hash of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct KeyHash(pub u64);

impl KeyHash {
    /// Of a request without a key, or with one that cannot be told.
    pub const NONE: Self = Self(0);
}

/// One place.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Place {
    /// What it was last called, for people.
    pub name: String,
    #[serde(skip_serializing_if = "Breaker::is_forgettable")]
    pub(super) breaker: Breaker,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) aside: Option<Aside>,
    /// The request that finds out whether it is back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) probe: Option<Lease>,
    /// Its last failure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<LastError>,
    /// How fast it begins to answer.
    #[serde(skip_serializing_if = "Latency::is_empty")]
    pub latency: Latency,
    /// When something was last learned of it.
    pub(super) seen: Option<Timestamp>,
}

/// A place that is left alone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Aside {
    pub(super) until: Timestamp,
    /// How long it was to be, in milliseconds.
    pub(super) ms: u64,
    /// How often in a row, for the doubling.
    pub(super) times: u32,
}

/// The right to find out; it runs out, since whoever has it may be ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Lease {
    pub(super) owner: u64,
    pub(super) until: Timestamp,
}

/// The last failure of a place.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LastError {
    /// The name of its class.
    pub class: String,
    /// The status, where there was one.
    pub status: Option<u16>,
    /// What was said.
    pub message: String,
    /// When.
    pub at: Timestamp,
}

impl std::fmt::Display for LastError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let status = self.status.map(|status| format!(" {status}")).unwrap_or_default();
        write!(f, "{}{status}", self.class)?;
        if self.message.is_empty() { Ok(()) } else { write!(f, ": {}", self.message) }
    }
}

impl LastError {
    pub(super) fn of(error: &ApiError, at: Timestamp) -> Self {
        let mut message: String = error.message.chars().take(LONGEST_MESSAGE).collect();
        if message.len() < error.message.len() {
            message.push('…');
        }
        Self { class: error.class.as_str().to_owned(), status: error.status, message, at }
    }
}

/// What one candidate depends on.
#[derive(Clone, Debug)]
pub struct Places {
    /// Its endpoint.
    pub endpoint: PlaceId,
    /// Its model.
    pub model: PlaceId,
    /// Each of its keys, everywhere and for this model.
    pub keys: Vec<(PlaceId, PlaceId)>,
}

impl Places {
    /// The places of `target` with these keys.
    #[must_use]
    pub fn of(target: &Target, keys: &[KeyHash]) -> Self {
        let keys = if keys.is_empty() { &[KeyHash::NONE] } else { keys };
        Self {
            endpoint: PlaceId::endpoint(&target.endpoint),
            model: PlaceId::model(target),
            keys: keys.iter().map(|key| key_places(target, *key)).collect(),
        }
    }
}

/// A key everywhere, and for this model.
pub(super) fn key_places(target: &Target, key: KeyHash) -> (PlaceId, PlaceId) {
    (PlaceId::key(&target.endpoint, key), PlaceId::key_for_model(target, key))
}

impl Place {
    /// Until when somebody has the right to find out whether it is back.
    pub(super) fn leased(&self, now: Timestamp) -> Option<Timestamp> {
        self.probe.as_ref().map(|lease| lease.until).filter(|until| *until > now)
    }

    /// Whether somebody is kept from asking it, or is to be the probe: for that, it must have been heard of lately.
    pub(super) fn keeps_off(&self, now: Timestamp) -> bool {
        let lately = || self.seen.is_some_and(|seen| now.duration_since(seen) < jiff::SignedDuration::from_hours(1));
        let open = match self.breaker.state(now) {
            State::Closed => false,
            State::Open(_) => true,
            State::HalfOpen => lately(),
        };
        open || self.is_aside(now) || self.leased(now).is_some()
    }

    /// Whether it is left alone as a service asked for, or for what it said.
    pub(super) fn is_aside(&self, now: Timestamp) -> bool {
        self.aside.as_ref().is_some_and(|aside| aside.until > now)
    }

    /// A request that was sent then is being answered: nobody need wait any longer. How often it was left alone counts
    /// until an answer is whole.
    pub(super) fn answered(&mut self, sent: Timestamp, now: Timestamp) {
        if let Some(aside) = self.aside.as_mut().filter(|_| self.error.as_ref().is_none_or(|error| error.at <= sent)) {
            aside.until = aside.until.min(now);
        }
    }

    /// A request that was sent then went well.
    pub(super) fn well(&mut self, sent: Timestamp, now: Timestamp) {
        self.breaker.ended_well(sent, now);
        // What was said after it was sent is newer.
        if self.error.as_ref().is_none_or(|error| error.at <= sent) {
            self.aside = None;
        }
    }
}

/// What a person calls a key whose value nobody sees.
pub(super) fn key_name(endpoint: &Endpoint, index: Option<usize>) -> String {
    match index {
        None => format!("{} without a key", endpoint.name),
        Some(index) if endpoint.keys.len() > 1 => format!("key {} of {}", index + 1, endpoint.name),
        Some(_) => format!("the key of {}", endpoint.name),
    }
}
