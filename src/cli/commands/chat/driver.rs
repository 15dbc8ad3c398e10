//! Runs the loop of a chat: reads input, performs the effects of the conversation, and passes their results back to it.
//!
//! The state machine in `conversation` makes the decisions.

use std::{collections::VecDeque, io::IsTerminal, path::Path, sync::Arc};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::json;

use super::{Driver, round};

use crate::{
    cli::{
        CliError,
        support::{exit::Exit, prompt, recording::open_record},
    },
    config::resolve_config_path,
    conversation::{COMMANDS, ChatSession, Effect, Event, Turn},
    model::{Part, describe_error},
    render::{json, metrics::format_money, notice::format_duration, table::Table},
    store,
    term::{
        editor::LineInput,
        output::{WriteError, write_stderr, write_terminal},
    },
};

/// Size above which some terminals ignore a clipboard request.
const SAFE_CLIPBOARD_BYTES: usize = 70_000;

impl Driver<'_> {
    /// Runs until the user quits or the input ends.
    pub(super) fn run(&mut self, conversation: &mut ChatSession, events: Vec<Event>) -> Result<Exit, CliError> {
        let mut events: VecDeque<Event> = events.into();
        loop {
            let event = match events.pop_front() {
                Some(event) => event,
                None => self.read_event(conversation)?,
            };
            for effect in conversation.handle(event) {
                match effect {
                    Effect::Quit(interrupted) => return Ok(self.exit_code(interrupted)),
                    Effect::StartRound(round) => match round::run_round(self, &round) {
                        Ok(results) => {
                            let was_interrupted = self.exit_codes.last() == Some(&Exit::Interrupted);
                            events.extend(results);
                            // There is no user to enter another prompt, or the terminal is gone.
                            if was_interrupted
                                && (!self.editor.is_interactive() || self.interruption.is_termination_requested())
                            {
                                return Ok(self.exit_code(true));
                            }
                        }
                        // stdout is closed.
                        Err(CliError::Write(WriteError::StdoutClosed)) => return Ok(self.exit_code(false)),
                        Err(error @ (CliError::Write(_) | CliError::System { .. })) => return Err(error),
                        Err(error) => {
                            self.exit_codes.push(error.report());
                            events.push_back(Event::RoundNotStarted);
                        }
                    },
                    effect => events.extend(self.perform(effect, conversation)?),
                }
            }
        }
    }

    fn read_event(&mut self, conversation: &ChatSession) -> Result<Event, CliError> {
        if self.interruption.enter_idle() {
            return Ok(Event::Interrupted);
        }
        let names: Vec<&str> = conversation.names().collect();
        let input = self.editor.read(&names.join(", "))?;
        self.interruption.enter_busy();
        Ok(match input {
            LineInput::Line(line) => Event::Line(line),
            LineInput::Interrupted => Event::Interrupted,
            LineInput::Eof => Event::InputEnded,
        })
    }

    /// The exit code. On a terminal it depends only on the interruption; on a pipe it combines those of all rounds.
    fn exit_code(&self, interrupted: bool) -> Exit {
        if let (Some(id), true) = (self.conversation_id, self.editor.is_interactive()) {
            write_stderr(&format!("conversation {id}; to continue it, run \"mmchat chat --continue\"\n"));
        }
        match (interrupted, self.editor.is_interactive()) {
            (true, _) => Exit::Interrupted,
            (false, true) => Exit::Ok,
            (false, false) => Exit::combine(self.exit_codes.iter().copied()),
        }
    }

    /// Performs an effect that sends no request; returns its result if the conversation needs it.
    fn perform(&mut self, effect: Effect, conversation: &ChatSession) -> Result<Option<Event>, CliError> {
        match effect {
            Effect::ShowMessage(text) => write_stderr(&format!("{text}\n")),
            Effect::ShowError(message, hint) => write_stderr(&format!("error: {message}\nhint: {hint}\n")),
            Effect::Attach(path) => match prompt::read_attachment(&expand_home(&path)) {
                Ok(part) => return Ok(Some(Event::Attached { name: path, part })),
                Err(error) if self.editor.is_interactive() => drop(error.report()),
                // On a pipe the next question would be sent without the attachment.
                Err(error) => return Err(error),
            },
            Effect::Save(path) => save_conversation(&expand_home(&path), conversation),
            Effect::Copy(text) => copy_to_clipboard(&text),
            Effect::Pick(turn_id) => self.pick(turn_id),
            Effect::ShowStats => write_stderr(&stats_table(conversation)),
            Effect::ShowHelp => write_stderr(&help_text()),
            Effect::ShowModels => {
                let available: Vec<&str> = self.config.names().collect();
                let current: Vec<&str> = conversation.names().collect();
                write_stderr(&format!("current: {}; available: {}\n", current.join(", "), available.join(", ")));
            }
            Effect::StartRound(_) | Effect::Quit(_) => unreachable!("handled by the loop"),
        }
        Ok(None)
    }

    fn pick(&self, turn_id: i64) {
        let result = open_record(self.context).and_then(|database| match database {
            Some(mut database) => Ok(database.pick(turn_id, jiff::Timestamp::now())?),
            None => Ok(()),
        });
        match result {
            Ok(()) => write_stderr("all models continue with this answer\n"),
            Err(error) => drop(error.report()),
        }
    }
}

