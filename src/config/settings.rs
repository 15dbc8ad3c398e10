//! Settings that do not belong to the file alone: defaults, then the file, then the environment, then the flags.
//!
//! Owns the merging, which is one rule: the later layer wins, and every value remembers where it came from. Also owns
//! where the file is found.

use std::{
    fmt,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{ConfigError, values::parse_duration};
use crate::model::environment::Environment;

/// Where a value came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// It is built in.
    Default,
    /// The config file.
    File,
    /// A variable of the environment.
    Environment(&'static str),
    /// A flag of the command line.
    Flag(&'static str),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File => f.write_str("config file"),
            Self::Environment(name) | Self::Flag(name) => f.write_str(name),
        }
    }
}

/// A value and where it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting<T> {
    /// The value.
    pub value: T,
    /// Where it came from.
    pub source: Source,
}

impl<T> Setting<T> {
    fn new(value: T, source: Source) -> Self {
        Self { value, source }
    }

    /// Lays `over` on top, if it is there.
    fn laid(self, over: Option<T>, source: Source) -> Self {
        over.map_or(self, |value| Self { value, source })
    }
}

/// What the command line says of these settings.
#[derive(Clone, Debug, Default)]
pub struct Flags {
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

/// The settings in force.
#[derive(Clone, Debug)]
pub struct Layers {
    /// The config file.
    pub config: Setting<Option<PathBuf>>,
    /// The model, route or `endpoint/id` to ask.
    pub model: Setting<Option<String>>,
    /// The format of the data on stdout.
    pub format: Setting<String>,
    /// For a whole answer.
    pub timeout: Setting<Option<Duration>>,
    /// Standard input is not read.
    pub no_stdin: Setting<bool>,
    /// No colour, no redrawing, no timers.
    pub plain: Setting<bool>,
    /// How much is logged on stderr.
    pub log: Setting<bool>,
}

impl Layers {
    /// The settings from `environment` and `flags`; the file's own are laid in between by [`Layers::with_file`].
    pub fn new(environment: &Environment, flags: &Flags) -> Result<Self, ConfigError> {
        let text = |name: &'static str| environment.get(name).map(str::to_owned);
        let timeout = match text("MMCHAT_TIMEOUT") {
            None => None,
            Some(value) => Some(parse_duration(&value).map_err(|reason| ConfigError::Variable {
                name: "MMCHAT_TIMEOUT".to_owned(),
                value,
                reason,
            })?),
        };
        let env = Source::Environment;
        Ok(Self {
            config: config_path(environment, flags),
            model: Setting::new(None, Source::Default)
                .laid(text("MMCHAT_MODEL").map(Some), env("MMCHAT_MODEL"))
                .laid(flags.model.clone().map(Some), Source::Flag("--model")),
            format: Setting::new("text".to_owned(), Source::Default)
                .laid(text("MMCHAT_FORMAT"), env("MMCHAT_FORMAT"))
                .laid(flags.format.clone(), Source::Flag("--format")),
            timeout: Setting::new(None, Source::Default)
                .laid(timeout.map(Some), env("MMCHAT_TIMEOUT"))
                .laid(flags.timeout.map(Some), Source::Flag("--timeout")),
            no_stdin: Setting::new(false, Source::Default)
                .laid(switch(environment, "MMCHAT_NO_STDIN")?, env("MMCHAT_NO_STDIN"))
                .laid(flags.no_stdin.then_some(true), Source::Flag("--no-stdin")),
            plain: Setting::new(false, Source::Default)
                .laid(switch(environment, "MMCHAT_PLAIN")?, env("MMCHAT_PLAIN"))
                .laid(flags.plain.then_some(true), Source::Flag("--plain")),
            log: Setting::new(false, Source::Default).laid(switch(environment, "MMCHAT_LOG")?, env("MMCHAT_LOG")),
        })
    }

    /// Lays the file's own settings below those of the environment and the flags.
    #[must_use]
    pub fn with_file(mut self, default: Option<&str>) -> Self {
        if self.model.source == Source::Default
            && let Some(default) = default
        {
            self.model = Setting::new(Some(default.to_owned()), Source::File);
        }
        self
    }
}

/// A variable that is on or off.
fn switch(environment: &Environment, name: &'static str) -> Result<Option<bool>, ConfigError> {
    match environment.get(name) {
        None => Ok(None),
        Some("1" | "true" | "yes" | "on") => Ok(Some(true)),
        Some("0" | "false" | "no" | "off") => Ok(Some(false)),
        Some(value) => {
            let reason = "expected 1 or 0".to_owned();
            Err(ConfigError::Variable { name: name.to_owned(), value: value.to_owned(), reason })
        }
    }
}

/// Where the config is: `--config`, `MMCHAT_CONFIG`, `$XDG_CONFIG_HOME/mmchat/config.toml`, the platform's place.
fn config_path(environment: &Environment, flags: &Flags) -> Setting<Option<PathBuf>> {
    let xdg = environment.get("XDG_CONFIG_HOME").map(Path::new).filter(|path| path.is_absolute());
    let platform = directories::ProjectDirs::from("", "", "mmchat").map(|dirs| dirs.config_dir().join("config.toml"));
    Setting::new(platform, Source::Default)
        .laid(xdg.map(|base| Some(base.join("mmchat").join("config.toml"))), Source::Environment("XDG_CONFIG_HOME"))
        .laid(environment.get("MMCHAT_CONFIG").map(|path| Some(path.into())), Source::Environment("MMCHAT_CONFIG"))
        .laid(flags.config.clone().map(Some), Source::Flag("--config"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(pairs: &[(&str, &str)]) -> Environment {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn the_later_layer_wins_and_says_so() {
        let none = Layers::new(&Environment::default(), &Flags::default()).expect("fine").with_file(Some("file"));
        assert_eq!(none.model, Setting::new(Some("file".into()), Source::File));
        let environment = environment(&[("MMCHAT_MODEL", "env"), ("MMCHAT_TIMEOUT", "5s"), ("MMCHAT_PLAIN", "1")]);
        let from_environment = Layers::new(&environment, &Flags::default()).expect("fine").with_file(Some("file"));
        assert_eq!(from_environment.model.value.as_deref(), Some("env"));
        assert_eq!(from_environment.timeout.value, Some(Duration::from_secs(5)));
        assert!(from_environment.plain.value);
        let flags = Flags { model: Some("flag".into()), ..Flags::default() };
        let from_flags = Layers::new(&environment, &flags).expect("fine").with_file(Some("file"));
        assert_eq!(from_flags.model, Setting::new(Some("flag".into()), Source::Flag("--model")));
    }

    #[test]
    fn a_variable_with_nonsense_is_named() {
        for (name, value) in [("MMCHAT_TIMEOUT", "soon"), ("MMCHAT_PLAIN", "maybe")] {
            let error = Layers::new(&environment(&[(name, value)]), &Flags::default()).expect_err("nonsense");
            assert!(error.to_string().contains(name) && error.to_string().contains(value));
        }
    }

    #[test]
    fn the_config_is_found_in_order() {
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
