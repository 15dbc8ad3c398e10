//! Limits a warning to once a day, across processes, with a file whose content is the day of the last warning.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Whether the warning `name` about `subject` was not shown yet today, in UTC. Records that it is shown now; if the cache
/// cannot be written, it is shown each time.
#[must_use]
pub(crate) fn is_first_today(cache: &Path, name: &str, subject: &str) -> bool {
    let path = warning_path(cache, name, subject);
    let today = jiff::Timestamp::now().strftime("%F").to_string();
    if fs::read_to_string(&path).is_ok_and(|day| day == today) {
        return false;
    }
    // If the file cannot be written, the next process shows the warning again.
    let _ = super::write_atomic_unsynced(&path, &today);
    true
}

fn warning_path(cache: &Path, name: &str, subject: &str) -> PathBuf {
    cache.join("warnings").join(format!("{name}-{}", super::fingerprint(subject)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn second_warning_of_a_day_is_suppressed() {
        let cache = tempfile::tempdir().expect("temp dir");
        let first = |subject| is_first_today(cache.path(), "renamed-keys", subject);
        assert!(first("a"));
        assert!(!first("a"));
        assert!(first("b"));
        fs::write(warning_path(cache.path(), "renamed-keys", "b"), "2020-01-01").expect("writable folder");
        assert!(first("b"), "the last warning was on another day");
    }
}
