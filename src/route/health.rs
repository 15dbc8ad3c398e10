//! What is known of every place that can be asked: who is left alone, why, and until when.
//!
//! Owns the snapshot that outlives a process, how failures and answers change it, and the probe (one at a time). Pure:
//! `now` and chance are passed in. Refuses I/O: [`HealthStore`] is what keeps a snapshot, on a floor above.
//!
//! Places are known by fingerprints of what they are (address, upstream id, a salted hash of the key), not by the names
//! they have in a config: mending the config forgets the past. It only ever orders candidates; a name that has just one
//! is asked whatever is known of it.

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
    time::Duration,
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    breaker::{Breaker, Rule, State, later},
    classify::{Cooling, Scope, cooling},
    latency::Latency,
};
use crate::{endpoint::Endpoint, protocol::ApiError, target::Target};

/// The longest anything is set aside.
const LONGEST_ASIDE: Duration = Duration::from_secs(3600);
/// The longest a probe may take.
pub const LONGEST_PROBE: Duration = Duration::from_secs(60);
/// A place nobody asked for so long is forgotten.
const FORGOTTEN: Duration = Duration::from_secs(30 * 24 * 3600);
/// More places than this are no person's config.
const MOST_PLACES: usize = 128;
/// A message is for one line of a table.
const LONGEST_MESSAGE: usize = 120;

/// The fingerprint of a place. It need not be the same in another build: what is forgotten then is learned again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PlaceId(u64);

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
    breaker: Breaker,
    #[serde(skip_serializing_if = "Option::is_none")]
    aside: Option<Aside>,
    /// The request that finds out whether it is back.
    #[serde(skip_serializing_if = "Option::is_none")]
    probe: Option<Lease>,
    /// Its last failure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<LastError>,
    /// How fast it begins to answer.
    #[serde(skip_serializing_if = "Latency::is_empty")]
    pub latency: Latency,
    /// When something was last learned of it.
    seen: Option<Timestamp>,
}

/// A place that is left alone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Aside {
    until: Timestamp,
    /// How long it was to be, in milliseconds.
    ms: u64,
    /// How often in a row, for the doubling.
    times: u32,
}

/// The right to find out; it runs out, since whoever has it may be ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Lease {
    owner: u64,
    until: Timestamp,
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
        write!(f, "{}{status}: {}", self.class, self.message)
    }
}

impl LastError {
    fn of(error: &ApiError, at: Timestamp) -> Self {
        let mut message: String = error.message.chars().take(LONGEST_MESSAGE).collect();
        if message.len() < error.message.len() {
            message.push('…');
        }
        Self { class: error.class.as_str().to_owned(), status: error.status, message, at }
    }
}

/// Everything known, and the salt of the keys' hashes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct HealthSnapshot {
    /// What the keys are hashed with; empty until the first is.
    pub salt: String,
    places: HashMap<PlaceId, Place>,
}

/// Keeps a snapshot for the next process, and for those at work now.
pub trait HealthStore: Send + Sync {
    /// The snapshot as it is; an empty one when there is none.
    ///
    /// # Errors
    /// When it cannot be read.
    fn read(&self) -> Result<HealthSnapshot, HealthError>;

    /// Changes the snapshot while nobody else can; what it is afterwards.
    ///
    /// # Errors
    /// When it cannot be read or written; `act` may have been called.
    fn update(&self, act: &mut dyn FnMut(&mut HealthSnapshot)) -> Result<HealthSnapshot, HealthError>;
}

/// A snapshot that could not be read or written.
#[derive(Clone, Debug, thiserror::Error)]
#[error("what is known of failing services could not be kept: {0}")]
pub struct HealthError(pub String);

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

fn key_places(target: &Target, key: KeyHash) -> (PlaceId, PlaceId) {
    (PlaceId::key(&target.endpoint, key), PlaceId::key_for_model(target, key))
}

/// How a candidate stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It may be asked.
    Free,
    /// One request may ask it, as the probe.
    HalfOpen,
    /// It is left alone until then, because of that place.
    Aside(Timestamp, PlaceId),
}

