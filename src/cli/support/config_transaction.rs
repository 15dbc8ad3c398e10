//! Edits the config file in a transaction: lock, read, change, check, replace.
//!
//! A change that would leave the config invalid is not written. The edits themselves are in `config::edit`.

use std::path::{Path, PathBuf};

use super::context::{read_system_config, read_text_file};
use crate::cli::{CliError, Context};
use crate::{
    config::{
        Config, ConfigError, ConfigLayers, ConfigText, Flags, Names,
        edit::{ConfigEditor, EditError},
        template::key_file_path,
    },
    model::api_key::ApiKey,
    store,
    term::output::write_stderr,
};

/// The byte order mark that some editors write at the start of a file.
const BOM: char = '\u{feff}';

/// The config file, locked against other mmchat processes.
pub(crate) struct ConfigTransaction {
    path: PathBuf,
    /// The text of the file; `None` when it does not exist.
    original: Option<String>,
    /// The other layers of the config.
    layers: ConfigLayers,
    /// `None` for an edit that is not written.
    lock: Option<store::Lock>,
}

impl ConfigTransaction {
    /// Locks the config file and reads it.
    pub(crate) fn begin(context: &Context) -> Result<Self, CliError> {
        Self::open(context, false)
    }

    /// Reads the config file without a lock if `dry_run`: the edit is then not written, and needs no write permission.
    pub(crate) fn open(context: &Context, dry_run: bool) -> Result<Self, CliError> {
        let settings = context.settings(Flags::default())?;
        let path = settings.config.value.clone().ok_or_else(no_config_path)?;
        let lock = (!dry_run).then(|| store::lock(&path).map_err(|source| write_error(&path, source))).transpose()?;
        let original = if matches!(path.try_exists(), Ok(false)) { None } else { Some(read_text_file(&path)?) };
        let system = read_system_config(&settings)?;
        let layers = ConfigLayers { system, user: None, environment: context.environment.clone() };
        Ok(Self { path, original, layers, lock })
    }

    /// The config as it is on disk.
    pub(crate) fn config(&self) -> Result<Config, ConfigError> {
        self.resolve(self.original())
    }

    /// The config with `text` as the file of the user.
    fn resolve(&self, text: &str) -> Result<Config, ConfigError> {
        let user = Some(ConfigText { path: self.path.clone(), text: text.to_owned() });
        ConfigLayers { user, ..self.layers.clone() }.resolve()
    }

    /// Applies `change`, writes the file, and returns the result of `change`.
    pub(crate) fn edit<T>(self, change: impl FnOnce(&mut ConfigEditor) -> Result<T, EditError>) -> Result<T, CliError> {
        let (result, text) = self.prepare(change)?;
        self.write(&text)?;
        Ok(result)
    }

    /// Applies `change` without writing; returns its result and the new text of the file.
    pub(crate) fn prepare<T>(
        &self,
        change: impl FnOnce(&mut ConfigEditor) -> Result<T, EditError>,
    ) -> Result<(T, String), CliError> {
        let original = self.original.as_deref().unwrap_or_default();
        // An error that is already in the file is reported as such, not as a result of the change.
        self.config()?;
        // The file keeps the line endings that most of its lines have.
        let is_crlf = 2 * original.matches("\r\n").count() > original.matches('\n').count();
        let source = if is_crlf { self.text().replace("\r\n", "\n") } else { self.text().to_owned() };
        let mut editor = ConfigEditor::parse(&source)?;
        let result = change(&mut editor).map_err(|error| self.explain(error))?;
        let mut text = editor.text();
        if is_crlf {
            text = text.replace('\n', "\r\n");
        }
        if original.starts_with(BOM) {
            text.insert(0, BOM);
        }
        Ok((result, text))
    }

    /// The names of the entries in the user's file.
    pub(crate) fn own_names(&self) -> Names {
        Names::parse_lenient(self.text())
    }

