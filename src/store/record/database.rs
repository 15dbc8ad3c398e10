//! The database file: opening, what must be true of it, and its tables.
//!
//! Owns that sixteen first uses at once make one database (a lock beside it: switching to the write-ahead log does not
//! wait for anybody), that a file which is not ours is never touched, and that closing does not copy the log back, which
//! would take ten times as long as writing one call.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use rusqlite::{Connection, ErrorCode, OpenFlags, config::DbConfig};

use crate::store::{check_regular, lock_within};

/// "mmch", so that a database of somebody else's is told from ours.
const APPLICATION: i32 = 0x6d6d_6368;
/// The tables' version.
const VERSION: i32 = 3;
/// How long a write waits for other processes' writes.
const BUSY: Duration = Duration::from_secs(5);
/// The same, once one was waited for in vain.
const HURRY: Duration = Duration::from_millis(100);
/// As long as this the log is cheap to read.
const LONGEST_LOG: u64 = 512 * 1024;

const TABLES: &str = include_str!("tables.sql");
/// What brings each older version to the next.
const STEPS: [&str; 2] = [include_str!("from_1.sql"), include_str!("from_2.sql")];

/// A record that could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// The folder or its lock.
    #[error("the record {path} cannot be opened: {source}")]
    Folder {
        /// The database.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Its place was deleted while it went on.
    #[error("what was just said is not kept: its conversation was deleted meanwhile")]
    Deleted,
    /// The file is no database, or a broken one.
    #[error("the record {path} is broken or no database: move it away, and a new one is begun")]
    Broken {
        /// The database.
        path: PathBuf,
    },
    /// It is another program's.
    #[error("{path} is another program's database; it was left as it is")]
    Foreign {
        /// The database.
        path: PathBuf,
    },
    /// It was made by a newer build.
    #[error("the record {path} was written by a newer mmchat (its version is {found}, and this one knows {VERSION})")]
    Newer {
        /// The database.
        path: PathBuf,
        /// Its version.
        found: i32,
    },
    /// It was made by an older build, and nothing can be written to it.
    #[error(
        "the record {path} was written by an older mmchat, and cannot be brought up to date: it cannot be written to"
    )]
    Older {
        /// The database.
        path: PathBuf,
    },
    /// It was taken away while it was written to.
    #[error("the record {path} is gone: something removed it while it was written to")]
    Gone {
        /// The database.
        path: PathBuf,
    },
    /// What was forgotten could not be taken out of the log.
    #[error(
        "it is forgotten, but stays in the log of {path} while another process reads it: run mmchat history prune once that is over"
    )]
    InLog {
        /// The database.
        path: PathBuf,
    },
    /// A statement failed.
    #[error("the record {path} cannot be used: {source}")]
    Statement {
        /// The database.
        path: PathBuf,
        /// Why.
        #[source]
        source: rusqlite::Error,
    },
}

/// The record, open.
#[derive(Debug)]
pub struct Database {
    pub(super) connection: Connection,
    path: PathBuf,
    /// What others write to it later is not seen.
    pub(super) is_fixed: bool,
}

impl Database {
    /// Where it is in this state folder.
    #[must_use]
    pub fn place(state: &Path) -> PathBuf {
        state.join("record.db")
    }

    /// Opens the database at `path`, and makes it if need be.
    pub fn open(path: &Path) -> Result<Self, RecordError> {
        Self::open_within(path, BUSY)
    }

    /// As [`Database::open`], but does not wait for longer than `limit` while another process opens it.
    pub(super) fn open_within(path: &Path, limit: Duration) -> Result<Self, RecordError> {
        let folder = |source| RecordError::Folder { path: path.to_owned(), source };
        check_regular(path).map_err(folder)?;
        let _lock = lock_within(path, limit).map_err(folder)?;
        make_private(path).map_err(folder)?;
        let database = Self::connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        database.ready(limit)?;
        Ok(database)
    }

    /// Opens it for reading; `None`: nothing was ever recorded. Where nothing can be written, it is read all the same.
    pub fn open_existing(path: &Path) -> Result<Option<Self>, RecordError> {
        Self::open_existing_within(path, BUSY)
    }

    /// As [`Database::open_existing`], but does not wait for longer than `limit` while another process opens it.
    pub(super) fn open_existing_within(path: &Path, limit: Duration) -> Result<Option<Self>, RecordError> {
        check_regular(path).map_err(|source| RecordError::Folder { path: path.to_owned(), source })?;
        match path.try_exists() {
            Ok(true) => match Self::open_within(path, limit) {
                Err(RecordError::Folder { .. } | RecordError::Statement { .. }) => Self::open_unwritable(path, limit),
                opened => opened.map(Some),
            },
            Ok(false) => Ok(None),
            Err(source) => Err(RecordError::Folder { path: path.to_owned(), source }),
        }
    }

