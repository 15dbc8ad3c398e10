//! Doing what a conversation wants done, and telling it what came of that.
//!
//! Owns the loop. Decides nothing: that is [`Conversation`]'s.

use std::{collections::VecDeque, io::IsTerminal, path::Path, sync::Arc};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::json;
use tokio::runtime::Runtime;

use super::round;
use crate::{
    cli::{
        CliError, Context,
        support::{
            exit::Exit,
            prompt,
            recording::{KeepArgs, record},
            request::HowArgs,
        },
    },
    config::{Config, Layers, in_folder},
    conversation::{COMMANDS, Conversation, Effect, Event, Turn},
    engine::Engine,
    model::{Params, Part},
    render::{notice::duration, stats::money, table::Table},
    store,
    term::{
        editor::{Editor, Read},
        keyboard::Modes,
        output::{WriteError, say},
        signals::Interruption,
    },
};

/// More than terminals take.
const LONGEST_COPY: usize = 70_000;

/// Everything a conversation needs beside itself.
pub(super) struct Driver<'a> {
    pub(super) context: &'a Context,
    pub(super) config: &'a Config,
    pub(super) layers: &'a Layers,
    /// One for all rounds: connections live in it.
    pub(super) runtime: &'a Runtime,
    pub(super) engine: &'a Arc<Engine>,
    pub(super) keep: &'a KeepArgs,
    pub(super) how: &'a HowArgs,
    pub(super) params: Params,
    pub(super) modes: Option<Modes>,
    pub(super) interruption: &'a Interruption,
    pub(super) editor: Editor,
    /// How each round ended.
    pub(super) exits: Vec<Exit>,
    /// The conversation in the record.
    pub(super) kept: Option<i64>,
}

impl Driver<'_> {
    /// Talks until the person leaves.
    pub(super) fn run(&mut self, conversation: &mut Conversation, first: Vec<Event>) -> Result<Exit, CliError> {
        let mut events: VecDeque<Event> = first.into();
        loop {
            let event = match events.pop_front() {
                Some(event) => event,
                None => self.read(conversation)?,
            };
            for effect in conversation.handle(event) {
                match effect {
                    Effect::Leave(interrupted) => return Ok(self.leave(interrupted)),
                    Effect::Ask(round) => match round::ask(self, &round) {
                        Ok(answered) => {
                            let stopped = self.exits.last() == Some(&Exit::Interrupted);
                            events.extend(answered);
                            // Nobody is there to say something else, or the terminal is gone.
                            if stopped && (!self.editor.is_interactive() || self.interruption.is_end()) {
                                return Ok(self.leave(true));
                            }
                        }
                        // Nobody reads what is said.
                        Err(CliError::Write(WriteError::Closed)) => return Ok(self.leave(false)),
                        Err(error @ (CliError::Write(_) | CliError::System { .. })) => return Err(error),
                        Err(error) => {
                            self.exits.push(error.report());
                            events.push_back(Event::Unasked);
                        }
                    },
                    effect => events.extend(self.act(effect, conversation)?),
                }
            }
        }
    }

    fn read(&mut self, conversation: &Conversation) -> Result<Event, CliError> {
        if self.interruption.waits() {
            return Ok(Event::Interrupted);
        }
        let names: Vec<&str> = conversation.names().collect();
        let read = self.editor.read(&names.join(", "))?;
        self.interruption.works();
        Ok(match read {
            Read::Line(line) => Event::Line(line),
            Read::Interrupted => Event::Interrupted,
            Read::Ended => Event::Ended,
        })
    }

    /// The code of a person who leaves is that of how; that of a pipe tells how its questions went.
    fn leave(&self, interrupted: bool) -> Exit {
        if let (Some(kept), true) = (self.kept, self.editor.is_interactive()) {
            say(&format!("conversation {kept}; go on with it: mmchat chat --continue\n"));
        }
        match (interrupted, self.editor.is_interactive()) {
            (true, _) => Exit::Interrupted,
            (false, true) => Exit::Ok,
            (false, false) => Exit::shared(self.exits.iter().copied()),
        }
    }

    /// Does what needs no model; what came of it, if the conversation is to know.
    fn act(&mut self, effect: Effect, conversation: &Conversation) -> Result<Option<Event>, CliError> {
        match effect {
            Effect::Tell(text) => say(&format!("{text}\n")),
            Effect::Refuse(message, hint) => say(&format!("error: {message}\n  hint: {hint}\n")),
            Effect::Attach(path) => match prompt::attached(&written(&path)) {
                Ok(part) => return Ok(Some(Event::Attached { name: path, part })),
                Err(error) if self.editor.is_interactive() => drop(error.report()),
                // Nobody is there to hear that the next question goes without it.
                Err(error) => return Err(error),
            },
            Effect::Save(path) => save(&written(&path), conversation),
            Effect::Copy(text) => copy(&text),
            Effect::Pick(exchange) => self.pick(exchange),
            Effect::Stats => say(&stats(conversation)),
            Effect::Help => say(&help()),
            Effect::Names => {
                let all: Vec<&str> = self.config.names().collect();
                let names: Vec<&str> = conversation.names().collect();
                say(&format!("talking with {}; there are: {}\n", names.join(", "), all.join(", ")));
            }
            Effect::Ask(_) | Effect::Leave(_) => unreachable!("the loop does these"),
        }
        Ok(None)
    }

    fn pick(&self, exchange: i64) {
        let picked = record(self.context).and_then(|database| match database {
            Some(mut database) => Ok(database.pick(exchange, jiff::Timestamp::now())?),
            None => Ok(()),
        });
        match picked {
            Ok(()) => say("all go on with this answer\n"),
            Err(error) => drop(error.report()),
        }
    }
}

