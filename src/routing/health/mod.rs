//! What is known of every place that can be asked: who is left alone, why, and until when.
//!
//! Owns the snapshot that outlives a process, how failures and answers change it, and the probe (one at a time). Pure:
//! `now` and chance are passed in. Refuses I/O: [`HealthStore`] is what keeps a snapshot, on a floor above.
//!
//! Places are known by fingerprints of what they are (address, upstream id, a salted hash of the key), not by the names
//! they have in a config: mending the config forgets the past. It only ever orders candidates; a name that has just one
//! is asked whatever is known of it.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use key::{Aside, Lease, key_name, key_places};
pub use key::{ByPlace, KeyHash, LastError, Place, PlaceId, Places};

use super::{
    breaker::{Rule, State, later},
    classify::{Cooling, Scope, cooling},
};
use crate::{model::target::Target, protocol::ApiError};

mod key;

/// The longest anything is set aside.
const LONGEST_ASIDE: Duration = Duration::from_secs(3600);
/// The longest a probe may take without saying that it goes on: whoever has it may be ended.
pub const LONGEST_PROBE: Duration = Duration::from_secs(60);
/// A place nobody asked for so long is forgotten.
const FORGOTTEN: Duration = Duration::from_secs(30 * 24 * 3600);
/// More places than this are no person's config.
const MOST_PLACES: usize = 256;

/// Everything known, and the salt of the keys' hashes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HealthSnapshot {
    /// What the keys are hashed with; empty until the first is.
    pub salt: String,
    places: ByPlace<Place>,
}

/// Keeps a snapshot for the next process, and for those at work now.
pub trait HealthStore: Send + Sync {
    /// The snapshot as it is; an empty one when there is none.
    ///
    /// # Errors
    /// When it cannot be read.
    fn read(&self) -> Result<HealthSnapshot, HealthError>;

    /// Changes the snapshot while nobody else can; what it is afterwards, and what was wrong with the one before, if it had to
    /// be begun anew.
    ///
    /// # Errors
    /// When it cannot be read or written; `act` may have been called.
    fn update(&self, act: &mut dyn FnMut(&mut HealthSnapshot)) -> Result<Updated, HealthError>;
}

/// A snapshot after a change, and what was wrong before.
pub type Updated = (HealthSnapshot, Option<HealthError>);

