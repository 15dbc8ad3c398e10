//! Opens, checks and migrates the database file.
//!
//! A lock file serializes opening, because SQLite's switch to the write-ahead log (WAL) does not wait for other
//! connections. A file of another program is never changed. Closing does not checkpoint the WAL, which would take ten
//! times as long as writing one call.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use rusqlite::{Connection, ErrorCode, OpenFlags, config::DbConfig};

use crate::{
    model::describe_error,
    store::{check_regular, lock_with_timeout},
};

/// The `application_id` of our databases ("mmch"), which tells them from those of other programs.
const APPLICATION_ID: i32 = 0x6d6d_6368;
/// The schema version.
const SCHEMA_VERSION: i32 = 4;
/// How long a write waits for other processes' writes.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a write waits for other processes' writes, after a write has timed out.
const SHORT_BUSY_TIMEOUT: Duration = Duration::from_millis(100);
/// The WAL size, in bytes, above which it is checkpointed: up to this, reading it is cheap.
const MAX_WAL_BYTES: u64 = 512 * 1024;

const SCHEMA: &str = include_str!("schema.sql");
/// Migrations from each schema version to the next.
const MIGRATIONS: [&str; 3] = [
    include_str!("migrations/1_to_2.sql"),
    include_str!("migrations/2_to_3.sql"),
    include_str!("migrations/3_to_4.sql"),
];

/// An error while reading or writing the record database.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// The file, its folder or its lock cannot be opened.
    #[error("cannot open record database {path}: {}", describe_error(source))]
    Open {
        /// The database.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The conversation was deleted during the run.
    #[error("the answer was not stored: its conversation was deleted during the run")]
    ConversationDeleted,
    /// The file is corrupt or not a database.
    #[error("record database {path} is corrupt or not a database: move it away to start a new one")]
    Corrupt {
        /// The database.
        path: PathBuf,
    },
    /// The database belongs to another program.
    #[error("{path} is the database of another program, and was not changed: move it away to start a new record")]
    OtherProgram {
        /// The database.
        path: PathBuf,
    },
    /// The database was written by a newer version of mmchat.
    #[error(
        "record database {path} was written by a newer mmchat (schema version {found}, supported: {SCHEMA_VERSION}): \
         update mmchat, or move the file away to start a new one"
    )]
    NewerSchema {
        /// The database.
        path: PathBuf,
        /// Its schema version.
        found: i32,
    },
    /// The database has an older schema and cannot be migrated, because it is read-only.
    #[error(
        "record database {path} was written by an older mmchat and cannot be migrated: make the file and its folder \
         writable"
    )]
    OlderSchema {
        /// The database.
        path: PathBuf,
    },
    /// The file was removed while it was being written.
    #[error("record database {path} was removed while it was being written")]
    Removed {
        /// The database.
        path: PathBuf,
    },
    /// Deleted content could not be removed from the WAL.
    #[error(
        "the deleted text is still on the disk, because another process is reading {path}: run \"mmchat history prune\" \
         when that process has ended"
    )]
    StillInLog {
        /// The database.
        path: PathBuf,
    },
    /// An SQL statement failed.
    #[error("cannot use record database {path}: {source}")]
    Sql {
        /// The database.
        path: PathBuf,
        /// The cause.
        #[source]
        source: rusqlite::Error,
    },
}

/// An open record database.
#[derive(Debug)]
pub struct Database {
    pub(super) connection: Connection,
    path: PathBuf,
    /// Opened as immutable: later changes by other processes are not seen.
    pub(super) is_immutable: bool,
}

impl Database {
    /// The path of the database in the state folder `state`.
    #[must_use]
    pub fn path_in(state: &Path) -> PathBuf {
        state.join("record.db")
    }

    /// Opens the database at `path`, and creates it if needed.
    pub fn open(path: &Path) -> Result<Self, RecordError> {
        Self::open_with_timeout(path, BUSY_TIMEOUT)
    }

    /// Like [`Database::open`], but waits at most `limit` while another process opens it.
    fn open_with_timeout(path: &Path, limit: Duration) -> Result<Self, RecordError> {
        let open_error = |source| RecordError::Open { path: path.to_owned(), source };
        check_regular(path).map_err(open_error)?;
        let _lock = lock_with_timeout(path, limit).map_err(open_error)?;
        create_private_file(path).map_err(open_error)?;
        let database = Self::connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        database.prepare(limit)?;
        Ok(database)
    }

    /// Opens an existing database; `None` if there is none. A read-only one is opened for reading.
    pub fn open_existing(path: &Path) -> Result<Option<Self>, RecordError> {
        Self::open_existing_with_timeout(path, BUSY_TIMEOUT)
    }

