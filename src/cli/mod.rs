//! Parses the command line and runs the chosen subcommand.
//!
//! Each subcommand is one file or folder in `commands/` with its arguments, its help and its `run` function; what they
//! share is in `support/`, above all [`Context`].

mod commands;
mod support;

use std::{ffi::OsString, io::Write, mem::ManuallyDrop, process::ExitCode};

use clap::{
    ArgAction, Args, CommandFactory, FromArgMatches, Parser,
    error::{ContextKind, ContextValue, ErrorKind},
};

pub(crate) use support::context::Context;
pub use support::error::CliError;
pub use support::exit::Exit;

use crate::{
    model::{
        describe_error,
        environment::Environment,
        sanitize::{sanitize, sanitize_styled},
    },
    term::output::write_stderr,
};

/// Help of `mmchat` itself: clap cannot group subcommands under headings. A test compares the names with the commands.
const HELP_TEMPLATE: &str = "\
{about}

Usage: {usage}

Ask:
  ask          Ask one model, or a route that fails over
  compare      Send one prompt to several models and show the answers side by side
  chat         Chat with one or several models
  again        Send the last prompt again, to the same or another model
  pick         Pick one of several answers to continue with
  retry        Repeat failed calls
  demo         Compare three scripted models, without a key or a network

Configure:
  init         Find keys and servers, and write a config
  models       List models
  model        Add, remove or rename models, or set the default one
  endpoint     Add, remove or list endpoints
  key          Store, list or remove API keys
  presets      List, show or edit presets
  config       Show, check, import or migrate the config
  vendors      List known vendors

Inspect:
  ping         Test endpoints and models
  doctor       Diagnose endpoints
  status       Show the availability of endpoints and models
  reset        Clear cooldowns and close circuit breakers
  route        Explain how a route chooses among its models
  stats        Show latency, reliability and cost
  history      List, search, show, export or delete conversations

Serve:
  serve        Serve the models over HTTP
  mock         Serve scripted models for tests

Shell:
  completions  Print a completion script
  man          Print a manual page
  help         Print the help of a command

Global:
{options}{after-help}";

/// The commands that this build leaves out.
fn omitted_commands() -> Vec<&'static str> {
    let mut omitted = Vec::new();
    if cfg!(not(feature = "chat")) {
        omitted.push("chat");
    }
    if cfg!(not(feature = "serve")) {
        omitted.extend(["demo", "serve", "mock"]);
    }
    omitted
}

/// [`HELP_TEMPLATE`] without the commands that this build leaves out.
fn help_template() -> String {
    let omitted = omitted_commands();
    let is_omitted = |line: &&str| {
        line.split_whitespace().next().is_some_and(|name| line.starts_with("  ") && omitted.contains(&name))
    };
    let text: Vec<&str> = HELP_TEMPLATE.lines().filter(|line| !is_omitted(line)).collect();
    // A heading without commands.
    text.join("\n").replace("Serve:\n\n", "")
}

/// Ask, compare and serve all your models from one binary
#[derive(Debug, Parser)]
#[command(
    name = "mmchat",
    version,
    max_term_width = 100,
    subcommand_required = true,
    arg_required_else_help = true,
    disable_help_flag = true,
    disable_version_flag = true,
    help_template = help_template()
)]
#[command(after_help = "Exit codes:\n  \
    0 ok, 1 internal error, 2 usage, 3 config, 4 no usable key, 5 all failed,\n  \
    6 timed out, 7 some failed, 8 incomplete, 9 condition not met, 130 interrupted\n\n\
    Examples:\n  \
    mmchat demo\n  \
    mmchat ask \"Why is the sky blue?\"\n  \
    git diff | mmchat ask \"Write a commit message\"\n  \
    mmchat compare -m fast,strong \"Why is the sky blue?\"")]
pub(crate) struct Cli {
    #[command(flatten)]
    global: GlobalArgs,
    /// Print help
    #[arg(short, long, global = true, action = ArgAction::Help, help_heading = "Global")]
    help: Option<bool>,
    /// Print the version
    #[arg(short = 'V', long, action = ArgAction::Version, help_heading = "Global")]
    version: Option<bool>,
    #[command(subcommand)]
    command: commands::Command,
}

/// The options that every command accepts.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct GlobalArgs {
    /// Read this config file [env: MMCHAT_CONFIG]
    #[arg(long, global = true, value_name = "FILE", help_heading = "Global")]
    config: Option<std::path::PathBuf>,
    /// Print every attempt to stderr [env: MMCHAT_LOG]
    #[arg(short, long, global = true, help_heading = "Global")]
    verbose: bool,
    /// Disable color, Markdown rendering and redrawing (NO_COLOR=1: only the first two) [env: MMCHAT_PLAIN]
    #[arg(long, global = true, help_heading = "Global")]
    plain: bool,
}

/// Parses the arguments and runs the command.
pub fn main(arguments: impl IntoIterator<Item = OsString>, environment: Environment) -> ExitCode {
    let arguments: Vec<OsString> = support::turn_ref::join_option_values(arguments.into_iter());
    if let Some(exit) = commands::completions::handle_completion_request(&arguments, &environment) {
        return exit.into();
    }
    let exit = match parse(arguments.clone()) {
        Ok(cli) => run(cli, environment),
        Err(error) => report_parse_error(&with_suggestions(without_controls(error, &arguments))),
    };
    exit.into()
}

