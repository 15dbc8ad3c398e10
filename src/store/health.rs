//! Stores the health of endpoints, models and keys in `health.json` in the state folder.
//!
//! Updates are made under a file lock and replace the file atomically, so that concurrent processes do not lose each
//! other's changes. An invalid file is reset. The health rules are in `routing::health`.

use std::{
    fs, io,
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use super::{check_regular, health_migration::read_old_format, lock_with_timeout, write_atomic_unsynced};

use crate::{
    model::describe_error,
    routing::health::{HealthError, HealthSnapshot, HealthStore, HealthUpdate},
};

/// Larger files are rejected: mmchat never writes one.
const MAX_READ_SIZE: u64 = 1024 * 1024;
/// Maximum wait for the lock of the file. The user's answer is delayed meanwhile, so after one timeout further updates do
/// not wait. An update takes about 1 ms.
const LOCK_TIMEOUT: Duration = Duration::from_millis(500);
/// The maximum size of a written file, in bytes.
const MAX_WRITE_SIZE: usize = 96 * 1024;

/// A [`HealthStore`] in a JSON file.
#[derive(Debug)]
pub(crate) struct HealthFile {
    path: PathBuf,
    /// The last wait for the lock timed out; then updates try once without waiting, until one acquires the lock.
    lock_timed_out: AtomicBool,
}

impl HealthFile {
    /// Uses `health.json` in the state folder `state`.
    #[must_use]
    pub(crate) fn new(state: &std::path::Path) -> Self {
        Self { path: state.join("health.json"), lock_timed_out: AtomicBool::new(false) }
    }

    /// The copy of a file of an earlier version.
    fn copy_path(&self) -> PathBuf {
        self.path.with_extension("old.json")
    }

    /// Removes the copy that was made before the file was migrated: its error texts may quote prompts.
    pub(crate) fn remove_copy(&self) -> Result<(), HealthError> {
        match fs::remove_file(self.copy_path()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(self.health_error("cannot remove the copy of", error))
            }
            _ => Ok(()),
        }
    }

    /// The text of the file; `None` if it does not exist.
    fn read_text(&self) -> io::Result<Option<String>> {
        check_regular(&self.path)?;
        match fs::metadata(&self.path) {
            Ok(metadata) if metadata.len() > MAX_READ_SIZE => Err(io::Error::other("larger than 1 MiB")),
            Ok(_) => fs::read_to_string(&self.path).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The error of a file that is not valid, without the terms of the parser.
    fn parse_error(&self, action: &str, error: &serde_json::Error) -> HealthError {
        self.health_error(action, format_args!("invalid contents at line {}, column {}", error.line(), error.column()))
    }

    fn health_error(&self, action: &str, error: impl std::fmt::Display) -> HealthError {
        HealthError(format!("{action} the health file {}: {}", self.path.display(), describe_error(&error)))
    }
}

/// Parses a health file of this or an earlier version.
fn parse(text: &str) -> Result<HealthSnapshot, serde_json::Error> {
    serde_json::from_str(text).or_else(|error| read_old_format(text).ok_or(error))
}

impl HealthStore for HealthFile {
    fn read(&self) -> Result<HealthSnapshot, HealthError> {
        let text = self.read_text().map_err(|error| self.health_error("cannot read", error))?;
        let read = text.as_deref().map(parse).transpose();
        read.map(Option::unwrap_or_default).map_err(|error| self.parse_error("cannot use", &error))
    }

    fn update(&self, act: &mut dyn FnMut(&mut HealthSnapshot)) -> Result<HealthUpdate, HealthError> {
        let write_error = |error| self.health_error("cannot write", error);
        check_regular(&self.path).map_err(write_error)?;
        let timeout = if self.lock_timed_out.load(Ordering::Relaxed) { Duration::ZERO } else { LOCK_TIMEOUT };
        let _lock = lock_with_timeout(&self.path, timeout).map_err(|error| {
            self.lock_timed_out.fetch_or(error.kind() == io::ErrorKind::TimedOut, Ordering::Relaxed);
            write_error(error)
        })?;
        self.lock_timed_out.store(false, Ordering::Relaxed);
        let text = self.read_text().map_err(|error| self.health_error("cannot read", error))?;
        let read = text.as_deref().map(parse).transpose();
        let parse_error = read.as_ref().err().map(|error| self.parse_error("replaced", error));
        let previous: Option<HealthSnapshot> = read.unwrap_or_default();
        let mut snapshot = previous.clone().unwrap_or_default();
        act(&mut snapshot);
        if previous.as_ref() != Some(&snapshot) {
            let copy = self.copy_path();
            if let Some(old) = text.filter(|text| !copy.exists() && read_old_format(text).is_some()) {
                write_atomic_unsynced(&copy, &old).map_err(write_error)?;
            }
            write_atomic_unsynced(&self.path, &self.serialize_within_limit(&mut snapshot)?).map_err(write_error)?;
        }
        Ok((snapshot, parse_error))
    }
}

impl HealthFile {
    /// Serializes the snapshot within the size limit, because every process reads it at its start. Error texts are
    /// shortened first; then the least important entries are removed.
    fn serialize_within_limit(&self, snapshot: &mut HealthSnapshot) -> Result<String, HealthError> {
        let now = jiff::Timestamp::now();
        let mut message_limits = [30, 0].into_iter();
        loop {
            let text = serde_json::to_string(snapshot).map_err(|error| self.health_error("cannot write", error))?;
            let count = snapshot.retain_latest(usize::MAX, now);
            if text.len() <= MAX_WRITE_SIZE || count == 0 {
                return Ok(text);
            }
            match message_limits.next() {
                Some(max) => snapshot.truncate_messages(max),
                None => drop(snapshot.retain_latest(count * 3 / 4, now)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routing::policies::HealthPolicy;
    use crate::{
        model::{
            ErrorClass,
            target::{Target, testing},
        },
        protocol::CallError,
        routing::health::{AttemptHealthKeys, AttemptInfo, KeyHash, TargetHealthKeys},
    };

    /// An attempt without a key.
    fn attempt(target: &Target, now: jiff::Timestamp) -> AttemptInfo<'_> {
        AttemptInfo {
            target,
            key_index: None,
            sent_at: now,
            probe: None,
            operation: None,
            health_keys: AttemptHealthKeys::WithKey(KeyHash::NONE),
        }
    }

    #[test]
    fn two_stores_keep_each_others_updates() {
        let folder = tempfile::tempdir().expect("temp dir");
        let stores = [HealthFile::new(folder.path()), HealthFile::new(folder.path())];
        let now = jiff::Timestamp::now();
        let targets = ["a", "b"].map(testing::target);
        for (store, target) in stores.iter().zip(&targets) {
            let error = CallError { status: Some(404), ..CallError::new(ErrorClass::Model, "no such model") };
            let attempt = attempt(target, now);
            store
                .update(&mut |snapshot| snapshot.record_failure(&HealthPolicy::default(), &attempt, &error, now, 0.5))
                .expect("writable file");
        }
        // What a model refuses is shared, too.
        let change = crate::model::ParamWorkaround::Omit("top_p".into());
        let learn = &mut |snapshot: &mut HealthSnapshot| {
            snapshot.record_workarounds(&attempt(&targets[0], now), std::slice::from_ref(&change), now);
        };
        stores[1].update(learn).expect("writable file");
        let snapshot = stores[0].read().expect("readable file");
        let learned: Vec<_> = snapshot.workarounds(TargetHealthKeys::new(&targets[0], &[]).model, now).collect();
        assert_eq!(learned, [&change]);
        for target in &targets {
            assert!(
                snapshot.availability(&TargetHealthKeys::new(target, &[]), now).restriction().is_some(),
                "{}",
                target.id
            );
        }
        assert!(!crate::transport::keys::is_readable_by_others(
            &fs::metadata(folder.path().join("health.json")).expect("a file")
        ));
    }

    #[test]
    fn invalid_file_is_reported_and_reset() {
        let folder = tempfile::tempdir().expect("temp dir");
        let store = HealthFile::new(folder.path());
        assert_eq!(store.read().expect("missing file"), HealthSnapshot::default());
        for invalid in ["{\"entries\": 7}", "{\"places\": 7}", "{\"theirs\": 7}", "not json", ""] {
            fs::write(folder.path().join("health.json"), invalid).expect("writable file");
            assert!(store.read().expect_err("invalid file").to_string().contains("health.json"));
            let (_, error) = store.update(&mut |snapshot| snapshot.key_salt = "x".into()).expect("reset file");
            assert!(error.expect("invalid file").to_string().contains("replaced the health file"));
            assert_eq!(store.read().expect("valid file").key_salt, "x");
        }
    }

    #[test]
    fn file_of_an_earlier_version_is_read_and_a_copy_is_kept() {
        const OLD: &str = include_str!("../../tests/fixtures/record/health_v1.json");
        let folder = tempfile::tempdir().expect("temp dir");
        let path = folder.path().join("health.json");
        fs::write(&path, OLD).expect("writable folder");
        let store = HealthFile::new(folder.path());
        let read = store.read().expect("readable old file");
        let mut classes: Vec<_> = read.entries().filter_map(|(_, entry)| entry.last_error.as_ref()).collect();
        classes.sort_by(|a, b| a.class.cmp(&b.class));
        let classes: Vec<_> = classes.iter().map(|error| error.class.as_str()).collect();
        assert_eq!(classes, ["connect", "incomplete", "invalid-chunk", "invalid-response", "rate", "timeout"]);
        let fast = read.entries().find(|(_, entry)| entry.name == "fast").expect("entry of the model").1;
        assert!(fast.latency.average().is_some_and(|average| average > 50.0) && fast.latency.p95().is_some());
        store.update(&mut |snapshot| snapshot.key_salt = "x".into()).expect("writable file");
        let copy = fs::read_to_string(folder.path().join("health.old.json")).expect("a copy");
        assert_eq!(copy, OLD);
        store.remove_copy().expect("removable");
        assert!(!folder.path().join("health.old.json").exists());
        let written = store.read().expect("readable new file");
        let mut expected = read;
        expected.key_salt = "x".into();
        assert_eq!(written, expected);
        assert!(!fs::read_to_string(&path).expect("readable").contains("places"));
    }

    #[test]
    fn held_lock_is_waited_for_once() {
        let folder = tempfile::tempdir().expect("temp dir");
        let store = HealthFile::new(folder.path());
        let lock = crate::store::lock(&folder.path().join("health.json")).expect("unlocked file");
        let message = store.update(&mut |_| panic!("not locked")).expect_err("locked file").to_string();
        assert!(message.contains("another process"), "{message}");
        assert!(store.lock_timed_out.load(Ordering::Relaxed), "the next update does not wait");
        assert_eq!(store.read().expect("missing file"), HealthSnapshot::default(), "reading needs no lock");
        drop(lock);
        store.update(&mut |snapshot| snapshot.key_salt = "x".into()).expect("unlocked file");
        assert!(!store.lock_timed_out.load(Ordering::Relaxed), "the next update waits again");
    }

    #[test]
    fn failures_of_a_route_of_100_models_fit() {
        let folder = tempfile::tempdir().expect("temp dir");
        let store = HealthFile::new(folder.path());
        let now = jiff::Timestamp::now();
        let targets: Vec<_> = (0..100).map(|number| testing::target(&format!("model-{number}"))).collect();
        let snapshot = store.update(&mut |snapshot| {
            for target in &targets {
                let attempt = attempt(target, now);
                for class in [ErrorClass::Server, ErrorClass::Server, ErrorClass::Server, ErrorClass::Connect] {
                    snapshot.record_failure(
                        &HealthPolicy::default(),
                        &attempt,
                        &CallError::new(class, "x".repeat(1000)),
                        now,
                        0.5,
                    );
                }
            }
        });
        let (snapshot, now) = (snapshot.expect("writable file").0, jiff::Timestamp::now());
        assert_eq!(snapshot.entries().count(), 200);
        let snapshot = store.read().expect("readable file");
        for target in &targets {
            assert!(
                snapshot.availability(&TargetHealthKeys::new(target, &[]), now).restriction().is_some(),
                "{}",
                target.id
            );
        }
        let size = fs::metadata(folder.path().join("health.json")).expect("existing file").len();
        assert!(size <= 96 * 1024, "{size}");
    }

    #[test]
    fn file_size_is_bounded() {
        let folder = tempfile::tempdir().expect("temp dir");
        let store = HealthFile::new(folder.path());
        let now = jiff::Timestamp::now();
        for number in 0..60 {
            let update = &mut |snapshot: &mut HealthSnapshot| {
                for model in 0..20 {
                    let target = Target { upstream_id: format!("{number}-{model}"), ..testing::target("a") };
                    let attempt = attempt(&target, now);
                    for _ in 0..20 {
                        let error = CallError::new(ErrorClass::Server, "x".repeat(1000));
                        snapshot.record_failure(&HealthPolicy::default(), &attempt, &error, now, 0.5);
                        snapshot.record_first_delta(
                            &HealthPolicy::default(),
                            &attempt,
                            Some(std::time::Duration::from_secs(100)),
                            now,
                        );
                    }
                }
            };
            store.update(update).expect("writable file");
        }
        let size = fs::metadata(folder.path().join("health.json")).expect("existing file").len();
        assert!(size > 1024 && size <= 96 * 1024, "{size}");
    }
}
