//! What this process knows of failing services, and shares with others.
//!
//! Owns the snapshot in memory, when it is read from the store and written back: a failure and a recovery at once, so
//! that others know; what only makes figures better (how fast an answer began) when the command is over. A store that
//! fails costs the memory, never the answer. Refuses the rules: those are `route::health`'s.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use jiff::Timestamp;
use tokio::{
    sync::Notify,
    time::{Instant, sleep},
};

use crate::{
    model::{
        ErrorClass,
        target::{Target, TargetId},
    },
    protocol::ApiError,
    routing::health::{Blame, ByPlace, HealthError, HealthSnapshot, HealthStore, KeyHash, PlaceId, Places, Standing},
    transport::keys::KeyRing,
};

mod probe;

pub(super) use probe::Probe;

/// How often a verdict that another process awaits is looked for.
const LOOK: Duration = Duration::from_millis(200);

/// One request, as far as it says something about whom it asked.
#[derive(Clone)]
pub(super) struct Sent {
    pub(super) target: Arc<Target>,
    /// The key's place among its endpoint's; `None`: there was none.
    pub(super) key: Option<usize>,
    pub(super) at: Timestamp,
    /// It is the probe.
    pub(super) probe: Option<u64>,
}

/// The snapshot, and what is to be added to it.
pub(super) struct Health {
    known: Mutex<Known>,
    store: Option<Arc<dyn HealthStore>>,
    /// For how long what services say is kept.
    words: Duration,
    /// This process lives on after one request.
    resident: bool,
    changed: Notify,
    /// The wall clock when this was made, and the other clock at that time: within a process time never jumps.
    epoch: (Timestamp, Instant),
}

#[derive(Default)]
struct Known {
    snapshot: HealthSnapshot,
    read: bool,
    /// Answers not yet written down.
    learned: Vec<Learned>,
    trouble: Option<HealthError>,
    /// What was learned could not be written: what is in the store is not all that is known.
    alone: bool,
    /// Requests under way, by model.
    busy: ByPlace<usize>,
    /// The places of targets, by where those are in memory: a key's file is not read for every request.
    placed: HashMap<usize, (Arc<Target>, Places)>,
    /// How often each began to be left alone.
    openings: HashMap<TargetId, u64>,
    /// The salt that the keys of `placed` are hashed with.
    salted: String,
}

/// What is known of one candidate.
pub(super) struct Seen {
    pub(super) standing: Standing,
    /// Requests of this process under way.
    pub(super) busy: usize,
    pub(super) latency: Option<f64>,
}

/// More targets than this are of configs that are gone.
const MOST_PLACED: usize = 1024;

/// Something good, or nothing, that came of a request.
struct Learned {
    sent: Sent,
    what: Good,
    at: Timestamp,
}

enum Good {
    Began(Option<Duration>),
    Ended,
    /// The lane was over before the probe had a verdict.
    GaveBack,
}

/// When somebody who is left alone is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Turn {
    /// It is not left alone any more.
    Free,
    /// Then, as the probe.
    Due(Timestamp),
    /// Somebody else finds out, until then at most.
    Probed(Timestamp),
}

/// So many are written down while a process goes on.
const MOST_LEARNED: usize = 256;

/// A request under way; over when dropped.
pub(super) struct Busy(Arc<super::Engine>, PlaceId);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.health.with(|known| {
            if let Some(count) = known.busy.get_mut(&self.1) {
                *count = count.saturating_sub(1);
            }
        });
    }
}

impl Health {
    pub(super) fn new(store: Option<Arc<dyn HealthStore>>, words: Duration) -> Self {
        let epoch = (Timestamp::now(), Instant::now());
        Self { known: Mutex::default(), store, words, resident: false, changed: Notify::new(), epoch }
    }

    /// In a process that lives on.
    pub(super) fn resident(self) -> Self {
        Self { resident: true, ..self }
    }

    /// The time, as the record has it.
    pub(super) fn now(&self) -> Timestamp {
        self.at(Instant::now())
    }

    /// A moment of this process, as the record has it.
    pub(super) fn at(&self, moment: Instant) -> Timestamp {
        let passed = moment.saturating_duration_since(self.epoch.1);
        self.epoch.0.checked_add(passed).unwrap_or(Timestamp::MAX)
    }

    /// Reads what others have learned, the first time.
    pub(super) fn read(&self, keys: &KeyRing) {
        let unread = self.with(|known| !std::mem::replace(&mut known.read, true));
        if unread {
            self.read_again(keys);
        }
    }

    fn read_again(&self, keys: &KeyRing) {
        let Some(store) = self.store.as_ref().filter(|_| !self.with(|known| known.alone)) else { return };
        let read = store.read();
        self.with(|known| match read {
            Ok(mut snapshot) => {
                snapshot.tidy(self.now());
                // What is not written down yet is no less known for that.
                for learned in &known.learned {
                    apply(&mut snapshot, learned, keys);
                }
                known.snapshot = snapshot;
            }
            Err(error) => known.trouble = Some(error),
        });
    }