    /// Where nothing can be written; `None`: there is nothing in it.
    fn open_unwritable(path: &Path, limit: Duration) -> Result<Option<Self>, RecordError> {
        let read_only = OpenFlags::SQLITE_OPEN_READ_ONLY;
        let mut database = Self::connect(path, read_only)?;
        database.told(database.connection.busy_timeout(limit))?;
        let mut version = database.check();
        // Without its log SQLite cannot tell whether anybody writes to it. Where the log cannot be made nobody does, and
        // there is none to be missed.
        if version.as_ref().is_err_and(cannot_open)
            && let Some(alone) = immutable(path)
        {
            database = Self::connect(&alone, read_only | OpenFlags::SQLITE_OPEN_URI)?;
            path.clone_into(&mut database.path);
            database.is_fixed = true;
            version = database.check();
        }
        match version? {
            0 => Ok(None),
            VERSION => Ok(Some(database)),
            _ => Err(RecordError::Older { path: path.to_owned() }),
        }
    }

    /// Whether the whole file is as it should be; reads all of it.
    pub fn is_whole(&self) -> Result<bool, RecordError> {
        let told: String = self.told(self.connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)))?;
        Ok(told == "ok")
    }

    /// Makes it look like one of another version, for tests.
    #[doc(hidden)]
    pub fn pretend_version(&self, version: i32) -> Result<(), RecordError> {
        self.told(self.connection.pragma_update(None, "user_version", version))
    }

    fn connect(path: &Path, flags: OpenFlags) -> Result<Self, RecordError> {
        let flags = flags | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags).map_err(|error| problem(path, error))?;
        Ok(Self { connection, path: path.to_owned(), is_fixed: false })
    }

    /// Checks that it is ours, and brings it up to date.
    fn ready(&self, limit: Duration) -> Result<(), RecordError> {
        let connection = &self.connection;
        self.told(connection.busy_timeout(limit))?;
        let version = self.check()?;
        self.told(connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true))?;
        if version == 0 {
            self.told(connection.pragma_update(None, "journal_mode", "wal"))?;
        }
        if version < VERSION {
            let older = STEPS.iter().skip(usize::try_from(version - 1).unwrap_or(0)).copied();
            let statements = if version == 0 { TABLES.to_owned() } else { older.collect() };
            let make = format!(
                "BEGIN IMMEDIATE;\n{statements}\nPRAGMA application_id = {APPLICATION};\nPRAGMA user_version = {VERSION};\nCOMMIT;"
            );
            self.told(connection.execute_batch(&make))?;
        }
        // Whoever ends this process does not end the system: what was committed is in the log's file.
        self.told(
            connection
                .execute_batch("PRAGMA synchronous = normal; PRAGMA foreign_keys = on; PRAGMA secure_delete = on;"),
        )
    }

    /// Waits for other processes' writes no longer than is no trouble.
    pub(super) fn hurry(&self) -> Result<(), RecordError> {
        self.told(self.connection.busy_timeout(HURRY))
    }

    /// Takes what is in the log into the database, once the log is long: who opens it next has to read all of that, and
    /// between processes of one call each nobody else shortens it. Nobody is waited for any more after that.
    pub(super) fn settle(&self) -> Result<(), RecordError> {
        let long = |log: std::fs::Metadata| log.len() > LONGEST_LOG;
        if std::fs::metadata(beside(&self.path, "-wal")).is_ok_and(long) {
            // Where others are at work it can wait.
            self.told(self.connection.busy_timeout(Duration::ZERO))?;
            self.shorten()?;
        }
        Ok(())
    }

    /// Leaves nothing in the log, so that what was forgotten is not there either.
    pub fn clear_log(&self) -> Result<(), RecordError> {
        if self.shorten()? { Ok(()) } else { Err(RecordError::InLog { path: self.path.clone() }) }
    }

    /// Leaves nothing in the log, if nobody is reading; whether that was so.
    fn shorten(&self) -> Result<bool, RecordError> {
        let busy = |row: &rusqlite::Row<'_>| row.get::<_, i32>(0);
        Ok(self.told(self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], busy))? == 0)
    }

    /// Its version, if it is ours; 0: there is nothing in it yet.
    fn check(&self) -> Result<i32, RecordError> {
        let number = |query| self.told(self.connection.query_row(query, [], |row| row.get::<_, i32>(0)));
        let (application, version) = (number("PRAGMA application_id")?, number("PRAGMA user_version")?);
        let tables = number("SELECT count(*) FROM sqlite_schema")?;
        if application != APPLICATION && (tables > 0 || application != 0 || version != 0) {
            return Err(RecordError::Foreign { path: self.path.clone() });
        }
        if version > VERSION {
            return Err(RecordError::Newer { path: self.path.clone(), found: version });
        }
        Ok(version)
    }

    /// A result of the database, with the file's name in its error.
    pub(super) fn told<T>(&self, result: rusqlite::Result<T>) -> Result<T, RecordError> {
        result.map_err(|error| problem(&self.path, error))
    }
}

/// The file that SQLite has beside the database for this.
fn beside(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    name.into()
}

/// A file could not be opened, or not be written to.
fn cannot_open(error: &RecordError) -> bool {
    let RecordError::Statement { source, .. } = error else { return false };
    matches!(source.sqlite_error_code(), Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly))
}