    /// Like [`Database::open_existing`], but waits at most `limit` while another process opens it.
    pub(super) fn open_existing_with_timeout(path: &Path, limit: Duration) -> Result<Option<Self>, RecordError> {
        check_regular(path).map_err(|source| RecordError::Open { path: path.to_owned(), source })?;
        match path.try_exists() {
            Ok(true) => match Self::open_with_timeout(path, limit) {
                Err(error @ (RecordError::Open { .. } | RecordError::Sql { .. })) => {
                    match Self::open_read_only(path, limit) {
                        // The migration failed for another reason, such as a full disk.
                        Err(RecordError::OlderSchema { .. }) if !is_read_only(&error) => Err(error),
                        opened => opened,
                    }
                }
                opened => opened.map(Some),
            },
            Ok(false) => Ok(None),
            Err(source) => Err(RecordError::Open { path: path.to_owned(), source }),
        }
    }

    /// Opens a database that cannot be written; `None` if it is empty.
    fn open_read_only(path: &Path, limit: Duration) -> Result<Option<Self>, RecordError> {
        let read_only = OpenFlags::SQLITE_OPEN_READ_ONLY;
        let mut database = Self::connect(path, read_only)?;
        database.map_error(database.connection.busy_timeout(limit))?;
        let mut version = database.check_version();
        // SQLite needs a WAL file to notice the writes of other processes. If it cannot create one, no process can
        // write, and the database can be opened as immutable.
        if version.as_ref().is_err_and(is_cannot_open)
            && let Some(uri) = immutable_uri(path)
        {
            database = Self::connect(&uri, read_only | OpenFlags::SQLITE_OPEN_URI)?;
            path.clone_into(&mut database.path);
            database.is_immutable = true;
            version = database.check_version();
        }
        match version? {
            0 => Ok(None),
            SCHEMA_VERSION => Ok(Some(database)),
            _ => Err(RecordError::OlderSchema { path: path.to_owned() }),
        }
    }