/// The error for the same arguments without control characters, which it quotes.
fn without_controls(error: clap::Error, arguments: &[OsString]) -> clap::Error {
    let clean: Vec<OsString> = arguments.iter().map(|argument| sanitize(&argument.to_string_lossy()).into()).collect();
    if arguments == clean { error } else { parse(clean).err().unwrap_or(error) }
}

/// Parses the arguments. Short commands do not drop the definition of all commands, because dropping it takes longer than
/// parsing; long-running ones drop it, because its memory matters.
fn parse(arguments: Vec<OsString>) -> Result<Cli, clap::Error> {
    let mut definition = ManuallyDrop::new(Cli::command());
    let cli = definition.try_get_matches_from_mut(arguments).and_then(|mut matches| {
        Cli::from_arg_matches_mut(&mut matches).map_err(|error| error.format(&mut definition))
    })?;
    if cli.command.is_long_running() {
        ManuallyDrop::into_inner(definition);
    }
    Ok(cli)
}

fn run(cli: Cli, environment: Environment) -> Exit {
    let context = Context::new(environment, cli.global);
    commands::run(&cli.command, &context).unwrap_or_else(CliError::report)
}

/// Prints the help, the version or the error that clap returns. Help and version exit with code 0, errors with code 2.
fn report_parse_error(error: &clap::Error) -> Exit {
    let result = print_parse_result(error);
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => match result {
            Err(problem) if problem.kind() != std::io::ErrorKind::BrokenPipe => {
                write_stderr(&format!("error: cannot write to standard output: {}\n", describe_error(&problem)));
                Exit::Internal
            }
            _ => Exit::Ok,
        },
        _ => Exit::Usage,
    }
}

/// Texts of the argument parser and of the standard library, and those of mmchat's other messages.
const PARSER_TEXTS: [(&str, &str); 7] = [
    ("  \u{1b}[32mtip:", "\u{1b}[32mhint:"),
    (" found; no more were expected", ": it takes no value"),
    ("invalid float literal", "expected a number"),
    ("cannot parse float from empty string", "expected a number"),
    ("invalid digit found in string", "expected a whole number, 0 or more"),
    ("cannot parse integer from empty string", "expected a whole number, 0 or more"),
    ("number too large to fit in target type", "the number is too large"),
];

/// Replaces suggestions of the argument parser that do not help, and adds one for an option before a subcommand.
fn with_suggestions(mut error: clap::Error) -> clap::Error {
    if let Some(ContextValue::StyledStrs(mut suggestions)) = error.remove(ContextKind::Suggested) {
        // `-- --view` sends an unknown option as text; it is more often a typo, or an option of another command.
        suggestions.retain(|suggestion| !suggestion.to_string().starts_with("to pass "));
        if !suggestions.is_empty() {
            error.insert(ContextKind::Suggested, ContextValue::StyledStrs(suggestions));
        }
    }
    let conflict = (error.get(ContextKind::InvalidSubcommand), error.get(ContextKind::PriorArg));
    if let (Some(ContextValue::String(subcommand)), Some(ContextValue::String(option))) = conflict {
        let suggestion = format!("write the option after the subcommand: {subcommand} {option}");
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![suggestion.into()]));
    }
    error
}

/// `text` with a range of Rust, as in `9 is not in 1..=5`, in words.
fn in_words(text: &str) -> String {
    let Some((before, after)) = text.split_once(" is not in ") else { return text.to_owned() };
    let (range, rest) = after.split_at(after.find(char::is_whitespace).unwrap_or(after.len()));
    let message_start = before.rfind(": ").map_or(0, |colon| colon + 2);
    match range.split_once("..=") {
        Some((low, high)) => format!("{}expected a number from {low} to {high}{rest}", &before[..message_start]),
        None => text.to_owned(),
    }
}

/// Prints help and version to stdout, and errors to stderr, with hints in the style of our other errors.
fn print_parse_result(error: &clap::Error) -> std::io::Result<()> {
    if !error.use_stderr() {
        return error.print();
    }
    let mut text = in_words(&error.render().ansi().to_string());
    for (old, new) in PARSER_TEXTS {
        text = text.replace(old, new);
    }
    anstream::stderr().write_all(sanitize_styled(&text).as_bytes())
}

/// The definition of the command line, for completions and manual pages.
#[must_use]
pub fn command() -> clap::Command {
    Cli::command()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn top_level_help_lists_every_command_once() {
        let template = help_template();
        let listed = template.lines().filter_map(|line| line.strip_prefix("  ")?.split_whitespace().next());
        let mut listed: Vec<&str> = listed.collect();
        let command = command();
        let mut known: Vec<&str> = command.get_subcommands().map(clap::Command::get_name).chain(["help"]).collect();
        listed.sort_unstable();
        known.sort_unstable();
        assert_eq!(listed, known);
    }
}
