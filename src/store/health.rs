//! What is known of failing services, in a file: `health.json` in the state folder.
//!
//! Owns that processes do not lose each other's news (a lock while one changes it, the file replaced as a whole) and that
//! a broken file costs only what was in it. Refuses the rules: those are `route::health`'s.

use std::{
    fs, io,
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use super::{check_regular, lock_within, replace_lightly};
use crate::routing::health::{HealthError, HealthSnapshot, HealthStore, Updated};

/// No snapshot of ours is as long.
const LONGEST: u64 = 1024 * 1024;
/// How long another process's change is waited for, once: the answer waits, too. Who writes is done in a millisecond.
const PATIENCE: Duration = Duration::from_millis(500);
/// What is written.
const MOST: usize = 64 * 1024;

/// The file.
#[derive(Debug)]
pub struct HealthFile {
    path: PathBuf,
    /// It was waited for in vain, and is not again until it is free.
    held: AtomicBool,
}

impl HealthFile {
    /// The file in this state folder.
    #[must_use]
    pub fn new(state: &std::path::Path) -> Self {
        Self { path: state.join("health.json"), held: AtomicBool::new(false) }
    }

    /// What it holds, as text; `None`: there is no file.
    fn text(&self) -> io::Result<Option<String>> {
        check_regular(&self.path)?;
        match fs::metadata(&self.path) {
            Ok(metadata) if metadata.len() > LONGEST => Err(io::Error::other("it is longer than 1 MiB")),
            Ok(_) => fs::read_to_string(&self.path).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn failed(&self, what: &str, why: impl std::fmt::Display) -> HealthError {
        HealthError(format!("{} {what}: {why}", self.path.display()))
    }
}

impl HealthStore for HealthFile {
    fn read(&self) -> Result<HealthSnapshot, HealthError> {
        let text = self.text().map_err(|error| self.failed("cannot be read", error))?;
        let read = text.map(|text| serde_json::from_str(&text)).transpose();
        read.map(Option::unwrap_or_default).map_err(|error| self.failed("is broken and is begun anew", error))
    }

    fn update(&self, act: &mut dyn FnMut(&mut HealthSnapshot)) -> Result<Updated, HealthError> {
        let unwritable = |error| self.failed("cannot be written", error);
        check_regular(&self.path).map_err(unwritable)?;
        let patience = if self.held.load(Ordering::Relaxed) { Duration::ZERO } else { PATIENCE };
        let _lock = lock_within(&self.path, patience).map_err(|error| {
            self.held.fetch_or(error.kind() == io::ErrorKind::TimedOut, Ordering::Relaxed);
            unwritable(error)
        })?;
        self.held.store(false, Ordering::Relaxed);
        let text = self.text().map_err(|error| self.failed("cannot be read", error))?;
        let read = text.map(|text| serde_json::from_str(&text)).transpose();
        let broken = read.as_ref().err().map(|error| self.failed("was broken and is begun anew", error));
        let before: Option<HealthSnapshot> = read.unwrap_or_default();
        let mut snapshot = before.clone().unwrap_or_default();
        act(&mut snapshot);
        if before.as_ref() != Some(&snapshot) {
            replace_lightly(&self.path, &self.fitting(&mut snapshot)?).map_err(unwritable)?;
        }
        Ok((snapshot, broken))
    }
}

impl HealthFile {
    /// The snapshot as text that every process reads at its start. What is too long for that says less first; then what
    /// matters least has no place in it.
    fn fitting(&self, snapshot: &mut HealthSnapshot) -> Result<String, HealthError> {
        let now = jiff::Timestamp::now();
        let mut words = [30, 0].into_iter();
        loop {
            let text = serde_json::to_string(snapshot).map_err(|error| self.failed("cannot be written", error))?;
            let most = snapshot.keep_latest(usize::MAX, now);
            if text.len() <= MOST || most == 0 {
                return Ok(text);
            }
            match words.next() {
                Some(most) => snapshot.shorten_words(most),
                None => drop(snapshot.keep_latest(most * 3 / 4, now)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::{ErrorClass, target::testing},
        protocol::ApiError,
        routing::health::{Blame, KeyHash, Places, Standing},
    };

    #[test]
    fn two_processes_keep_each_others_news() {
        let folder = tempfile::tempdir().expect("a folder");
        let stores = [HealthFile::new(folder.path()), HealthFile::new(folder.path())];
        let now = jiff::Timestamp::now();
        let targets = ["a", "b"].map(testing::target);
        for (store, target) in stores.iter().zip(&targets) {
            let error = ApiError { status: Some(404), ..ApiError::new(ErrorClass::Model, "no such model") };
            let blame = Blame { target, key: KeyHash::NONE, index: None, sent: now, probe: None };
            store.update(&mut |snapshot| snapshot.failed(&blame, &error, now, 0.5)).expect("writable");
        }
        let known = stores[0].read().expect("readable");
        for target in &targets {
            assert!(matches!(known.standing(&Places::of(target, &[]), now), Standing::Aside(..)), "{}", target.id);
        }
        assert!(!crate::transport::keys::is_exposed(&fs::metadata(folder.path().join("health.json")).expect("there")));
    }

    #[test]
    fn a_broken_file_is_told_of_and_begun_anew() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = HealthFile::new(folder.path());
        assert_eq!(store.read().expect("nothing yet"), HealthSnapshot::default());
        for broken in ["{\"places\": 7}", "{\"theirs\": 7}", "not json", ""] {
            fs::write(folder.path().join("health.json"), broken).expect("writable");
            assert!(store.read().expect_err("broken").to_string().contains("health.json"));
            let (_, told) = store.update(&mut |snapshot| snapshot.salt = "x".into()).expect("it is begun anew");
            assert!(told.expect("it was broken").to_string().contains("begun anew"));
            assert_eq!(store.read().expect("whole").salt, "x");
        }
    }

    #[test]
    fn who_holds_the_lock_is_waited_for_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = HealthFile::new(folder.path());
        let lock = crate::store::lock(&folder.path().join("health.json")).expect("free");
        let told = store.update(&mut |_| panic!("it is another's")).expect_err("held").to_string();
        assert!(told.contains("another process"), "{told}");
        assert!(store.held.load(Ordering::Relaxed), "not waited for again");
        assert_eq!(store.read().expect("nothing yet"), HealthSnapshot::default(), "it can be read all the same");
        drop(lock);
        store.update(&mut |snapshot| snapshot.salt = "x".into()).expect("free");
        assert!(!store.held.load(Ordering::Relaxed), "whoever held it is well again");
    }

    #[test]
    fn a_route_of_a_hundred_that_all_fail_is_kept_whole() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = HealthFile::new(folder.path());
        let now = jiff::Timestamp::now();
        let targets: Vec<_> = (0..100).map(|number| testing::target(&format!("model-{number}"))).collect();
        let known = store.update(&mut |snapshot| {
            for target in &targets {
                let blame = Blame { target, key: KeyHash::NONE, index: None, sent: now, probe: None };
                for class in [ErrorClass::Server, ErrorClass::Server, ErrorClass::Server, ErrorClass::Connect] {
                    snapshot.failed(&blame, &ApiError::new(class, "x".repeat(1000)), now, 0.5);
                }
            }
        });
        let (known, now) = (known.expect("writable").0, jiff::Timestamp::now());
        assert_eq!(known.places().count(), 200);
        let known = store.read().expect("readable");
        for target in &targets {
            assert!(matches!(known.standing(&Places::of(target, &[]), now), Standing::Aside(..)), "{}", target.id);
        }
        let size = fs::metadata(folder.path().join("health.json")).expect("there").len();
        assert!(size <= 64 * 1024, "{size}");
    }

    #[test]
    fn it_stays_small() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = HealthFile::new(folder.path());
        let now = jiff::Timestamp::now();
        for number in 0..60 {
            let update = &mut |snapshot: &mut HealthSnapshot| {
                for model in 0..20 {
                    let target =
                        crate::model::target::Target { upstream: format!("{number}-{model}"), ..testing::target("a") };
                    let blame = Blame { target: &target, key: KeyHash::NONE, index: None, sent: now, probe: None };
                    for _ in 0..20 {
                        let error = ApiError::new(ErrorClass::Server, "x".repeat(1000));
                        snapshot.failed(&blame, &error, now, 0.5);
                        snapshot.began(&blame, Some(std::time::Duration::from_secs(100)), now);
                    }
                }
            };
            store.update(update).expect("writable");
        }
        let size = fs::metadata(folder.path().join("health.json")).expect("there").len();
        assert!(size > 1024 && size <= 64 * 1024, "{size}");
    }
}