    /// Checks the integrity of the database; reads the whole file.
    pub fn check_integrity(&self) -> Result<bool, RecordError> {
        let result: String =
            self.map_error(self.connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)))?;
        Ok(result == "ok")
    }

    /// Sets the schema version, for tests.
    #[doc(hidden)]
    pub fn set_version_for_tests(&self, version: i32) -> Result<(), RecordError> {
        self.map_error(self.connection.pragma_update(None, "user_version", version))
    }

    fn connect(path: &Path, flags: OpenFlags) -> Result<Self, RecordError> {
        let flags = flags | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags).map_err(|error| record_error(path, error))?;
        Ok(Self { connection, path: path.to_owned(), is_immutable: false })
    }

    /// Checks that the database is ours, configures the connection and migrates the schema.
    fn prepare(&self, limit: Duration) -> Result<(), RecordError> {
        let connection = &self.connection;
        self.map_error(connection.busy_timeout(limit))?;
        let version = self.check_version()?;
        self.map_error(connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true))?;
        // The mode is stored in the file; a restored copy has another one.
        if version < SCHEMA_VERSION {
            self.map_error(connection.pragma_update(None, "journal_mode", "wal"))?;
        }
        // Before the migration, so that text in dropped tables is overwritten too.
        self.map_error(connection.pragma_update(None, "secure_delete", true))?;
        if (1..SCHEMA_VERSION).contains(&version) {
            self.keep_copy(version)?;
        }
        if version < SCHEMA_VERSION {
            let migrations = MIGRATIONS.iter().skip(usize::try_from(version - 1).unwrap_or(0)).copied();
            let statements = if version == 0 { SCHEMA.to_owned() } else { migrations.collect() };
            let script = format!(
                "BEGIN IMMEDIATE;\n{statements}\nPRAGMA application_id = {APPLICATION_ID};\nPRAGMA user_version = {SCHEMA_VERSION};\nCOMMIT;"
            );
            self.map_error(connection.execute_batch(&script))?;
        }
        // `normal` survives a crash of the process, not of the system: commits are in the WAL file.
        self.map_error(connection.execute_batch("PRAGMA synchronous = normal; PRAGMA foreign_keys = on;"))
    }

    /// Copies the database before its schema is migrated, so that an earlier mmchat can be used again.
    fn keep_copy(&self, version: i32) -> Result<(), RecordError> {
        let copy = copy_path(&self.path, version);
        let open_error = |source| RecordError::Open { path: copy.clone(), source };
        match std::fs::remove_file(&copy) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(open_error(error)),
            _ => create_private_file(&copy).map_err(open_error)?,
        }
        // SQLite writes into an existing file only if it is empty.
        let result = self.connection.execute("VACUUM INTO ?1", [copy.to_string_lossy()]);
        result.map(drop).map_err(|error| {
            // A partial copy would only take space.
            let _ = std::fs::remove_file(&copy);
            record_error(&copy, error)
        })
    }

    /// Waits only briefly for other processes' writes from now on.
    pub(super) fn use_short_timeout(&self) -> Result<(), RecordError> {
        self.map_error(self.connection.busy_timeout(SHORT_BUSY_TIMEOUT))
    }

    /// Checkpoints the WAL if it is large: the next process to open the database reads all of it, and a sequence of
    /// processes of one call each would never checkpoint it. Later statements do not wait for other processes.
    pub(super) fn checkpoint_if_large(&self) -> Result<(), RecordError> {
        let is_large = |wal: std::fs::Metadata| wal.len() > MAX_WAL_BYTES;
        if std::fs::metadata(companion_path(&self.path, "-wal")).is_ok_and(is_large) {
            // If another process is busy, the checkpoint can wait.
            self.map_error(self.connection.busy_timeout(Duration::ZERO))?;
            self.checkpoint()?;
        }
        Ok(())
    }

    /// Removes deleted content from the disk: empties the WAL and removes the copies made before a migration, which still
    /// contain it.
    pub fn purge_deleted(&self) -> Result<(), RecordError> {
        for version in 1..SCHEMA_VERSION {
            let copy = copy_path(&self.path, version);
            match std::fs::remove_file(&copy) {
                Err(source) if source.kind() != io::ErrorKind::NotFound => {
                    return Err(RecordError::Open { path: copy, source });
                }
                _ => {}
            }
        }
        if self.checkpoint()? { Ok(()) } else { Err(RecordError::StillInLog { path: self.path.clone() }) }
    }

    /// Empties the WAL. Returns false if another process is reading.
    fn checkpoint(&self) -> Result<bool, RecordError> {
        let read_busy = |row: &rusqlite::Row<'_>| row.get::<_, i32>(0);
        Ok(self.map_error(self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], read_busy))? == 0)
    }

    /// Checks that the database is ours and returns its schema version; 0 if it is empty.
    fn check_version(&self) -> Result<i32, RecordError> {
        let read_number = |query| self.map_error(self.connection.query_row(query, [], |row| row.get::<_, i32>(0)));
        let (application, version) = (read_number("PRAGMA application_id")?, read_number("PRAGMA user_version")?);
        let tables = read_number("SELECT count(*) FROM sqlite_schema")?;
        if application != APPLICATION_ID && (tables > 0 || application != 0 || version != 0) {
            return Err(RecordError::OtherProgram { path: self.path.clone() });
        }
        if version > SCHEMA_VERSION {
            return Err(RecordError::NewerSchema { path: self.path.clone(), found: version });
        }
        Ok(version)
    }

    /// Adds the path of the database to the error.
    pub(super) fn map_error<T>(&self, result: rusqlite::Result<T>) -> Result<T, RecordError> {
        result.map_err(|error| record_error(&self.path, error))
    }
}

/// The path of the copy of a database with schema version `version`: `record.v3.db`.
fn copy_path(path: &Path, version: i32) -> PathBuf {
    path.with_extension(format!("v{version}.db"))
}

/// The path of a file that SQLite keeps beside the database, such as `-wal`.
fn companion_path(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Whether a file could not be opened or written.
fn is_cannot_open(error: &RecordError) -> bool {
    let RecordError::Sql { source, .. } = error else { return false };
    matches!(source.sqlite_error_code(), Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly))
}

/// Whether the file or its folder cannot be written by this user.
fn is_read_only(error: &RecordError) -> bool {
    match error {
        RecordError::Open { source, .. } => {
            matches!(source.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem)
        }
        error => is_cannot_open(error),
    }
}

/// The URI that opens the database as immutable; `None` if it has a WAL with content.
fn immutable_uri(path: &Path) -> Option<PathBuf> {
    let has_content = |suffix| std::fs::metadata(companion_path(path, suffix)).is_ok_and(|log| log.len() > 0);
    if ["-wal", "-journal"].into_iter().any(has_content) {
        return None;
    }
    let mut url = url::Url::from_file_path(std::path::absolute(path).ok()?).ok()?;
    url.set_query(Some("immutable=1"));
    Some(url.as_str().into())
}

fn record_error(path: &Path, error: rusqlite::Error) -> RecordError {
    match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => RecordError::Corrupt { path: path.to_owned() },
        _ => RecordError::Sql { path: path.to_owned(), source: error },
    }
}

