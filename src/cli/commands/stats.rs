//! `mmchat stats`: prints calls, failures, times, tokens and cost by model, route, endpoint, client key or day.

use clap::{Args, ValueEnum};
use jiff::Timestamp;

use super::reset::check_name;
use crate::cli::{
    CliError, Context,
    support::{completion::CompletionKind, exit::Exit, recording::open_record},
};
use crate::{
    config::{Flags, normalize_name},
    render::{Output, json, record_stats},
    store::record::{GroupBy, Since},
    term::output::{Streams, write_stderr},
};

/// Show calls, failures, times, tokens, speed and cost of each model
#[derive(Debug, Args)]
#[command(
    after_help = "For models, endpoints and days, every upstream request is counted; for routes, every call is counted \
    once, with all its requests. Times are the percentiles p50, p95 and p99, accurate to 1 %. A ~ marks sums that \
    include estimated tokens. Rows with more than 5 % failures are red. --by key groups by the client keys of mmchat \
    serve.\n\n\
    Examples:\n  \
      mmchat stats --since 7d\n  \
      mmchat stats --since 7d --by route\n  \
      mmchat stats fast --by day --format csv"
)]
pub(crate) struct StatsArgs {
    /// Show only this model, endpoint or route
    #[arg(value_name = "NAME", add = CompletionKind::EndpointsAndModels.completer())]
    name: Option<String>,
    /// Show only calls since this time, in complete hours: 24h, 7d, 2w or a date [default: all calls]
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Group the calls [default: by route if NAME is a route, else by model]
    #[arg(long, value_enum, value_name = "GROUP")]
    by: Option<ByArg>,
    /// Print the totals in this format
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t, help_heading = "Output")]
    format: StatsFormat,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ByArg {
    Model,
    Route,
    Endpoint,
    Key,
    Day,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum StatsFormat {
    #[default]
    Table,
    Json,
    Csv,
}

pub(crate) fn run(args: &StatsArgs, context: &Context) -> Result<Exit, CliError> {
    let since = args.since.as_deref().map(|text| Since::parse(text, Timestamp::now()));
    let since = since.transpose().map_err(|message| CliError::Usage { message, hint: None })?;
    let (name, database) = (args.name.as_deref(), open_record(context)?);
    let default = match &database {
        Some(database) if database.is_route(name)? => ByArg::Route,
        _ => ByArg::Model,
    };
    let (group_by, group_name) = match args.by.unwrap_or(default) {
        ByArg::Model => (GroupBy::Model, "model"),
        ByArg::Route => (GroupBy::Route, "route"),
        ByArg::Endpoint => (GroupBy::Endpoint, "endpoint"),
        ByArg::Key => (GroupBy::Client, "key"),
        ByArg::Day => (GroupBy::Day, "day"),
    };
    let rows = database.map_or(Ok(Vec::new()), |database| database.stats(group_by, since, name))?;
    if rows.is_empty() {
        // Recorded names may be missing from the config; a name in neither is a typo.
        if let Some(name) = name {
            check_name(&context.config(context.settings(Flags::default())?)?.0, &normalize_name(name))?;
        }
        write_stderr("no matching records\n");
    }
    let text = match args.format {
        StatsFormat::Json => json::document(&record_stats::to_json(group_name, &rows)),
        StatsFormat::Csv => record_stats::to_csv(group_name, &rows),
        StatsFormat::Table if rows.is_empty() => String::new(),
        StatsFormat::Table => {
            let terminal = context.terminal_info(&context.settings(Flags::default())?);
            record_stats::table(group_name, &rows, terminal.stdout_width)
                .render(terminal.stdout_width, terminal.styled && terminal.stdout_width.is_some())
        }
    };
    Streams::stdout().write(&mut Output::data(text))?;
    if matches!(args.format, StatsFormat::Table) && rows.len() > 1 {
        write_stderr(&format!("{}\n", record_stats::totals(&rows)));
    }
    Ok(Exit::Ok)
}
