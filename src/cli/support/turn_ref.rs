//! A conversation of the record that goes on: `ask --continue`, `again`.
//!
//! Owns how a place in the record is written (`12`, or `12@2` for one of its answers) and the messages that come before.

use std::ffi::OsString;

use crate::cli::{CliError, Context, support::recording::record};
use crate::{
    model::{Call, ChatRequest, Message, Role},
    store::record::{Database, Exchange, GoesOn},
    term::output::say,
};

/// The last conversation, in place of its number.
pub(crate) const LAST: &str = "last";

/// A conversation, one of its rounds and one of the answers in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Place {
    /// The conversation; `None`: the last one.
    pub(crate) conversation: Option<i64>,
    /// The round; `None`: nobody said.
    round: Option<i64>,
    /// The answer; `None`: nobody said.
    pub(crate) number: Option<i64>,
}

impl std::str::FromStr for Place {
    type Err = CliError;

    fn from_str(text: &str) -> Result<Self, CliError> {
        let wrong = || {
            CliError::usage(
                format!("`{text}` is no conversation"),
                "write 12, 12@2 (its second answer), 12.1@2 (that of its first round), @2 or last; mmchat history lists them",
            )
        };
        let number = |digits: &str| digits.parse().map(Some).map_err(|_| wrong());
        let (place, answer) = match text.split_once('@') {
            Some((place, answer)) => (place, number(answer)?),
            None => (text, None),
        };
        let (conversation, round) = match place.split_once('.') {
            Some((conversation, round)) => (conversation, number(round)?),
            None => (place, None),
        };
        let is_last = conversation == LAST || (conversation.is_empty() && answer.is_some());
        let conversation = if is_last { None } else { number(conversation)? };
        Ok(Self { conversation, round, number: answer })
    }
}

/// A whole conversation of the record; never empty.
#[derive(Clone, Debug)]
pub(crate) struct Conversation(Vec<Exchange>);

impl Conversation {
    /// The one at `place`; `None`: nothing is kept.
    pub(crate) fn find(database: &Database, place: Place) -> Result<Option<Self>, CliError> {
        let id = match place.conversation {
            Some(id) => id,
            None => match database.latest(None)? {
                Some(id) => id,
                None => return Ok(None),
            },
        };
        let exchanges = database.exchanges(id)?;
        if exchanges.is_empty() && place.conversation.is_some() {
            return Err(CliError::usage(format!("there is no conversation {id}"), "mmchat history lists them"));
        }
        Ok(Some(Self(exchanges)).filter(|conversation| !conversation.0.is_empty()))
    }

    /// The same, where there must be one.
    pub(crate) fn get(context: &Context, place: Place) -> Result<Self, CliError> {
        let nothing =
            || CliError::usage("there is no conversation to go on with", "history may be off; ask something first");
        let database = record(context)?.ok_or_else(nothing)?;
        Self::find(&database, place)?.ok_or_else(nothing)
    }

    /// Its number.
    pub(crate) fn number(&self) -> i64 {
        self.0[0].conversation
    }

    /// All of it, in order.
    pub(crate) fn exchanges(&self) -> &[Exchange] {
        &self.0
    }

    /// Whether any of its rounds has several answers.
    pub(crate) fn is_wide(&self) -> bool {
        self.0[0].shape.lanes > 1
    }

    /// The answers of one of its rounds, of the last one unless `place` says which.
    pub(crate) fn round(&self, place: Place) -> Result<&[Exchange], CliError> {
        let rounds = self.0[0].shape.rounds;
        let round = place.round.unwrap_or(rounds);
        let found = self.0.chunk_by(|a, b| a.round == b.round).find(|exchanges| exchanges[0].round == round);
        found.ok_or_else(|| {
            CliError::usage(format!("conversation {} has no round {round}", self.number()), format!("it has {rounds}"))
        })
    }

