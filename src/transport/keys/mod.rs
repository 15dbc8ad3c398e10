//! The key ring: turns key sources into keys.
//!
//! Owns reading variables and files and running commands, each once per process however many lanes ask (a password
//! manager must not be asked eight times). Refuses to know models, and to print what it read.

use std::{
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{sync::OnceCell, time::timeout};

use crate::model::{
    api_key::{ApiKey, KeySource},
    environment::Environment,
};

mod command;
pub mod keyring;

/// How long a command may take to print its key.
const COMMAND_LIMIT: Duration = Duration::from_secs(10);

/// The most a command or a file may hold: a key is a line, not a disk.
const LONGEST_KEY: usize = 64 * 1024;

/// A source that gave no key.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The variable is not there, or empty.
    #[error("the environment variable {0} is not set")]
    Unset(String),
    /// The file cannot be read.
    #[error("the key file {path} cannot be read: {reason}")]
    File {
        /// Which file.
        path: String,
        /// Why.
        reason: String,
    },
    /// Other users can read the file.
    #[error("the key file {0} can be read by other users")]
    Exposed(String),
    /// The command could not be started.
    #[error("the key command `{program}` could not be run: {reason}")]
    Start {
        /// The program.
        program: String,
        /// Why.
        reason: String,
    },
    /// The command said no.
    #[error("the key command `{program}` failed with {status}{said}")]
    Failed {
        /// The program.
        program: String,
        /// How it ended.
        status: String,
        /// The last line of its standard error, after a colon; or nothing.
        said: String,
    },
    /// What it holds is no key.
    #[error("the {0} is longer than 64 KiB: a key is a line")]
    TooLong(String),
    /// The command did not end.
    #[error("the key command `{0}` did not end within 10 s")]
    Slow(String),
    /// There was nothing in it.
    #[error("the {0} holds no key")]
    Empty(String),
    /// A source this build cannot read.
    #[error("the {0} cannot be read: this build has no keyring support; use `env`, `file` or `command`")]
    Unsupported(String),
    /// The system's keyring says no.
    #[error("the {entry} cannot be used: {reason}")]
    Keyring {
        /// Which.
        entry: String,
        /// Why.
        reason: String,
    },
}

impl KeyError {
    /// What the reader may do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Unset(name) => Some(format!("set it: export {name}=…")),
            Self::Exposed(path) => Some(format!("chmod 600 {path}")),
            _ => None,
        }
    }
}

type Cell = Arc<OnceCell<Result<ApiKey, KeyError>>>;

/// Resolves key sources, each at most once.
#[derive(Debug, Default)]
pub struct KeyRing {
    environment: Environment,
    cells: Mutex<Vec<(KeySource, Cell)>>,
    /// The hashes of keys that cannot become others until they are forgotten, and the salt they have.
    hashes: Mutex<(String, Vec<(KeySource, u64)>)>,
}

impl KeyRing {
    /// A ring that reads variables from `environment`.
    #[must_use]
    pub fn new(environment: Environment) -> Self {
        Self { environment, ..Self::default() }
    }

    /// The key that `source` stands for. Concurrent calls share one look-up.
    pub async fn resolve(&self, source: &KeySource) -> Result<ApiKey, KeyError> {
        let cell = self.cell(source);
        cell.get_or_init(|| self.read(source)).await.clone()
    }

    /// One that has looked nothing up yet.
    #[must_use]
    pub fn fresh(&self) -> Self {
        Self::new(self.environment.clone())
    }

    /// Forgets every key, so that each is looked up anew.
    pub fn forget(&self) {
        self.cells.lock().expect("no code panics while it holds this lock").clear();
        self.hashes.lock().expect("no code panics while it holds this lock").1.clear();
    }

    /// What keeps `source` from giving a key, as far as that can be told without running anything.
    pub fn glance(&self, source: &KeySource) -> Result<(), KeyError> {
        match source {
            KeySource::Env(name) if self.environment.get(name).is_none() => Err(KeyError::Unset(name.clone())),
            KeySource::File(path) => match read_file(path)? {
                key if key.is_empty() => Err(KeyError::Empty(source.to_string())),
                _ => Ok(()),
            },
            KeySource::Keyring(_) if !cfg!(feature = "keyring") => Err(KeyError::Unsupported(source.to_string())),
            KeySource::Keyring(_)
            | KeySource::Env(_)
            | KeySource::Command(_)
            | KeySource::Shell(_)
            | KeySource::Literal(_) => Ok(()),
        }
    }

