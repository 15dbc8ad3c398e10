//! Files of our own: where they are, and how they are written so that nothing is lost.
//!
//! Owns the folders of each platform, files that only their owner can read, and replacing a file as a whole: whoever
//! reads it sees the old text or the new one. What is in them is each module's own: the record of calls, what is known of
//! failing services, the lists of models.

pub mod health;
pub mod histogram;
pub mod list_cache;
pub mod record;
pub mod watch;

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use crate::model::environment::Environment;

/// Where what can be made again is kept: `$XDG_CACHE_HOME/mmchat`, else the platform's place.
#[must_use]
pub fn cache_folder(environment: &Environment) -> Option<PathBuf> {
    let xdg = environment.get("XDG_CACHE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let platform = || directories::ProjectDirs::from("", "", "mmchat").map(|dirs| dirs.cache_dir().to_owned());
    xdg.map(|base| base.join("mmchat")).or_else(platform)
}

/// Where what grows by use is kept: `$XDG_STATE_HOME/mmchat`, else the platform's place.
#[must_use]
pub fn state_folder(environment: &Environment) -> Option<PathBuf> {
    let xdg = environment.get("XDG_STATE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let platform = || {
        let dirs = directories::ProjectDirs::from("", "", "mmchat")?;
        Some(dirs.state_dir().unwrap_or_else(|| dirs.data_local_dir()).to_owned())
    };
    xdg.map(|base| base.join("mmchat")).or_else(platform)
}

/// Replaces the file at `path` as a whole; its folder is made if need be. A symbolic link stays one: what it points to
/// is replaced. The new file can be read by its owner alone.
pub fn replace(path: &Path, text: &str) -> io::Result<()> {
    write_whole(path, text, true)
}

/// As [`replace`], for what can be learned again: it is not waited for until it is on the disk.
fn replace_lightly(path: &Path, text: &str) -> io::Result<()> {
    write_whole(path, text, false)
}

fn write_whole(path: &Path, text: &str, to_the_disk: bool) -> io::Result<()> {
    use io::Write;
    let path = real(path);
    check_regular(&path)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    private_folder(folder)?;
    // Made beside it, since only there can it take the old one's place in one step; mode 600 on Unix.
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(text.as_bytes())?;
    if to_the_disk {
        file.as_file().sync_all()?;
    }
    file.persist(&path).map_err(|error| error.error)?;
    Ok(())
}

/// That what is at `path`, if anything, is a file like any other: a device would be lost, and a pipe waited for.
fn check_regular(path: &Path) -> io::Result<()> {
    match fs::metadata(path) {
        Ok(metadata) if !metadata.is_file() => {
            Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file"))
        }
        _ => Ok(()),
    }
}

/// Where `path` leads, links followed, whether there is a file at the end or not.
fn real(path: &Path) -> PathBuf {
    let mut path = path.to_owned();
    // As many as systems follow.
    for _ in 0..40 {
        let Ok(target) = fs::read_link(&path) else { break };
        path = path.parent().unwrap_or(Path::new("")).join(target);
    }
    fs::canonicalize(&path).unwrap_or(path)
}

/// Whether the file at `path` could be replaced: its folder can be made and written to.
pub fn check_writable(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if path.is_dir() {
        return Err(io::Error::new(io::ErrorKind::IsADirectory, "it is a folder"));
    }
    private_folder(folder)?;
    tempfile::NamedTempFile::new_in(folder).map(drop)
}

/// The folder, made with its parents if need be; a new one is its owner's alone.
#[cfg(unix)]
fn private_folder(folder: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

#[cfg(not(unix))]
fn private_folder(folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)
}

/// A new file is its owner's alone.
#[cfg(unix)]
pub fn private(options: &mut fs::OpenOptions) {
    use std::os::unix::fs::OpenOptionsExt;
    options.mode(0o600);
}

/// A new file is its owner's alone: elsewhere than on Unix, a user's own folders are closed to others.
#[cfg(not(unix))]
pub fn private(_options: &mut fs::OpenOptions) {}

/// Makes a file its owner's alone, without opening it.
#[cfg(unix)]
fn close_to_others(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    if crate::transport::keys::is_exposed(&fs::metadata(path)?) {
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    }
    Ok(())
}

/// Makes a file its owner's alone: elsewhere than on Unix, a user's own folders are closed to others.
#[cfg(not(unix))]
fn close_to_others(_path: &Path) -> io::Result<()> {
    Ok(())
}

/// The right to change `path`, held until it is dropped; waits for whoever else has it.
#[derive(Debug)]
pub struct Lock(#[expect(dead_code, reason = "held for its drop")] fs::File);

/// Takes the right to change `path`: a lock on a file beside it, since the file itself is replaced. Whoever changes it
/// through a link takes the same one. It is not waited for without end: a process that was stopped may have it.
pub fn lock(path: &Path) -> io::Result<Lock> {
    lock_within(path, Duration::from_secs(10))
}

/// As [`lock`], but does not wait for longer than `limit`.
#[expect(clippy::disallowed_methods, reason = "a lock of the file system wakes nobody who has a limit")]
fn lock_within(path: &Path, limit: Duration) -> io::Result<Lock> {
    /// Whoever has it is done in less.
    const LOOK: Duration = Duration::from_millis(2);
    let (file, begun) = (lock_file(path)?, Instant::now());
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(Lock(file)),
            Err(fs::TryLockError::WouldBlock) if begun.elapsed() < limit => std::thread::sleep(LOOK),
            Err(fs::TryLockError::WouldBlock) => {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "another process holds its lock"));
            }
            Err(fs::TryLockError::Error(error)) => return Err(error),
        }
    }
}

