//! A conversation of the record that goes on: `ask --continue`, `again`.
//!
//! Owns how a place in the record is written (`12`, or `12@2` for its second answer) and the messages that come before.

use std::ffi::OsString;

use super::{CliError, Context, keep::record};
use crate::{
    chat::{Call, ChatRequest, Message, Role},
    store::record::{Database, Exchange, Follows},
    term::output::say,
};

/// The last conversation, in place of its number.
pub(super) const LAST: &str = "last";

/// A conversation and one of its exchanges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// The conversation; `None`: the last one.
    pub(super) conversation: Option<i64>,
    /// The exchange; `None`: nobody said.
    pub(super) number: Option<i64>,
}

impl std::str::FromStr for Place {
    type Err = CliError;

    fn from_str(text: &str) -> Result<Self, CliError> {
        let wrong = || {
            CliError::usage(
                format!("`{text}` is no conversation"),
                "write 12, 12@2, or last; mmchat history lists them",
            )
        };
        let (conversation, number) = match text.split_once('@') {
            Some((conversation, number)) => (conversation, Some(number.parse().map_err(|_| wrong())?)),
            None => (text, None),
        };
        let conversation = if conversation == LAST { None } else { Some(conversation.parse().map_err(|_| wrong())?) };
        Ok(Self { conversation, number })
    }
}

/// What was said so far, and is gone on with.
#[derive(Debug)]
pub(super) struct Thread {
    /// Up to the exchange that is gone on with; never empty.
    exchanges: Vec<Exchange>,
    /// The only one stood beside others.
    alone: bool,
}

impl Thread {
    /// The conversation written as `place`, up to there. The answers of a comparison stand side by side: one must be named.
    pub(super) fn find(context: &Context, place: &str) -> Result<Self, CliError> {
        let place = place.parse()?;
        let exchanges = everything(context, place)?;
        if place.number.is_none() && is_comparison(&exchanges) {
            let (id, all) = (exchanges[0].conversation, exchanges.len());
            return Err(CliError::usage(
                format!("conversation {id} has {all} answers side by side"),
                format!("name one of them: {id}@1 to {id}@{all}"),
            ));
        }
        Self::up_to(exchanges, place)
    }

    /// As `find`, where any of several answers will do: they were asked the same.
    pub(super) fn find_any(context: &Context, place: &str) -> Result<Self, CliError> {
        let place = place.parse()?;
        Self::up_to(everything(context, place)?, place)
    }

    fn up_to(mut exchanges: Vec<Exchange>, place: Place) -> Result<Self, CliError> {
        let (id, all, alone) = (exchanges[0].conversation, exchanges.len(), exchanges[0].beside);
        let known = place.number.map_or(Some(all - 1), |number| exchanges.iter().position(|one| one.number == number));
        let number = place.number.unwrap_or_default();
        let last = known.ok_or_else(|| {
            CliError::usage(format!("conversation {id} has no answer {number}"), format!("it has {all}"))
        })?;
        if alone {
            exchanges = vec![exchanges.swap_remove(last)];
        } else {
            exchanges.truncate(last + 1);
        }
        Ok(Self { exchanges, alone })
    }

    /// What is gone on with.
    pub(super) fn follows(&self) -> Follows {
        let Exchange { conversation, number, .. } = *self.last();
        Follows { conversation, number, alone: self.alone }
    }

    /// What came before the last exchange.
    pub(super) fn before_last(&self) -> Option<Follows> {
        let before = self.exchanges.len().checked_sub(2).map(|at| &self.exchanges[at])?;
        Some(Follows { conversation: before.conversation, number: before.number, alone: false })
    }

    /// Whom it was asked of.
    pub(super) fn asked(&self) -> &str {
        &self.last().asked
    }

    fn last(&self) -> &Exchange {
        self.exchanges.last().expect("never empty")
    }

    /// Puts what was said before `call`; its own system text wins over the conversation's.
    pub(super) fn before(&self, call: &mut Call) {
        let Call::Chat(chat) = call;
        let own =
            chat.messages.iter().position(|message| message.role == Role::System).map(|at| chat.messages.remove(at));
        let before = self.messages(own, self.exchanges.len());
        chat.messages.splice(0..0, before);
    }

    /// The call that asks once more what was asked last.
    pub(super) fn again(&self, stream: bool) -> Call {
        let mut messages = self.messages(None, self.exchanges.len() - 1);
        messages.push(Message::text(Role::User, self.last().prompt.clone()));
        Call::Chat(ChatRequest { messages, stream, ..ChatRequest::default() })
    }

    /// The system text and the first exchanges.
    fn messages(&self, system: Option<Message>, first: usize) -> Vec<Message> {
        let exchanges = &self.exchanges[..first];
        if self.exchanges.iter().any(|exchange| exchange.images > 0) {
            say("warning: the pictures of this conversation are not kept, and are not sent again\n");
        }
        let recorded = || self.last().system.clone().map(|text| Message::text(Role::System, text));
        let said = exchanges.iter().filter(|exchange| !exchange.answer.is_empty()).flat_map(|exchange| {
            let question = Message::text(Role::User, exchange.prompt.clone());
            [question, Message::text(Role::Assistant, exchange.answer.clone())]
        });
        system.or_else(recorded).into_iter().chain(said).collect()
    }
}

/// All exchanges of the conversation at `place`; never empty.
fn everything(context: &Context, place: Place) -> Result<Vec<Exchange>, CliError> {
    let nothing =
        || CliError::usage("there is no conversation to go on with", "history may be off; ask something first");
    let database = record(context)?.ok_or_else(nothing)?;
    found(&database, place)?.ok_or_else(nothing)
}

/// The exchanges of the conversation at `place`; `None`: there are none.
pub(super) fn found(database: &Database, place: Place) -> Result<Option<Vec<Exchange>>, CliError> {
    let id = match place.conversation {
        Some(id) => id,
        None => match database.latest()? {
            Some(id) => id,
            None => return Ok(None),
        },
    };
    let exchanges = database.exchanges(id)?;
    if exchanges.is_empty() && place.conversation.is_some() {
        return Err(CliError::usage(format!("there is no conversation {id}"), "mmchat history lists them"));
    }
    Ok(Some(exchanges).filter(|exchanges| !exchanges.is_empty()))
}

/// Whether these are several answers to one question.
pub(super) fn is_comparison(exchanges: &[Exchange]) -> bool {
    exchanges.len() > 1 && exchanges[0].beside
}

/// The arguments with `--continue` joined to the number behind it: what follows it is otherwise the prompt.
pub(super) fn joined(arguments: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let (mut out, mut open) = (Vec::<OsString>::new(), true);
    for argument in arguments {
        let text = argument.to_str().unwrap_or_default();
        open &= text != "--";
        if open && out.last().is_some_and(|last| last == "--continue") && is_place(text) {
            out.pop();
            out.push(format!("--continue={text}").into());
        } else {
            out.push(argument);
        }
    }
    out
}

fn is_place(text: &str) -> bool {
    let (conversation, number) = text.split_once('@').unwrap_or((text, "1"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|c| c.is_ascii_digit());
    (digits(conversation) || conversation == LAST) && digits(number)
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
    }

    #[test]
    fn places_are_read() {
        let read = |text: &str| text.parse::<Place>().map(|place| (place.conversation, place.number)).ok();
        assert_eq!(
            (read("12"), read("12@2"), read("last@1")),
            (Some((Some(12), None)), Some((Some(12), Some(2))), Some((None, Some(1))))
        );
        assert_eq!((read("x"), read("12@"), read("")), (None, None, None));
    }
}
