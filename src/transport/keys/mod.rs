//! Resolves key sources to API keys.
//!
//! Each variable, file or command is read once per process and cached, so that a password manager does not prompt once
//! per call. Keys are never printed.

use std::{path::Path, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{sync::OnceCell, time::timeout};

use crate::model::{
    api_key::{ApiKey, KeySource},
    describe_error,
    environment::Environment,
    key_mask::{REDACTED, looks_like_key, mask_key_shapes},
};

mod command;
pub mod keyring;

/// Time limit for a command to print its key.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(10);

/// Maximum size of a key file or of the output of a key command.
const MAX_KEY_BYTES: usize = 64 * 1024;

/// A key source could not be resolved.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The variable is unset or empty.
    #[error("environment variable {} is not set", mask_key_shapes(.0))]
    EnvNotSet(String),
    /// The file cannot be read.
    #[error("cannot read key file {path}: {reason}")]
    File {
        /// The file.
        path: String,
        /// The reason.
        reason: String,
    },
    /// Other users can read the file.
    #[error("key file {0} is readable by other users")]
    InsecurePermissions(String),
    /// The command could not be started.
    #[error("cannot run key command \"{program}\": {reason}")]
    CommandStart {
        /// The program.
        program: String,
        /// The reason.
        reason: String,
    },
    /// The command exited with an error.
    #[error("key command \"{program}\" failed with {status}{stderr}")]
    CommandFailed {
        /// The program.
        program: String,
        /// Its exit status.
        status: String,
        /// The last line of its standard error after a colon, or empty.
        stderr: String,
    },
    /// The content is too large for a key.
    #[error("{0} is larger than 64 KiB: expected one line")]
    TooLarge(String),
    /// The command did not exit in time.
    #[error("key command \"{0}\" did not exit within 10 s")]
    CommandTimeout(String),
    /// The source is empty.
    #[error("no key in the {0}")]
    Empty(String),
    /// This build does not support the source.
    #[error("cannot use {0}: this build has no keyring support")]
    KeyringUnsupported(String),
    /// The system's keyring returned an error.
    #[error("cannot access {entry}: {reason}")]
    Keyring {
        /// The entry.
        entry: String,
        /// The reason.
        reason: String,
    },
}

impl KeyError {
    /// A hint for the user.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::EnvNotSet(name) if looks_like_key(name) => {
                Some("the name seems to be a key: write api_key = \"KEY\"".to_owned())
            }
            Self::EnvNotSet(name) => Some(format!("run \"export {name}=…\"")),
            Self::KeyringUnsupported(_) => {
                Some("use a variable, a file or a command instead: { env = \"NAME\" }".to_owned())
            }
            Self::InsecurePermissions(path) => Some(format!("run \"chmod 600 {path}\"")),
            _ => None,
        }
    }
}

type KeyCell = Arc<OnceCell<Result<ApiKey, KeyError>>>;

/// Resolves and caches key sources.
#[derive(Debug, Default)]
pub struct KeyRing {
    environment: Environment,
    cells: Mutex<Vec<(KeySource, KeyCell)>>,
    /// The salt, and the cached hashes of sources whose key cannot change before the cache is cleared.
    hashes: Mutex<(String, Vec<(KeySource, u64)>)>,
}

impl KeyRing {
    /// Creates a key ring that reads variables from `environment`.
    #[must_use]
    pub fn new(environment: Environment) -> Self {
        Self { environment, ..Self::default() }
    }

    /// Resolves `source`. Concurrent calls share one lookup.
    ///
    /// # Errors
    /// When the variable is not set, the file or the keyring cannot be read, the command fails, or the key is empty.
    pub async fn resolve(&self, source: &KeySource) -> Result<ApiKey, KeyError> {
        let cell = self.cell(source);
        cell.get_or_init(|| self.read(source)).await.clone()
    }

    /// Returns a key ring with the same environment and an empty cache.
    #[must_use]
    pub fn with_empty_cache(&self) -> Self {
        Self::new(self.environment.clone())
    }

    /// Clears the cache, so that every key is resolved again.
    pub fn clear_cache(&self) {
        self.cells.lock().clear();
        self.hashes.lock().1.clear();
    }

    /// Checks whether `source` can be resolved, as far as possible without running a command or accessing the keyring.
    ///
    /// # Errors
    /// Those of [`KeyRing::resolve`].
    pub fn check(&self, source: &KeySource) -> Result<(), KeyError> {
        match source {
            KeySource::Env(name) if self.environment.get(name).is_none() => Err(KeyError::EnvNotSet(name.clone())),
            KeySource::File(path) => match read_file(path)? {
                key if key.is_empty() => Err(KeyError::Empty(source.to_string())),
                _ => Ok(()),
            },
            KeySource::Keyring(_) if !cfg!(feature = "keyring") => {
                Err(KeyError::KeyringUnsupported(source.to_string()))
            }
            KeySource::Keyring(_)
            | KeySource::Env(_)
            | KeySource::Command(_)
            | KeySource::Shell(_)
            | KeySource::Literal(_) => Ok(()),
        }
    }

    /// Returns a salted hash of the key, cached if the key cannot change. For commands and keyring entries, hashes the
    /// command line or entry name instead of resolving the key. `None`: there is no key.
    pub fn hash(&self, source: &KeySource, salt: &str) -> Option<u64> {
        let mut hashes = self.hashes.lock();
        if hashes.0 != salt {
            *hashes = (salt.to_owned(), Vec::new());
        }
        if let Some((_, hash)) = hashes.1.iter().find(|(cached, _)| cached == source) {
            return Some(*hash);
        }
        let hash = self.compute_hash(source, salt)?;
        // The content of a file may change until the key has been resolved and cached.
        let can_be_cached = !matches!(source, KeySource::File(_)) || matches!(self.cell(source).get(), Some(Ok(_)));
        if can_be_cached {
            hashes.1.push((source.clone(), hash));
        }
        Some(hash)
    }

