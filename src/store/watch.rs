//! Watches a file for in-place writes and atomic replaces, as editors and deployments do them.
//!
//! Does not read the file. Notifications may be spurious.

use std::path::Path;

use notify::{RecursiveMode, Watcher};
use tokio::sync::mpsc::{Receiver, channel};

/// Watches one file until it is dropped.
pub(crate) struct FileWatcher {
    changes: Receiver<()>,
    _watcher: notify::RecommendedWatcher,
}

impl std::fmt::Debug for FileWatcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FileWatcher")
    }
}

impl FileWatcher {
    /// Starts to watch the file at `path`.
    ///
    /// # Errors
    /// A message, if the system cannot watch the file.
    pub(crate) fn new(path: &Path) -> Result<Self, String> {
        let path = std::path::absolute(path).map_err(|error| error.to_string())?;
        // Watch the folder, because a replaced file is a new inode. Both the link and its target may change.
        let real = std::fs::canonicalize(&path).unwrap_or_else(|_| path.clone());
        let folders = [path.parent(), real.parent()].map(|folder| folder.ok_or("the path has no parent folder"));
        let (sender, changes) = channel(1);
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // Reading is not a change. A full channel already holds a notification.
            if event.is_ok_and(|event| !event.kind.is_access()) {
                let _ = sender.try_send(());
            }
        })
        .map_err(|error| error.to_string())?;
        for folder in folders {
            watcher.watch(folder?, RecursiveMode::NonRecursive).map_err(|error| error.to_string())?;
        }
        Ok(Self { changes, _watcher: watcher })
    }

    /// Resolves when the file may have changed since the last call.
    pub(crate) async fn changed(&mut self) {
        if self.changes.recv().await.is_none() {
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    /// One change may cause several notifications: drains those of the previous change first.
    async fn is_notified_after(watcher: &mut FileWatcher, change: impl FnOnce()) -> bool {
        while timeout(Duration::from_millis(50), watcher.changed()).await.is_ok() {}
        change();
        timeout(Duration::from_secs(60), watcher.changed()).await.is_ok()
    }

    #[tokio::test]
    async fn write_and_replace_are_noticed() {
        let (folder, elsewhere) = (tempfile::tempdir().expect("temp dir"), tempfile::tempdir().expect("temp dir"));
        let (path, other) = (folder.path().join("config.toml"), elsewhere.path().join("other"));
        std::fs::write(&path, "a").expect("writable path");
        std::fs::write(&other, "b").expect("writable path");
        let mut watcher = FileWatcher::new(&path).expect("watchable file");
        assert!(is_notified_after(&mut watcher, || std::fs::write(&path, "c").expect("writable path")).await);
        assert!(is_notified_after(&mut watcher, || std::fs::rename(&other, &path).expect("replaceable file")).await);
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn target_of_a_symbolic_link_is_watched() {
        let (folder, elsewhere) = (tempfile::tempdir().expect("temp dir"), tempfile::tempdir().expect("temp dir"));
        let (path, real) = (folder.path().join("config.toml"), elsewhere.path().join("real.toml"));
        std::fs::write(&real, "a").expect("writable path");
        std::os::unix::fs::symlink(&real, &path).expect("new link");
        let mut watcher = FileWatcher::new(&path).expect("watchable file");
        assert!(is_notified_after(&mut watcher, || std::fs::write(&real, "b").expect("writable path")).await);
    }
}
