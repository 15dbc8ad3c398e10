//! The state machine of a chat session with one or several models.
//!
//! [`ChatSession::handle`] takes an event and returns effects; its driver does the I/O: it reads the keyboard, calls
//! the models and shows their answers. The session determines the history that each model receives, and how each
//! round continues the record.

mod collector;
mod command;
#[cfg(test)]
mod tests;
mod types;

use std::{collections::BTreeMap, sync::Arc};

use command::InputLine;

pub(crate) use collector::{Answer, AnswerCollector};
pub(crate) use command::COMMANDS;
pub(crate) use types::{Effect, Event, Member, ModelTotals, Round, Turn};

use crate::{
    config::closest_name,
    model::{Message, Part, Role},
    store::record::{Continuation, StoredRound},
};

/// Resolves names to models (a set is several), or returns an error message and a hint.
pub(crate) type ModelResolver = dyn Fn(&[&str]) -> Result<Vec<String>, (String, String)> + Send + Sync;

/// A chat session.
pub(crate) struct ChatSession {
    members: Vec<Member>,
    system: Option<String>,
    /// Attachments of the next question, with their names.
    attachments: Vec<(String, Part)>,
    /// The running round.
    pending: Option<PendingRound>,
    /// The last event was an interruption, so that another one quits.
    interrupted: bool,
    totals: BTreeMap<String, ModelTotals>,
    resolve: Arc<ModelResolver>,
    /// The next round forks the stored conversation, because some of its answers are not continued.
    forks_next_round: bool,
}

/// A running round.
struct PendingRound {
    question: Message,
    /// The answers replace those of the last turn.
    is_repeat: bool,
    /// The state to restore if the round cannot be started.
    rollback: RollbackState,
}

/// State that is restored if a round cannot be started.
#[derive(Default)]
struct RollbackState {
    attachments: Vec<(String, Part)>,
    /// The history of each member, if a turn was removed.
    histories: Option<Vec<Vec<Arc<Turn>>>>,
}

impl std::fmt::Debug for ChatSession {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChatSession").field("members", &self.members).finish_non_exhaustive()
    }
}

impl ChatSession {
    /// A session with `members` and their history. `fork`: some answers of the stored conversation are not
    /// continued, so that the first round forks it.
    #[must_use]
    pub(crate) fn new(members: Vec<Member>, system: Option<String>, fork: bool, resolve: Arc<ModelResolver>) -> Self {
        Self {
            members,
            system,
            attachments: Vec::new(),
            pending: None,
            interrupted: false,
            totals: BTreeMap::new(),
            resolve,
            forks_next_round: fork,
        }
    }