/// What a failure came of.
#[derive(Clone, Debug)]
pub struct Blame<'a> {
    /// What was asked.
    pub target: &'a Target,
    /// The key it was asked with.
    pub key: KeyHash,
    /// Its place among the endpoint's keys; `None`: there was none.
    pub index: Option<usize>,
    /// When it was sent.
    pub sent: Timestamp,
    /// It was the probe, and this is its lease.
    pub probe: Option<u64>,
}

impl HealthSnapshot {
    /// The place known as `id`.
    #[must_use]
    pub fn place(&self, id: PlaceId) -> Option<&Place> {
        self.places.get(&id)
    }

    /// How a candidate stands at `now`.
    #[must_use]
    pub fn standing(&self, places: &Places, now: Timestamp) -> Standing {
        let mut worst = Standing::Free;
        for id in [places.endpoint, places.model] {
            worst = worse(worst, self.standing_of(id, now));
        }
        let keys = places.keys.iter().map(|key| self.standing_of_key(*key, now));
        // One good key is enough.
        match keys.min_by_key(|standing| rank(*standing)) {
            Some(best) => worse(worst, best),
            None => worst,
        }
    }

    /// How one key stands, for one model.
    #[must_use]
    pub fn standing_of_key(&self, (everywhere, here): (PlaceId, PlaceId), now: Timestamp) -> Standing {
        worse(self.standing_of(everywhere, now), self.standing_of(here, now))
    }

    /// How one place stands by itself.
    #[must_use]
    pub fn standing_of(&self, id: PlaceId, now: Timestamp) -> Standing {
        let Some(place) = self.places.get(&id) else { return Standing::Free };
        let aside = place.aside.as_ref().map(|aside| aside.until).filter(|until| *until > now);
        let open = match place.breaker.state(now) {
            State::Closed => Standing::Free,
            State::HalfOpen => match place.leased(now) {
                Some(until) => Standing::Aside(until, id),
                None => Standing::HalfOpen,
            },
            State::Open(until) => Standing::Aside(until, id),
        };
        aside.map_or(open, |until| worse(open, Standing::Aside(until, id)))
    }

    /// Takes the probe of a candidate for `lease`, so that nobody else does. `early`: although its time is not over. True
    /// for one that may be asked by everybody, too.
    pub fn probe(&mut self, places: &Places, now: Timestamp, (owner, lease): (u64, Duration), early: bool) -> bool {
        let standing = self.standing(places, now);
        if standing == Standing::Free {
            return true;
        }
        let ids = [places.endpoint, places.model];
        let leased = |id: &PlaceId| self.places.get(id).is_some_and(|place| place.leased(now).is_some());
        if ids.iter().any(leased) || (matches!(standing, Standing::Aside(..)) && !early) {
            return false;
        }
        let until = later(now, lease.min(LONGEST_PROBE));
        for id in ids {
            // A key that is left alone has no probe of its own: its model stands for it.
            let place = self.places.entry(id).or_default();
            place.seen = Some(now);
            if id == places.model || place.breaker.state(now) != State::Closed || place.aside.is_some() {
                place.probe = Some(Lease { owner, until });
            }
        }
        true
    }

    /// The probe has its verdict, or will never have one.
    pub fn give_back(&mut self, target: &Target, owner: u64) {
        for id in [PlaceId::endpoint(&target.endpoint), PlaceId::model(target)] {
            if let Some(place) = self.places.get_mut(&id)
                && place.probe.as_ref().is_some_and(|lease| lease.owner == owner)
            {
                place.probe = None;
            }
        }
    }

