//! Limits a warning to once a day, across processes, with a file whose content is the day of the last warning.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Records that the warning `name` about `subject` is shown today (UTC); returns false if it was already shown today. If
/// the cache cannot be written, returns true each time.
#[must_use]
pub(crate) fn claim_daily_warning(cache: &Path, name: &str, subject: &str) -> bool {
    let path = warning_path(cache, name, subject);
    let today = jiff::Timestamp::now().strftime("%F").to_string();
    if fs::read_to_string(&path).is_ok_and(|day| day == today) {
        return false;
    }
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
        let first = |subject| claim_daily_warning(cache.path(), "renamed-keys", subject);
        assert!(first("a"));
        assert!(!first("a"));
        assert!(first("b"));
        fs::write(warning_path(cache.path(), "renamed-keys", "b"), "2020-01-01").expect("writable folder");
        assert!(first("b"), "the last warning was on another day");
    }
}
