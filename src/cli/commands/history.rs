//! `mmchat history`: what was said: list, search, show, export, delete, prune.

use std::{fmt::Write as _, path::PathBuf, time::Duration};

use clap::{Args, Subcommand, ValueEnum};
use jiff::{Timestamp, tz::TimeZone};
use serde_json::{Value, json};

use super::status::{file, update};
use crate::cli::{
    CliError, Context,
    support::{
        exit::Exit,
        list_format::ListArgs,
        recording::record,
        turn_ref::{Conversation, LAST, Place},
    },
};
use crate::{
    config::Flags,
    model::sanitize::{Sanitiser, one_line},
    render::{Output, table::Table},
    store::record::{Database, Exchange},
    term::{
        output::{Streams, say},
        prompt::{can_ask, confirm},
    },
};

/// What was said: list, search, show, export, delete, prune
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "mmchat history search borrow checker\n\
    mmchat history show 12@2 > answer.md\n\
    mmchat ask --continue 12 \"And then?\"\n\
    Nothing is kept with --no-log, or history = false in the config."
)]
pub(crate) struct HistoryArgs {
    /// How many, the newest first
    #[arg(short = 'n', long, value_name = "NUMBER", default_value_t = 20)]
    most: usize,
    #[command(flatten)]
    list: ListArgs,
    #[command(subcommand)]
    command: Option<HistoryCommand>,
}

#[derive(Debug, Subcommand)]
enum HistoryCommand {
    /// List conversations, the newest first
    List {
        /// How many
        #[arg(short = 'n', long, value_name = "NUMBER", default_value_t = 20)]
        most: usize,
        #[command(flatten)]
        list: ListArgs,
    },
    /// Find words in prompts and answers
    Search {
        /// The words, all of which must be there; in quotes, as they stand beside each other
        #[arg(value_name = "WORDS", required = true)]
        words: Vec<String>,
        /// How many, the newest first
        #[arg(short = 'n', long, value_name = "NUMBER", default_value_t = 20)]
        most: usize,
        #[command(flatten)]
        list: ListArgs,
    },
    Show(ShowArgs),
    Export(ExportArgs),
    Delete(DeleteArgs),
    Prune(PruneArgs),
}

/// Print a conversation, or with @N one clean answer
#[derive(Debug, Args)]
struct ShowArgs {
    /// A conversation, or one answer of it: 12, 12@2, last, last@1
    #[arg(value_name = "ID", default_value = LAST)]
    place: String,
    #[command(flatten)]
    list: ListArgs,
}

/// Write conversations out, to keep or to hand on
#[derive(Debug, Args)]
struct ExportArgs {
    /// Which; all unless given
    #[arg(value_name = "ID")]
    places: Vec<String>,
    /// In which format
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t)]
    format: ExportFormat,
    /// Write to a file instead of stdout
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    output: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum ExportFormat {
    /// For reading
    #[default]
    Markdown,
    /// For programs
    Json,
}

/// Forget conversations; figures stay
#[derive(Debug, Args)]
struct DeleteArgs {
    /// Which
    #[arg(value_name = "ID", required_unless_present = "all")]
    ids: Vec<i64>,
    /// All of them
    #[arg(long, conflicts_with = "ids")]
    all: bool,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
}

/// Forget what was said more than so many days ago; figures stay
#[derive(Debug, Args)]
struct PruneArgs {
    /// So many; `history_days` of the config unless given
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..=36_500))]
    days: Option<u32>,
}

pub(crate) fn run(args: &HistoryArgs, context: &Context) -> Result<Exit, CliError> {
    match &args.command {
        None => list(args.most, &args.list, context)?,
        Some(HistoryCommand::List { most, list: format }) => list(*most, format, context)?,
        Some(HistoryCommand::Search { words, most, list }) => search(words, *most, list, context)?,
        Some(HistoryCommand::Show(args)) => show(args, context)?,
        Some(HistoryCommand::Export(args)) => export(args, context)?,
        Some(HistoryCommand::Delete(args)) => delete(args, context)?,
        Some(HistoryCommand::Prune(args)) => prune(args, context)?,
    }
    Ok(Exit::Ok)
}

