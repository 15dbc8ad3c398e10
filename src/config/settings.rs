//! Resolves the settings that can also come from the environment or the flags, and the path of the config file.
//!
//! Precedence, lowest first: default, config files, environment, flag. Every value records its source.

use std::{
    fmt,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Serialize, Serializer};

use super::{
    ConfigError,
    values::{DURATION_FORM, DurationEntry, parse_duration},
};
use crate::model::environment::Environment;

/// Where a value came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SettingSource {
    /// The built-in default.
    Default,
    /// The config file.
    File,
    /// An environment variable.
    Environment(&'static str),
    /// A command-line flag.
    Flag(&'static str),
}

impl fmt::Display for SettingSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File => f.write_str("config file"),
            Self::Environment(name) | Self::Flag(name) => f.write_str(name),
        }
    }
}

/// A value and its source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub(crate) struct Sourced<T> {
    /// The value.
    pub value: T,
    /// The source.
    #[serde(skip)]
    pub source: SettingSource,
}

impl<T> Sourced<T> {
    fn new(value: T, source: SettingSource) -> Self {
        Self { value, source }
    }

    /// Replaces the value with `value`, if there is one.
    fn or_override(self, value: Option<T>, source: SettingSource) -> Self {
        value.map_or(self, |value| Self { value, source })
    }
}

/// The values of these settings on the command line.
#[derive(Clone, Debug, Default)]
pub(crate) struct Flags {
    /// `--config`
    pub config: Option<PathBuf>,
    /// `--model`
    pub model: Option<String>,
    /// `--format`
    pub format: Option<String>,
    /// `--timeout`
    pub timeout: Option<Duration>,
    /// `--no-stdin`
    pub no_stdin: bool,
    /// `--plain`
    pub plain: bool,
}

/// The settings in effect.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ResolvedSettings {
    /// The config file of the user.
    #[serde(serialize_with = "serialize_path")]
    pub config: Sourced<Option<PathBuf>>,
    /// The config file of the system.
    #[serde(serialize_with = "serialize_path")]
    pub system_config: Sourced<Option<PathBuf>>,
    /// The model, route or `endpoint/id` to use.
    pub model: Sourced<Option<String>>,
    /// The output format on stdout.
    pub format: Sourced<String>,
    /// The timeout of a complete answer.
    #[serde(serialize_with = "serialize_timeout")]
    pub timeout: Sourced<Option<Duration>>,
    /// Do not read standard input.
    pub no_stdin: Sourced<bool>,
    /// No color, no redrawing, no timers.
    pub plain: Sourced<bool>,
    /// Log every attempt on stderr.
    pub log: Sourced<bool>,
}

impl ResolvedSettings {
    /// The settings from `environment` and `flags`. [`ResolvedSettings::with_file_default`] adds those of the file.
    pub(crate) fn new(environment: &Environment, flags: &Flags) -> Result<Self, ConfigError> {
        if let Some(name) = environment.invalid_variable() {
            let (name, reason) = (name.to_owned(), "it is not valid UTF-8".to_owned());
            return Err(ConfigError::InvalidVariable { name, value: "�".to_owned(), reason });
        }
        let text = |name: &'static str| environment.get(name).map(str::to_owned);
        let timeout = match text("MMCHAT_TIMEOUT") {
            None => None,
            Some(value) => Some(parse_duration(&value).map_err(|_| ConfigError::InvalidVariable {
                name: "MMCHAT_TIMEOUT".to_owned(),
                value,
                reason: DURATION_FORM.to_owned(),
            })?),
        };
        let env = SettingSource::Environment;
        Ok(Self {
            config: config_path(environment, flags),
            system_config: system_config_path(environment),
            model: Sourced::new(None, SettingSource::Default)
                .or_override(text("MMCHAT_MODEL").map(Some), env("MMCHAT_MODEL"))
                .or_override(flags.model.clone().map(Some), SettingSource::Flag("--model")),
            format: Sourced::new("text".to_owned(), SettingSource::Default)
                .or_override(text("MMCHAT_FORMAT"), env("MMCHAT_FORMAT"))
                .or_override(flags.format.clone(), SettingSource::Flag("--format")),
            timeout: Sourced::new(None, SettingSource::Default)
                .or_override(timeout.map(Some), env("MMCHAT_TIMEOUT"))
                .or_override(flags.timeout.map(Some), SettingSource::Flag("--timeout")),
            no_stdin: Sourced::new(false, SettingSource::Default)
                .or_override(bool_variable(environment, "MMCHAT_NO_STDIN")?, env("MMCHAT_NO_STDIN"))
                .or_override(flags.no_stdin.then_some(true), SettingSource::Flag("--no-stdin")),
            plain: Sourced::new(false, SettingSource::Default)
                .or_override(bool_variable(environment, "MMCHAT_PLAIN")?, env("MMCHAT_PLAIN"))
                .or_override(flags.plain.then_some(true), SettingSource::Flag("--plain")),
            log: Sourced::new(false, SettingSource::Default)
                .or_override(bool_variable(environment, "MMCHAT_LOG")?, env("MMCHAT_LOG")),
        })
    }

    /// The source of the setting called `name`.
    pub(super) fn source_of(&self, name: &str) -> Option<SettingSource> {
        let Self { config, system_config, model, format, timeout, no_stdin, plain, log } = self;
        Some(match name {
            "config" => config.source,
            "system_config" => system_config.source,
            "model" => model.source,
            "format" => format.source,
            "timeout" => timeout.source,
            "no_stdin" => no_stdin.source,
            "plain" => plain.source,
            "log" => log.source,
            _ => return None,
        })
    }

