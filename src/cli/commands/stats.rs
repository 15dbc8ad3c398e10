//! `mmchat stats`: how each model did: calls, failures, times, tokens, cost.

use clap::{Args, ValueEnum};
use jiff::Timestamp;

use super::reset::check_name;
use crate::cli::{
    CliError, Context,
    support::{complete::Offer, exit::Exit, recording::record},
};
use crate::{
    config::{Flags, normalised},
    render::{Output, figures},
    store::record::{By, Since},
    term::output::{Streams, say},
};

/// How each model did: calls, failures by class, times, tokens, speed, cost
#[derive(Debug, Args)]
#[command(
    after_help = "Models, endpoints and days count upstream requests; routes count what was asked of them, however many\n\
    requests it took. Times are p50, p95 and p99, within 1 %; ~ says that some tokens are estimated. A row in red\n\
    failed more than once in twenty.\n\n\
    mmchat stats --since 7d --by route\n\
    mmchat stats fast --by day --format csv"
)]
pub(crate) struct StatsArgs {
    /// Only this model, endpoint or route
    #[arg(value_name = "NAME", add = Offer::Reachable.completer())]
    name: Option<String>,
    /// From then on, in whole hours: 24h, 7d, 2w or a date; all there is unless given
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// What the figures are summed by; model, or route for a route's name, unless given
    #[arg(long, value_enum, value_name = "WHAT")]
    by: Option<ByArg>,
    /// What stdout holds
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t)]
    format: StatsFormat,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ByArg {
    /// Each model
    Model,
    /// Each route
    Route,
    /// Each endpoint
    Endpoint,
    /// Each key that programs bring to mmchat serve
    Key,
    /// Each day
    Day,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum StatsFormat {
    /// A table
    #[default]
    Table,
    /// One JSON document
    Json,
    /// For a spreadsheet
    Csv,
}

pub(crate) fn run(args: &StatsArgs, context: &Context) -> Result<Exit, CliError> {
    let since = args.since.as_deref().map(|text| Since::parse(text, Timestamp::now()));
    let since = since.transpose().map_err(|message| CliError::Usage { message, hint: None })?;
    let (name, database) = (args.name.as_deref(), record(context)?);
    let usual = match &database {
        Some(database) if database.is_route(name)? => ByArg::Route,
        _ => ByArg::Model,
    };
    let (by, what) = match args.by.unwrap_or(usual) {
        ByArg::Model => (By::Model, "model"),
        ByArg::Route => (By::Route, "route"),
        ByArg::Endpoint => (By::Endpoint, "endpoint"),
        ByArg::Key => (By::Client, "key"),
        ByArg::Day => (By::Day, "day"),
    };
    let rows = database.map_or(Ok(Vec::new()), |database| database.stats(by, since, name))?;
    if rows.is_empty() {
        // What is on the record may be gone from the config; what is in neither is a slip.
        if let Some(name) = name {
            check_name(&context.config(context.layers(Flags::default())?)?.0, &normalised(name))?;
        }
        say("nothing is recorded yet, or nothing of it fits\n");
    }
    let text = match args.format {
        StatsFormat::Json => format!("{:#}\n", figures::document(what, &rows)),
        StatsFormat::Csv => figures::csv(what, &rows),
        StatsFormat::Table if rows.is_empty() => String::new(),
        StatsFormat::Table => {
            let look = context.look(&context.layers(Flags::default())?);
            figures::table(what, &rows, look.out_width).text(look.out_width, look.styled && look.out_width.is_some())
        }
    };
    Streams::stdout().put(&mut Output::data(text))?;
    if matches!(args.format, StatsFormat::Table) && rows.len() > 1 {
        say(&format!("{}\n", figures::total(&rows)));
    }
    Ok(Exit::Ok)
}
