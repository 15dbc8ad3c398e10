//! The error of a command: its message, its hint and its exit code.

use std::{collections::HashSet, io};

use miette::{GraphicalReportHandler, GraphicalTheme};

use super::exit::Exit;

use crate::{
    config::{self, Config, ConfigError, closest_name, edit::EditError, preset::PresetError},
    engine::plan::PlanError,
    model::describe_error,
    routing::health::HealthError,
    store::record::RecordError,
    term::{
        input::InputError,
        output::{WriteError, write_stderr, write_styled_stderr},
        prompt::PromptError,
    },
};

/// The error of a failed command.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CliError {
    /// The config cannot be read or is invalid.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A name on the command line cannot be resolved to models.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// Standard input cannot be read.
    #[error(transparent)]
    Input(#[from] InputError),
    /// Standard output or the `--output` file cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// A preset is invalid or cannot be rendered.
    #[error(transparent)]
    Preset(#[from] PresetError),
    /// A config edit is invalid.
    #[error(transparent)]
    Edit(#[from] EditError),
    /// The config is valid, but would not be after a change.
    #[error("the change would make the config invalid; nothing was written")]
    InvalidChange {
        /// The problems of the changed config.
        problems: Vec<config::Problem>,
    },
    /// An interactive question was interrupted or cannot be asked.
    #[error(transparent)]
    Prompt(#[from] PromptError),
    /// The database of calls cannot be read or written.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The health file cannot be read or written.
    #[error(transparent)]
    Health(#[from] HealthError),
    /// A condition was not met, such as a cost limit.
    #[error("{message}")]
    Condition {
        /// Which condition, and why.
        message: String,
        /// The hint printed below it.
        hint: String,
    },
    /// Arguments or input files are invalid.
    #[error("{message}")]
    Usage {
        /// The error message.
        message: String,
        /// The hint printed below it.
        hint: Option<String>,
    },
    /// The server cannot run as configured.
    #[error("{message}")]
    Serve {
        /// The error message.
        message: String,
        /// The hint printed below it.
        hint: Option<String>,
    },
    /// An operation of the operating system failed.
    #[error("{what}: {}", describe_error(source))]
    System {
        /// What failed.
        what: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

impl From<io::Error> for CliError {
    fn from(source: io::Error) -> Self {
        Self::System { what: "I/O error".into(), source }
    }
}

impl CliError {
    /// A usage error with a hint.
    pub(crate) fn usage(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Usage { message: message.into(), hint: Some(hint.into()) }
    }

    /// Prints the error and its hint to stderr, and returns the exit code.
    pub(crate) fn report(self) -> Exit {
        let hint = match &self {
            Self::Plan(error) => Some(error.hint()),
            Self::Preset(error) => Some(error.hint()),
            Self::Edit(error) => edit_hint(error),
            Self::Usage { hint, .. } | Self::Serve { hint, .. } => hint.clone(),
            Self::Condition { hint, .. } => Some(hint.clone()),
            Self::Config(ConfigError::Read { path, .. }) if !path.exists() => {
                Some("check the path, or run \"mmchat init\" to create a config".into())
            }
            Self::Input(InputError::Timeout(_)) => Some("use --no-stdin if nothing is piped in".into()),
            _ => None,
        };
        match &self {
            Self::Write(WriteError::StdoutClosed) => return Exit::Ok,
            Self::Config(ConfigError::Invalid { problems, .. }) | Self::InvalidChange { problems } => {
                for problem in problems {
                    write_styled_stderr(&format!("{}\n", render_problem(problem)));
                }
                write_stderr(&format!("error: {self}\n"));
            }
            _ => write_stderr(&format!("error: {self}\n")),
        }
        if let Some(hint) = hint {
            write_stderr(&format!("hint: {hint}\n"));
        }
        match self {
            Self::Serve { .. } => Exit::Config,
            Self::Config(_) | Self::InvalidChange { .. } => Exit::Config,
            Self::Edit(EditError::Syntax(_) | EditError::NotATable(_)) => Exit::Config,
            Self::Prompt(PromptError::Interrupted) | Self::Write(WriteError::TerminalClosed) => Exit::Interrupted,
            Self::Edit(_) | Self::Prompt(_) => Exit::Usage,
            Self::Plan(PlanError::NoEndpoints) => Exit::Key,
            Self::Plan(_) | Self::Input(_) | Self::Preset(_) | Self::Usage { .. } => Exit::Usage,
            Self::Condition { .. } => Exit::Condition,
            Self::Record(_) | Self::Health(_) | Self::Write(_) | Self::System { .. } => Exit::Internal,
        }
    }
}

pub(super) fn edit_hint(error: &EditError) -> Option<String> {
    Some(match error {
        EditError::AlreadyExists { name, .. } => format!("choose another name, or remove \"{name}\" first"),
        EditError::NotFound { kind, known, .. } if known.is_empty() => format!("the config has no {kind}s"),
        EditError::NotFound { name, known, .. } => match closest_name(name, known.iter().map(String::as_str)) {
            Some(closest) => format!("did you mean \"{closest}\"?"),
            None => format!("available: {}", known.join(", ")),
        },
        EditError::InUse { flag, .. } if *flag == "--with-models" => {
            format!("add {flag} to also remove its models, its spend limit, and all references to them")
        }
        EditError::InUse { name, flag, .. } => {
            format!(
                "add {flag} to also remove all references to \"{name}\"; a route or set that becomes empty is removed"
            )
        }
        EditError::OnlyModel { client } => {
            format!("change [serve.keys.{client}] first: without models, it could use all of them")
        }
        _ => return None,
    })
}

/// Renders a config problem with its position in the file: line, column and caret.
pub(super) fn render_problem(problem: &config::Problem) -> String {
    let handler = GraphicalReportHandler::new_themed(GraphicalTheme::unicode_nocolor()).with_width(100);
    let mut text = String::new();
    if handler.render_report(&mut text, problem).is_err() {
        text = problem.to_string();
    }
    // The word for a hint in all other messages.
    text.trim_matches('\n').replace("\n  help: ", "\n  hint: ")
}

/// The error for a name that is not an endpoint, model or route.
pub(crate) fn unknown_endpoint_or_model(config: &Config, name: &str) -> CliError {
    let endpoints = config.endpoints.iter().map(|endpoint| endpoint.name.as_str());
    unknown_value("endpoint or model", name, &endpoints.chain(config.names()).collect::<Vec<_>>())
}

/// The error for a value that is not one of the known values.
pub(crate) fn unknown_value(what: &str, value: &str, known: &[&str]) -> CliError {
    let suggestion = closest_name(value, known.iter().copied()).map(|closest| format!("did you mean \"{closest}\"? "));
    // An endpoint and a model may have the same name.
    let mut seen = HashSet::new();
    let available: Vec<&str> = known.iter().copied().filter(|name| seen.insert(*name)).collect();
    let available = if available.is_empty() { "none".to_owned() } else { available.join(", ") };
    let hint = format!("{}available: {available}", suggestion.unwrap_or_default());
    CliError::usage(format!("unknown {what} \"{value}\""), hint)
}