    /// The places of candidates, in their order.
    pub(super) fn places(&self, targets: &[Arc<Target>], keys: &KeyRing) -> Vec<Places> {
        self.with(|known| {
            if known.salted != known.snapshot.salt || known.placed.len() > MOST_PLACED {
                known.placed.clear();
                known.salted.clone_from(&known.snapshot.salt);
            }
            targets.iter().map(|target| known.places_of(target, keys)).collect()
        })
    }

    /// What is known of candidates, in their order.
    pub(super) fn seen<'p>(&self, candidates: impl Iterator<Item = &'p Places>) -> Vec<Seen> {
        let now = self.now();
        self.with(|known| {
            let seen = |places: &Places| Seen {
                standing: known.snapshot.standing(places, now),
                busy: known.busy.get(&places.model).copied().unwrap_or_default(),
                latency: known.snapshot.place(places.model).and_then(|place| place.latency.average()),
            };
            candidates.map(seen).collect()
        })
    }

    pub(super) fn standing(&self, places: &Places) -> Standing {
        let now = self.now();
        self.with(|known| known.snapshot.standing(places, now))
    }

    /// When a candidate that is left alone may be asked all the same: when its time is over, or `early` after its last failure.
    pub(super) fn turn(&self, places: &Places, early: Duration) -> Turn {
        let now = self.now();
        self.with(|known| match (known.snapshot.standing(places, now), known.snapshot.probed(places, now)) {
            (Standing::Free, _) => Turn::Free,
            (_, Some(until)) => Turn::Probed(until),
            (Standing::HalfOpen, None) => Turn::Due(now),
            (Standing::Aside(until, place), None) => {
                let failed = known.snapshot.place(place).and_then(|place| place.error.as_ref()).map(|error| error.at);
                let early = failed.and_then(|failed| failed.checked_add(early).ok());
                Turn::Due(early.map_or(until, |early| early.min(until)).max(now))
            }
        })
    }

    /// How often `target` began to be left alone.
    pub(super) fn openings(&self, target: &TargetId) -> u64 {
        self.with(|known| known.openings.get(target).copied().unwrap_or_default())
    }

    /// How each key of a candidate stands.
    pub(super) fn standing_of_keys(&self, places: &Places) -> Vec<Standing> {
        let now = self.now();
        self.with(|known| places.keys.iter().map(|key| known.snapshot.standing_of_key(*key, now)).collect())
    }

    /// Looks at the whole snapshot.
    pub(super) fn look<T>(&self, look: impl FnOnce(&HealthSnapshot) -> T) -> T {
        self.with(|known| look(&known.snapshot))
    }

    /// Waits until something may have changed, here or in another process, and at most for `limit`.
    pub(super) async fn news(&self, limit: Duration, keys: &KeyRing) {
        tokio::select! {
            () = self.changed.notified() => {}
            () = sleep(LOOK.min(limit)) => self.read_again(keys),
        }
    }

    /// An attempt failed.
    pub(super) fn failed(&self, sent: &Sent, keys: &KeyRing, error: &ApiError, chance: f64) {
        let now = self.now();
        // What is the caller's own fault says nothing of anybody, and is not worth a look at the file.
        if !HealthSnapshot::heeds(error, now) {
            return;
        }
        // Where nobody was reached, the words are the system's.
        let kept = !self.words.is_zero() || error.class == ErrorClass::Connect;
        let wordless = (!kept).then(|| ApiError { message: String::new(), ..error.clone() });
        let error = wordless.as_ref().unwrap_or(error);
        let aside = |health: &Self| {
            let places = health.places(std::slice::from_ref(&sent.target), keys);
            matches!(health.standing(&places[0]), Standing::Aside(..))
        };
        let before = aside(self);
        self.change(keys, |snapshot| {
            let blame = blame(snapshot, sent, keys);
            snapshot.failed(&blame, error, now, chance);
        });
        if !before && aside(self) {
            self.with(|known| {
                // Clients may make up names.
                if known.openings.len() < MOST_PLACED || known.openings.contains_key(&sent.target.id) {
                    *known.openings.entry(sent.target.id.clone()).or_default() += 1;
                }
            });
        }
    }

    /// An answer began.
    pub(super) fn began(&self, sent: Sent, ttft: Option<Duration>, keys: &KeyRing) {
        self.learn(sent, keys, Good::Began(ttft));
    }

    /// An answer is whole.
    pub(super) fn ended_well(&self, sent: Sent, keys: &KeyRing) {
        self.learn(sent, keys, Good::Ended);
    }

    fn learn(&self, sent: Sent, keys: &KeyRing, what: Good) {
        let learned = Learned { at: self.now(), sent, what };
        let news = self.with(|known| {
            let news = match (&learned.what, learned.sent.probe) {
                // With a verdict there is nothing left to give back.
                (Good::GaveBack, Some(owner)) if !known.snapshot.is_held(&learned.sent.target, owner) => return false,
                (Good::GaveBack, _) => true,
                _ => {
                    let blame = blame(&mut known.snapshot, &learned.sent, keys);
                    known.snapshot.is_blamed(&blame)
                }
            };
            apply(&mut known.snapshot, &learned, keys);
            known.learned.push(learned);
            let many = known.learned.len() >= MOST_LEARNED;
            // Who lives on writes such things down by and by, where nobody waits for it.
            if many && self.resident {
                known.learned.drain(..MOST_LEARNED / 2);
            }
            news || many && !self.resident
        });
        self.changed.notify_waiters();
        if news && let Some(trouble) = self.write(keys) {
            self.with(|known| known.trouble = Some(trouble));
        }
    }

    /// Writes down what was learned; what kept that from being done.
    pub(super) fn write(&self, keys: &KeyRing) -> Option<HealthError> {
        if let Some(store) = &self.store
            && self.with(|known| !known.learned.is_empty())
        {
            self.update(&**store, keys, &mut |_| {});
        }
        self.with(|known| known.trouble.take())
    }

    /// Changes the snapshot, here and in the store.
    fn change<T>(&self, keys: &KeyRing, mut act: impl FnMut(&mut HealthSnapshot) -> T) -> T {
        let mut done = None;
        let written = match &self.store {
            Some(store) => self.update(&**store, keys, &mut |snapshot| done = Some(act(snapshot))),
            None => false,
        };
        let done = match done {
            Some(done) if written => done,
            // Nobody else can know, but this process does.
            _ => self.with(|known| act(&mut known.snapshot)),
        };
        self.changed.notify_waiters();
        done
    }

    /// Writes what was learned, and after it what `act` changes; whether that went well.
    fn update(&self, store: &dyn HealthStore, keys: &KeyRing, act: &mut dyn FnMut(&mut HealthSnapshot)) -> bool {
        let (now, learned) = (self.now(), self.with(|known| std::mem::take(&mut known.learned)));
        // What others keep is theirs to forget.
        let oldest = Some(self.words).filter(|words| !words.is_zero()).and_then(|words| now.checked_sub(words).ok());
        let written = store.update(&mut |snapshot| {
            snapshot.tidy(now);
            snapshot.forget_words(oldest.unwrap_or(Timestamp::MIN));
            for learned in &learned {
                apply(snapshot, learned, keys);
            }
            act(snapshot);
        });
        let well = written.is_ok();
        self.with(|known| {
            known.alone = !well;
            match written {
                Ok((snapshot, trouble)) => {
                    known.snapshot = snapshot;
                    known.trouble = trouble.or(known.trouble.take());
                }
                Err(error) => {
                    // For the next time.
                    known.learned.splice(0..0, learned);
                    known.learned.truncate(MOST_LEARNED);
                    known.trouble = Some(error);
                }
            }
        });
        self.changed.notify_waiters();
        well
    }

    /// Notes a request to the model.
    pub(super) fn busy(engine: &Arc<super::Engine>, model: PlaceId) -> Busy {
        engine.health.with(|known| *known.busy.entry(model).or_default() += 1);
        Busy(Arc::clone(engine), model)
    }

    fn with<T>(&self, act: impl FnOnce(&mut Known) -> T) -> T {
        act(&mut self.known.lock().expect("no code panics while it holds this lock"))
    }
}