    /// The names of the models that the next question is sent to.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.members.iter().map(|member| member.name.as_str())
    }

    /// The models and their histories.
    #[must_use]
    pub(crate) fn members(&self) -> &[Member] {
        &self.members
    }

    /// The system prompt.
    #[must_use]
    pub(crate) fn system(&self) -> Option<&str> {
        self.system.as_deref()
    }

    /// The totals of each model, by name.
    #[must_use]
    pub(crate) fn totals(&self) -> &BTreeMap<String, ModelTotals> {
        &self.totals
    }

    /// Handles an event and returns the effects, in order.
    pub(crate) fn handle(&mut self, event: Event) -> Vec<Effect> {
        match event {
            Event::Interrupted if std::mem::replace(&mut self.interrupted, true) => vec![Effect::Quit(true)],
            Event::Interrupted => vec![Effect::ShowMessage("press Ctrl-C again to quit (also Ctrl-D or /quit)".into())],
            Event::InputEnded => vec![Effect::Quit(false)],
            Event::Line(line) => {
                self.interrupted = false;
                self.handle_line(&line)
            }
            Event::Attached { name, part } => {
                let message = format!("attached \"{name}\" to the next question");
                self.attachments.push((name, part));
                vec![Effect::ShowMessage(message)]
            }
            Event::RoundNotStarted => {
                self.roll_back();
                Vec::new()
            }
            Event::RoundFinished { answers, interrupted, stored } => {
                self.interrupted = interrupted;
                self.finish_round(&answers, stored.as_ref());
                Vec::new()
            }
        }
    }

    fn handle_line(&mut self, line: &str) -> Vec<Effect> {
        match command::parse(line) {
            InputLine::Empty => Vec::new(),
            InputLine::Text(text) => vec![self.ask(text)],
            InputLine::UnknownCommand(word) => {
                let suggestion = closest_name(word, COMMANDS.iter().map(|(name, ..)| *name));
                let suggestion = suggestion.map(|name| format!("did you mean /{name}? ")).unwrap_or_default();
                let hint = format!("{suggestion}/help lists the commands; begin with // to send the line as text");
                vec![Effect::ShowError(format!("unknown command \"/{word}\""), hint)]
            }
            InputLine::Command(name, argument) => vec![self.run_command(name, argument)],
        }
    }

    fn run_command(&mut self, name: &str, argument: &str) -> Effect {
        match (name, argument) {
            ("model" | "models", "") => Effect::ShowModels,
            ("model", name) => self.switch_models(&[name]),
            ("models", names) => {
                let names: Vec<&str> = names.split([',', ' ']).map(str::trim).filter(|name| !name.is_empty()).collect();
                self.switch_models(&names)
            }
            ("system", "") => Effect::ShowMessage(match &self.system {
                Some(text) => format!("system prompt: {text}"),
                None => "no system prompt is set".into(),
            }),
            ("system", "-") => {
                self.system = None;
                Effect::ShowMessage("system prompt removed".into())
            }
            ("system", text) => {
                self.system = Some(text.to_owned());
                Effect::ShowMessage("system prompt set".into())
            }
            ("file", "") => Effect::ShowError("missing file name".into(), "write /file PATH".into()),
            ("file", path) => Effect::Attach(path.to_owned()),
            ("save", "") => Effect::ShowError("missing file name".into(), "write /save chat.md".into()),
            ("save", _) if self.is_empty() => {
                Effect::ShowError("nothing to save: the conversation is empty".into(), "ask a question first".into())
            }
            ("save", path) => Effect::Save(path.to_owned()),
            ("again", _) => self.repeat(),
            ("undo", _) => self.undo(),
            ("pick", number) => self.parse_member(number).map_or_else(|effect| effect, |member| self.pick(member)),
            ("copy", number) => self.copy(number),
            ("stats", _) => Effect::ShowStats,
            ("help", _) => Effect::ShowHelp,
            _ => Effect::Quit(false),
        }
    }

    fn is_empty(&self) -> bool {
        self.members.iter().all(|member| member.turns.is_empty())
    }

    /// Switches to these models. A new member gets the history of the first one.
    fn switch_models(&mut self, names: &[&str]) -> Effect {
        let names = match (self.resolve)(names) {
            Ok(names) => names,
            Err((message, hint)) => return Effect::ShowError(message, hint),
        };
        let members: Vec<Member> = names
            .into_iter()
            .map(|name| {
                let source = self.members.iter().find(|member| member.name == name).or(self.members.first());
                Member { turns: source.map(|member| member.turns.clone()).unwrap_or_default(), name }
            })
            .collect();
        self.members = members;
        Effect::ShowMessage(format!("switched to {}", self.names().collect::<Vec<_>>().join(", ")))
    }

    fn ask(&mut self, text: &str) -> Effect {
        let mut texts = vec![text.to_owned()];
        let mut images = Vec::new();
        let attachments = std::mem::take(&mut self.attachments);
        for (_, part) in &attachments {
            match part {
                Part::Text(text) => texts.push(text.clone()),
                image @ Part::Image(_) => images.push(image.clone()),
            }
        }
        let parts = std::iter::once(Part::Text(texts.join("\n\n"))).chain(images).collect();
        self.start_round(Message { role: Role::User, parts }, false, RollbackState { attachments, histories: None })
    }

    fn start_round(&mut self, question: Message, is_repeat: bool, rollback: RollbackState) -> Effect {
        let history_len = |member: &Member| member.turns.len() - usize::from(is_repeat);
        let last_stored_id =
            |member: &Member| member.turns[..history_len(member)].iter().rev().find_map(|turn| turn.stored_id);
        let replaced_ids: Vec<i64> = self.members.iter().filter_map(|member| member.turns.last()?.stored_id).collect();
        let continuation = if is_repeat && replaced_ids.len() == self.members.len() {
            Continuation::Replace(replaced_ids)
        } else if self.members.iter().any(|member| last_stored_id(member).is_some()) {
            Continuation::Append {
                turns: self.members.iter().map(last_stored_id).collect(),
                fork: self.forks_next_round,
            }
        } else {
            Continuation::New
        };
        let calls = self
            .members
            .iter()
            .map(|member| (member.name.clone(), self.messages(&member.turns[..history_len(member)], question.clone())));
        let calls = calls.collect();
        self.pending = Some(PendingRound { question, is_repeat, rollback });
        Effect::StartRound(Round { calls, continuation })
    }

    /// Restores the state before a round that could not be started.
    fn roll_back(&mut self) {
        let Some(PendingRound { rollback: RollbackState { mut attachments, histories }, .. }) = self.pending.take()
        else {
            return;
        };
        attachments.append(&mut self.attachments);
        self.attachments = attachments;
        for (member, turns) in self.members.iter_mut().zip(histories.into_iter().flatten()) {
            member.turns = turns;
        }
    }

    fn messages(&self, turns: &[Arc<Turn>], question: Message) -> Vec<Message> {
        let system = self.system.iter().map(|text| Message::text(Role::System, text.clone()));
        let history = turns
            .iter()
            .filter(|turn| turn.has_answer())
            .flat_map(|turn| [turn.question.clone(), Message::text(Role::Assistant, turn.answer.clone())]);
        system.chain(history).chain([question]).collect()
    }

    fn finish_round(&mut self, answers: &[Answer], stored: Option<&StoredRound>) {
        let Some(PendingRound { question, is_repeat, .. }) = self.pending.take() else { return };
        for (index, (member, answer)) in self.members.iter_mut().zip(answers).enumerate() {
            let stored_id = stored.and_then(|stored| stored.turns.get(index).copied().flatten());
            let turn = Turn {
                question: question.clone(),
                answer: answer.text.clone(),
                is_complete: answer.is_complete,
                model: member.name.clone(),
                stored_id,
            };
            let totals = self.totals.entry(member.name.clone()).or_default();
            totals.add(answer);
            if is_repeat && let Some(previous) = member.turns.pop() {
                // As in the record: a complete answer is not replaced by an incomplete one, nor a text by an empty one.
                let is_worse =
                    (previous.is_complete && !turn.is_complete) || (previous.has_answer() && !turn.has_answer());
                member.turns.push(if is_worse { previous } else { Arc::new(turn) });
            } else {
                member.turns.push(Arc::new(turn));
            }
        }
        // A stored round has forked the conversation.
        self.forks_next_round &= stored.is_none();
    }

    fn repeat(&mut self) -> Effect {
        let question = self.members.iter().find_map(|member| member.turns.last()).map(|turn| turn.question.clone());
        let Some(question) = question else {
            return Effect::ShowError("no question to repeat".into(), "ask a question first".into());
        };
        let has_question = |member: &Member| member.turns.last().is_some_and(|turn| turn.question == question);
        // A member that joined later, or continues another model's answer, has no answer of its own to replace.
        let has_own_answer = |member: &Member| member.turns.last().is_some_and(|turn| turn.model == member.name);
        let is_stored = |member: &&Member| member.turns.last().is_some_and(|turn| turn.stored_id.is_some());
        let stored_count = self.members.iter().filter(is_stored).count();
        if self.members.iter().all(|member| has_question(member) && has_own_answer(member))
            && [0, self.members.len()].contains(&stored_count)
        {
            return self.start_round(question, true, RollbackState::default());
        }
        let histories = self.members.iter().map(|member| member.turns.clone()).collect();
        self.remove_question(&question);
        self.start_round(question, false, RollbackState { histories: Some(histories), ..RollbackState::default() })
    }

    fn undo(&mut self) -> Effect {
        let question = self.members.iter().find_map(|member| member.turns.last()).map(|turn| turn.question.clone());
        let Some(question) = question else {
            return Effect::ShowError("no question to remove".into(), "ask a question first".into());
        };
        self.remove_question(&question);
        Effect::ShowMessage("removed the last question and its answers".into())
    }

    /// Removes the last turn of each member if it is this question.
    fn remove_question(&mut self, question: &Message) {
        for member in &mut self.members {
            if member.turns.last().is_some_and(|turn| turn.question == *question) {
                member.turns.pop();
            }
        }
    }

    /// The index of the member with `number`, counted from 1.
    fn parse_member(&self, number: &str) -> Result<usize, Effect> {
        let count = self.members.len();
        let parsed = number.trim_start_matches('@').parse().ok().filter(|number| (1..=count).contains(number));
        parsed.map(|number: usize| number - 1).ok_or_else(|| {
            let names: Vec<String> =
                self.names().enumerate().map(|(index, name)| format!("{} {name}", index + 1)).collect();
            let message = if number.is_empty() {
                "missing answer number".to_owned()
            } else {
                format!("unknown answer \"{number}\"")
            };
            Effect::ShowError(message, format!("available: {}", names.join(", ")))
        })
    }

    fn pick(&mut self, member: usize) -> Effect {
        let chosen = &self.members[member];
        let Some(last) = chosen.turns.last().filter(|turn| turn.has_answer()) else {
            let message = format!("\"{}\" has no answer to continue", chosen.name);
            return Effect::ShowError(message, "pick another answer, or repeat the question with /again".into());
        };
        let (stored_id, name, turns) = (last.stored_id, chosen.name.clone(), chosen.turns.clone());
        for other in &mut self.members {
            other.turns.clone_from(&turns);
        }
        match stored_id {
            Some(stored_id) => Effect::Pick(stored_id),
            None => Effect::ShowMessage(format!("all models continue with the answer of \"{name}\"")),
        }
    }

    fn copy(&self, number: &str) -> Effect {
        let member = match number {
            "" if self.members.len() == 1 => Ok(0),
            number => self.parse_member(number),
        };
        let member = match member {
            Ok(member) => member,
            Err(effect) => return effect,
        };
        match self.members[member].turns.iter().rev().find(|turn| !turn.answer.is_empty()) {
            Some(turn) => Effect::Copy(turn.answer.clone()),
            None => Effect::ShowError("no answer to copy".into(), "ask a question first".into()),
        }
    }
}