    /// Names the system's file in the error of an edit that looks for one of its entries.
    fn explain(&self, error: EditError) -> CliError {
        if let (EditError::NotFound { kind, name, .. }, Some(system)) = (&error, &self.layers.system)
            && Names::parse_lenient(&system.text).contains(kind, name)
        {
            return CliError::usage(
                format!("{kind} \"{name}\" is defined in {}", system.path.display()),
                "only an administrator can change that file; an entry with the same name in your config replaces it",
            );
        }
        error.into()
    }

    /// Checks that `text` is a valid config.
    pub(crate) fn check(&self, text: &str) -> Result<(), CliError> {
        match self.resolve(text) {
            Ok(_) => Ok(()),
            Err(ConfigError::Invalid { problems, .. }) => Err(CliError::InvalidChange { problems }),
            Err(error) => Err(error.into()),
        }
    }

    /// Writes the file if `text` is a valid config.
    pub(crate) fn write(&self, text: &str) -> Result<(), CliError> {
        debug_assert!(self.lock.is_some(), "a dry run writes nothing");
        self.check(text)?;
        store::replace_atomic(&self.path, text).map_err(|source| write_error(&self.path, source))
    }

    /// Saves a copy of the old file beside it; returns the path of the copy, if there was a file.
    pub(crate) fn back_up(&self) -> Result<Option<PathBuf>, CliError> {
        self.original.as_ref().map(|text| write_backup(&self.path, text)).transpose()
    }

    /// Writes a key to its own file beside the config; returns the path as the config refers to it. A different key in
    /// that file is backed up, because a backup of the config may refer to it.
    pub(crate) fn write_key_file(&self, name: &str, key: &ApiKey) -> Result<String, CliError> {
        let file = key_file_path(name);
        let (path, text) = (self.folder().join(&file), format!("{}\n", key.expose()));
        // Reading a pipe would block.
        let old = if path.is_file() { std::fs::read_to_string(&path).ok() } else { None };
        match old {
            Some(old) if old != text => {
                let backup = write_backup(&path, &old)?;
                write_stderr(&format!("the old key \"{name}\" was saved as {}\n", backup.display()));
            }
            _ => {}
        }
        store::write_atomic(&path, &text).map_err(|source| write_error(&path, source))?;
        Ok(file)
    }

    /// The text of the file without a byte order mark; empty when there is no file.
    pub(crate) fn text(&self) -> &str {
        self.original.as_deref().unwrap_or_default().trim_start_matches(BOM)
    }

    /// Whether the file exists.
    pub(crate) fn exists(&self) -> bool {
        self.original.is_some()
    }

    /// The text of the file, with its byte order mark; empty when there is no file.
    pub(crate) fn original(&self) -> &str {
        self.original.as_deref().unwrap_or_default()
    }

    /// The path of the config file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    fn folder(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new(""))
    }
}

/// The path of the config file, which need not exist.
pub(crate) fn config_path(context: &Context) -> Result<PathBuf, CliError> {
    context.settings(Flags::default())?.config.value.ok_or_else(no_config_path)
}

pub(crate) fn no_config_path() -> CliError {
    CliError::usage("this system has no default path for the config", "set one with --config or MMCHAT_CONFIG")
}

/// Writes `text` to the first unused of `path` plus `.bak`, `.bak2`, `.bak3`, …
fn write_backup(path: &Path, text: &str) -> Result<PathBuf, CliError> {
    let with_suffix = |suffix: &str| {
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(suffix);
        path.with_file_name(name)
    };
    let numbered = (2..).map(|number| format!(".bak{number}"));
    let mut paths = std::iter::once(".bak".to_owned()).chain(numbered).map(|suffix| with_suffix(&suffix));
    let backup = paths.find(|path| !path.exists()).expect("the sequence is infinite");
    store::write_atomic(&backup, text).map_err(|source| write_error(&backup, source))?;
    Ok(backup)
}

fn write_error(path: &Path, source: std::io::Error) -> CliError {
    CliError::System { what: format!("cannot write {}", path.display()), source }
}