    fn compute_hash(&self, source: &KeySource, salt: &str) -> Option<u64> {
        let value = match source {
            KeySource::Env(name) => ApiKey::new(self.environment.get(name)?),
            KeySource::File(path) => match self.cell(source).get() {
                Some(Ok(key)) => key.clone(),
                _ => read_file(path).ok()?,
            },
            KeySource::Literal(key) => key.clone(),
            KeySource::Command(argv) => ApiKey::new(&argv.join("\0")),
            KeySource::Shell(line) => ApiKey::new(line),
            KeySource::Keyring(name) => ApiKey::new(name),
        };
        let mut context = ring::digest::Context::new(&ring::digest::SHA256);
        context.update(salt.as_bytes());
        context.update(value.expose().as_bytes());
        let digest = context.finish();
        let prefix = digest.as_ref().first_chunk::<8>().expect("a SHA-256 digest has 32 bytes");
        Some(u64::from_be_bytes(*prefix))
    }

    fn cell(&self, source: &KeySource) -> KeyCell {
        let mut cells = self.cells.lock();
        if let Some((_, cell)) = cells.iter().find(|(cached, _)| cached == source) {
            return Arc::clone(cell);
        }
        let cell = KeyCell::default();
        cells.push((source.clone(), Arc::clone(&cell)));
        cell
    }

    async fn read(&self, source: &KeySource) -> Result<ApiKey, KeyError> {
        let key = match source {
            KeySource::Env(name) => {
                ApiKey::new(self.environment.get(name).ok_or_else(|| KeyError::EnvNotSet(name.clone()))?)
            }
            KeySource::File(path) => read_file(path)?,
            KeySource::Command(argv) => {
                let (program, arguments) = argv.split_first().ok_or_else(|| KeyError::Empty(source.to_string()))?;
                let mut command = tokio::process::Command::new(program);
                command.args(arguments);
                command::run(command, source.program().unwrap_or(REDACTED), &command::secrets(arguments)).await?
            }
            KeySource::Shell(line) => {
                let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
                let program = source.program().unwrap_or("sh");
                command::run(command::shell_command(line), program, &command::secrets(&words)).await?
            }
            KeySource::Literal(key) => key.clone(),
            KeySource::Keyring(name) => {
                let (entry, name) = (source.to_string(), name.clone());
                let lookup = tokio::task::spawn_blocking(move || keyring::read(&name));
                let result = timeout(COMMAND_TIMEOUT, lookup).await;
                let timed_out =
                    |_| KeyError::Keyring { entry: entry.clone(), reason: "no response within 10 s".into() };
                let panicked = |error: tokio::task::JoinError| KeyError::Keyring {
                    entry: entry.clone(),
                    reason: error.to_string(),
                };
                result.map_err(timed_out)?.map_err(panicked)??
            }
        };
        if key.is_empty() { Err(KeyError::Empty(source.to_string())) } else { Ok(key) }
    }
}

fn read_file(path: &Path) -> Result<ApiKey, KeyError> {
    use std::io::Read;
    let name = mask_key_shapes(&path.display().to_string()).into_owned();
    let read_error = |error: std::io::Error| KeyError::File { path: name.clone(), reason: describe_error(&error) };
    // Checked before opening, because opening a named pipe without a writer would block forever.
    let metadata = std::fs::metadata(path).map_err(read_error)?;
    if !metadata.is_file() {
        return Err(KeyError::File { path: name, reason: "not a regular file".into() });
    }
    if is_readable_by_others(&metadata) {
        return Err(KeyError::InsecurePermissions(name));
    }
    let file = std::fs::File::open(path).map_err(read_error)?;
    let mut bytes = Vec::new();
    file.take(MAX_KEY_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(read_error)?;
    if bytes.len() > MAX_KEY_BYTES {
        return Err(KeyError::TooLarge(format!("key file {name}")));
    }
    let text = String::from_utf8(bytes)
        .map_err(|_| KeyError::File { path: name.clone(), reason: "not valid UTF-8".into() })?;
    Ok(ApiKey::new(&text))
}

/// Whether users other than the owner can read the file.
#[cfg(unix)]
#[must_use]
pub fn is_readable_by_others(metadata: &std::fs::Metadata) -> bool {
    use std::os::unix::fs::PermissionsExt;
    metadata.permissions().mode() & 0o077 != 0
}

/// Whether all users can read the file.
#[cfg(unix)]
#[must_use]
pub fn is_readable_by_all(metadata: &std::fs::Metadata) -> bool {
    use std::os::unix::fs::PermissionsExt;
    metadata.permissions().mode() & 0o004 != 0
}

/// Whether all users can read the file. Not checked on other systems than Unix.
#[cfg(not(unix))]
#[must_use]
pub fn is_readable_by_all(_metadata: &std::fs::Metadata) -> bool {
    false
}

/// Whether users other than the owner can read the file. Not checked on other systems than Unix, where access is
/// controlled by ACLs and the user's own folders are private.
#[cfg(not(unix))]
#[must_use]
pub fn is_readable_by_others(_metadata: &std::fs::Metadata) -> bool {
    false
}

#[cfg(test)]
mod tests;
