//! Telling when a file may have changed.
//!
//! Owns that it is noticed however it is changed: written in place, or replaced by another of its name, as editors and
//! deployments do. Refuses to read it: what is told is "look again", and may be told for nothing.

use std::path::Path;

use notify::{RecursiveMode, Watcher};
use tokio::sync::mpsc::{Receiver, channel};

/// Watches one file for as long as it is held.
pub struct Watch {
    changes: Receiver<()>,
    _watcher: notify::RecommendedWatcher,
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Watch")
    }
}

impl Watch {
    /// Watches the file at `path` from now on.
    ///
    /// # Errors
    /// In words, when the system cannot tell.
    pub fn begin(path: &Path) -> Result<Self, String> {
        let path = std::path::absolute(path).map_err(|error| error.to_string())?;
        // A file that is replaced is another one: its folder stays. A link may be changed, or what it leads to.
        let real = std::fs::canonicalize(&path).unwrap_or_else(|_| path.clone());
        let folders = [path.parent(), real.parent()].map(|folder| folder.ok_or("it is in no folder"));
        let (sender, changes) = channel(1);
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // Reading it is no change. One that is told already need not be told again.
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

    /// Resolves when it may have changed since the last time.
    pub async fn changed(&mut self) {
        if self.changes.recv().await.is_none() {
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One change is told once or more often: what was told of the last one is not taken for the next.
    async fn told_of(watch: &mut Watch, change: impl FnOnce()) {
        while tokio::time::timeout(std::time::Duration::from_millis(50), watch.changed()).await.is_ok() {}
        change();
        watch.changed().await;
    }

    #[tokio::test]
    async fn a_file_that_is_replaced_is_noticed_like_one_that_is_written() {
        let (folder, elsewhere) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
        let (path, other) = (folder.path().join("config.toml"), elsewhere.path().join("other"));
        std::fs::write(&path, "a").expect("writable");
        std::fs::write(&other, "b").expect("writable");
        let mut watch = Watch::begin(&path).expect("it can be watched");
        told_of(&mut watch, || std::fs::write(&path, "c").expect("writable")).await;
        told_of(&mut watch, || std::fs::rename(&other, &path).expect("replaced")).await;
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn what_a_link_leads_to_is_watched_too() {
        let (folder, elsewhere) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
        let (path, real) = (folder.path().join("config.toml"), elsewhere.path().join("real.toml"));
        std::fs::write(&real, "a").expect("writable");
        std::os::unix::fs::symlink(&real, &path).expect("a link");
        let mut watch = Watch::begin(&path).expect("it can be watched");
        told_of(&mut watch, || std::fs::write(&real, "b").expect("writable")).await;
    }
}
