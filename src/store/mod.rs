//! Locates mmchat's own files and writes them atomically, readable by their owner only.
//!
//! A reader of a replaced file sees the old text or the new text, never a mix. The submodules define what the files
//! contain: the record of calls, the health of endpoints, the lists of models.

#[cfg(feature = "serve")]
pub(crate) mod allocator;
pub(crate) mod daily_warning;
pub(crate) mod health;
mod health_migration;
pub(crate) mod histogram;
pub(crate) mod list_cache;
pub mod record;
#[cfg(feature = "serve")]
pub(crate) mod watch;

use std::{
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use crate::model::{describe_error, environment::Environment};

/// The folder for files that can be recreated: `$XDG_CACHE_HOME/mmchat`, else the platform's cache folder.
#[must_use]
pub(crate) fn cache_folder(environment: &Environment) -> Option<PathBuf> {
    let xdg = environment.get("XDG_CACHE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let platform = || directories::ProjectDirs::from("", "", "mmchat").map(|dirs| dirs.cache_dir().to_owned());
    xdg.map(|base| base.join("mmchat")).or_else(platform)
}

/// The folder for files that grow with use: `$XDG_STATE_HOME/mmchat`, else the platform's state folder.
#[must_use]
pub(crate) fn state_folder(environment: &Environment) -> Option<PathBuf> {
    let xdg = environment.get("XDG_STATE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let platform = || {
        let dirs = directories::ProjectDirs::from("", "", "mmchat")?;
        Some(dirs.state_dir().unwrap_or_else(|| dirs.data_local_dir()).to_owned())
    };
    xdg.map(|base| base.join("mmchat")).or_else(platform)
}

/// Replaces the file at `path` atomically and creates its folder if needed. A symbolic link is kept and its target is
/// replaced. Only the owner can read the new file.
pub(crate) fn write_atomic(path: &Path, text: &str) -> io::Result<()> {
    write_file(path, text, WriteOptions { sync: true, keep_access: false })
}

/// Like [`write_atomic`], but an existing file keeps its mode, and its owner and group if this user may set them: a config
/// may be readable by a service.
pub(crate) fn replace_atomic(path: &Path, text: &str) -> io::Result<()> {
    write_file(path, text, WriteOptions { sync: true, keep_access: true })
}

/// Like [`write_atomic`], without waiting until the data is on the disk: for data that can be recreated.
fn write_atomic_unsynced(path: &Path, text: &str) -> io::Result<()> {
    write_file(path, text, WriteOptions { sync: false, keep_access: false })
}

#[derive(Clone, Copy)]
struct WriteOptions {
    /// Wait until the data is on the disk.
    sync: bool,
    /// Keep the mode, owner and group of an existing file.
    keep_access: bool,
}

fn write_file(path: &Path, text: &str, options: WriteOptions) -> io::Result<()> {
    use io::Write;
    let path = resolve_links(path);
    check_regular(&path)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    create_private_folder(folder)?;
    // In the same folder, because a rename is atomic only within one file system. The mode is 600 on Unix.
    let mut file = new_temporary_file(folder)?;
    file.write_all(text.as_bytes())?;
    if options.keep_access
        && let Ok(metadata) = fs::metadata(&path)
    {
        copy_access(&metadata, file.as_file())?;
    }
    if options.sync {
        file.as_file().sync_all()?;
    }
    file.persist(&path).map_err(|error| error.error)?;
    Ok(())
}

/// Creates a temporary file. An error does not contain the path of the temporary file, which means nothing to a user.
fn new_temporary_file(folder: &Path) -> io::Result<tempfile::NamedTempFile> {
    tempfile::NamedTempFile::new_in(folder).map_err(|error| {
        let text = error.to_string();
        let cause = text.split(" at path \"").next().unwrap_or_default();
        io::Error::new(error.kind(), cause.to_owned())
    })
}

/// Gives `file` the mode of another file, and its owner and group if this user may set them.
#[cfg(unix)]
fn copy_access(from: &fs::Metadata, file: &fs::File) -> io::Result<()> {
    use std::os::unix::fs::{MetadataExt, fchown};
    // Without the group, its permissions would go to another group.
    let keeps_group =
        fchown(file, Some(from.uid()), Some(from.gid())).is_ok() || fchown(file, None, Some(from.gid())).is_ok();
    if keeps_group { file.set_permissions(from.permissions()) } else { Ok(()) }
}

/// On other systems, a new file gets the permissions of its folder.
#[cfg(not(unix))]
#[expect(clippy::unnecessary_wraps, reason = "the same signature as on Unix")]
fn copy_access(_: &fs::Metadata, _: &fs::File) -> io::Result<()> {
    Ok(())
}

/// Checks that `path` is a regular file or missing: replacing would destroy a device, reading would block on a pipe.
fn check_regular(path: &Path) -> io::Result<()> {
    match fs::metadata(path) {
        Ok(metadata) if !metadata.is_file() => Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")),
        _ => Ok(()),
    }
}

/// The path with symbolic links resolved, also if the file at the end does not exist.
fn resolve_links(path: &Path) -> PathBuf {
    let mut path = path.to_owned();
    // Linux follows at most 40 links.
    for _ in 0..40 {
        let Ok(target) = fs::read_link(&path) else { break };
        path = path.parent().unwrap_or(Path::new("")).join(target);
    }
    fs::canonicalize(&path).unwrap_or(path)
}

/// Checks that the file at `path` could be replaced: its folder exists or can be created, and is writable.
pub(crate) fn check_writable(path: &Path) -> io::Result<()> {
    let path = resolve_links(path);
    check_regular(&path)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    create_private_folder(folder)?;
    new_temporary_file(folder).map(drop)
}

/// Creates the folder and its parents if needed, with access for the owner only.
#[cfg(unix)]
fn create_private_folder(folder: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

#[cfg(not(unix))]
fn create_private_folder(folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)
}

/// Makes files created with these options accessible to their owner only.
#[cfg(unix)]
pub(crate) fn set_private_mode(options: &mut fs::OpenOptions) {
    use std::os::unix::fs::OpenOptionsExt;
    options.mode(0o600);
}

/// Does nothing: outside Unix, a user's own folders are not accessible to others.
#[cfg(not(unix))]
pub(crate) fn set_private_mode(_options: &mut fs::OpenOptions) {}

/// Makes an existing file accessible to its owner only, without opening it.
#[cfg(unix)]
fn restrict_to_owner(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    if crate::transport::keys::is_readable_by_others(&fs::metadata(path)?) {
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    }
    Ok(())
}

/// Does nothing: outside Unix, a user's own folders are not accessible to others.
#[cfg(not(unix))]
#[expect(clippy::unnecessary_wraps, reason = "the same signature as on Unix")]
fn restrict_to_owner(_path: &Path) -> io::Result<()> {
    Ok(())
}

/// A short hash of `text`, for names of cache files.
fn fingerprint(text: &str) -> String {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

/// An exclusive lock on changes of a file, released on drop.
#[derive(Debug)]
pub(crate) struct Lock(#[expect(dead_code, reason = "held for its drop")] fs::File);

/// Locks `path` for changes with a lock file beside it, because the file itself is replaced. Symbolic links to one file
/// share its lock. Waits up to 10 s: a suspended process may hold the lock.
pub(crate) fn lock(path: &Path) -> io::Result<Lock> {
    lock_with_timeout(path, Duration::from_secs(10))
}

/// Like [`lock`], but waits at most `limit`.
#[expect(clippy::disallowed_methods, reason = "file locks have no wait with a timeout")]
fn lock_with_timeout(path: &Path, limit: Duration) -> io::Result<Lock> {
    /// The lock is usually held for less.
    const POLL_INTERVAL: Duration = Duration::from_millis(2);
    let (file, started) = (lock_file(path)?, Instant::now());
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(Lock(file)),
            Err(fs::TryLockError::WouldBlock) if started.elapsed() < limit => std::thread::sleep(POLL_INTERVAL),
            Err(fs::TryLockError::WouldBlock) => {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "another process holds the lock"));
            }
            Err(fs::TryLockError::Error(error)) => return Err(error),
        }
    }
}