/// The name under which SQLite opens a database that has no log, and that nobody changes.
fn immutable(path: &Path) -> Option<PathBuf> {
    let holds_something = |end| std::fs::metadata(beside(path, end)).is_ok_and(|log| log.len() > 0);
    if ["-wal", "-journal"].into_iter().any(holds_something) {
        return None;
    }
    let mut url = url::Url::from_file_path(std::path::absolute(path).ok()?).ok()?;
    url.set_query(Some("immutable=1"));
    Some(url.as_str().into())
}

fn problem(path: &Path, error: rusqlite::Error) -> RecordError {
    match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => RecordError::Broken { path: path.to_owned() },
        _ => RecordError::Statement { path: path.to_owned(), source: error },
    }
}

/// Makes the file, its owner's alone, if it is not there; the files SQLite makes beside it take after it. None that is
/// there is opened: closing it would take away the locks that another connection of this process has on it.
fn make_private(path: &Path) -> io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.create_new(true).write(true);
    crate::store::private(&mut options);
    match options.open(crate::store::real(path)) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error),
    }
    // One that was copied or restored may be open to others. Whose it is not, it is as its owner wants it.
    for end in ["", "-wal", "-shm"] {
        let _ = crate::store::close_to_others(&beside(path, end));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn place() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = Database::place(folder.path());
        (folder, path)
    }

    #[test]
    fn it_is_made_once_and_only_its_owner_reads_it() {
        let (_folder, path) = place();
        assert!(Database::open_existing(&path).expect("fine").is_none());
        drop(Database::open(&path).expect("made"));
        assert!(Database::open_existing(&path).expect("fine").is_some());
        for file in fs::read_dir(path.parent().expect("one")).expect("there") {
            let file = file.expect("there");
            assert!(!crate::transport::keys::is_exposed(&file.metadata().expect("there")), "{:?}", file.file_name());
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_copy_that_nothing_can_be_written_beside_is_read() {
        let (_folder, path) = place();
        let database = Database::open(&path).expect("made");
        database.clear_log().expect("nobody reads");
        drop(database);
        for end in ["db-wal", "db-shm"] {
            let _ = fs::remove_file(path.with_extension(end));
        }
        // Where this is, SQLite can make no file of its own.
        std::os::unix::fs::symlink("nowhere/at/all", path.with_extension("db-shm")).expect("a link");
        let database = Database::open_existing(&path).expect("opened").expect("there");
        assert_eq!((database.is_fixed, database.is_whole().map_err(|e| e.to_string())), (true, Ok(true)));
        fs::write(path.with_extension("db-wal"), "a log").expect("writable");
        assert!(Database::open_existing(&path).is_err(), "what is in the log would be missed");
    }

    /// Two connections of one process: opening the second must not take away what the first has locked.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_second_connection_leaves_the_firsts_locks_alone() {
        use std::os::unix::fs::MetadataExt;
        let (_folder, path) = place();
        let first = Database::open(&path).expect("made");
        first.connection.execute_batch("BEGIN IMMEDIATE").expect("free");
        let shared = fs::metadata(path.with_extension("db-shm")).expect("there").ino().to_string();
        let locks = || {
            let all = fs::read_to_string("/proc/locks").expect("there");
            all.split([':', ' ']).filter(|word| *word == shared).count()
        };
        let before = locks();
        drop(Database::open(&path).expect("there"));
        assert!(before > 0 && locks() == before, "{before}, then {}", locks());
    }

    #[cfg(unix)]
    #[test]
    fn what_is_no_file_is_left_alone() {
        use std::os::unix::fs::{FileTypeExt, symlink};
        let (_folder, path) = place();
        let device = std::path::Path::new("/dev/null");
        symlink(device, &path).expect("a link");
        for error in [Database::open(&path).err(), Database::open_existing(&path).err()] {
            assert!(error.expect("no file").to_string().contains("no regular file"));
        }
        assert!(fs::metadata(device).expect("there").file_type().is_char_device());
        assert!(crate::transport::keys::is_exposed(&fs::metadata(device).expect("there")));
    }

    #[test]
    fn what_is_not_ours_is_left_as_it_is() {
        let (_folder, path) = place();
        fs::write(&path, "not a database, but longer than a page's first bytes ".repeat(90)).expect("writable");
        let before = fs::read(&path).expect("there");
        assert!(matches!(Database::open(&path), Err(RecordError::Broken { .. })));
        assert_eq!(fs::read(&path).expect("there"), before);
        fs::remove_file(&path).expect("ours");
        Connection::open(&path).expect("made").execute_batch("CREATE TABLE theirs (x)").expect("made");
        assert!(matches!(Database::open(&path), Err(RecordError::Foreign { .. })));
    }

    #[test]
    fn a_newer_one_is_told_from_a_broken_one() {
        let (_folder, path) = place();
        let database = Database::open(&path).expect("made");
        database.connection.execute_batch("PRAGMA user_version = 99").expect("made");
        let error = Database::open(&path).expect_err("newer").to_string();
        assert!(error.contains("newer") && error.contains("99"), "{error}");
    }
}