    /// An attempt failed. `chance` is in 0..1.
    pub fn failed(&mut self, blame: &Blame<'_>, error: &ApiError, now: Timestamp, chance: f64) {
        let target = blame.target;
        let (endpoint, model) = (PlaceId::endpoint(&target.endpoint), PlaceId::model(target));
        if let Some(owner) = blame.probe {
            self.give_back(target, owner);
        }
        let cooling = cooling(error, now);
        if cooling == Cooling::Nothing {
            return;
        }
        let (id, name) = match cooling {
            Cooling::Unreachable | Cooling::Aside { scope: Scope::Endpoint, .. } => {
                (endpoint, target.endpoint.name.clone())
            }
            Cooling::Aside { scope: Scope::Key, .. } => {
                (PlaceId::key(&target.endpoint, blame.key), key_name(&target.endpoint, blame.index))
            }
            Cooling::Aside { scope: Scope::KeyForModel, .. } => {
                let name = format!("{} with {}", target.id, key_name(&target.endpoint, blame.index));
                (PlaceId::key_for_model(target, blame.key), name)
            }
            Cooling::Counts | Cooling::Aside { scope: Scope::Model, .. } | Cooling::Nothing => {
                (model, target.id.to_string())
            }
        };
        let place = self.at(id, name, now);
        place.error = Some(LastError::of(error, now));
        match cooling {
            Cooling::Unreachable => {
                place.breaker.failed(Rule::ENDPOINT, now, chance);
            }
            Cooling::Aside { asked, first, longest, .. } => {
                let before = place.aside.clone().unwrap_or(Aside { until: Timestamp::MIN, ms: 0, times: 0 });
                let wait = asked.unwrap_or_else(|| (first * 2u32.saturating_pow(before.times.min(8))).min(longest));
                // Requests that were under way together are one occasion.
                let times = before.times.saturating_add(u32::from(before.until <= now));
                let until = later(now, wait);
                let ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
                let longer = before.until >= until;
                place.aside = Some(if longer { Aside { times, ..before } } else { Aside { until, ms, times } });
            }
            Cooling::Counts | Cooling::Nothing => {
                place.breaker.failed(Rule::MODEL, now, chance);
            }
        }
    }

    /// The first delta came: the endpoint and the model are back.
    pub fn began(&mut self, blame: &Blame<'_>, ttft: Option<Duration>, now: Timestamp) {
        let target = blame.target;
        if let Some(owner) = blame.probe {
            self.give_back(target, owner);
        }
        if let Some(endpoint) = self.places.get_mut(&PlaceId::endpoint(&target.endpoint)) {
            endpoint.breaker.ended_well(blame.sent, now);
        }
        let model = self.at(PlaceId::model(target), target.id.to_string(), now);
        model.breaker.began(blame.sent);
        if let Some(ttft) = ttft {
            model.latency.add(ttft, now);
        }
    }

    /// The answer is whole: what its places were blamed for is over.
    pub fn ended_well(&mut self, blame: &Blame<'_>, now: Timestamp) {
        let target = blame.target;
        if let Some(owner) = blame.probe {
            self.give_back(target, owner);
        }
        let model = self.at(PlaceId::model(target), target.id.to_string(), now);
        model.well(blame.sent, now);
        let (everywhere, here) = key_places(target, blame.key);
        for id in [PlaceId::endpoint(&target.endpoint), everywhere, here] {
            if let Some(place) = self.places.get_mut(&id) {
                place.well(blame.sent, now);
            }
        }
    }

    /// Whether an answer of `target` would change what others do.
    #[must_use]
    pub fn is_blamed(&self, target: &Target) -> bool {
        let blamed = |id| self.places.get(&id).is_some_and(|place| !place.breaker.is_clean() || place.aside.is_some());
        blamed(PlaceId::endpoint(&target.endpoint)) || blamed(PlaceId::model(target))
    }

    /// Forgets what is known of these places; how many there were.
    pub fn forget(&mut self, ids: impl IntoIterator<Item = PlaceId>) -> usize {
        ids.into_iter().filter_map(|id| self.places.remove(&id)).count()
    }

    /// Forgets everything; how many places there were.
    pub fn forget_all(&mut self) -> usize {
        std::mem::take(&mut self.places).len()
    }

    /// Makes it fit for keeping: after a jump of the clock nothing lies further ahead than it can, what nobody asked for
    /// long is forgotten, and it stays small.
    pub fn tidy(&mut self, now: Timestamp) {
        for place in self.places.values_mut() {
            place.breaker.clamp(now);
            if let Some(lease) = &mut place.probe {
                lease.until = lease.until.min(later(now, LONGEST_PROBE));
            }
            if let Some(aside) = &mut place.aside {
                aside.until = aside.until.min(later(now, LONGEST_ASIDE.min(Duration::from_millis(aside.ms))));
            }
            place.seen = place.seen.map(|seen| seen.min(now));
        }
        let oldest = now.checked_sub(jiff::SignedDuration::try_from(FORGOTTEN).unwrap_or_default());
        let oldest = oldest.unwrap_or(Timestamp::MIN);
        self.places.retain(|_, place| place.seen.is_some_and(|seen| seen >= oldest));
        self.keep_latest(MOST_PLACES);
    }

