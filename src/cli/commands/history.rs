//! `mmchat history`: lists, searches, shows, exports and deletes stored conversations.

use std::{fmt::Write as _, path::PathBuf, time::Duration};

use clap::{ArgGroup, Args, Subcommand, ValueEnum};
use jiff::{Timestamp, tz::TimeZone};
use serde_json::{Value, json};

use super::status::{health_file, update_health};
use crate::cli::{
    CliError, Context,
    support::{
        exit::Exit,
        list_format::ListArgs,
        recording::open_record,
        turn_ref::{LAST, StoredConversation, TurnRef, incomplete_reason, nothing_stored},
    },
};
use crate::{
    config::Flags,
    model::{
        plural,
        sanitize::{one_line, sanitize, truncate_chars},
    },
    render::{Output, json, table::Table},
    store::record::{Database, StoredTurn},
    term::{
        output::{Streams, write_stderr},
        prompt::{can_prompt, confirm},
    },
};

/// List, search, show, export or delete stored conversations
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Prompts and answers are not stored with --no-log, or with history = false in the config.\n\n\
    Examples:\n  \
    mmchat history\n  \
    mmchat history search borrow checker\n  \
    mmchat history show 12@2 > answer.md\n  \
    mmchat ask --continue 12 \"And then?\""
)]
pub(crate) struct HistoryArgs {
    #[command(flatten)]
    limit: LimitArgs,
    #[command(flatten)]
    list: ListArgs,
    #[command(subcommand)]
    command: Option<HistoryCommand>,
}

/// How much of a list to print.
#[derive(Debug, Args)]
struct LimitArgs {
    /// Print at most this many, the newest first
    #[arg(
        short = 'n',
        long = "most",
        value_name = "NUMBER",
        allow_negative_numbers = true,
        default_value_t = 20,
        help_heading = "Output"
    )]
    most: usize,
}

#[derive(Debug, Subcommand)]
enum HistoryCommand {
    /// List the conversations, the newest first
    #[command(after_help = "Examples:\n  \
        mmchat history list -n 100\n  \
        mmchat history list --format json")]
    List {
        #[command(flatten)]
        limit: LimitArgs,
        #[command(flatten)]
        list: ListArgs,
    },
    /// Search prompts and answers
    #[command(after_help = "Examples:\n  \
        mmchat history search borrow checker\n  \
        mmchat history search \"borrow checker\" -n 5")]
    Search {
        /// Words that must all occur; words in one pair of quotes must occur as a phrase
        #[arg(value_name = "WORDS", required = true)]
        words: Vec<String>,
        #[command(flatten)]
        limit: LimitArgs,
        #[command(flatten)]
        list: ListArgs,
    },
    Show(ShowArgs),
    Export(ExportArgs),
    Delete(DeleteArgs),
    Prune(PruneArgs),
}

/// Show a conversation, or print the bare text of one answer
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    mmchat history show\n  \
    mmchat history show 12@2 > answer.md")]
struct ShowArgs {
    /// Conversation, or one answer of it, such as 12, 12@2 or last@1
    #[arg(value_name = "ID", default_value = LAST)]
    turn: String,
    #[command(flatten)]
    list: ListArgs,
}

/// Export conversations as Markdown or JSON
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    mmchat history export 12 --output conversation.md\n  \
    mmchat history export --format json > history.json")]
struct ExportArgs {
    /// Conversations or answers, such as 12 or 12@2 [default: all]
    #[arg(value_name = "ID")]
    turns: Vec<String>,
    /// Write the conversations in this format
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t, help_heading = "Output")]
    format: ExportFormat,
    /// Write to a file instead of stdout
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath, help_heading = "Output")]
    output: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum ExportFormat {
    #[default]
    Markdown,
    Json,
}

/// Delete the prompts and answers of conversations; times, tokens and cost are kept
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("selection").required(true)))]
#[command(after_help = "Examples:\n  \
    mmchat history delete 12 13\n  \
    mmchat history delete --all")]
struct DeleteArgs {
    /// Conversations to delete
    #[arg(value_name = "ID", group = "selection")]
    ids: Vec<i64>,
    /// Delete all conversations
    #[arg(long, group = "selection")]
    all: bool,
    /// Do not ask for confirmation
    #[arg(short, long)]
    yes: bool,
}

/// Delete prompts and answers that are older than a number of days; times, tokens and cost are kept
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    mmchat history prune --days 30")]
struct PruneArgs {
    /// Delete what is older than this many days [default: history_days of the config]
    #[arg(
        long,
        value_name = "NUMBER",
        allow_negative_numbers = true,
        value_parser = clap::value_parser!(u32).range(1..=36_500)
    )]
    days: Option<u32>,
}

pub(crate) fn run(args: &HistoryArgs, context: &Context) -> Result<Exit, CliError> {
    match &args.command {
        None => list(args.limit.most, &args.list, context)?,
        Some(HistoryCommand::List { limit, list: list_args }) => list(limit.most, list_args, context)?,
        Some(HistoryCommand::Search { words, limit, list }) => search(words, limit.most, list, context)?,
        Some(HistoryCommand::Show(args)) => show(args, context)?,
        Some(HistoryCommand::Export(args)) => export(args, context)?,
        Some(HistoryCommand::Delete(args)) => delete(args, context)?,
        Some(HistoryCommand::Prune(args)) => prune(args, context)?,
    }
    Ok(Exit::Ok)
}

