//! The command line: one enum, one variant per command, one file each.
//!
//! Owns parsing and dispatch. A file holds its command's flags, help and `run`; what they share is [`Context`].

mod commands;
mod support;

use std::{ffi::OsString, process::ExitCode};

use clap::{Args, CommandFactory, Parser, error::ErrorKind};

pub use support::context::{CliError, Context};
pub use support::exit::Exit;

use crate::{model::environment::Environment, term::output::say};

/// All the models you have: ask one, fail over to the next, from one binary.
#[derive(Debug, Parser)]
#[command(
    name = "mmchat",
    version,
    about,
    max_term_width = 100,
    subcommand_required = true,
    arg_required_else_help = true
)]
#[command(
    after_help = "Exit codes: 0 ok, 2 usage, 3 config, 4 key, 5 failed, 6 silent, 7 some failed, 8 cut, 9 a limit, 130 interrupted.\n\
                        Try it without a key or a network: mmchat demo"
)]
pub struct Cli {
    #[command(flatten)]
    global: GlobalArgs,
    #[command(subcommand)]
    command: commands::Command,
}

/// Flags every command takes.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct GlobalArgs {
    /// The config file [env: MMCHAT_CONFIG]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<std::path::PathBuf>,
    /// No colour, no rendering, no redrawing [env: MMCHAT_PLAIN, NO_COLOR]
    #[arg(long, global = true)]
    plain: bool,
    /// Tell every attempt on stderr [env: MMCHAT_LOG]
    #[arg(short, long, global = true)]
    verbose: bool,
}

/// Parses the arguments and runs the command.
pub fn main(arguments: impl IntoIterator<Item = OsString>, environment: Environment) -> ExitCode {
    let arguments: Vec<OsString> = support::turn_ref::joined(arguments.into_iter());
    if let Some(exit) = commands::completions::answered(&arguments, &environment) {
        return exit.into();
    }
    let exit = match Cli::try_parse_from(arguments) {
        Ok(cli) => run(cli, environment),
        Err(error) => parse_failure(&error),
    };
    exit.into()
}

fn run(cli: Cli, environment: Environment) -> Exit {
    let context = Context::new(environment, cli.global);
    commands::run(&cli.command, &context).unwrap_or_else(CliError::report)
}

/// Help and version are answers; everything else is wrong usage.
fn parse_failure(error: &clap::Error) -> Exit {
    let printed = error.print();
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => match printed {
            Err(problem) if problem.kind() != std::io::ErrorKind::BrokenPipe => {
                say(&format!("error: standard output could not be written: {problem}\n"));
                Exit::Internal
            }
            _ => Exit::Ok,
        },
        _ => Exit::Usage,
    }
}

/// The command's definition, for completions and the tests of the documentation.
#[must_use]
pub fn command() -> clap::Command {
    Cli::command()
}