    /// The answer at `place`: of one model's conversation the one with that number, of several models' in a round. Where
    /// nobody said which: the only one of the round, or the one that was picked; `None`: there are several.
    pub(crate) fn answer(&self, place: Place) -> Result<Option<&Exchange>, CliError> {
        let Some(number) = place.number else {
            let round = self.round(place)?;
            let picked = round.iter().find(|exchange| exchange.picked);
            return Ok(picked.or(round.first().filter(|_| round.len() == 1)));
        };
        let one = if self.is_wide() || place.round.is_some() {
            self.round(place)?.iter().find(|exchange| exchange.lane == number)
        } else {
            self.0.iter().find(|exchange| exchange.round == number)
        };
        one.map(Some).ok_or_else(|| {
            let known: Vec<String> = self.0.iter().map(Exchange::place).collect();
            let message = format!("conversation {} has no answer {number}", self.number());
            CliError::usage(message, format!("it has {}; one that still comes has no place yet", known.join(", ")))
        })
    }

    /// `exchange` and all it goes on with, in order.
    pub(crate) fn up_to(&self, exchange: &Exchange) -> Vec<Exchange> {
        // In order: what comes before an exchange stands before it.
        let mut chain = vec![exchange.clone()];
        for before in self.0.iter().rev() {
            if chain[chain.len() - 1].after == Some(before.id) {
                chain.push(before.clone());
            }
        }
        chain.reverse();
        chain
    }
}

/// What was said so far, and is gone on with.
#[derive(Clone, Debug)]
pub(crate) struct Thread {
    /// Up to the exchange that is gone on with; never empty.
    exchanges: Vec<Exchange>,
    /// The last one stood beside others.
    beside: bool,
}

impl Thread {
    /// The conversation written as `place`, up to there. Of several answers side by side one must be named, or picked.
    pub(crate) fn find(context: &Context, place: &str) -> Result<Self, CliError> {
        let place = place.parse()?;
        let conversation = Conversation::get(context, place)?;
        let Some(last) = conversation.answer(place)? else {
            let round = conversation.round(place)?;
            let names: Vec<String> = round.iter().map(Exchange::place).collect();
            return Err(CliError::usage(
                format!("conversation {} has {} answers side by side", conversation.number(), round.len()),
                format!("name one of them: {}; or choose one: mmchat pick {}", names.join(", "), names[0]),
            ));
        };
        Ok(Self::new(&conversation, last))
    }

    /// As `find`, where any of several answers will do: they were asked the same.
    pub(crate) fn find_any(context: &Context, place: &str) -> Result<Self, CliError> {
        let place = place.parse()?;
        let conversation = Conversation::get(context, place)?;
        let last = match conversation.answer(place)? {
            Some(last) => last,
            None => &conversation.round(place)?[0],
        };
        Ok(Self::new(&conversation, last))
    }

    /// `conversation` up to `last`.
    pub(crate) fn new(conversation: &Conversation, last: &Exchange) -> Self {
        Self { exchanges: conversation.up_to(last), beside: conversation.is_wide() }
    }

    /// What one answer goes on with.
    pub(crate) fn goes_on(&self) -> GoesOn {
        GoesOn::After { exchanges: vec![Some(self.last().id)], apart: self.beside }
    }

    /// What came before the last exchange.
    pub(crate) fn before_last(&self) -> GoesOn {
        match self.exchanges.len().checked_sub(2) {
            Some(at) => GoesOn::After { exchanges: vec![Some(self.exchanges[at].id)], apart: self.beside },
            None => GoesOn::Anew,
        }
    }

    /// Whom it was asked of.
    pub(crate) fn asked(&self) -> &str {
        &self.last().asked
    }

    /// The exchange that is gone on with.
    pub(crate) fn last(&self) -> &Exchange {
        self.exchanges.last().expect("never empty")
    }

    /// Tells what will be missing of it.
    pub(crate) fn warn(&self) {
        if let Some(warning) = self.lacking() {
            say(&format!("warning: {warning}\n"));
        }
    }