fn list(limit: usize, list_args: &ListArgs, context: &Context) -> Result<(), CliError> {
    let conversations = open_record(context)?.map_or(Ok(Vec::new()), |database| database.conversations(limit))?;
    let mut table = Table::new(&[">id", "when", ">answers", "model", "prompt"]);
    let mut document = Vec::new();
    for conversation in &conversations {
        let prompt = excerpt(&conversation.prompt);
        table.add_row(vec![
            conversation.id.to_string(),
            format_time(conversation.at),
            conversation.turn_count.to_string(),
            conversation.requested.clone(),
            prompt,
        ]);
        document.push(json!({
            "id": conversation.id,
            "at": conversation.at.to_string(),
            "command": conversation.command,
            "answers": conversation.turn_count,
            "asked": conversation.requested,
            "prompt": conversation.prompt,
        }));
    }
    if conversations.is_empty() && list_args.is_text() {
        write_stderr("no conversations are stored\n");
    }
    list_args.print(context, &[table], &document.into())
}

fn search(words: &[String], limit: usize, list_args: &ListArgs, context: &Context) -> Result<(), CliError> {
    // An empty search term matches nothing.
    let words: Vec<&str> = words.iter().map(|words| words.trim()).filter(|words| !words.is_empty()).collect();
    if words.is_empty() {
        let message = "missing search words".to_owned();
        return Err(CliError::Usage { message, hint: Some("run \"mmchat history search WORDS\"".to_owned()) });
    }
    let hits = open_record(context)?.map_or(Ok(Vec::new()), |mut database| database.search(&words, limit))?;
    let mut table = Table::new(&["id", "when", "model", "match"]);
    let mut document = Vec::new();
    for hit in &hits {
        let turn = &hit.turn;
        table.add_row(vec![turn.reference(), format_time(turn.at), turn.requested.clone(), hit.excerpt.clone()]);
        let mut object = turn_json(turn);
        object["excerpt"] = hit.excerpt.as_str().into();
        document.push(object);
    }
    if hits.is_empty() && list_args.is_text() {
        write_stderr("no matches\n");
    }
    list_args.print(context, &[table], &document.into())
}

fn show(args: &ShowArgs, context: &Context) -> Result<(), CliError> {
    let turn_ref: TurnRef = args.turn.parse()?;
    let turns = find_turns(&open_required(context)?, turn_ref)?;
    if !args.list.is_text() {
        let document: Vec<Value> = turns.iter().map(turn_json).collect();
        return args.list.print(context, &[], &document.into());
    }
    let text = match (turn_ref.answer, turns.as_slice()) {
        (Some(_), [turn]) => {
            if let Some(reason) = incomplete_reason(turn) {
                write_stderr(&format!("warning: {reason}\n"));
            }
            format!("{}\n", turn.answer.trim_end_matches('\n'))
        }
        _ => markdown(&turns),
    };
    let is_terminal = context.terminal_info(&context.settings(Flags::default())?).stdout_width.is_some();
    Ok(Streams::stdout().write(&mut Output::data(if is_terminal { sanitize(&text) } else { text }))?)
}

fn export(args: &ExportArgs, context: &Context) -> Result<(), CliError> {
    let database = open_required(context)?;
    let turns = if args.turns.is_empty() {
        database.all_turns()?
    } else {
        let mut turns = Vec::new();
        for reference in &args.turns {
            turns.extend(find_turns(&database, reference.parse()?)?);
        }
        turns
    };
    let text = match args.format {
        ExportFormat::Json => json::document(&turns.iter().map(turn_json).collect()),
        ExportFormat::Markdown => markdown(&turns),
    };
    // A pipe gets the text unchanged.
    let is_pipe =
        args.output.is_none() && context.terminal_info(&context.settings(Flags::default())?).stdout_width.is_none();
    let text = if is_pipe { text } else { sanitize(&text) };
    let mut streams = args.output.as_deref().map_or_else(|| Ok(Streams::stdout()), Streams::file)?;
    streams.write(&mut Output::data(text))?;
    Ok(streams.finish(true)?)
}

fn delete(args: &DeleteArgs, context: &Context) -> Result<(), CliError> {
    let nothing = || CliError::Usage { message: "nothing to delete: no conversations are stored".into(), hint: None };
    let mut database = open_record(context)?.ok_or_else(nothing)?;
    let now = Timestamp::now();
    if args.all {
        let confirmed = args.yes || (can_prompt() && confirm("Delete all stored prompts and answers?", false)?);
        if !confirmed {
            return Err(CliError::usage(
                "not confirmed: nothing was deleted",
                "add --yes to delete without a question",
            ));
        }
        write_stderr(&format!("deleted {}\n", plural(database.delete_all()?, "answer")));
        return purge_traces(&database, now, context);
    }
    for &id in &args.ids {
        if database.turns(id)?.is_empty() {
            let hint = "nothing was deleted; run \"mmchat history\" to list conversations";
            return Err(CliError::usage(format!("no conversation {id}"), hint));
        }
    }
    for &id in &args.ids {
        database.delete_conversation(id)?;
        write_stderr(&format!("deleted conversation {id}\n"));
    }
    purge_traces(&database, now, context)
}

