//! The command line: one enum, one variant per command, one file each.
//!
//! Owns parsing and dispatch. A file holds its command's flags, help and `run`; what they share is [`Context`].

mod again;
mod ask;
mod change;
mod chat;
mod compare;
mod complete;
mod completions;
mod config;
mod context;
mod demo;
mod doctor;
mod endpoint;
pub mod exit;
mod given;
mod history;
mod import;
mod init;
mod keep;
mod key;
mod listing;
mod man;
mod mock;
mod model;
mod models;
mod pick;
mod ping;
mod presets;
mod prompt;
mod request;
mod reset;
mod retry;
mod route;
mod serve;
mod stats;
mod status;
mod thread;
mod vendors;

use std::{ffi::OsString, process::ExitCode};

use clap::{Args, CommandFactory, Parser, Subcommand, error::ErrorKind};

pub use context::{CliError, Context};
use exit::Exit;

use crate::{environment::Environment, term::output::say};

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
    command: Command,
}

/// Flags every command takes.
#[derive(Clone, Debug, Default, Args)]
struct GlobalArgs {
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

#[derive(Debug, Subcommand)]
enum Command {
    Ask(Box<ask::AskArgs>),
    Again(Box<again::AgainArgs>),
    Compare(Box<compare::CompareArgs>),
    Chat(Box<chat::ChatArgs>),
    Pick(pick::PickArgs),
    Retry(Box<retry::RetryArgs>),
    Stats(stats::StatsArgs),
    Status(status::StatusArgs),
    Reset(reset::ResetArgs),
    Route(route::RouteArgs),
    History(history::HistoryArgs),
    Init(init::InitArgs),
    Models(models::ModelsArgs),
    Model(model::ModelArgs),
    Endpoint(endpoint::EndpointArgs),
    Key(key::KeyArgs),
    Ping(ping::PingArgs),
    Doctor(doctor::DoctorArgs),
    Vendors(vendors::VendorsArgs),
    Presets(presets::PresetsArgs),
    Config(config::ConfigArgs),
    Serve(serve::ServeArgs),
    Mock(mock::MockArgs),
    Demo(demo::DemoArgs),
    Completions(completions::CompletionsArgs),
    Man(man::ManArgs),
}

/// Parses the arguments and runs the command.
pub fn main(arguments: impl IntoIterator<Item = OsString>, environment: Environment) -> ExitCode {
    let arguments: Vec<OsString> = thread::joined(arguments.into_iter());
    if let Some(exit) = completions::answered(&arguments, &environment) {
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
    let result = match cli.command {
        Command::Ask(args) => ask::run(&args, &context),
        Command::Again(args) => again::run(&args, &context),
        Command::Compare(args) => compare::run(&args, &context),
        Command::Chat(args) => chat::run(&args, &context),
        Command::Pick(args) => pick::run(&args, &context),
        Command::Retry(args) => retry::run(&args, &context),
        Command::Stats(args) => stats::run(&args, &context),
        Command::Status(args) => status::run(&args, &context),
        Command::Reset(args) => reset::run(&args, &context),
        Command::Route(args) => route::run(&args, &context),
        Command::History(args) => history::run(&args, &context),
        Command::Init(args) => init::run(&args, &context),
        Command::Models(args) => models::run(&args, &context),
        Command::Model(args) => model::run(&args, &context),
        Command::Endpoint(args) => endpoint::run(&args, &context),
        Command::Key(args) => key::run(&args, &context),
        Command::Ping(args) => ping::run(&args, &context),
        Command::Doctor(args) => doctor::run(&args, &context),
        Command::Vendors(args) => vendors::run(&args, &context),
        Command::Presets(args) => presets::run(&args, &context),
        Command::Config(args) => config::run(&args, &context),
        Command::Serve(args) => serve::run(&args, &context),
        Command::Mock(args) => mock::run(&args, &context),
        Command::Demo(args) => demo::run(&args, &context),
        Command::Completions(args) => completions::run(&args),
        Command::Man(args) => man::run(&args),
    };
    result.unwrap_or_else(CliError::report)
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