fn list(most: usize, format: &ListArgs, context: &Context) -> Result<(), CliError> {
    let conversations = record(context)?.map_or(Ok(Vec::new()), |database| database.conversations(most))?;
    let mut table = Table::new(&[">id", "when", ">answers", "asked", "prompt"]);
    let mut document = Vec::new();
    for conversation in &conversations {
        let prompt = shortened(&conversation.prompt);
        table.row(vec![
            conversation.id.to_string(),
            when(conversation.at),
            conversation.exchanges.to_string(),
            conversation.asked.clone(),
            prompt,
        ]);
        document.push(json!({
            "id": conversation.id,
            "at": conversation.at.to_string(),
            "command": conversation.command,
            "answers": conversation.exchanges,
            "asked": conversation.asked,
            "prompt": conversation.prompt,
        }));
    }
    if conversations.is_empty() && format.is_text() {
        say("nothing is kept\n");
    }
    format.print(context, &[table], &document.into())
}

fn search(words: &[String], most: usize, format: &ListArgs, context: &Context) -> Result<(), CliError> {
    // A prompt has no empty place to be found at.
    let words: Vec<&str> = words.iter().map(|words| words.trim()).filter(|words| !words.is_empty()).collect();
    if words.is_empty() {
        let message = "there is no word to look for".to_owned();
        return Err(CliError::Usage { message, hint: Some("name one: mmchat history search WORDS".to_owned()) });
    }
    let found = record(context)?.map_or(Ok(Vec::new()), |mut database| database.search(&words, most))?;
    let mut table = Table::new(&["id", "when", "asked", "found"]);
    let mut document = Vec::new();
    for found in &found {
        let exchange = &found.exchange;
        table.row(vec![exchange.place(), when(exchange.at), exchange.asked.clone(), found.excerpt.clone()]);
        let mut object = object(exchange);
        object["excerpt"] = found.excerpt.as_str().into();
        document.push(object);
    }
    if found.is_empty() && format.is_text() {
        say("nothing was found\n");
    }
    format.print(context, &[table], &document.into())
}

fn show(args: &ShowArgs, context: &Context) -> Result<(), CliError> {
    let place: Place = args.place.parse()?;
    let exchanges = at(&opened(context)?, place)?;
    if !args.list.is_text() {
        let document: Vec<Value> = exchanges.iter().map(object).collect();
        return args.list.print(context, &[], &document.into());
    }
    let text = match (place.number, exchanges.as_slice()) {
        (Some(_), [one]) => {
            if let Some(class) = &one.class {
                say(&format!("warning: this answer is not whole: {class}\n"));
            }
            format!("{}\n", one.answer.trim_end_matches('\n'))
        }
        _ => markdown(&exchanges),
    };
    let terminal = context.look(&context.layers(Flags::default())?).out_width.is_some();
    Ok(Streams::stdout().put(&mut Output::data(if terminal { clean(&text) } else { text }))?)
}

/// Without what would steer a terminal.
fn clean(text: &str) -> String {
    let mut shown = String::new();
    Sanitiser::default().push(text, &mut shown);
    shown
}

fn export(args: &ExportArgs, context: &Context) -> Result<(), CliError> {
    let database = opened(context)?;
    let exchanges = if args.places.is_empty() {
        database.all_exchanges()?
    } else {
        let mut exchanges = Vec::new();
        for place in &args.places {
            exchanges.extend(at(&database, place.parse()?)?);
        }
        exchanges
    };
    let text = match args.format {
        ExportFormat::Json => format!("{:#}\n", exchanges.iter().map(object).collect::<Value>()),
        ExportFormat::Markdown => markdown(&exchanges),
    };
    let terminal = context.look(&context.layers(Flags::default())?).out_width.is_some() && args.output.is_none();
    let text = if terminal { clean(&text) } else { text };
    let mut streams = args.output.as_deref().map_or_else(|| Ok(Streams::stdout()), Streams::file)?;
    streams.put(&mut Output::data(text))?;
    Ok(streams.close(true)?)
}

fn delete(args: &DeleteArgs, context: &Context) -> Result<(), CliError> {
    let mut database = opened(context)?;
    let now = Timestamp::now();
    if args.all {
        let sure = args.yes || (can_ask() && confirm("Forget everything that was said?", false)?);
        if !sure {
            return Err(CliError::usage("nothing was forgotten", "say --yes to forget everything"));
        }
        say(&format!("{} answer(s) forgotten\n", database.delete_all()?));
        return leave_nothing(&database, now, context);
    }
    for &id in &args.ids {
        if database.exchanges(id)?.is_empty() {
            let hint = "nothing was forgotten; mmchat history lists them";
            return Err(CliError::usage(format!("there is no conversation {id}"), hint));
        }
    }
    for &id in &args.ids {
        database.delete(id)?;
        say(&format!("conversation {id} forgotten\n"));
    }
    leave_nothing(&database, now, context)
}