fn lock_file(path: &Path) -> io::Result<fs::File> {
    let path = real(path);
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    private_folder(folder)?;
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".lock");
    let mut options = fs::OpenOptions::new();
    options.create(true).truncate(false).write(true);
    private(&mut options);
    options.open(folder.join(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_as_a_whole_and_stays_private() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("new/config.toml");
        for text in ["first", "second"] {
            replace(&path, text).expect("writable");
            assert_eq!(fs::read_to_string(&path).expect("there"), text);
        }
        assert!(!crate::transport::keys::is_exposed(&fs::metadata(&path).expect("there")));
        assert_eq!(fs::read_dir(path.parent().expect("one")).expect("there").count(), 1, "nothing is left beside it");
    }

    #[test]
    fn what_is_no_file_is_not_replaced() {
        let folder = tempfile::tempdir().expect("a folder");
        let told = replace(folder.path(), "text").expect_err("it is a folder").to_string();
        assert!(told.contains("no regular file"), "{told}");
        assert!(folder.path().is_dir());
    }

    #[cfg(unix)]
    #[test]
    fn a_link_stays_one() {
        let folder = tempfile::tempdir().expect("a folder");
        let (real, link) = (folder.path().join("real"), folder.path().join("link"));
        fs::write(&real, "old").expect("writable");
        std::os::unix::fs::symlink(&real, &link).expect("a link");
        replace(&link, "new").expect("writable");
        assert!(fs::symlink_metadata(&link).expect("there").is_symlink());
        assert_eq!(fs::read_to_string(&real).expect("there"), "new");
        let dangling = folder.path().join("dangling");
        std::os::unix::fs::symlink("made/later", &dangling).expect("a link");
        replace(&dangling, "first").expect("writable");
        assert!(fs::symlink_metadata(&dangling).expect("there").is_symlink());
        assert_eq!(fs::read_to_string(folder.path().join("made/later")).expect("there"), "first");
        let _lock = lock(&link).expect("free");
        assert!(folder.path().join("real.lock").exists(), "one lock for both names");
    }

    #[test]
    fn a_lock_is_one_at_a_time() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("config.toml");
        let lock = super::lock(&path).expect("free");
        let file = fs::OpenOptions::new().write(true).open(folder.path().join("config.toml.lock")).expect("there");
        assert!(matches!(file.try_lock(), Err(fs::TryLockError::WouldBlock)));
        drop(lock);
        file.try_lock().expect("free again");
    }

    #[test]
    fn the_cache_is_where_the_environment_says() {
        let base = if cfg!(windows) { "C:\\cache" } else { "/cache" };
        let environment = [("XDG_CACHE_HOME".to_owned(), base.to_owned())].into_iter().collect();
        assert_eq!(cache_folder(&environment), Some(Path::new(base).join("mmchat")));
    }
}