/// Removes the remaining traces of deleted content: error texts of services, which may quote it, and SQLite's log.
fn purge_traces(database: &Database, before: Timestamp, context: &Context) -> Result<(), CliError> {
    let purged = database.purge_deleted();
    let health = health_file(context)?;
    if let Err(error) = health.remove_copy() {
        write_stderr(&format!("warning: {error}\n"));
    }
    let updated = update_health(&health, &mut |snapshot| snapshot.clear_messages_before(before));
    if let (Err(error), Err(_)) = (&updated, &purged) {
        write_stderr(&format!("warning: {error}\n"));
    }
    purged?;
    updated
}

fn prune(args: &PruneArgs, context: &Context) -> Result<(), CliError> {
    let days = match args.days {
        Some(days) => Some(days),
        None => context.config(context.settings(Flags::default())?)?.0.history.retention_days,
    };
    let Some(mut database) = open_record(context)? else {
        write_stderr("no conversations are stored\n");
        return Ok(());
    };
    let Some(days) = days else {
        database.purge_deleted()?;
        health_file(context)?.remove_copy()?;
        write_stderr(
            "no prompts or answers were deleted, because neither --days nor history_days is set; traces of earlier \
             deletions were erased\nhint: add --days NUMBER\n",
        );
        return Ok(());
    };
    let now = Timestamp::now();
    let count = database.prune(days, now)?;
    write_stderr(&format!("deleted {} older than {}\n", plural(count, "answer"), plural(days as usize, "day")));
    let retention = Duration::from_secs(u64::from(days) * 24 * 3600);
    purge_traces(&database, now.checked_sub(retention).unwrap_or(Timestamp::MIN), context)
}

fn open_required(context: &Context) -> Result<Database, CliError> {
    open_record(context)?.ok_or_else(no_conversations)
}

fn no_conversations() -> CliError {
    nothing_stored("no conversations are stored")
}

/// The turns that `turn_ref` refers to: all of a conversation, or one answer.
fn find_turns(database: &Database, turn_ref: TurnRef) -> Result<Vec<StoredTurn>, CliError> {
    let conversation = StoredConversation::find(database, turn_ref)?.ok_or_else(no_conversations)?;
    match turn_ref.answer {
        None => Ok(conversation.turns().to_vec()),
        Some(_) => Ok(conversation.answer(turn_ref)?.into_iter().cloned().collect()),
    }
}

/// Formats a time in the local time zone, to the minute.
fn format_time(at: Timestamp) -> String {
    at.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M").to_string()
}

fn excerpt(text: &str) -> String {
    const MAX_CHARS: usize = 60;
    truncate_chars(&one_line(text), MAX_CHARS)
}

/// Formats conversations as Markdown: each prompt, and below it each answer under the name of its model.
fn markdown(turns: &[StoredTurn]) -> String {
    let mut out = String::new();
    for conversation in turns.chunk_by(|a, b| a.conversation == b.conversation) {
        let first = &conversation[0];
        let _ = write!(out, "# Conversation {}, {}\n\n", first.conversation, format_time(first.at));
        if let Some(system) = &first.system {
            let _ = write!(out, "*{}*\n\n", one_line(system));
        }
        for round in conversation.chunk_by(|a, b| a.round == b.round) {
            let first = &round[0];
            let images = match first.image_count {
                0 => String::new(),
                count => format!("\n> ({})", plural(count, "image")),
            };
            let prompt: Vec<String> = first.prompt.lines().map(|line| format!("> {line}")).collect();
            let _ = write!(out, "{}{images}\n\n", prompt.join("\n"));
            for turn in round {
                let model = turn.model.as_deref().unwrap_or(&turn.requested);
                let failed = turn.class.as_ref().map(|class| format!(" ({class})")).unwrap_or_default();
                let picked = if turn.picked { " (picked)" } else { "" };
                let answer = turn.answer.trim_end();
                let _ = write!(out, "## {}: {model}{failed}{picked}\n\n{answer}\n\n", turn.reference());
            }
        }
    }
    out.truncate(out.trim_end().len());
    out.push('\n');
    out
}

fn turn_json(turn: &StoredTurn) -> Value {
    json!({
        "id": turn.conversation,
        "round": turn.round,
        "call": turn.answer_number,
        "place": turn.reference(),
        "picked": turn.picked,
        "at": turn.at.to_string(),
        "asked": turn.requested,
        "model": turn.model,
        "class": turn.class,
        "system": turn.system,
        "prompt": turn.prompt,
        "images": turn.image_count,
        "answer": turn.answer,
        "reasoning": turn.reasoning,
    })
}