/// Creates the file, accessible to its owner only, if it is missing; SQLite gives its WAL the same mode. An existing
/// file is not opened: closing it would release the locks that other connections of this process hold on it.
fn create_private_file(path: &Path) -> io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.create_new(true).write(true);
    crate::store::set_private_mode(&mut options);
    match options.open(crate::store::resolve_links(path)) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error),
    }
    // A copied or restored file may be readable by others. The mode of a file of another owner cannot be changed.
    for suffix in ["", "-wal", "-shm"] {
        let _ = crate::store::restrict_to_owner(&companion_path(path, suffix));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn temp_path() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().expect("temp dir");
        let path = Database::path_in(folder.path());
        (folder, path)
    }

    #[test]
    fn database_is_created_private() {
        let (_folder, path) = temp_path();
        assert!(Database::open_existing(&path).expect("valid database").is_none());
        drop(Database::open(&path).expect("new database"));
        assert!(Database::open_existing(&path).expect("valid database").is_some());
        for file in fs::read_dir(path.parent().expect("parent")).expect("folder") {
            let file = file.expect("a file");
            assert!(
                !crate::transport::keys::is_readable_by_others(&file.metadata().expect("a file")),
                "{:?}",
                file.file_name()
            );
        }
    }

    #[cfg(unix)]
    #[test]
    fn copy_in_a_read_only_place_is_opened_as_immutable() {
        let (_folder, path) = temp_path();
        let database = Database::open(&path).expect("new database");
        database.purge_deleted().expect("no reader");
        drop(database);
        for extension in ["db-wal", "db-shm"] {
            let _ = fs::remove_file(path.with_extension(extension));
        }
        // SQLite cannot create its file here.
        std::os::unix::fs::symlink("nowhere/at/all", path.with_extension("db-shm")).expect("new link");
        let database = Database::open_existing(&path).expect("valid database").expect("a database");
        assert_eq!((database.is_immutable, database.check_integrity().map_err(|e| e.to_string())), (true, Ok(true)));
        fs::write(path.with_extension("db-wal"), "a log").expect("writable path");
        assert!(Database::open_existing(&path).is_err(), "the content of the WAL would be missed");
    }

    /// Two connections of one process: opening the second must not release the locks of the first.
    #[cfg(target_os = "linux")]
    #[test]
    fn second_connection_keeps_the_locks_of_the_first() {
        use std::os::unix::fs::MetadataExt;
        let (_folder, path) = temp_path();
        let first = Database::open(&path).expect("new database");
        first.connection.execute_batch("BEGIN IMMEDIATE").expect("unlocked database");
        let shm_inode = fs::metadata(path.with_extension("db-shm")).expect("a file").ino().to_string();
        let locks = || {
            let all = fs::read_to_string("/proc/locks").expect("a file");
            all.split([':', ' ']).filter(|word| *word == shm_inode).count()
        };
        let before = locks();
        drop(Database::open(&path).expect("valid database"));
        assert!(before > 0 && locks() == before, "{before}, then {}", locks());
    }

    #[cfg(unix)]
    #[test]
    fn device_is_not_changed() {
        use std::os::unix::fs::{FileTypeExt, symlink};
        let (_folder, path) = temp_path();
        let device = std::path::Path::new("/dev/null");
        symlink(device, &path).expect("new link");
        for error in [Database::open(&path).err(), Database::open_existing(&path).err()] {
            assert!(error.expect("an error").to_string().contains("not a regular file"));
        }
        assert!(fs::metadata(device).expect("a file").file_type().is_char_device());
        assert!(crate::transport::keys::is_readable_by_others(&fs::metadata(device).expect("a file")));
    }

    #[test]
    fn other_files_and_databases_are_not_changed() {
        let (_folder, path) = temp_path();
        fs::write(&path, "not a database, but longer than a page's first bytes ".repeat(90)).expect("writable path");
        let before = fs::read(&path).expect("a file");
        assert!(matches!(Database::open(&path), Err(RecordError::Corrupt { .. })));
        assert_eq!(fs::read(&path).expect("a file"), before);
        fs::remove_file(&path).expect("removable file");
        Connection::open(&path).expect("new database").execute_batch("CREATE TABLE theirs (x)").expect("valid SQL");
        assert!(matches!(Database::open(&path), Err(RecordError::OtherProgram { .. })));
    }

    #[test]
    fn newer_schema_is_reported() {
        let (_folder, path) = temp_path();
        let database = Database::open(&path).expect("new database");
        database.connection.execute_batch("PRAGMA user_version = 99").expect("valid SQL");
        let error = Database::open(&path).expect_err("newer schema").to_string();
        assert!(error.contains("newer") && error.contains("99"), "{error}");
    }
}
