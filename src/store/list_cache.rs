//! The models an endpoint listed when it was last asked, for completing their names without asking again.
//!
//! Owns one small file per endpoint, which is thrown away when the endpoint's address changed. Refuses to be needed:
//! what cannot be read is not there.

use std::{
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    io,
    path::{Path, PathBuf},
};

/// The ids that the endpoint called `endpoint`, at `address`, last listed.
#[must_use]
pub fn read(cache: &Path, endpoint: &str, address: &str) -> Vec<String> {
    let text = fs::read_to_string(place(cache, endpoint)).unwrap_or_default();
    let mut lines = text.lines();
    if lines.next() == Some(&*fingerprint(address)) { lines.map(str::to_owned).collect() } else { Vec::new() }
}

/// Keeps what the endpoint listed.
pub fn write(cache: &Path, endpoint: &str, address: &str, ids: &[&str]) -> io::Result<()> {
    let mark = fingerprint(address);
    let fits = |id: &&&str| !id.contains(['\n', '\r']);
    let lines: Vec<&str> = std::iter::once(&&*mark).chain(ids.iter().filter(fits)).copied().collect();
    super::replace(&place(cache, endpoint), &(lines.join("\n") + "\n"))
}

/// What tells one address from another; the address itself may hold a password or a key.
fn fingerprint(address: &str) -> String {
    let mut hasher = DefaultHasher::new();
    address.hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

/// Names have no separators of paths in them, but may be `..`.
fn place(cache: &Path, endpoint: &str) -> PathBuf {
    cache.join("models").join(format!("{endpoint}.list"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_of_one_address() {
        let cache = tempfile::tempdir().expect("a folder");
        write(cache.path(), "e", "http://h/v1", &["a", "b/c", "bad\nid"]).expect("writable");
        assert_eq!(read(cache.path(), "e", "http://h/v1"), ["a", "b/c"]);
        assert!(read(cache.path(), "e", "http://other/v1").is_empty());
        assert!(read(cache.path(), "none", "http://h/v1").is_empty());
    }
}