    /// Forgets all but so many places, those first that were not heard of for longest; how many are left.
    pub fn keep_latest(&mut self, most: usize) -> usize {
        if self.places.len() > most {
            let mut seen: Vec<(Option<Timestamp>, PlaceId)> =
                self.places.iter().map(|(id, place)| (place.seen, *id)).collect();
            seen.sort_unstable();
            for (_, id) in &seen[..seen.len() - most] {
                self.places.remove(id);
            }
        }
        self.places.len()
    }

    fn at(&mut self, id: PlaceId, name: String, now: Timestamp) -> &mut Place {
        let place = self.places.entry(id).or_default();
        place.name = name;
        place.seen = Some(now);
        place
    }
}

impl Place {
    /// Until when somebody has the right to find out whether it is back.
    fn leased(&self, now: Timestamp) -> Option<Timestamp> {
        self.probe.as_ref().map(|lease| lease.until).filter(|until| *until > now)
    }

    /// A request that was sent then went well.
    fn well(&mut self, sent: Timestamp, now: Timestamp) {
        self.breaker.ended_well(sent, now);
        // What was said after it was sent is newer.
        if self.error.as_ref().is_none_or(|error| error.at <= sent) {
            self.aside = None;
        }
    }
}

/// What a person calls a key whose value nobody sees.
fn key_name(endpoint: &Endpoint, index: Option<usize>) -> String {
    match index {
        None => format!("{} without a key", endpoint.name),
        Some(index) if endpoint.keys.len() > 1 => format!("key {} of {}", index + 1, endpoint.name),
        Some(_) => format!("the key of {}", endpoint.name),
    }
}

fn rank(standing: Standing) -> (u8, Timestamp) {
    match standing {
        Standing::Free => (0, Timestamp::MIN),
        Standing::HalfOpen => (1, Timestamp::MIN),
        Standing::Aside(until, _) => (2, until),
    }
}