    /// Uses the file's `default` as the model if neither the environment nor the flags set one.
    #[must_use]
    pub(crate) fn with_file_default(mut self, default: Option<&str>) -> Self {
        if self.model.source == SettingSource::Default
            && let Some(default) = default
        {
            self.model = Sourced::new(Some(default.to_owned()), SettingSource::File);
        }
        self
    }
}

/// A path as text, which may not be UTF-8.
fn serialize_path<S: Serializer>(path: &Sourced<Option<PathBuf>>, serializer: S) -> Result<S::Ok, S::Error> {
    path.value.as_ref().map(|path| path.display().to_string()).serialize(serializer)
}

/// The timeout as the config has it.
fn serialize_timeout<S: Serializer>(timeout: &Sourced<Option<Duration>>, serializer: S) -> Result<S::Ok, S::Error> {
    timeout.value.map(DurationEntry).serialize(serializer)
}

/// The boolean value of a variable.
fn bool_variable(environment: &Environment, name: &'static str) -> Result<Option<bool>, ConfigError> {
    match environment.get(name) {
        None => Ok(None),
        Some("1" | "true" | "yes" | "on") => Ok(Some(true)),
        Some("0" | "false" | "no" | "off") => Ok(Some(false)),
        Some(value) => {
            let reason = "expected 1 or 0".to_owned();
            Err(ConfigError::InvalidVariable { name: name.to_owned(), value: value.to_owned(), reason })
        }
    }
}

/// The path of the config file, the first of: `--config`, `MMCHAT_CONFIG`, `$XDG_CONFIG_HOME/mmchat/config.toml`, the
/// platform's config folder.
fn config_path(environment: &Environment, flags: &Flags) -> Sourced<Option<PathBuf>> {
    let xdg = environment.get("XDG_CONFIG_HOME").map(Path::new).filter(|path| path.is_absolute());
    let platform = directories::ProjectDirs::from("", "", "mmchat").map(|dirs| dirs.config_dir().join("config.toml"));
    Sourced::new(platform, SettingSource::Default)
        .or_override(
            xdg.map(|base| Some(base.join("mmchat").join("config.toml"))),
            SettingSource::Environment("XDG_CONFIG_HOME"),
        )
        .or_override(
            environment.get("MMCHAT_CONFIG").map(|path| Some(path.into())),
            SettingSource::Environment("MMCHAT_CONFIG"),
        )
        .or_override(flags.config.clone().map(Some), SettingSource::Flag("--config"))
}

/// The path of the system's config file: in the first folder of `XDG_CONFIG_DIRS` that has one, else in the platform's
/// folder for all users.
fn system_config_path(environment: &Environment) -> Sourced<Option<PathBuf>> {
    let in_folder = |folder: PathBuf| folder.join("mmchat").join("config.toml");
    if let Some(folders) = environment.get("XDG_CONFIG_DIRS") {
        let mut paths = std::env::split_paths(folders).filter(|folder| folder.is_absolute()).map(in_folder);
        return Sourced::new(paths.find(|path| path.exists()), SettingSource::Environment("XDG_CONFIG_DIRS"));
    }
    let folder = if cfg!(windows) { environment.get("ProgramData") } else { Some("/etc/xdg") };
    Sourced::new(folder.map(PathBuf::from).map(in_folder), SettingSource::Default)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(pairs: &[(&str, &str)]) -> Environment {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn later_layer_overrides_and_is_recorded_as_the_source() {
        let from_file = ResolvedSettings::new(&Environment::default(), &Flags::default())
            .expect("valid settings")
            .with_file_default(Some("file"));
        assert_eq!(from_file.model, Sourced::new(Some("file".into()), SettingSource::File));
        let environment = environment(&[("MMCHAT_MODEL", "env"), ("MMCHAT_TIMEOUT", "5s"), ("MMCHAT_PLAIN", "1")]);
        let from_environment = ResolvedSettings::new(&environment, &Flags::default())
            .expect("valid settings")
            .with_file_default(Some("file"));
        assert_eq!(from_environment.model.value.as_deref(), Some("env"));
        assert_eq!(from_environment.timeout.value, Some(Duration::from_secs(5)));
        assert!(from_environment.plain.value);
        let flags = Flags { model: Some("flag".into()), ..Flags::default() };
        let from_flags =
            ResolvedSettings::new(&environment, &flags).expect("valid settings").with_file_default(Some("file"));
        assert_eq!(from_flags.model, Sourced::new(Some("flag".into()), SettingSource::Flag("--model")));
    }

    #[test]
    fn invalid_variable_is_named_in_the_error() {
        for (name, value) in [("MMCHAT_TIMEOUT", "soon"), ("MMCHAT_PLAIN", "maybe")] {
            let error =
                ResolvedSettings::new(&environment(&[(name, value)]), &Flags::default()).expect_err("invalid value");
            assert!(error.to_string().contains(name) && error.to_string().contains(value));
        }
    }

    #[test]
    fn config_path_follows_the_precedence() {
        let path = |pairs: &[(&str, &str)], flag: Option<&str>| {
            let flags = Flags { config: flag.map(PathBuf::from), ..Flags::default() };
            config_path(&environment(pairs), &flags).value.expect("a path")
        };
        let xdg = ("XDG_CONFIG_HOME", if cfg!(windows) { "C:\\x" } else { "/x" });
        assert!(path(&[xdg], None).ends_with("mmchat/config.toml"));
        assert_eq!(path(&[xdg, ("MMCHAT_CONFIG", "m.toml")], None), PathBuf::from("m.toml"));
        assert_eq!(path(&[xdg, ("MMCHAT_CONFIG", "m.toml")], Some("f.toml")), PathBuf::from("f.toml"));
    }
}
