//! Changing the config: read, change, check, write, with nobody else at it meanwhile.
//!
//! Owns that a change which would leave the config broken is not written, and that nothing is lost. What is changed is
//! `config::edit`'s.

use std::path::{Path, PathBuf};

use super::context::text_of;
use crate::cli::{CliError, Context};
use crate::{
    config::{
        self, Config, ConfigError, Flags,
        edit::{Edit, EditError},
        template::key_file,
    },
    model::api_key::ApiKey,
    store,
    term::output::say,
};

/// What some editors put in front of a text.
const BOM: char = '\u{feff}';

/// The config as it is on the disk, for as long as nobody else may change it.
pub(crate) struct Change {
    path: PathBuf,
    /// What stood there; `None`: there was no file.
    before: Option<String>,
    _lock: store::Lock,
}

impl Change {
    /// Takes the right to change the config.
    pub(crate) fn begin(context: &Context) -> Result<Self, CliError> {
        let path = config_path(context)?;
        let lock = store::lock(&path).map_err(|source| unwritable(&path, source))?;
        let before = if matches!(path.try_exists(), Ok(false)) { None } else { Some(text_of(&path)?) };
        Ok(Self { path, before, _lock: lock })
    }

    /// What the config says now.
    pub(crate) fn config(&self) -> Result<Config, ConfigError> {
        config::resolve(self.before.as_deref().unwrap_or_default(), &self.path)
    }

    /// Makes the change and writes the file; returns what `act` does.
    pub(crate) fn edit<T>(self, act: impl FnOnce(&mut Edit) -> Result<T, EditError>) -> Result<T, CliError> {
        let (done, text) = self.edited(act)?;
        self.write(&text)?;
        Ok(done)
    }

    /// What `act` does, and the file as it would be then.
    pub(crate) fn edited<T>(
        &self,
        act: impl FnOnce(&mut Edit) -> Result<T, EditError>,
    ) -> Result<(T, String), CliError> {
        let before = self.before.as_deref().unwrap_or_default();
        // A file that is broken already is told as it is, not as the change would leave it.
        self.config()?;
        let mut edit = Edit::open(self.text())?;
        let done = act(&mut edit)?;
        let mut text = edit.text();
        // Line ends and the mark at the start stay what they were.
        if before.contains("\r\n") {
            text = text.replace("\r\n", "\n").replace('\n', "\r\n");
        }
        if before.starts_with(BOM) {
            text.insert(0, BOM);
        }
        Ok((done, text))
    }

    /// Whether `text` would be a good config.
    pub(crate) fn check(&self, text: &str) -> Result<(), CliError> {
        if let Err(error) = config::resolve(text, &self.path) {
            say("the change would leave the config broken; nothing was changed\n");
            return Err(error.into());
        }
        Ok(())
    }

    /// Writes the file, if it is a good config. Its place is known to whoever reads it next.
    pub(crate) fn write(&self, text: &str) -> Result<(), CliError> {
        self.check(text)?;
        store::replace(&self.path, text).map_err(|source| unwritable(&self.path, source))
    }

    /// Keeps the old config beside the new one; its path, where there was one.
    pub(crate) fn keep_old(&self) -> Result<Option<PathBuf>, CliError> {
        self.before.as_ref().map(|before| backed_up(&self.path, before)).transpose()
    }

    /// Keeps a key in a file of its own beside the config; what the config says of it. Another key that was there is
    /// kept, too: a config that was put aside still names its file.
    pub(crate) fn keep_key(&self, endpoint: &str, key: &ApiKey) -> Result<String, CliError> {
        let place = key_file(endpoint);
        let (path, text) = (self.folder().join(&place), format!("{}\n", key.expose()));
        match std::fs::read_to_string(&path) {
            Ok(old) if old != text => {
                let kept = backed_up(&path, &old)?;
                say(&format!("the old key of {endpoint} is kept as {}\n", kept.display()));
            }
            _ => {}
        }
        store::replace(&path, &text).map_err(|source| unwritable(&path, source))?;
        Ok(place)
    }

    /// The text that stands there.
    pub(crate) fn text(&self) -> &str {
        self.before.as_deref().unwrap_or_default().trim_start_matches(BOM)
    }

    /// Where the config is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    fn folder(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new(""))
    }
}

/// Where the config is, or will be.
pub(crate) fn config_path(context: &Context) -> Result<PathBuf, CliError> {
    context.layers(Flags::default())?.config.value.ok_or_else(no_place)
}

pub(crate) fn no_place() -> CliError {
    CliError::usage("this system has no place for a config", "name one with --config or MMCHAT_CONFIG")
}

/// Writes `text` beside the file at `path`, and beside what was kept of it earlier.
fn backed_up(path: &Path, text: &str) -> Result<PathBuf, CliError> {
    let beside = |end: &str| {
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(end);
        path.with_file_name(name)
    };
    let numbered = (2..).map(|number| format!(".bak{number}"));
    let mut free = std::iter::once(".bak".to_owned()).chain(numbered).map(|end| beside(&end));
    let kept = free.find(|path| !path.exists()).expect("numbers do not end");
    store::replace(&kept, text).map_err(|source| unwritable(&kept, source))?;
    Ok(kept)
}

fn unwritable(path: &Path, source: std::io::Error) -> CliError {
    CliError::System { what: format!("{} cannot be written", path.display()), source }
}
