//! Caches the model list of each endpoint, so that shells can complete model names without a request.
//!
//! One file per endpoint, ignored when the endpoint's address has changed. A missing or unreadable file is treated as
//! empty.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::fingerprint;

/// The model ids that the endpoint `endpoint` at `address` last listed.
#[must_use]
pub(crate) fn read(cache: &Path, endpoint: &str, address: &str) -> Vec<String> {
    let text = fs::read_to_string(list_path(cache, endpoint)).unwrap_or_default();
    let mut lines = text.lines();
    if lines.next() == Some(&*fingerprint(address)) { lines.map(str::to_owned).collect() } else { Vec::new() }
}

/// Stores the model ids that the endpoint listed.
pub(crate) fn write(cache: &Path, endpoint: &str, address: &str, ids: &[&str]) -> io::Result<()> {
    // The address itself may contain a password or a key.
    let header = fingerprint(address);
    let is_single_line = |id: &&&str| !id.contains(['\n', '\r']);
    let lines: Vec<&str> = std::iter::once(&&*header).chain(ids.iter().filter(is_single_line)).copied().collect();
    super::write_atomic(&list_path(cache, endpoint), &(lines.join("\n") + "\n"))
}

/// Endpoint names contain no path separators, but may be `..`, hence the suffix.
fn list_path(cache: &Path, endpoint: &str) -> PathBuf {
    cache.join("models").join(format!("{endpoint}.list"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn list_of_another_address_is_ignored() {
        let cache = tempfile::tempdir().expect("temp dir");
        write(cache.path(), "e", "http://h/v1", &["a", "b/c", "bad\nid"]).expect("writable folder");
        assert_eq!(read(cache.path(), "e", "http://h/v1"), ["a", "b/c"]);
        assert!(read(cache.path(), "e", "http://other/v1").is_empty());
        assert!(read(cache.path(), "none", "http://h/v1").is_empty());
    }
}