/// Services may have quoted what is forgotten, and the log may hold it.
fn leave_nothing(database: &Database, before: Timestamp, context: &Context) -> Result<(), CliError> {
    let cleared = database.clear_log();
    let forgot = update(&file(context)?, &mut |snapshot| snapshot.forget_words(before));
    if let (Err(unforgotten), Err(_)) = (&forgot, &cleared) {
        say(&format!("warning: {unforgotten}\n"));
    }
    cleared?;
    forgot
}

fn prune(args: &PruneArgs, context: &Context) -> Result<(), CliError> {
    let days = match args.days {
        Some(days) => Some(days),
        None => context.config(context.layers(Flags::default())?)?.0.history.days,
    };
    let Some(mut database) = record(context)? else {
        say("nothing is kept yet\n");
        return Ok(());
    };
    let Some(days) = days else {
        database.clear_log()?;
        say("nothing was forgotten: say --days NUMBER, or set history_days in the config; the log was emptied\n");
        return Ok(());
    };
    let now = Timestamp::now();
    let count = database.prune(days, now)?;
    say(&format!("{count} answer(s) of more than {days} day(s) ago forgotten\n"));
    let kept = Duration::from_secs(u64::from(days) * 24 * 3600);
    leave_nothing(&database, now.checked_sub(kept).unwrap_or(Timestamp::MIN), context)
}

fn opened(context: &Context) -> Result<Database, CliError> {
    record(context)?.ok_or_else(|| CliError::usage("nothing is kept yet", "ask something first"))
}

/// The exchanges at `place`: a conversation, or one of it.
fn at(database: &Database, place: Place) -> Result<Vec<Exchange>, CliError> {
    let nothing = || CliError::usage("nothing is kept", "ask something first");
    let conversation = Conversation::find(database, place)?.ok_or_else(nothing)?;
    match place.number {
        None => Ok(conversation.exchanges().to_vec()),
        Some(_) => Ok(conversation.answer(place)?.into_iter().cloned().collect()),
    }
}

/// In the person's time zone, to the minute.
fn when(at: Timestamp) -> String {
    at.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M").to_string()
}

fn shortened(text: &str) -> String {
    const LONGEST: usize = 60;
    let line = one_line(text);
    match line.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

/// Conversations as a page to read: what was asked, and each answer under its model's name.
fn markdown(exchanges: &[Exchange]) -> String {
    let mut out = String::new();
    for conversation in exchanges.chunk_by(|a, b| a.conversation == b.conversation) {
        let first = &conversation[0];
        let _ = write!(out, "# Conversation {}, {}\n\n", first.conversation, when(first.at));
        if let Some(system) = &first.system {
            let _ = write!(out, "*{}*\n\n", one_line(system));
        }
        for round in conversation.chunk_by(|a, b| a.round == b.round) {
            let asked = &round[0];
            let pictures = if asked.images > 0 { format!("\n> ({} picture(s))", asked.images) } else { String::new() };
            let prompt: Vec<String> = asked.prompt.lines().map(|line| format!("> {line}")).collect();
            let _ = write!(out, "{}{pictures}\n\n", prompt.join("\n"));
            for exchange in round {
                let model = exchange.model.as_deref().unwrap_or(&exchange.asked);
                let failed = exchange.class.as_ref().map(|class| format!(" ({class})")).unwrap_or_default();
                let picked = if exchange.picked { " (picked)" } else { "" };
                let answer = exchange.answer.trim_end();
                let _ = write!(out, "## {}: {model}{failed}{picked}\n\n{answer}\n\n", exchange.place());
            }
        }
    }
    out.truncate(out.trim_end().len());
    out.push('\n');
    out
}

fn object(exchange: &Exchange) -> Value {
    json!({
        "id": exchange.conversation,
        "round": exchange.round,
        "lane": exchange.lane,
        "place": exchange.place(),
        "picked": exchange.picked,
        "at": exchange.at.to_string(),
        "asked": exchange.asked,
        "model": exchange.model,
        "class": exchange.class,
        "system": exchange.system,
        "prompt": exchange.prompt,
        "images": exchange.images,
        "answer": exchange.answer,
        "reasoning": exchange.reasoning,
    })
}