impl Known {
    fn places_of(&mut self, target: &Arc<Target>, keys: &KeyRing) -> Places {
        let at = Arc::as_ptr(target).addr();
        if let Some((_, places)) = self.placed.get(&at) {
            return places.clone();
        }
        let hash = |key| keys.hash(key, &self.snapshot.salt).map_or(KeyHash::NONE, KeyHash);
        let hashes: Vec<KeyHash> = target.endpoint.keys.iter().map(hash).collect();
        let places = Places::of(target, &hashes);
        // Without a salt nothing is known of any key yet, and the hash is not the one that will be.
        if !self.salted.is_empty() {
            self.placed.insert(at, (Arc::clone(target), places.clone()));
        }
        places
    }
}

fn blame<'t>(snapshot: &mut HealthSnapshot, sent: &'t Sent, keys: &KeyRing) -> Blame<'t> {
    if snapshot.salt.is_empty() && sent.key.is_some() {
        snapshot.salt = format!("{:032x}", fastrand::u128(..));
    }
    let source = sent.key.and_then(|index| sent.target.endpoint.keys.get(index));
    let hash = source.and_then(|key| keys.hash(key, &snapshot.salt));
    let key = hash.map_or(KeyHash::NONE, KeyHash);
    Blame { target: &sent.target, key, index: sent.key, sent: sent.at, probe: sent.probe }
}

fn apply(snapshot: &mut HealthSnapshot, learned: &Learned, keys: &KeyRing) {
    if let (Good::GaveBack, Some(owner)) = (&learned.what, learned.sent.probe) {
        return snapshot.give_back(&learned.sent.target, owner);
    }
    let blame = blame(snapshot, &learned.sent, keys);
    match learned.what {
        Good::Began(ttft) => snapshot.began(&blame, ttft, learned.at),
        Good::Ended => snapshot.ended_well(&blame, learned.at),
        Good::GaveBack => {}
    }
}