fn lock_file(path: &Path) -> io::Result<fs::File> {
    let path = resolve_links(path);
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    create_private_folder(folder)?;
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".lock");
    let lock = folder.join(name);
    let mut options = fs::OpenOptions::new();
    options.create(true).truncate(false).write(true);
    set_private_mode(&mut options);
    // Opening a pipe would block.
    let file = check_regular(&lock).and_then(|()| options.open(&lock));
    file.map_err(|error| io::Error::new(error.kind(), format!("{}: {}", lock.display(), describe_error(&error))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_does_not_name_the_temporary_file() {
        let folder = tempfile::tempdir().expect("temp dir");
        let error = new_temporary_file(&folder.path().join("missing")).expect_err("no folder");
        let text = describe_error(&error);
        assert!(!text.is_empty() && !text.contains(".tmp") && !text.contains("at path"), "{text}");
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn replaced_file_has_the_new_text_and_stays_private() {
        let folder = tempfile::tempdir().expect("temp dir");
        let path = folder.path().join("new/config.toml");
        for text in ["first", "second"] {
            write_atomic(&path, text).expect("writable path");
            assert_eq!(fs::read_to_string(&path).expect("existing file"), text);
        }
        assert!(!crate::transport::keys::is_readable_by_others(&fs::metadata(&path).expect("existing file")));
        assert_eq!(fs::read_dir(path.parent().expect("parent")).expect("folder").count(), 1, "no temporary files");
    }

    #[cfg(unix)]
    #[test]
    fn replaced_file_keeps_its_mode_only_on_request() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().expect("temp dir");
        let path = folder.path().join("config.toml");
        let mode = || fs::metadata(&path).expect("existing file").permissions().mode() & 0o777;
        write_atomic(&path, "first").expect("writable path");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("own file");
        replace_atomic(&path, "second").expect("writable path");
        assert_eq!((mode(), fs::read_to_string(&path).expect("existing file").as_str()), (0o640, "second"));
        write_atomic(&path, "third").expect("writable path");
        assert_eq!(mode(), 0o600);
    }

    #[test]
    fn folder_is_not_replaced() {
        let folder = tempfile::tempdir().expect("temp dir");
        let message = write_atomic(folder.path(), "text").expect_err("a folder").to_string();
        assert!(message.contains("not a regular file"), "{message}");
        assert!(folder.path().is_dir());
    }

    #[cfg(unix)]
    #[test]
    fn symbolic_link_is_kept() {
        let folder = tempfile::tempdir().expect("temp dir");
        let (real, link) = (folder.path().join("real"), folder.path().join("link"));
        fs::write(&real, "old").expect("writable path");
        std::os::unix::fs::symlink(&real, &link).expect("new link");
        write_atomic(&link, "new").expect("writable path");
        assert!(fs::symlink_metadata(&link).expect("existing file").is_symlink());
        assert_eq!(fs::read_to_string(&real).expect("existing file"), "new");
        let dangling = folder.path().join("dangling");
        std::os::unix::fs::symlink("made/later", &dangling).expect("new link");
        write_atomic(&dangling, "first").expect("writable path");
        assert!(fs::symlink_metadata(&dangling).expect("existing file").is_symlink());
        assert_eq!(fs::read_to_string(folder.path().join("made/later")).expect("existing file"), "first");
        let _lock = lock(&link).expect("unlocked file");
        assert!(folder.path().join("real.lock").exists(), "the link and its target share one lock");
    }

    #[test]
    fn lock_is_exclusive() {
        let folder = tempfile::tempdir().expect("temp dir");
        let path = folder.path().join("config.toml");
        let lock = super::lock(&path).expect("unlocked file");
        let file = fs::OpenOptions::new().write(true).open(folder.path().join("config.toml.lock")).expect("lock file");
        assert!(matches!(file.try_lock(), Err(fs::TryLockError::WouldBlock)));
        drop(lock);
        file.try_lock().expect("released lock");
    }

    #[test]
    fn xdg_cache_home_sets_the_cache_folder() {
        let base = if cfg!(windows) { "C:\\cache" } else { "/cache" };
        let environment = [("XDG_CACHE_HOME".to_owned(), base.to_owned())].into_iter().collect();
        assert_eq!(cache_folder(&environment), Some(Path::new(base).join("mmchat")));
    }
}