fn help() -> String {
    let rows = COMMANDS.iter().map(|(name, argument, what)| {
        let usage = format!("/{name} {argument}");
        format!("  {usage:<16} {what}\n")
    });
    rows.collect()
}

fn stats(conversation: &Conversation) -> String {
    let mut table = Table::new(&["model", ">answers", ">failed", ">TTFT p50", ">in", ">out", ">cost"]);
    for (name, sums) in conversation.sums() {
        let mut ttft = sums.ttft.clone();
        ttft.sort_unstable();
        let about = if sums.estimated { "~" } else { "" };
        let cost: Vec<String> = sums.cost.iter().map(|(currency, cost)| money(*cost, currency)).collect();
        table.row(vec![
            name.clone(),
            sums.answers.to_string(),
            sums.failed.to_string(),
            ttft.get(ttft.len() / 2).copied().map(duration).unwrap_or_default(),
            format!("{about}{}", sums.input),
            format!("{about}{}", sums.output),
            cost.join(" + "),
        ]);
    }
    if table.is_empty() { "nothing was answered yet\n".to_owned() } else { table.text(None, false) }
}

/// A path as a person writes it where no shell looks at it: `~` is the home folder. Addresses stay.
fn written(path: &str) -> String {
    if path.starts_with("~/") { in_folder(Path::new(""), path).display().to_string() } else { path.to_owned() }
}

fn copy(text: &str) {
    if !std::io::stderr().is_terminal() {
        return say("error: there is no terminal whose clipboard it could be put on\n  hint: use /save\n");
    }
    let much = if text.len() > LONGEST_COPY { " (it is long: some terminals take less)" } else { "" };
    // OSC 52: write-only, and over any connection.
    say(&format!("\u{1b}]52;c;{}\u{7}", BASE64_STANDARD.encode(text)));
    say(&format!("copied {} characters, if this terminal allows it{much}\n", text.chars().count()));
}

fn save(path: &str, conversation: &Conversation) {
    let is_json = Path::new(path).extension().is_some_and(|end| end.eq_ignore_ascii_case("json"));
    let text = if is_json { document(conversation) } else { page(conversation) };
    match store::replace(Path::new(path), &text) {
        Ok(()) => say(&format!("saved to {path}\n")),
        Err(error) => say(&format!("error: {path} could not be written: {error}\n  hint: choose another place\n")),
    }
}

fn question(turn: &Turn) -> String {
    let text = |part: &Part| match part {
        Part::Text(text) => text.clone(),
        Part::Image(_) => "(a picture)".to_owned(),
    };
    turn.question.parts.iter().map(text).collect::<Vec<_>>().join("\n\n")
}

/// Each model's conversation, to read.
fn page(conversation: &Conversation) -> String {
    let mut out = String::new();
    for member in conversation.members() {
        out.extend(["# ", &member.name, "\n\n"]);
        if let Some(system) = conversation.system() {
            out.extend(["*", system, "*\n\n"]);
        }
        for turn in &member.turns {
            for line in question(turn).lines() {
                out.extend(["> ", line, "\n"]);
            }
            let whose = if turn.model == member.name { String::new() } else { format!("*{}*: ", turn.model) };
            out.extend(["\n", &whose, turn.answer.trim_end(), "\n\n"]);
        }
    }
    out
}

/// The same for programs.
fn document(conversation: &Conversation) -> String {
    let turn = |turn: &Arc<Turn>| json!({"question": question(turn), "answer": turn.answer, "model": turn.model});
    let members = conversation
        .members()
        .iter()
        .map(|member| json!({"model": member.name, "turns": member.turns.iter().map(turn).collect::<Vec<_>>()}));
    let document = json!({"system": conversation.system(), "conversations": members.collect::<Vec<_>>()});
    format!("{document:#}\n")
}
