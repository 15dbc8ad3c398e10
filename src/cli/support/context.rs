//! What commands share: settings, config, engine, runtime; each made on first use, so that a broken config does not
//! break `completions` or `demo`.

use std::{
    io::{self, Read},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use miette::{GraphicalReportHandler, GraphicalTheme};

use super::exit::Exit;
use crate::cli::GlobalArgs;
use crate::{
    config::{
        self, Config, ConfigError, Flags, Layers, Preset, Source, edit::EditError, nearest, normalised,
        preset::PresetError,
    },
    engine::{Engine, plan::PlanError},
    model::{api_key::KeySource, environment::Environment},
    render::Look,
    store::{
        self,
        health::HealthFile,
        record::{Database, Ledger, RecordError},
    },
    term::{
        self,
        input::InputError,
        output::{WriteError, say},
        prompt::PromptError,
    },
    transport::{
        http::HttpTransport,
        keys::{KeyRing, is_exposed},
    },
};

/// A config is written by hand.
const LONGEST_CONFIG: usize = 4 * 1024 * 1024;

/// The command line's surroundings.
#[derive(Debug)]
pub struct Context {
    /// The variables of the environment.
    pub environment: Environment,
    global: GlobalArgs,
}

/// A command that could not do its work.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CliError {
    /// The config.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A name on the command line.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// Standard input.
    #[error(transparent)]
    Input(#[from] InputError),
    /// Standard output or `--output`.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// A preset.
    #[error(transparent)]
    Preset(#[from] PresetError),
    /// A change of the config that makes no sense.
    #[error(transparent)]
    Edit(#[from] EditError),
    /// A question that got no answer.
    #[error(transparent)]
    Prompt(#[from] PromptError),
    /// The record of calls.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// Something that was asked for as a condition is not so.
    #[error("{message}")]
    Condition {
        /// What is not so.
        message: String,
        /// What to do.
        hint: String,
    },
    /// Flags or files that make no sense.
    #[error("{message}")]
    Usage {
        /// What is wrong.
        message: String,
        /// What to do.
        hint: Option<String>,
    },
    /// A server that cannot be as its config says.
    #[error("{message}")]
    Serve {
        /// What is wrong.
        message: String,
        /// What to do.
        hint: Option<String>,
    },
    /// The system refused something we need.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: String,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
}

impl From<io::Error> for CliError {
    fn from(source: io::Error) -> Self {
        Self::System { what: "the system refused".into(), source }
    }
}

impl CliError {
    /// Wrong usage, with what to do instead.
    pub(crate) fn usage(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Usage { message: message.into(), hint: Some(hint.into()) }
    }

    /// Tells the person, and gives the exit code.
    pub(crate) fn report(self) -> Exit {
        let hint = match &self {
            Self::Plan(error) => Some(error.hint()),
            Self::Preset(error) => Some(error.hint()),
            Self::Edit(error) => edit_hint(error),
            Self::Usage { hint, .. } | Self::Serve { hint, .. } => hint.clone(),
            Self::Condition { hint, .. } => Some(hint.clone()),
            Self::Input(InputError::Silent(_)) => Some("use --no-stdin when there is nothing to read".into()),
            _ => None,
        };
        match &self {
            Self::Write(WriteError::Closed) => return Exit::Ok,
            Self::Config(ConfigError::Invalid { problems, .. }) => {
                for problem in problems {
                    say(&format!("{}\n", problem_text(problem)));
                }
                say(&format!("error: {self}\n"));
            }
            _ => say(&format!("error: {self}\n")),
        }
        if let Some(hint) = hint {
            say(&format!("  hint: {hint}\n"));
        }
        match self {
            Self::Serve { .. } => Exit::Config,
            Self::Config(_) | Self::Edit(EditError::Syntax(_) | EditError::Shape(_)) => Exit::Config,
            Self::Prompt(PromptError::Interrupted) | Self::Write(WriteError::HungUp) => Exit::Interrupted,
            Self::Edit(_) | Self::Prompt(_) => Exit::Usage,
            Self::Plan(PlanError::NoKey) => Exit::Key,
            Self::Plan(_) | Self::Input(_) | Self::Preset(_) | Self::Usage { .. } => Exit::Usage,
            Self::Condition { .. } => Exit::Condition,
            Self::Record(_) | Self::Write(_) | Self::System { .. } => Exit::Internal,
        }
    }
}

fn edit_hint(error: &EditError) -> Option<String> {
    Some(match error {
        EditError::Taken { name, .. } => format!("choose another name, or remove `{name}` first"),
        EditError::Missing { known, .. } if known.is_empty() => "there are none".into(),
        EditError::Missing { name, known, .. } => match nearest(name, known.iter().map(String::as_str)) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("there are: {}", known.join(", ")),
        },
        EditError::Used { flag, .. } => format!("{flag} goes on all the same"),
        _ => return None,
    })
}

/// Where presets have files of their own: beside the config.
pub(crate) fn preset_folder(layers: &Layers) -> Option<PathBuf> {
    Some(layers.config.value.as_ref()?.parent()?.join("presets"))
}

/// The names of the presets that have files of their own, sorted; none when there is no such folder.
pub(crate) fn preset_files(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> =
        entries.filter_map(|entry| Some(normalised(entry.file_name().to_str()?.strip_suffix(".toml")?))).collect();
    names.sort();
    names
}

/// The text of a file that is written by hand.
pub(crate) fn text_of(path: &Path) -> Result<String, ConfigError> {
    let failed = |reason: String| ConfigError::Read { path: path.to_owned(), reason };
    let bytes = start_of(path).map_err(|error| failed(error.to_string()))?;
    if bytes.len() > LONGEST_CONFIG {
        return Err(failed("it is longer than 4 MiB".into()));
    }
    String::from_utf8(bytes).map_err(|_| failed("it is no UTF-8 text".into()))
}

/// The file, or as much of it as shows that it is too long.
fn start_of(path: &Path) -> io::Result<Vec<u8>> {
    // Looked at before it is opened: opening a pipe that nobody writes to would never return.
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(LONGEST_CONFIG as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// A problem with its place in the file: line, column and caret.
fn problem_text(problem: &config::Problem) -> String {
    let handler = GraphicalReportHandler::new_themed(GraphicalTheme::unicode_nocolor()).with_width(100);
    let mut text = String::new();
    if handler.render_report(&mut text, problem).is_err() {
        text = problem.to_string();
    }
    text.trim_matches('\n').to_owned()
}

impl Context {
    pub(crate) fn new(environment: Environment, global: GlobalArgs) -> Self {
        Self { environment, global }
    }

    /// The settings of the environment, the global flags and `flags`.
    pub(crate) fn layers(&self, flags: Flags) -> Result<Layers, ConfigError> {
        let config = self.global.config.clone().or(flags.config);
        let plain = self.global.plain || flags.plain;
        let mut layers = Layers::new(&self.environment, &Flags { config, plain, ..flags })?;
        if self.global.verbose {
            layers.log.value = true;
            layers.log.source = Source::Flag("--verbose");
        }
        Ok(layers)
    }

    /// The config file, or what the environment makes up for it; with the settings it lies beneath.
    pub(crate) fn config(&self, layers: Layers) -> Result<(Config, Layers), ConfigError> {
        let config = match Self::read(&layers)? {
            Some((path, text)) => {
                let config = config::resolve(&text, &path)?;
                if let Some(warning) = exposed_keys(&config, &path) {
                    say(&format!("warning: {warning}\n"));
                }
                config
            }
            None => config::from_environment(&self.environment)?,
        };
        let layers = layers.with_file(config.default.as_deref().filter(|_| config.path.is_some()));
        Ok((config, layers))
    }

    /// The text of the file; `None` when there is none and none was named.
    pub(crate) fn read(layers: &Layers) -> Result<Option<(PathBuf, String)>, ConfigError> {
        let Some(path) = layers.config.value.clone() else { return Ok(None) };
        let named = matches!(layers.config.source, Source::Flag(_) | Source::Environment("MMCHAT_CONFIG"));
        if !named && matches!(path.try_exists(), Ok(false)) {
            return Ok(None);
        }
        let text = text_of(&path)?;
        Ok(Some((path, text)))
    }

    /// The preset called `name`, of the file or in a file of its own beside it.
    pub(crate) fn preset(&self, config: &Config, layers: &Layers, name: &str) -> Result<Preset, CliError> {
        let name = normalised(name);
        let own = preset_folder(layers).map(|folder| folder.join(format!("{name}.toml"))).filter(|path| path.is_file());
        match (config.preset(&name), own) {
            (Some(_), Some(own)) => Err(CliError::usage(
                format!("preset `{name}` is in the config and in {}", own.display()),
                "rename or remove one of them",
            )),
            (Some(preset), None) => Ok(preset.clone()),
            (None, Some(own)) => Ok(Preset::from_file(&name, &text_of(&own)?, &own)?),
            (None, None) => {
                let known = self.presets(config, layers);
                let known: Vec<&str> = known.iter().map(String::as_str).collect();
                Err(super::request::unknown("preset", &name, &known))
            }
        }
    }

    /// The names of all presets.
    #[expect(clippy::unused_self, reason = "of the surroundings, like the rest")]
    pub(crate) fn presets(&self, config: &Config, layers: &Layers) -> Vec<String> {
        let mut names: Vec<String> = config.presets.iter().map(|preset| preset.name.clone()).collect();
        names.extend(preset_folder(layers).map(|folder| preset_files(&folder)).unwrap_or_default());
        names
    }

    /// How the two streams look.
    pub(crate) fn look(&self, layers: &Layers) -> Look {
        term::look(&self.environment, layers.plain.value)
    }

    /// An engine that knows nothing of earlier runs.
    pub(crate) fn engine(&self) -> Arc<Engine> {
        Arc::new(self.bare_engine())
    }

    /// The engine for `config`: it knows what earlier runs learned, and what may be spent. `words`: what services say of
    /// requests may be kept, as long as what is said to them.
    pub(crate) fn engine_for(&self, config: &Config, words: bool) -> Arc<Engine> {
        Arc::new(self.knowing_engine(config, words))
    }

    /// The same for a command that asks again and again.
    pub(crate) fn resident_engine_for(&self, config: &Config, words: bool) -> Arc<Engine> {
        Arc::new(self.knowing_engine(config, words).resident())
    }

    /// The same for a server, whose limits of what may be spent change with its config. What is asked through it is its
    /// clients' affair: no words of it are kept.
    pub(crate) fn serving_engine(&self, config: &Config, ledger: Option<Arc<Ledger>>) -> Arc<Engine> {
        let unlimited = Config { spend: Vec::new(), ..config.clone() };
        let engine = self.knowing_engine(&unlimited, false).resident();
        Arc::new(match ledger {
            Some(ledger) => engine.with_ledger(ledger),
            None => engine,
        })
    }

    fn knowing_engine(&self, config: &Config, words: bool) -> Engine {
        let mut engine = self.bare_engine();
        let kept = match config.history.days {
            _ if !words => Duration::ZERO,
            Some(days) => Duration::from_secs(u64::from(days) * 24 * 3600),
            None => Duration::MAX,
        };
        if let Some(state) = store::state_folder(&self.environment) {
            engine = engine.with_health(Arc::new(HealthFile::new(&state)), kept);
            if !config.spend.is_empty() {
                engine = engine.with_ledger(Arc::new(Ledger::new(config.spend.clone(), Database::place(&state))));
            }
        }
        engine
    }

    fn bare_engine(&self) -> Engine {
        Engine::new(Arc::new(HttpTransport::new()), KeyRing::new(self.environment.clone()))
    }

    /// A runtime on this thread alone: a command line waits for one thing at a time.
    #[expect(clippy::unused_self, reason = "made on first use, like the rest")]
    pub(crate) fn runtime(&self) -> Result<tokio::runtime::Runtime, CliError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|source| CliError::System { what: "no event loop could be made".into(), source })?;
        let inside = runtime.enter();
        term::signals::survive_file_limits();
        drop(inside);
        Ok(runtime)
    }
}

/// Keys written into a config that others can read.
fn exposed_keys(config: &Config, path: &std::path::Path) -> Option<String> {
    let literal = |source: &KeySource| matches!(source, KeySource::Literal(key) if key.is_secret());
    let holder = config.endpoints.iter().find(|endpoint| {
        endpoint.keys.iter().any(literal) || endpoint.headers.iter().any(|(_, value)| literal(value))
    })?;
    let exposed = std::fs::metadata(path).is_ok_and(|metadata| is_exposed(&metadata));
    exposed.then(|| {
        let path = path.display();
        format!("{path} holds a secret of endpoint {} and can be read by other users: chmod 600 {path}", holder.name)
    })
}