fn help_text() -> String {
    let rows = COMMANDS.iter().map(|(name, argument, description)| {
        let usage = format!("/{name} {argument}");
        format!("  {usage:<16} {description}\n")
    });
    rows.collect()
}

fn stats_table(conversation: &ChatSession) -> String {
    let mut table = Table::new(&["model", ">answers", ">failed", ">TTFT p50", ">in", ">out", ">cost"]);
    for (name, totals) in conversation.totals() {
        let mut ttft = totals.ttft.clone();
        ttft.sort_unstable();
        let approx = if totals.estimated { "~" } else { "" };
        let cost: Vec<String> = totals.cost.iter().map(|(currency, cost)| format_money(*cost, currency)).collect();
        table.add_row(vec![
            name.clone(),
            totals.answers.to_string(),
            totals.failed.to_string(),
            ttft.get(ttft.len() / 2).copied().map(format_duration).unwrap_or_default(),
            format!("{approx}{}", totals.input),
            format!("{approx}{}", totals.output),
            cost.join(" + "),
        ]);
    }
    if table.is_empty() { "no answers yet\n".to_owned() } else { table.render(None, false) }
}

/// Expands a leading `~/`, because no shell has done it. URLs are unchanged.
fn expand_home(path: &str) -> String {
    if path.starts_with("~/") {
        resolve_config_path(Path::new(""), path).display().to_string()
    } else {
        path.to_owned()
    }
}

fn copy_to_clipboard(text: &str) {
    if !std::io::stderr().is_terminal() {
        return write_stderr("error: cannot copy without a terminal\nhint: use /save\n");
    }
    let note = if text.len() > SAFE_CLIPBOARD_BYTES { " (some terminals ignore a text of this size)" } else { "" };
    // OSC 52 sets the clipboard of the terminal, also over SSH.
    write_terminal(&format!("\u{1b}]52;c;{}\u{7}", BASE64_STANDARD.encode(text)));
    write_stderr(&format!("copied {} characters, if the terminal allows it{note}\n", text.chars().count()));
}

fn save_conversation(path: &str, conversation: &ChatSession) {
    let is_json = Path::new(path).extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json"));
    let text = if is_json { json_document(conversation) } else { markdown(conversation) };
    match store::write_atomic(Path::new(path), &text) {
        Ok(()) => write_stderr(&format!("saved to {path}\n")),
        Err(error) => {
            let reason = describe_error(&error);
            write_stderr(&format!("error: cannot write {path}: {reason}\nhint: choose another path\n"));
        }
    }
}

fn question_text(turn: &Turn) -> String {
    let text = |part: &Part| match part {
        Part::Text(text) => text.clone(),
        Part::Image(_) => "(image)".to_owned(),
    };
    turn.question.parts.iter().map(text).collect::<Vec<_>>().join("\n\n")
}

/// The conversation of each model as Markdown.
fn markdown(conversation: &ChatSession) -> String {
    let mut out = String::new();
    for member in conversation.members() {
        out.extend(["# ", &member.name, "\n\n"]);
        if let Some(system) = conversation.system() {
            out.extend(["*", system, "*\n\n"]);
        }
        for turn in &member.turns {
            for line in question_text(turn).lines() {
                out.extend(["> ", line, "\n"]);
            }
            let label = if turn.model == member.name { String::new() } else { format!("*{}*: ", turn.model) };
            out.extend(["\n", &label, turn.answer.trim_end(), "\n\n"]);
        }
    }
    out
}

/// The conversation of each model as JSON.
fn json_document(conversation: &ChatSession) -> String {
    let turn = |turn: &Arc<Turn>| json!({"question": question_text(turn), "answer": turn.answer, "model": turn.model});
    let members = conversation
        .members()
        .iter()
        .map(|member| json!({"model": member.name, "turns": member.turns.iter().map(turn).collect::<Vec<_>>()}));
    let document = json!({"system": conversation.system(), "conversations": members.collect::<Vec<_>>()});
    json::document(&document)
}
