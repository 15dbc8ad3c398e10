//! Changing the config: read, change, check, write, with nobody else at it meanwhile.
//!
//! Owns that a change which would leave the config broken is not written, and that nothing is lost. What is changed is
//! `config::edit`'s.

use std::path::{Path, PathBuf};

use super::{CliError, Context, context::text_of};
use crate::{
    chat::sanitise::one_line,
    config::{
        self, Config, ConfigError, Flags, base_url,
        draft::key_file,
        edit::{Edit, EditError},
        is_name, normalised,
    },
    render::wrap::shortened,
    secret::ApiKey,
    store,
    term::output::say,
};

/// What some editors put in front of a text.
const BOM: char = '\u{feff}';

/// The config as it is on the disk, for as long as nobody else may change it.
pub(super) struct Change {
    path: PathBuf,
    /// What stood there; `None`: there was no file.
    before: Option<String>,
    _lock: store::Lock,
}

impl Change {
    /// Takes the right to change the config.
    pub(super) fn begin(context: &Context) -> Result<Self, CliError> {
        let path = config_path(context)?;
        let lock = store::lock(&path).map_err(|source| unwritable(&path, source))?;
        let before = if matches!(path.try_exists(), Ok(false)) { None } else { Some(text_of(&path)?) };
        Ok(Self { path, before, _lock: lock })
    }

    /// What the config says now.
    pub(super) fn config(&self) -> Result<Config, ConfigError> {
        config::resolve(self.before.as_deref().unwrap_or_default(), &self.path)
    }

    /// Makes the change and writes the file; returns what `act` does.
    pub(super) fn edit<T>(self, act: impl FnOnce(&mut Edit) -> Result<T, EditError>) -> Result<T, CliError> {
        let before = self.before.as_deref().unwrap_or_default();
        // A file that is broken already is told as it is, not as the change would leave it.
        self.config()?;
        let mut edit = Edit::open(before.trim_start_matches(BOM))?;
        let done = act(&mut edit)?;
        let mut text = edit.text();
        // Line ends and the mark at the start stay what they were.
        if before.contains("\r\n") {
            text = text.replace("\r\n", "\n").replace('\n', "\r\n");
        }
        if before.starts_with(BOM) {
            text.insert(0, BOM);
        }
        self.write(&text)?;
        Ok(done)
    }

    /// Writes the file, if it is a good config. Its place is known to whoever reads it next.
    pub(super) fn write(&self, text: &str) -> Result<(), CliError> {
        if let Err(error) = config::resolve(text, &self.path) {
            say("the change would leave the config broken; nothing was changed\n");
            return Err(error.into());
        }
        store::replace(&self.path, text).map_err(|source| unwritable(&self.path, source))
    }

    /// Keeps the old file beside the new one, and beside those kept earlier; its path, where there was one.
    pub(super) fn keep_old(&self) -> Result<Option<PathBuf>, CliError> {
        let Some(before) = &self.before else { return Ok(None) };
        let beside = |end: &str| {
            let mut name = self.path.file_name().unwrap_or_default().to_owned();
            name.push(end);
            self.path.with_file_name(name)
        };
        let numbered = (2..).map(|number| format!(".bak{number}"));
        let mut free = std::iter::once(".bak".to_owned()).chain(numbered).map(|end| beside(&end));
        let kept = free.find(|path| !path.exists()).expect("numbers do not end");
        store::replace(&kept, before).map_err(|source| unwritable(&kept, source))?;
        Ok(Some(kept))
    }

    /// Keeps a key in a file of its own beside the config; what the config says of it.
    pub(super) fn keep_key(&self, endpoint: &str, key: &ApiKey) -> Result<String, CliError> {
        let place = key_file(endpoint);
        let path = self.folder().join(&place);
        store::replace(&path, &format!("{}\n", key.expose())).map_err(|source| unwritable(&path, source))?;
        Ok(place)
    }

    /// Where the config is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    fn folder(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new(""))
    }
}

/// `name` in composed form, if something new may be called so.
pub(super) fn new_name(name: &str) -> Result<String, CliError> {
    let name = normalised(name);
    if is_name(&name) {
        return Ok(name);
    }
    Err(CliError::usage(
        format!("`{}` cannot be a name", shortened(&one_line(&name), 40)),
        "names are letters of any script, digits, `.`, `_` and `-`, at most 64, and do not begin with `-`",
    ))
}

/// An address that may be written into a config. What is wrong is told without it: there may be a password in it.
pub(super) fn new_address(text: &str) -> Result<String, String> {
    let url = base_url(text)?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err("has a user in it, which is not sent; say where the key is instead".to_owned());
    }
    if text.contains(char::is_control) { Err("has a line break in it".to_owned()) } else { Ok(text.to_owned()) }
}

/// The name of a variable; a key given in its place is not repeated.
pub(super) fn variable_name(text: &str) -> Result<(), String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let good = text.chars().all(fits) && !text.starts_with(|c: char| c.is_ascii_digit()) && !text.is_empty();
    if good { Ok(()) } else { Err("a variable is letters, digits and _; a key itself does not belong here".to_owned()) }
}

/// Where the config is, or will be.
pub(super) fn config_path(context: &Context) -> Result<PathBuf, CliError> {
    context.layers(Flags::default())?.config.value.ok_or_else(no_place)
}

pub(super) fn no_place() -> CliError {
    CliError::usage("this system has no place for a config", "name one with --config or MMCHAT_CONFIG")
}

fn unwritable(path: &Path, source: std::io::Error) -> CliError {
    CliError::System { what: format!("{} cannot be written", path.display()), source }
}
