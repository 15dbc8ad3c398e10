//! Defines the subcommands: one file or folder each, with its arguments, its help and its `run` function.

mod again;
mod ask;
#[cfg(feature = "chat")]
mod chat;
mod compare;
pub(super) mod completions;
mod config;
#[cfg(feature = "serve")]
mod demo;
mod doctor;
mod endpoint;
mod history;
#[cfg(feature = "import")]
mod import;
mod init;
mod key;
mod man;
#[cfg(feature = "serve")]
mod mock;
mod model;
mod models;
mod pick;
pub(super) mod ping;
mod presets;
mod reset;
mod retry;
mod route;
#[cfg(feature = "serve")]
mod serve;
mod stats;
mod status;
mod vendors;

use clap::Subcommand;

use super::{CliError, Context, support::exit::Exit};

/// The subcommands, in the order of the top-level help.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Ask(Box<ask::AskArgs>),
    Compare(Box<compare::CompareArgs>),
    #[cfg(feature = "chat")]
    Chat(Box<chat::ChatArgs>),
    Again(Box<again::AgainArgs>),
    Pick(pick::PickArgs),
    Retry(Box<retry::RetryArgs>),
    #[cfg(feature = "serve")]
    Demo(demo::DemoArgs),
    Init(init::InitArgs),
    Models(models::ModelsArgs),
    Model(model::ModelArgs),
    Endpoint(endpoint::EndpointArgs),
    Key(key::KeyArgs),
    Presets(presets::PresetsArgs),
    Config(config::ConfigArgs),
    Vendors(vendors::VendorsArgs),
    Ping(ping::PingArgs),
    Doctor(doctor::DoctorArgs),
    Status(status::StatusArgs),
    Reset(reset::ResetArgs),
    Route(route::RouteArgs),
    Stats(stats::StatsArgs),
    History(history::HistoryArgs),
    #[cfg(feature = "serve")]
    Serve(serve::ServeArgs),
    #[cfg(feature = "serve")]
    Mock(mock::MockArgs),
    Completions(completions::CompletionsArgs),
    Man(man::ManArgs),
}

impl Command {
    /// Whether the command runs until the user or a signal ends it.
    pub(crate) fn is_long_running(&self) -> bool {
        match self {
            #[cfg(feature = "chat")]
            Self::Chat(_) => true,
            #[cfg(feature = "serve")]
            Self::Serve(_) | Self::Mock(_) => true,
            _ => false,
        }
    }
}

/// Runs the parsed subcommand.
pub(crate) fn run(command: &Command, context: &Context) -> Result<Exit, CliError> {
    match command {
        Command::Ask(args) => ask::run(args, context),
        Command::Compare(args) => compare::run(args, context),
        #[cfg(feature = "chat")]
        Command::Chat(args) => chat::run(args, context),
        Command::Again(args) => again::run(args, context),
        Command::Pick(args) => pick::run(args, context),
        Command::Retry(args) => retry::run(args, context),
        #[cfg(feature = "serve")]
        Command::Demo(args) => demo::run(args, context),
        Command::Init(args) => init::run(args, context),
        Command::Models(args) => models::run(args, context),
        Command::Model(args) => model::run(args, context),
        Command::Endpoint(args) => endpoint::run(args, context),
        Command::Key(args) => key::run(args, context),
        Command::Presets(args) => presets::run(args, context),
        Command::Config(args) => config::run(args, context),
        Command::Vendors(args) => vendors::run(args, context),
        Command::Ping(args) => ping::run(args, context),
        Command::Doctor(args) => doctor::run(args, context),
        Command::Status(args) => status::run(args, context),
        Command::Reset(args) => reset::run(args, context),
        Command::Route(args) => route::run(args, context),
        Command::Stats(args) => stats::run(args, context),
        Command::History(args) => history::run(args, context),
        #[cfg(feature = "serve")]
        Command::Serve(args) => serve::run(args, context),
        #[cfg(feature = "serve")]
        Command::Mock(args) => mock::run(args, context),
        Command::Completions(args) => completions::run(args),
        Command::Man(args) => man::run(args),
    }
}
