//! A conversation with one model or several: what was said, and what comes of what a person does.
//!
//! A pure state machine: [`Conversation::handle`] takes what happened and says what is to be done; whoever drives it reads the
//! keyboard, asks the models and shows what they say. Owns what each model sees of what was said before, and what it goes on
//! with in the record. Refuses I/O, clocks and the terminal.

mod collector;
mod command;
#[cfg(test)]
mod tests;
mod types;

use std::{collections::BTreeMap, sync::Arc};

use command::Typed;

pub use collector::{Answer, Heard};
pub use command::COMMANDS;
pub use types::{Effect, Event, Member, Round, Sums, Turn};

use crate::{
    config::nearest,
    model::{Message, Part, Role},
    store::record::{GoesOn, Kept},
};

/// The models that names stand for (a set is several), or why they lead nowhere and what does.
pub type Resolve = dyn Fn(&[&str]) -> Result<Vec<String>, (String, String)> + Send + Sync;

/// The state.
pub struct Conversation {
    members: Vec<Member>,
    system: Option<String>,
    /// Attached to the next question, with their names.
    attached: Vec<(String, Part)>,
    /// A question is being answered.
    asked: Option<Asked>,
    /// The last thing the person did was to interrupt: once more, and they leave.
    interrupted: bool,
    sums: BTreeMap<String, Sums>,
    resolve: Arc<Resolve>,
    /// What is gone on with stands beside others that are not.
    apart: bool,
}

/// A question under way.
struct Asked {
    question: Message,
    /// The answers take the place of the last ones.
    again: bool,
    /// How it was before, in case nobody can be asked.
    before: Before,
}

/// What a question that is never sent must not cost.
#[derive(Default)]
struct Before {
    attached: Vec<(String, Part)>,
    /// What each knew, where some of that was taken back.
    turns: Option<Vec<Vec<Arc<Turn>>>>,
}

impl std::fmt::Debug for Conversation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Conversation").field("members", &self.members).finish_non_exhaustive()
    }
}

impl Conversation {
    /// A conversation with these models, who know what they know already. `apart`: what that goes on with stands beside
    /// other answers, which are not gone on with.
    #[must_use]
    pub fn new(members: Vec<Member>, system: Option<String>, apart: bool, resolve: Arc<Resolve>) -> Self {
        Self {
            members,
            system,
            attached: Vec::new(),
            asked: None,
            interrupted: false,
            sums: BTreeMap::new(),
            resolve,
            apart,
        }
    }

