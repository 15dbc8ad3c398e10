//! The key ring: turns key sources into keys.
//!
//! Owns reading variables and files and running commands, each once per process however many lanes ask (a password
//! manager must not be asked eight times). Refuses to know models, and to print what it read.

use std::{
    path::Path,
    pin::pin,
    process::{ExitStatus, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt},
    process::Child,
    sync::OnceCell,
    time::timeout,
};

use crate::{
    environment::Environment,
    secret::{ApiKey, KeySource},
};

/// How long a command may take to print its key.
const COMMAND_LIMIT: Duration = Duration::from_secs(10);

/// How long its output is waited for once it has ended.
const AFTER_EXIT: Duration = Duration::from_millis(100);

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
}

impl KeyRing {
    /// A ring that reads variables from `environment`.
    #[must_use]
    pub fn new(environment: Environment) -> Self {
        Self { environment, cells: Mutex::default() }
    }

    /// The key that `source` stands for. Concurrent calls share one look-up.
    pub async fn resolve(&self, source: &KeySource) -> Result<ApiKey, KeyError> {
        let cell = self.cell(source);
        cell.get_or_init(|| self.read(source)).await.clone()
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

    /// A hash of the key, with `salt`; of a command's words where only running it would tell. `None`: there is no key.
    pub fn hash(&self, source: &KeySource, salt: &str) -> Option<u64> {
        let value = match source {
            KeySource::Env(name) => ApiKey::new(self.environment.get(name)?),
            KeySource::File(path) => read_file(path).ok()?,
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
                run(command, program).await?
            }
            KeySource::Shell(line) => run(shell(line), line.split_whitespace().next().unwrap_or("sh")).await?,
            KeySource::Literal(key) => key.clone(),
            KeySource::Keyring(name) => {
                let (entry, name) = (source.to_string(), name.clone());
                let reading = tokio::task::spawn_blocking(move || read_from_keyring(&name));
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

/// What our entries in the system's keyring are filed under.
#[cfg(feature = "keyring")]
const SERVICE: &str = "mmchat";

#[cfg(feature = "keyring")]
fn in_keyring<T: Send>(
    name: &str,
    act: impl FnOnce(&keyring::Entry) -> keyring::Result<T> + Send,
) -> Result<T, KeyError> {
    let work = || keyring::Entry::new(SERVICE, name).and_then(|entry| act(&entry));
    // On a thread of its own: the keyring's client waits for answers in a way a runtime's thread must not.
    let done = std::thread::scope(|scope| scope.spawn(work).join());
    done.unwrap_or_else(|panic| std::panic::resume_unwind(panic)).map_err(|error| KeyError::Keyring {
        entry: KeySource::Keyring(name.to_owned()).to_string(),
        reason: error.to_string(),
    })
}

#[cfg(feature = "keyring")]
fn read_from_keyring(name: &str) -> Result<ApiKey, KeyError> {
    in_keyring(name, keyring::Entry::get_password).map(|key| ApiKey::new(&key))
}

/// Keeps a key in the system's keyring.
#[cfg(feature = "keyring")]
pub fn keep_in_keyring(name: &str, key: &ApiKey) -> Result<(), KeyError> {
    in_keyring(name, |entry| entry.set_password(key.expose()))
}

/// Takes a key out of the system's keyring.
#[cfg(feature = "keyring")]
pub fn remove_from_keyring(name: &str) -> Result<(), KeyError> {
    in_keyring(name, keyring::Entry::delete_credential)
}

#[cfg(not(feature = "keyring"))]
fn read_from_keyring(name: &str) -> Result<ApiKey, KeyError> {
    Err(KeyError::Unsupported(KeySource::Keyring(name.to_owned()).to_string()))
}

/// This build has none.
#[cfg(not(feature = "keyring"))]
pub fn keep_in_keyring(name: &str, _: &ApiKey) -> Result<(), KeyError> {
    read_from_keyring(name).map(drop)
}

/// This build has none.
#[cfg(not(feature = "keyring"))]
pub fn remove_from_keyring(name: &str) -> Result<(), KeyError> {
    read_from_keyring(name).map(drop)
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

#[cfg(unix)]
fn shell(line: &str) -> tokio::process::Command {
    let mut command = tokio::process::Command::new("sh");
    command.args(["-c", line]);
    command
}

#[cfg(not(unix))]
fn shell(line: &str) -> tokio::process::Command {
    let mut command = tokio::process::Command::new("cmd");
    command.args(["/C", line]);
    command
}

/// Runs a command and takes the first line it prints, as password managers put the secret there.
async fn run(mut command: tokio::process::Command, program: &str) -> Result<ApiKey, KeyError> {
    let program = program.to_owned();
    let start = |error: std::io::Error| KeyError::Start { program: program.clone(), reason: error.to_string() };
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().map_err(start)?;
    let (mut printed, mut said) = (Vec::new(), Vec::new());
    let ended = timeout(COMMAND_LIMIT, outcome(&mut child, &mut printed, &mut said)).await;
    let status = ended.map_err(|_| KeyError::Slow(program.clone()))?.map_err(start)?;
    let Some(status) = status else { return Err(KeyError::TooLong(format!("output of the key command `{program}`"))) };
    let printed = String::from_utf8_lossy(&printed);
    if !status.success() {
        let said = String::from_utf8_lossy(&said);
        let said = said.lines().rev().find(|line| !line.trim().is_empty());
        // A tool may echo the secret it failed with: one that was printed is masked.
        let printed = ApiKey::new(&printed);
        let said = said.map(|line| format!(": {}", printed.masked_in(&crate::chat::sanitise::one_line(line))));
        return Err(KeyError::Failed { program, status: status.to_string(), said: said.unwrap_or_default() });
    }
    Ok(ApiKey::new(printed.lines().next().unwrap_or_default()))
}

/// How the command ended; `None` when it prints without end.
async fn outcome(child: &mut Child, printed: &mut Vec<u8>, said: &mut Vec<u8>) -> std::io::Result<Option<ExitStatus>> {
    let (stdout, stderr) = (child.stdout.take().expect("piped"), child.stderr.take().expect("piped"));
    let mut reading = pin!(async { tokio::join!(bounded(stdout, printed), bounded(stderr, said)).0 });
    tokio::select! {
        fits = &mut reading => if fits? { child.wait().await.map(Some) } else { Ok(None) },
        status = child.wait() => {
            // What it printed is in the pipe. A child of its own may hold that open for as long as it likes.
            let fits = timeout(AFTER_EXIT, reading).await.unwrap_or(Ok(true))?;
            status.map(|status| fits.then_some(status))
        }
    }
}

/// Reads to the end; false when there is more than any key.
async fn bounded(from: impl AsyncRead + Unpin, into: &mut Vec<u8>) -> std::io::Result<bool> {
    from.take(LONGEST_KEY as u64 + 1).read_to_end(into).await?;
    Ok(into.len() <= LONGEST_KEY)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring(pairs: &[(&str, &str)]) -> KeyRing {
        KeyRing::new(pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
    }

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(future)
    }

    #[test]
    fn variables_are_read_and_their_absence_is_named() {
        let ring = ring(&[("A", " sk-1 "), ("EMPTY", "")]);
        let key = block_on(ring.resolve(&KeySource::Env("A".into()))).expect("set");
        assert_eq!(key.expose(), "sk-1");
        for name in ["B", "EMPTY"] {
            let error = block_on(ring.resolve(&KeySource::Env(name.into()))).expect_err("not set");
            assert!(error.to_string().contains(name));
        }
    }

    #[test]
    fn a_glance_runs_nothing() {
        let ring = ring(&[("A", "sk-1")]);
        assert!(ring.glance(&KeySource::Env("A".into())).is_ok());
        assert!(matches!(ring.glance(&KeySource::Env("B".into())), Err(KeyError::Unset(_))));
        assert!(matches!(ring.glance(&KeySource::File("no/such/file".into())), Err(KeyError::File { .. })));
        assert!(ring.glance(&KeySource::Command(vec!["mmchat-no-such-program".into()])).is_ok());
        assert!(matches!(ring.glance(&KeySource::Keyring("k".into())), Err(KeyError::Unsupported(_))));
    }

    #[cfg(unix)]
    #[test]
    fn a_file_that_others_can_read_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("key");
        std::fs::write(&path, "sk-file\n").expect("a file");
        let resolve = |mode| {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("ours");
            block_on(KeyRing::default().resolve(&KeySource::File(path.clone())))
        };
        assert_eq!(resolve(0o600).expect("private").expose(), "sk-file");
        // A pipe that nobody writes to must not be waited for.
        let pipe = folder.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().expect("mkfifo runs").success());
        assert!(matches!(block_on(KeyRing::default().resolve(&KeySource::File(pipe))), Err(KeyError::File { .. })));
        let error = resolve(0o644).expect_err("exposed");
        assert!(matches!(error, KeyError::Exposed(_)) && error.hint().is_some_and(|hint| hint.contains("chmod 600")));
    }

    #[cfg(unix)]
    #[test]
    fn a_command_runs_once_without_a_shell_and_its_failure_is_told() {
        let folder = tempfile::tempdir().expect("a folder");
        let log = folder.path().join("runs");
        let line = format!("echo x >> {}; echo sk-cmd; echo more", log.display());
        let ring = KeyRing::default();
        let source = KeySource::Shell(line);
        let both = block_on(async { futures_util::future::join(ring.resolve(&source), ring.resolve(&source)).await });
        assert_eq!((both.0.expect("runs").expose(), both.1.expect("runs").expose()), ("sk-cmd", "sk-cmd"));
        assert_eq!(std::fs::read_to_string(&log).expect("a log"), "x\n");

        let words = ["echo", "$HOME; echo y"].map(str::to_owned).to_vec();
        let key = block_on(ring.resolve(&KeySource::Command(words))).expect("runs");
        assert_eq!(key.expose(), "$HOME; echo y");

        let failing = KeySource::Shell("echo no such entry >&2; exit 3".into());
        let error = block_on(ring.resolve(&failing)).expect_err("fails").to_string();
        assert!(error.contains("exit status: 3") && error.contains("no such entry"), "{error}");
        let missing = KeySource::Command(vec!["mmchat-no-such-program".into()]);
        assert!(matches!(block_on(ring.resolve(&missing)), Err(KeyError::Start { .. })));
        assert!(matches!(block_on(ring.resolve(&KeySource::Command(vec!["true".into()]))), Err(KeyError::Empty(_))));
    }

    #[cfg(unix)]
    #[test]
    fn a_command_that_hangs_is_ended() {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().expect("a runtime");
        let ring = KeyRing::default();
        let source = KeySource::Command(vec!["sleep".into(), "1000".into()]);
        assert!(matches!(runtime.block_on(ring.resolve(&source)), Err(KeyError::Slow(_))));
    }

    #[cfg(unix)]
    #[test]
    fn a_command_holds_no_more_than_a_key_and_is_not_waited_for_by_its_children() {
        let resolve = |words: &[&str]| {
            let command = words.iter().map(|word| (*word).to_owned()).collect();
            block_on(ring(&[]).resolve(&KeySource::Command(command)))
        };
        assert!(matches!(resolve(&["yes"]), Err(KeyError::TooLong(_))));
        // The child outlives the command and holds its output open.
        let key = resolve(&["sh", "-c", "tail -f /dev/null & echo sk-abcdefgh; echo $! >&2"]).expect("it was printed");
        assert_eq!(key.expose(), "sk-abcdefgh");
    }
}