    /// What is missing of it.
    pub(crate) fn lacking(&self) -> Option<&'static str> {
        let pictures = self.exchanges.iter().any(|exchange| exchange.images > 0);
        pictures.then_some("the pictures of this conversation are not kept, and are not sent again")
    }

    /// Puts what was said before `call`; its own system text wins over the conversation's.
    pub(crate) fn before(&self, call: &mut Call) {
        let Some(chat) = call.chat_mut() else { return };
        let own =
            chat.messages.iter().position(|message| message.role == Role::System).map(|at| chat.messages.remove(at));
        let before = self.messages(own, self.exchanges.len());
        chat.messages.splice(0..0, before);
    }

    /// The call that asks once more what was asked last.
    pub(crate) fn again(&self, stream: bool) -> Call {
        let mut messages = self.messages(None, self.exchanges.len() - 1);
        messages.push(Message::text(Role::User, self.last().prompt.clone()));
        Call::Chat(ChatRequest { messages, stream, ..ChatRequest::default() })
    }

    /// The system text and the first exchanges.
    fn messages(&self, system: Option<Message>, first: usize) -> Vec<Message> {
        let exchanges = &self.exchanges[..first];
        let recorded = || self.last().system.clone().map(|text| Message::text(Role::System, text));
        let said = exchanges.iter().filter(|exchange| !exchange.answer.is_empty()).flat_map(|exchange| {
            let question = Message::text(Role::User, exchange.prompt.clone());
            [question, Message::text(Role::Assistant, exchange.answer.clone())]
        });
        system.or_else(recorded).into_iter().chain(said).collect()
    }
}

/// The arguments with `--continue` joined to the place behind it, and `--diff` to the two numbers: what follows them is
/// otherwise the prompt.
pub(crate) fn joined(arguments: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let (mut out, mut open) = (Vec::<OsString>::new(), true);
    let mut arguments = arguments.peekable();
    while let Some(argument) = arguments.next() {
        let text = argument.to_str().unwrap_or_default().to_owned();
        open &= text != "--";
        let last = out.last().and_then(|last| last.to_str()).filter(|_| open);
        let next = arguments.peek().and_then(|next| next.to_str()).unwrap_or_default();
        match last {
            Some("--continue") if is_place(&text) => {
                out.pop();
                out.push(format!("--continue={text}").into());
            }
            Some("--diff") if is_number(&text) && is_number(next) => {
                out.pop();
                out.push(format!("--diff={text},{next}").into());
                arguments.next();
            }
            _ => out.push(argument),
        }
    }
    out
}

fn is_number(text: &str) -> bool {
    (1..=3).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn is_place(text: &str) -> bool {
    text.parse::<Place>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_behind_the_flag_is_its_own_and_words_are_the_prompt() {
        let joined = |words: &[&str]| {
            let words = joined(words.iter().map(OsString::from));
            words.into_iter().map(|word| word.into_string().expect("text")).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(joined(&["ask", "--continue", "12@2", "and", "then"]), "ask --continue=12@2 and then");
        assert_eq!(joined(&["ask", "--continue", "last@1", "x"]), "ask --continue=last@1 x");
        assert_eq!(joined(&["ask", "--continue", "and then"]), "ask --continue and then");
        assert_eq!(joined(&["ask", "--", "--continue", "12"]), "ask -- --continue 12");
        assert_eq!(joined(&["compare", "--diff", "1", "3", "x"]), "compare --diff=1,3 x");
        assert_eq!(joined(&["compare", "--diff", "2", "is", "even?"]), "compare --diff 2 is even?");
    }

    #[test]
    fn places_are_read() {
        let read = |text: &str| text.parse::<Place>().map(|place| (place.conversation, place.number)).ok();
        assert_eq!(
            (read("12"), read("12@2"), read("last@1"), read("@3")),
            (Some((Some(12), None)), Some((Some(12), Some(2))), Some((None, Some(1))), Some((None, Some(3))))
        );
        assert_eq!("12.1@2".parse::<Place>().map(|place| place.round).ok(), Some(Some(1)));
        assert_eq!((read("x"), read("12@"), read(""), read("@"), read("1.@2")), (None, None, None, None, None));
    }
}