    /// A hash of the key, with `salt`, remembered where the key cannot become another one; of a command's words where
    /// only running it would tell. `None`: there is no key.
    pub fn hash(&self, source: &KeySource, salt: &str) -> Option<u64> {
        let mut hashes = self.hashes.lock().expect("no code panics while it holds this lock");
        if hashes.0 != salt {
            *hashes = (salt.to_owned(), Vec::new());
        }
        if let Some((_, hash)) = hashes.1.iter().find(|(known, _)| known == source) {
            return Some(*hash);
        }
        let hash = self.hashed(source, salt)?;
        // A file that was not read for good may be another one the next time.
        let settled = !matches!(source, KeySource::File(_)) || matches!(self.cell(source).get(), Some(Ok(_)));
        if settled {
            hashes.1.push((source.clone(), hash));
        }
        Some(hash)
    }

    fn hashed(&self, source: &KeySource, salt: &str) -> Option<u64> {
        let value = match source {
            KeySource::Env(name) => ApiKey::new(self.environment.get(name)?),
            KeySource::File(path) => match self.cell(source).get() {
                Some(Ok(key)) => key.clone(),
                _ => read_file(path).ok()?,
            },
            KeySource::Literal(key) => key.clone(),
            KeySource::Command(words) => ApiKey::new(&words.join("\0")),
            KeySource::Shell(line) => ApiKey::new(line),
            KeySource::Keyring(name) => ApiKey::new(name),
        };
        let mut context = ring::digest::Context::new(&ring::digest::SHA256);
        context.update(salt.as_bytes());
        context.update(value.expose().as_bytes());
        let digest = context.finish();
        let start = digest.as_ref().first_chunk::<8>().expect("a digest has 32 bytes");
        Some(u64::from_be_bytes(*start))
    }

    fn cell(&self, source: &KeySource) -> Cell {
        let mut cells = self.cells.lock().expect("no code panics while it holds this lock");
        if let Some((_, cell)) = cells.iter().find(|(known, _)| known == source) {
            return Arc::clone(cell);
        }
        let cell = Cell::default();
        cells.push((source.clone(), Arc::clone(&cell)));
        cell
    }

    async fn read(&self, source: &KeySource) -> Result<ApiKey, KeyError> {
        let key = match source {
            KeySource::Env(name) => {
                ApiKey::new(self.environment.get(name).ok_or_else(|| KeyError::Unset(name.clone()))?)
            }
            KeySource::File(path) => read_file(path)?,
            KeySource::Command(words) => {
                let (program, arguments) = words.split_first().ok_or_else(|| KeyError::Empty(source.to_string()))?;
                let mut command = tokio::process::Command::new(program);
                command.args(arguments);
                command::run(command, program).await?
            }
            KeySource::Shell(line) => {
                command::run(command::shell(line), line.split_whitespace().next().unwrap_or("sh")).await?
            }
            KeySource::Literal(key) => key.clone(),
            KeySource::Keyring(name) => {
                let (entry, name) = (source.to_string(), name.clone());
                let reading = tokio::task::spawn_blocking(move || keyring::read(&name));
                let read = timeout(COMMAND_LIMIT, reading).await;
                let slow = |_| KeyError::Keyring { entry: entry.clone(), reason: "no answer within 10 s".into() };
                let gone = |error: tokio::task::JoinError| KeyError::Keyring {
                    entry: entry.clone(),
                    reason: error.to_string(),
                };
                read.map_err(slow)?.map_err(gone)??
            }
        };
        if key.is_empty() { Err(KeyError::Empty(source.to_string())) } else { Ok(key) }
    }
}

fn read_file(path: &Path) -> Result<ApiKey, KeyError> {
    use std::io::Read;
    let shown = path.display().to_string();
    let failed = |error: std::io::Error| KeyError::File { path: shown.clone(), reason: error.to_string() };
    // Looked at before it is opened: opening a pipe that nobody writes to would never return.
    let metadata = std::fs::metadata(path).map_err(failed)?;
    if !metadata.is_file() {
        return Err(KeyError::File { path: shown, reason: "it is no regular file".into() });
    }
    if is_exposed(&metadata) {
        return Err(KeyError::Exposed(shown));
    }
    let file = std::fs::File::open(path).map_err(failed)?;
    let mut bytes = Vec::new();
    file.take(LONGEST_KEY as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() > LONGEST_KEY {
        return Err(KeyError::TooLong(format!("key file {shown}")));
    }
    let text = String::from_utf8(bytes)
        .map_err(|_| KeyError::File { path: shown.clone(), reason: "it is no UTF-8 text".into() })?;
    Ok(ApiKey::new(&text))
}

/// Whether users other than the owner can read the file.
#[cfg(unix)]
#[must_use]
pub fn is_exposed(metadata: &std::fs::Metadata) -> bool {
    use std::os::unix::fs::PermissionsExt;
    metadata.permissions().mode() & 0o077 != 0
}

/// Whether users other than the owner can read the file. Elsewhere than on Unix, access follows the folder's lists,
/// and a user's own folders are closed to others.
#[cfg(not(unix))]
#[must_use]
pub fn is_exposed(_metadata: &std::fs::Metadata) -> bool {
    false
}

#[cfg(test)]
mod tests;
