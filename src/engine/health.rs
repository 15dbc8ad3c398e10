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
    keys::KeyRing,
    protocol::ApiError,
    route::health::{Blame, HealthError, HealthSnapshot, HealthStore, KeyHash, PlaceId, Places, Standing},
    target::Target,
};

/// How often a verdict that another process awaits is looked for.
const LOOK: Duration = Duration::from_millis(200);

/// A key and its place among its endpoint's.
pub(super) type UsedKey = Option<usize>;

/// The snapshot, and what is to be added to it.
pub(super) struct Health {
    known: Mutex<Known>,
    store: Option<Arc<dyn HealthStore>>,
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
    /// Requests under way, by model.
    busy: HashMap<PlaceId, usize>,
}

/// A good answer.
struct Learned {
    target: Arc<Target>,
    key: UsedKey,
    what: Good,
    at: Timestamp,
}

enum Good {
    Began(Option<Duration>),
    Ended,
}

/// A request under way; over when dropped.
pub(super) struct Busy<'a>(&'a Health, PlaceId);

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.with(|known| {
            if let Some(count) = known.busy.get_mut(&self.1) {
                *count = count.saturating_sub(1);
            }
        });
    }
}

impl Health {
    pub(super) fn new(store: Option<Arc<dyn HealthStore>>) -> Self {
        let epoch = (Timestamp::now(), Instant::now());
        Self { known: Mutex::default(), store, changed: Notify::new(), epoch }
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
    pub(super) fn read(&self) {
        let unread = self.with(|known| !std::mem::replace(&mut known.read, true));
        if unread {
            self.read_again();
        }
    }

    fn read_again(&self) {
        let Some(store) = &self.store else { return };
        let read = store.read();
        self.with(|known| match read {
            Ok(mut snapshot) => {
                snapshot.tidy(self.now());
                known.snapshot = snapshot;
            }
            Err(error) => known.trouble = Some(error),
        });
    }

    /// The places of a candidate.
    pub(super) fn places(&self, target: &Target, keys: &KeyRing) -> Places {
        let salt = self.with(|known| known.snapshot.salt.clone());
        let hash = |key| keys.hash(key, &salt).map_or(KeyHash::NONE, KeyHash);
        let hashes: Vec<_> = target.endpoint.keys.iter().map(hash).collect();
        Places::of(target, &hashes)
    }

    pub(super) fn standing(&self, places: &Places) -> Standing {
        let now = self.now();
        self.with(|known| known.snapshot.standing(places, now))
    }

    /// When a candidate that is left alone may be asked all the same: when its time is over, or `early` after its last failure.
    pub(super) fn retry_at(&self, places: &Places, early: Duration) -> Timestamp {
        let now = self.now();
        self.with(|known| match known.snapshot.standing(places, now) {
            Standing::Aside(until, place) => {
                let failed = known.snapshot.place(place).and_then(|place| place.error.as_ref()).map(|error| error.at);
                let early = failed.and_then(|failed| failed.checked_add(early).ok());
                early.map_or(until, |early| early.min(until)).max(now)
            }
            Standing::Free | Standing::HalfOpen => now,
        })
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

    /// Takes the probe of a candidate.
    pub(super) fn probe(&self, places: &Places, lease: Duration, early: bool) -> bool {
        let now = self.now();
        self.change(|snapshot| snapshot.probe(places, now, lease, early))
    }

    /// Waits until somebody else's probe has a verdict, or `limit` has passed; how the candidate stands then.
    pub(super) async fn verdict(&self, places: &Places, limit: Duration) -> Standing {
        let begun = Instant::now();
        loop {
            let standing = self.standing(places);
            if !matches!(standing, Standing::Aside(..)) || begun.elapsed() >= limit {
                return standing;
            }
            tokio::select! {
                () = self.changed.notified() => {}
                () = sleep(LOOK) => self.read_again(),
            }
        }
    }

    /// An attempt failed.
    pub(super) fn failed(&self, target: &Target, key: UsedKey, keys: &KeyRing, error: &ApiError, chance: f64) {
        let now = self.now();
        self.change(|snapshot| {
            let blame = blame(snapshot, target, key, keys);
            snapshot.failed(&blame, error, now, chance);
        });
    }

    /// An answer began.
    pub(super) fn began(&self, target: &Arc<Target>, ttft: Option<Duration>, keys: &KeyRing) {
        self.learn(target, None, keys, Good::Began(ttft));
    }

    /// An answer is whole.
    pub(super) fn ended_well(&self, target: &Arc<Target>, key: UsedKey, keys: &KeyRing) {
        self.learn(target, key, keys, Good::Ended);
    }

    fn learn(&self, target: &Arc<Target>, key: UsedKey, keys: &KeyRing, what: Good) {
        let learned = Learned { target: Arc::clone(target), key, what, at: self.now() };
        let news = self.with(|known| {
            let news = known.snapshot.is_blamed(target);
            apply(&mut known.snapshot, &learned, keys);
            known.learned.push(learned);
            news
        });
        if news {
            self.write(keys);
        }
    }

    /// Writes down what was learned; what kept that from being done.
    pub(super) fn write(&self, keys: &KeyRing) -> Option<HealthError> {
        if let Some(store) = &self.store {
            let learned = self.with(|known| std::mem::take(&mut known.learned));
            if !learned.is_empty() {
                let now = self.now();
                let written = store.update(&mut |snapshot| {
                    snapshot.tidy(now);
                    for learned in &learned {
                        apply(snapshot, learned, keys);
                    }
                });
                self.take_over(written);
            }
        }
        self.with(|known| known.trouble.take())
    }

    /// Changes the snapshot, here and in the store.
    fn change<T>(&self, mut act: impl FnMut(&mut HealthSnapshot) -> T) -> T {
        let now = self.now();
        let Some(store) = &self.store else {
            let done = self.with(|known| act(&mut known.snapshot));
            self.changed.notify_waiters();
            return done;
        };
        let mut done = None;
        let written = store.update(&mut |snapshot| {
            snapshot.tidy(now);
            done = Some(act(snapshot));
        });
        let failed = written.is_err();
        self.take_over(written);
        match done {
            Some(done) if !failed => done,
            // Nobody else can know, but this process does.
            _ => self.with(|known| act(&mut known.snapshot)),
        }
    }

    fn take_over(&self, written: Result<HealthSnapshot, HealthError>) {
        self.with(|known| match written {
            Ok(snapshot) => known.snapshot = snapshot,
            Err(error) => known.trouble = Some(error),
        });
        self.changed.notify_waiters();
    }

    /// How many requests to the model are under way.
    pub(super) fn busy_with(&self, model: PlaceId) -> usize {
        self.with(|known| known.busy.get(&model).copied().unwrap_or_default())
    }

    /// Notes a request to the model.
    pub(super) fn busy(&self, model: PlaceId) -> Busy<'_> {
        self.with(|known| *known.busy.entry(model).or_default() += 1);
        Busy(self, model)
    }

    fn with<T>(&self, act: impl FnOnce(&mut Known) -> T) -> T {
        act(&mut self.known.lock().expect("no code panics while it holds this lock"))
    }
}

fn blame<'t>(snapshot: &mut HealthSnapshot, target: &'t Target, key: UsedKey, keys: &KeyRing) -> Blame<'t> {
    if snapshot.salt.is_empty() && key.is_some() {
        snapshot.salt = format!("{:032x}", fastrand::u128(..));
    }
    let hash = key.and_then(|index| keys.hash(target.endpoint.keys.get(index)?, &snapshot.salt));
    Blame { target, key: hash.map_or(KeyHash::NONE, KeyHash), index: key }
}

fn apply(snapshot: &mut HealthSnapshot, learned: &Learned, keys: &KeyRing) {
    match learned.what {
        Good::Began(ttft) => snapshot.began(&learned.target, ttft, learned.at),
        Good::Ended => {
            let blame = blame(snapshot, &learned.target, learned.key, keys);
            snapshot.ended_well(&blame, learned.at);
        }
    }
}