/// A snapshot that could not be read or written.
#[derive(Clone, Debug, thiserror::Error)]
#[error("what is known of failing services could not be kept: {0}")]
pub struct HealthError(pub String);

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

    /// Every place, in no order.
    pub fn places(&self) -> impl Iterator<Item = (PlaceId, &Place)> {
        self.places.iter().map(|(id, place)| (*id, place))
    }

    /// How a candidate stands at `now`.
    #[must_use]
    pub fn standing(&self, places: &Places, now: Timestamp) -> Standing {
        let worst = self.standing_of_all(&[places.endpoint, places.model], now);
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
        self.standing_of_all(&[everywhere, here], now)
    }

    /// How the one of these places stands that stands worst.
    #[must_use]
    pub fn standing_of_all(&self, ids: &[PlaceId], now: Timestamp) -> Standing {
        ids.iter().fold(Standing::Free, |worst, id| worse(worst, self.standing_of(*id, now)))
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
        if self.probed(places, now).is_some() || (matches!(standing, Standing::Aside(..)) && !early) {
            return false;
        }
        let until = later(now, lease.min(LONGEST_PROBE));
        if let Some(endpoint) = self.places.get_mut(&places.endpoint)
            && (endpoint.breaker.state(now) != State::Closed || endpoint.is_aside(now))
        {
            endpoint.probe = Some(Lease { owner, until });
        }
        // A key that is left alone has no probe of its own: its model stands for it.
        let model = self.places.entry(places.model).or_default();
        model.seen = Some(now);
        model.probe = Some(Lease { owner, until });
        true
    }

    /// Until when somebody has the right to find out whether a candidate is back.
    #[must_use]
    pub fn probed(&self, places: &Places, now: Timestamp) -> Option<Timestamp> {
        let leased = |id: PlaceId| self.places.get(&id).and_then(|place| place.leased(now));
        leased(places.endpoint).max(leased(places.model))
    }

    /// The probe of `owner` takes longer: nobody else is to begin one for another `lease`.
    pub fn renew(&mut self, target: &Target, now: Timestamp, (owner, lease): (u64, Duration)) {
        for id in [PlaceId::endpoint(&target.endpoint), PlaceId::model(target)] {
            let held = self.places.get_mut(&id).and_then(|place| place.probe.as_mut());
            if let Some(held) = held.filter(|held| held.owner == owner) {
                held.until = later(now, lease.min(LONGEST_PROBE));
            }
        }
    }

    /// Whether the probe of `owner` has no verdict yet.
    #[must_use]
    pub fn is_held(&self, target: &Target, owner: u64) -> bool {
        let held = |id| self.places.get(&id).and_then(|place| place.probe.as_ref());
        let ids = [PlaceId::endpoint(&target.endpoint), PlaceId::model(target)];
        ids.into_iter().filter_map(held).any(|lease| lease.owner == owner)
    }

    /// The probe has its verdict, or will never have one.
    pub fn give_back(&mut self, target: &Target, owner: u64) {
        for id in [PlaceId::endpoint(&target.endpoint), PlaceId::model(target)] {
            if let Some(place) = self.places.get_mut(&id)
                && place.probe.as_ref().is_some_and(|lease| lease.owner == owner)
            {
                place.probe = None;
                // Nothing but the probe was known of it.
                if *place == (Place { seen: place.seen, ..Place::default() }) {
                    self.places.remove(&id);
                }
            }
        }
    }

    /// Whether a failure says anything of whom was asked.
    #[must_use]
    pub fn heeds(error: &ApiError, now: Timestamp) -> bool {
        cooling(error, now) != Cooling::Nothing
    }

    /// An attempt failed. `chance` is in 0..1. A probe keeps its right: another key may be the next it tries.
    pub fn failed(&mut self, blame: &Blame<'_>, error: &ApiError, now: Timestamp, chance: f64) {
        let target = blame.target;
        let (endpoint, model) = (PlaceId::endpoint(&target.endpoint), PlaceId::model(target));
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
                // So that the model is known, too.
                self.at(model, target.id.to_string(), now);
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
                place.breaker.failed(Rule::ENDPOINT, blame.sent, now, chance);
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
                place.breaker.failed(Rule::MODEL, blame.sent, now, chance);
            }
        }
    }

    /// The first delta came: the endpoint, the model and the key are back.
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
        let (everywhere, here) = key_places(target, blame.key);
        for id in [PlaceId::endpoint(&target.endpoint), PlaceId::model(target), everywhere, here] {
            if let Some(place) = self.places.get_mut(&id) {
                place.answered(blame.sent, now);
            }
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

    /// Whether an answer would change what others do.
    #[must_use]
    pub fn is_blamed(&self, blame: &Blame<'_>) -> bool {
        let (everywhere, here) = key_places(blame.target, blame.key);
        let ids = [PlaceId::endpoint(&blame.target.endpoint), PlaceId::model(blame.target), everywhere, here];
        let blamed = |place: &Place| !place.breaker.is_clean() || place.aside.is_some();
        ids.iter().filter_map(|id| self.places.get(id)).any(blamed)
    }

    /// Forgets what is known of these places; how many there were.
    pub fn forget(&mut self, ids: impl IntoIterator<Item = PlaceId>) -> usize {
        ids.into_iter().filter_map(|id| self.places.remove(&id)).count()
    }

    /// Forgets everything; how many places there were.
    pub fn forget_all(&mut self) -> usize {
        std::mem::take(&mut self.places).len()
    }

    /// Forgets what services said before then, but not that they failed.
    pub fn forget_words(&mut self, before: Timestamp) {
        for error in self.places.values_mut().filter_map(|place| place.error.as_mut()) {
            if error.at < before {
                error.message.clear();
            }
        }
    }

    /// Makes it fit for keeping: after a jump of the clock nothing lies further ahead than it can, what nobody asked for
    /// long is forgotten, and it stays small.
    pub fn tidy(&mut self, now: Timestamp) {
        for place in self.places.values_mut() {
            place.breaker.clamp(now);
            place.latency.mend();
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
        self.keep_latest(MOST_PLACES, now);
    }

    /// Says less of why places failed, so that more of them can be kept.
    pub fn shorten_words(&mut self, most: usize) {
        for error in self.places.values_mut().filter_map(|place| place.error.as_mut()) {
            if let Some((at, _)) = error.message.char_indices().nth(most) {
                error.message.truncate(at);
            }
        }
    }

    /// Forgets all but so many places: first those that nobody is kept from asking, and of them those that were not heard
    /// of for longest; how many are left.
    pub fn keep_latest(&mut self, most: usize, now: Timestamp) -> usize {
        if self.places.len() > most {
            let mut seen: Vec<(bool, Option<Timestamp>, PlaceId)> =
                self.places.iter().map(|(id, place)| (place.keeps_off(now), place.seen, *id)).collect();
            seen.sort_unstable();
            for (_, _, id) in &seen[..seen.len() - most] {
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
mod tests;