    /// Whom the next question is for.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.members.iter().map(|member| member.name.as_str())
    }

    /// The models with what was said.
    #[must_use]
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// The system text.
    #[must_use]
    pub fn system(&self) -> Option<&str> {
        self.system.as_deref()
    }

    /// What the answers of each model took.
    #[must_use]
    pub fn sums(&self) -> &BTreeMap<String, Sums> {
        &self.sums
    }

    /// Takes notice of what happened: what is to be done about it, in order.
    pub fn handle(&mut self, event: Event) -> Vec<Effect> {
        match event {
            Event::Interrupted if std::mem::replace(&mut self.interrupted, true) => vec![Effect::Leave(true)],
            Event::Interrupted => vec![Effect::Tell("Ctrl-C once more, Ctrl-D or /quit leaves".into())],
            Event::Ended => vec![Effect::Leave(false)],
            Event::Line(line) => {
                self.interrupted = false;
                self.line(&line)
            }
            Event::Attached { name, part } => {
                let told = format!("{name} goes with the next question");
                self.attached.push((name, part));
                vec![Effect::Tell(told)]
            }
            Event::Unasked => {
                self.unasked();
                Vec::new()
            }
            Event::Answered { answers, interrupted, kept } => {
                self.interrupted = interrupted;
                self.answered(&answers, kept.as_ref());
                Vec::new()
            }
        }
    }

    fn line(&mut self, line: &str) -> Vec<Effect> {
        match command::read(line) {
            Typed::Nothing => Vec::new(),
            Typed::Words(words) => vec![self.ask(words)],
            Typed::Unknown(word) => {
                let near = nearest(word, COMMANDS.iter().map(|(name, ..)| *name));
                let near = near.map(|near| format!("did you mean /{near}? ")).unwrap_or_default();
                let hint = format!("{near}/help lists them; to send it as it is begin with //");
                vec![Effect::Refuse(format!("there is no command /{word}"), hint)]
            }
            Typed::Command(name, argument) => vec![self.command(name, argument)],
        }
    }

    fn command(&mut self, name: &str, argument: &str) -> Effect {
        match (name, argument) {
            ("model" | "models", "") => Effect::Names,
            ("model", name) => self.go_on_with(&[name]),
            ("models", names) => {
                let names: Vec<&str> = names.split([',', ' ']).map(str::trim).filter(|name| !name.is_empty()).collect();
                self.go_on_with(&names)
            }
            ("system", "") => Effect::Tell(match &self.system {
                Some(text) => format!("the system text is: {text}"),
                None => "there is no system text".into(),
            }),
            ("system", "-") => {
                self.system = None;
                Effect::Tell("there is no system text any more".into())
            }
            ("system", text) => {
                self.system = Some(text.to_owned());
                Effect::Tell("the system text is set".into())
            }
            ("file", "") => Effect::Refuse("no file is named".into(), "write /file PATH".into()),
            ("file", path) => Effect::Attach(path.to_owned()),
            ("save", "") => Effect::Refuse("no file is named".into(), "write /save chat.md".into()),
            ("save", _) if self.is_empty() => {
                Effect::Refuse("nothing was said yet".into(), "ask something first".into())
            }
            ("save", path) => Effect::Save(path.to_owned()),
            ("again", _) => self.again(),
            ("undo", _) => self.undo(),
            ("pick", number) => self.member(number).map_or_else(|refusal| refusal, |member| self.pick(member)),
            ("copy", number) => self.copy(number),
            ("stats", _) => Effect::Stats,
            ("help", _) => Effect::Help,
            _ => Effect::Leave(false),
        }
    }

    fn is_empty(&self) -> bool {
        self.members.iter().all(|member| member.turns.is_empty())
    }

    /// Whoever joins knows what the first of them knows.
    fn go_on_with(&mut self, names: &[&str]) -> Effect {
        let names = match (self.resolve)(names) {
            Ok(names) => names,
            Err((message, hint)) => return Effect::Refuse(message, hint),
        };
        let members: Vec<Member> = names
            .into_iter()
            .map(|name| {
                let known = self.members.iter().find(|member| member.name == name).or(self.members.first());
                Member { turns: known.map(|member| member.turns.clone()).unwrap_or_default(), name }
            })
            .collect();
        self.members = members;
        Effect::Tell(format!("going on with {}", self.names().collect::<Vec<_>>().join(", ")))
    }

    fn ask(&mut self, words: &str) -> Effect {
        let mut texts = vec![words.to_owned()];
        let mut images = Vec::new();
        let attached = std::mem::take(&mut self.attached);
        for (_, part) in &attached {
            match part {
                Part::Text(text) => texts.push(text.clone()),
                image @ Part::Image(_) => images.push(image.clone()),
            }
        }
        let parts = std::iter::once(Part::Text(texts.join("\n\n"))).chain(images).collect();
        self.put(Message { role: Role::User, parts }, false, Before { attached, turns: None })
    }

    fn put(&mut self, question: Message, again: bool, before: Before) -> Effect {
        let known = |member: &Member| member.turns.len() - usize::from(again);
        let last = |member: &Member| member.turns[..known(member)].iter().rev().find_map(|turn| turn.exchange);
        let own: Vec<i64> = self.members.iter().filter_map(|member| member.turns.last()?.exchange).collect();
        let goes_on = if again && own.len() == self.members.len() {
            GoesOn::Instead(own)
        } else if self.members.iter().any(|member| last(member).is_some()) {
            GoesOn::After { exchanges: self.members.iter().map(last).collect(), apart: self.apart }
        } else {
            GoesOn::Anew
        };
        let lanes = self
            .members
            .iter()
            .map(|member| (member.name.clone(), self.messages(&member.turns[..known(member)], question.clone())));
        let lanes = lanes.collect();
        self.asked = Some(Asked { question, again, before });
        Effect::Ask(Round { lanes, goes_on })
    }

    /// Nobody could be asked: it is as it was.
    fn unasked(&mut self) {
        let Some(Asked { before: Before { mut attached, turns }, .. }) = self.asked.take() else { return };
        attached.append(&mut self.attached);
        self.attached = attached;
        for (member, turns) in self.members.iter_mut().zip(turns.into_iter().flatten()) {
            member.turns = turns;
        }
    }

    fn messages(&self, turns: &[Arc<Turn>], question: Message) -> Vec<Message> {
        let system = self.system.iter().map(|text| Message::text(Role::System, text.clone()));
        let said = turns
            .iter()
            .filter(|turn| turn.is_answered())
            .flat_map(|turn| [turn.question.clone(), Message::text(Role::Assistant, turn.answer.clone())]);
        system.chain(said).chain([question]).collect()
    }

    fn answered(&mut self, answers: &[Answer], kept: Option<&Kept>) {
        let Some(Asked { question, again, .. }) = self.asked.take() else { return };
        for (lane, (member, answer)) in self.members.iter_mut().zip(answers).enumerate() {
            let exchange = kept.and_then(|kept| kept.exchanges.get(lane).copied().flatten());
            let turn = Turn {
                question: question.clone(),
                answer: answer.text.clone(),
                is_whole: answer.is_whole,
                model: member.name.clone(),
                exchange,
            };
            let sums = self.sums.entry(member.name.clone()).or_default();
            sums.add(answer);
            if again && let Some(before) = member.turns.pop() {
                // As the record does it: what is whole is not lost for what is not, nor words for none.
                let worse = (before.is_whole && !turn.is_whole) || (before.is_answered() && !turn.is_answered());
                member.turns.push(if worse { before } else { Arc::new(turn) });
            } else {
                member.turns.push(Arc::new(turn));
            }
        }
        // It is in a conversation of its own now.
        self.apart &= kept.is_none();
    }

    fn again(&mut self) -> Effect {
        let question = self.members.iter().find_map(|member| member.turns.last()).map(|turn| turn.question.clone());
        let Some(question) = question else {
            return Effect::Refuse("nothing was asked yet".into(), "ask something first".into());
        };
        let asked = |member: &Member| member.turns.last().is_some_and(|turn| turn.question == question);
        // Whoever joined since then, or went on with another's answer, is asked for the first time.
        let own = |member: &Member| member.turns.last().is_some_and(|turn| turn.model == member.name);
        let kept = |member: &&Member| member.turns.last().is_some_and(|turn| turn.exchange.is_some());
        let count = self.members.iter().filter(kept).count();
        if self.members.iter().all(|member| asked(member) && own(member)) && [0, self.members.len()].contains(&count) {
            return self.put(question, true, Before::default());
        }
        let before = self.members.iter().map(|member| member.turns.clone()).collect();
        self.take_back(&question);
        self.put(question, false, Before { turns: Some(before), ..Before::default() })
    }

    fn undo(&mut self) -> Effect {
        let question = self.members.iter().find_map(|member| member.turns.last()).map(|turn| turn.question.clone());
        let Some(question) = question else {
            return Effect::Refuse("there is nothing to take back".into(), "ask something first".into());
        };
        self.take_back(&question);
        Effect::Tell("the last question and its answers are taken back".into())
    }

    /// Nobody was ever asked this, as the last thing.
    fn take_back(&mut self, question: &Message) {
        for member in &mut self.members {
            if member.turns.last().is_some_and(|turn| turn.question == *question) {
                member.turns.pop();
            }
        }
    }

    /// The member that `number` means, counted from 1.
    fn member(&self, number: &str) -> Result<usize, Effect> {
        let count = self.members.len();
        let wanted = number.trim_start_matches('@').parse().ok().filter(|number| (1..=count).contains(number));
        wanted.map(|number: usize| number - 1).ok_or_else(|| {
            let names: Vec<String> =
                self.names().enumerate().map(|(place, name)| format!("{} {name}", place + 1)).collect();
            let message = if number.is_empty() {
                "no answer is named".to_owned()
            } else {
                format!("there is no answer {number}")
            };
            Effect::Refuse(message, format!("there are: {}", names.join(", ")))
        })
    }

    fn pick(&mut self, member: usize) -> Effect {
        let chosen = &self.members[member];
        let Some(last) = chosen.turns.last().filter(|turn| turn.is_answered()) else {
            let message = format!("{} has no answer to go on with", chosen.name);
            return Effect::Refuse(message, "pick another one, or /again".into());
        };
        let (exchange, name, turns) = (last.exchange, chosen.name.clone(), chosen.turns.clone());
        for other in &mut self.members {
            other.turns.clone_from(&turns);
        }
        match exchange {
            Some(exchange) => Effect::Pick(exchange),
            None => Effect::Tell(format!("all go on with the answer of {name}")),
        }
    }

    fn copy(&self, number: &str) -> Effect {
        let member = match number {
            "" if self.members.len() == 1 => Ok(0),
            number => self.member(number),
        };
        let member = match member {
            Ok(member) => member,
            Err(refusal) => return refusal,
        };
        match self.members[member].turns.iter().rev().find(|turn| !turn.answer.is_empty()) {
            Some(turn) => Effect::Copy(turn.answer.clone()),
            None => Effect::Refuse("there is no answer to copy".into(), "ask something first".into()),
        }
    }
}