fn worse(a: Standing, b: Standing) -> Standing {
    if rank(b) > rank(a) { b } else { a }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        chat::ErrorClass,
        protocol::{RetryAfter, RetryWhen},
        target::testing,
    };

    fn at(seconds: u64) -> Timestamp {
        later("2026-01-01T00:00:00Z".parse().expect("a date"), Duration::from_secs(seconds))
    }

    fn error(class: ErrorClass) -> ApiError {
        ApiError { status: Some(401), ..ApiError::new(class, "no") }
    }

    const KEYS: [KeyHash; 2] = [KeyHash(1), KeyHash(2)];

    fn places(target: &Target) -> Places {
        Places::of(target, &KEYS)
    }

    fn blame(target: &Target, key: usize) -> Blame<'_> {
        Blame { target, key: KEYS[key], index: Some(key), sent: Timestamp::MAX, probe: None }
    }

    const LEASE: Duration = Duration::from_secs(12);

    fn until(snapshot: &HealthSnapshot, target: &Target, now: u64) -> Option<u64> {
        match snapshot.standing(&places(target), at(now)) {
            Standing::Aside(until, _) => Some(u64::try_from(until.duration_since(at(0)).as_secs()).expect("later")),
            _ => None,
        }
    }

    #[test]
    fn a_dead_endpoint_is_left_alone_with_all_its_models() {
        let (mut snapshot, target) = (HealthSnapshot::default(), testing::target("a"));
        let other = Target { upstream: "another".into(), ..target.clone() };
        snapshot.failed(&blame(&target, 0), &error(ErrorClass::Connect), at(0), 0.5);
        assert_eq!(until(&snapshot, &target, 0), None);
        snapshot.failed(&blame(&target, 0), &error(ErrorClass::Connect), at(0), 0.5);
        assert_eq!((until(&snapshot, &target, 0), until(&snapshot, &other, 0)), (Some(5), Some(5)));
        assert_eq!(snapshot.standing(&places(&other), at(5)), Standing::HalfOpen);
        assert!(snapshot.probe(&places(&target), at(5), (1, LEASE), false));
        assert!(!snapshot.probe(&places(&other), at(6), (2, LEASE), true), "one probe at a time");
        assert_eq!(until(&snapshot, &other, 6), Some(17), "who comes meanwhile waits for its verdict");
        snapshot.began(&blame(&target, 0), Some(Duration::from_millis(5)), at(7));
        assert_eq!(snapshot.standing(&places(&other), at(7)), Standing::Free);
    }

    #[test]
    fn a_refused_key_is_left_alone_and_the_other_serves() {
        let (mut snapshot, target) = (HealthSnapshot::default(), testing::target("a"));
        snapshot.failed(&blame(&target, 0), &error(ErrorClass::Auth), at(0), 0.5);
        assert_eq!(until(&snapshot, &target, 0), None);
        let keys = places(&target).keys;
        assert!(matches!(snapshot.standing_of_key(keys[0], at(0)), Standing::Aside(..)));
        assert_eq!(snapshot.standing_of_key(keys[1], at(0)), Standing::Free);
        snapshot.failed(&blame(&target, 1), &error(ErrorClass::Quota), at(10), 0.5);
        assert_eq!(until(&snapshot, &target, 10), Some(600), "until the first of them may be tried again");
    }

    #[test]
    fn a_rate_limit_is_of_one_key_and_one_model_and_doubles() {
        let (mut snapshot, target) = (HealthSnapshot::default(), testing::target("a"));
        let other = Target { upstream: "another".into(), ..target.clone() };
        let mut now = 0;
        for wait in [5, 10, 20, 40, 60, 60] {
            for key in [0, 1] {
                snapshot.failed(&blame(&target, key), &error(ErrorClass::Rate), at(now), 0.5);
            }
            assert_eq!((until(&snapshot, &target, now), until(&snapshot, &other, now)), (Some(now + wait), None));
            now += wait;
        }
        snapshot.ended_well(&blame(&target, 0), at(now));
        snapshot.failed(&blame(&target, 0), &error(ErrorClass::Rate), at(now), 0.5);
        let keys = places(&target).keys;
        assert!(
            matches!(snapshot.standing_of_key(keys[0], at(now)), Standing::Aside(until, _) if until == at(now + 5))
        );
    }

    #[test]
    fn a_service_that_asks_for_time_gets_it() {
        let (mut snapshot, target) = (HealthSnapshot::default(), testing::target("a"));
        let after = RetryAfter { raw: "30".into(), when: RetryWhen::After(Duration::from_secs(30)) };
        let busy = ApiError { retry_after: Some(after), ..error(ErrorClass::Overloaded) };
        snapshot.failed(&blame(&target, 0), &busy, at(0), 0.5);
        assert_eq!(until(&snapshot, &target, 0), Some(30));
        assert_eq!(until(&snapshot, &target, 30), None);
    }

    #[test]
    fn the_callers_own_errors_count_as_nothing_and_give_the_probe_back() {
        let (mut snapshot, target) = (HealthSnapshot::default(), testing::target("a"));
        for _ in 0..9 {
            snapshot.failed(&blame(&target, 0), &error(ErrorClass::Request), at(0), 0.5);
        }
        assert_eq!(snapshot, HealthSnapshot::default());
        for _ in 0..3 {
            snapshot.failed(&blame(&target, 0), &error(ErrorClass::Server), at(0), 0.5);
        }
        let probe =
            |snapshot: &mut HealthSnapshot, owner| snapshot.probe(&places(&target), at(6), (owner, LEASE), false);
        assert!(probe(&mut snapshot, 1) && !probe(&mut snapshot, 2));
        snapshot.failed(&blame(&target, 0), &error(ErrorClass::Context), at(6), 0.5);
        assert!(!probe(&mut snapshot, 2), "somebody else's request is no verdict");
        let own = Blame { probe: Some(1), ..blame(&target, 0) };
        snapshot.failed(&own, &error(ErrorClass::Context), at(6), 0.5);
        assert!(probe(&mut snapshot, 2));
        snapshot.give_back(&target, 2);
        assert!(probe(&mut snapshot, 3));
    }

    #[test]
    fn what_a_service_asked_for_is_probed_by_one_at_a_time_too() {
        let (mut snapshot, target) = (HealthSnapshot::default(), testing::target("a"));
        snapshot.failed(&blame(&target, 0), &error(ErrorClass::Model), at(0), 0.5);
        let early =
            |snapshot: &mut HealthSnapshot, owner| snapshot.probe(&places(&target), at(5), (owner, LEASE), true);
        assert!(early(&mut snapshot, 1) && !early(&mut snapshot, 2));
        let mut keys = HealthSnapshot::default();
        for key in [0, 1] {
            keys.failed(&blame(&target, key), &error(ErrorClass::Quota), at(0), 0.5);
        }
        assert!(early(&mut keys, 1) && !early(&mut keys, 2));
    }

    #[test]
    fn requests_that_failed_together_are_one_occasion_and_the_longest_wait_counts() {
        let (mut snapshot, target) = (HealthSnapshot::default(), testing::target("a"));
        for _ in 0..3 {
            snapshot.failed(&blame(&target, 0), &error(ErrorClass::Rate), at(0), 0.5);
            snapshot.failed(&blame(&target, 1), &error(ErrorClass::Rate), at(0), 0.5);
        }
        assert!(until(&snapshot, &target, 0).is_some_and(|until| until <= 10));
        let mut model = HealthSnapshot::default();
        model.failed(&blame(&target, 0), &error(ErrorClass::Forbidden), at(0), 0.5);
        model.failed(&blame(&target, 0), &error(ErrorClass::Overloaded), at(1), 0.5);
        assert_eq!(until(&model, &target, 1), Some(600));
    }

    #[test]
    fn it_survives_its_file_and_a_clock_that_jumps() {
        let (mut snapshot, target) = (HealthSnapshot::default(), testing::target("a"));
        snapshot.failed(&blame(&target, 0), &error(ErrorClass::Quota), at(1_000_000), 0.5);
        snapshot.began(&blame(&target, 0), Some(Duration::from_millis(1234)), at(1_000_000));
        let text = serde_json::to_string(&snapshot).expect("plain data");
        let mut read: HealthSnapshot = serde_json::from_str(&text).expect("what was written");
        assert_eq!(read, snapshot);
        read.tidy(at(0));
        let keys = places(&target).keys;
        assert!(matches!(read.standing_of_key(keys[0], at(0)), Standing::Aside(until, _) if until == at(600)));
        read.tidy(at(40 * 24 * 3600));
        assert_eq!(read.places.len(), 0);
    }

    #[test]
    fn it_stays_small() {
        let mut snapshot = HealthSnapshot::default();
        for number in 0..1000 {
            let target = Target { upstream: format!("model-{number}"), ..testing::target("a") };
            for _ in 0..20 {
                snapshot.began(&blame(&target, 0), Some(Duration::from_secs(100)), at(number));
                let long = ApiError::new(ErrorClass::Server, "x".repeat(10_000));
                snapshot.failed(&blame(&target, 0), &long, at(number), 0.5);
            }
        }
        snapshot.tidy(at(1000));
        assert_eq!(snapshot.places.len(), MOST_PLACES);
        assert_eq!(snapshot.keep_latest(3), 3);
        assert!(
            snapshot.place(PlaceId::model(&Target { upstream: "model-999".into(), ..testing::target("a") })).is_some()
        );
    }

    proptest::proptest! {
        #[test]
        fn never_two_probes_at_once(steps in proptest::collection::vec((0u64..8, 0u8..8, 0.0f64..1.0), 1..200)) {
            let (mut snapshot, target, mut now) = (HealthSnapshot::default(), testing::target("a"), 0);
            // Who has the probe, and until when.
            let mut held: Option<(u64, u64)> = None;
            for (number, (wait, what, chance)) in (1u64..).zip(steps) {
                now += wait;
                held = held.filter(|(_, until)| *until > now);
                let foreign = Blame { sent: at(now), ..blame(&target, 0) };
                let class = [ErrorClass::Server, ErrorClass::Connect, ErrorClass::Request, ErrorClass::Rate][usize::from(what % 4)];
                match what {
                    0..4 => snapshot.failed(&foreign, &error(class), at(now), chance),
                    4 => if let Some((owner, _)) = held.take() {
                        let own = Blame { probe: Some(owner), ..foreign };
                        snapshot.failed(&own, &error(class), at(now), chance);
                    },
                    _ => {
                        let free = snapshot.standing(&places(&target), at(now)) == Standing::Free;
                        if snapshot.probe(&places(&target), at(now), (number, LEASE), what == 5) && !free {
                            proptest::prop_assert!(held.is_none(), "a second probe");
                            held = Some((number, now + 12));
                        }
                    }
                }
            }
        }
    }
}
