//! Finds stored conversations by reference and continues them: `ask --continue`, `again`, `pick`, `history show`.
//!
//! A reference is `12` (a conversation), `12@2` (its second answer) or `12.1@2` (the second answer of its first round).

use std::ffi::OsString;

use crate::cli::{CliError, Context, support::recording::open_record};
use crate::{
    model::{ChatRequest, Message, ModelRequest, Role},
    store::record::{Continuation, Database, StoredTurn},
    term::output::write_stderr,
};

/// The reference to the last conversation.
pub(crate) const LAST: &str = "last";

/// The error of `--continue` without a stored conversation.
pub(crate) const NOTHING_TO_CONTINUE: &str = "no conversation to continue";

/// The error of a command that needs a stored conversation when there is none.
pub(crate) fn nothing_stored(message: &str) -> CliError {
    let hint = "ask a question first; with history = false in the config, prompts and answers are not stored";
    CliError::usage(message, hint)
}

/// Why the answer of `turn` is not complete, such as `1@2 is incomplete (stopped)`; `None` for a complete answer.
pub(crate) fn incomplete_reason(turn: &StoredTurn) -> Option<String> {
    let (class, reference) = (turn.class.as_deref()?, turn.reference());
    Some(match (turn.answer.trim().is_empty(), class) {
        (true, "stopped") => format!("{reference} has no text: \"{}\" was stopped", turn.requested),
        (true, class) => format!("{reference} has no text: \"{}\" failed ({class})", turn.requested),
        (false, "incomplete") => format!("{reference} is incomplete"),
        (false, class) => format!("{reference} is incomplete ({class})"),
    })
}

/// A reference to a conversation, a round or an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct TurnRef {
    /// The id of the conversation; `None`: the last one.
    pub(crate) conversation: Option<i64>,
    /// The number of the round, if given.
    round: Option<i64>,
    /// The number of the answer, if given.
    pub(crate) answer: Option<i64>,
}

impl std::str::FromStr for TurnRef {
    type Err = CliError;

    fn from_str(text: &str) -> Result<Self, CliError> {
        let invalid = || {
            CliError::usage(
                format!("invalid conversation \"{text}\""),
                "write 12, 12@2 (its second answer), 12.1@2 (the second answer of its first round), @2 or last",
            )
        };
        let number = |digits: &str| digits.parse().map(Some).map_err(|_| invalid());
        let (round_ref, answer) = match text.split_once('@') {
            Some((round_ref, answer)) => (round_ref, number(answer)?),
            None => (text, None),
        };
        let (conversation, round) = match round_ref.split_once('.') {
            Some((conversation, round)) => (conversation, number(round)?),
            None => (round_ref, None),
        };
        let is_last = conversation == LAST || (conversation.is_empty() && answer.is_some());
        let conversation = if is_last { None } else { number(conversation)? };
        Ok(Self { conversation, round, answer })
    }
}

/// All turns of a stored conversation; never empty.
#[derive(Clone, Debug)]
pub(crate) struct StoredConversation(Vec<StoredTurn>);

impl StoredConversation {
    /// Finds the conversation; `None` if nothing is stored.
    pub(crate) fn find(database: &Database, turn_ref: TurnRef) -> Result<Option<Self>, CliError> {
        let id = match turn_ref.conversation {
            Some(id) => id,
            None => match database.latest_conversation(None)? {
                Some(id) => id,
                None => return Ok(None),
            },
        };
        let turns = database.turns(id)?;
        if turns.is_empty() && turn_ref.conversation.is_some() {
            return Err(CliError::usage(
                format!("no conversation {id}"),
                "run \"mmchat history\" to list conversations",
            ));
        }
        Ok(Some(Self(turns)).filter(|conversation| !conversation.0.is_empty()))
    }

    /// Like [`StoredConversation::find`], but returns the error `message` if nothing is stored.
    pub(crate) fn find_required(context: &Context, turn_ref: TurnRef, message: &str) -> Result<Self, CliError> {
        let database = open_record(context)?.ok_or_else(|| nothing_stored(message))?;
        Self::find(&database, turn_ref)?.ok_or_else(|| nothing_stored(message))
    }

    /// The id of the conversation.
    pub(crate) fn conversation_id(&self) -> i64 {
        self.0[0].conversation
    }

    /// All turns in order.
    pub(crate) fn turns(&self) -> &[StoredTurn] {
        &self.0
    }

    /// Whether any round has several answers.
    pub(crate) fn has_parallel_answers(&self) -> bool {
        self.0[0].layout.max_answers > 1
    }

    /// The answers of the given round, by default of the last one.
    pub(crate) fn round(&self, turn_ref: TurnRef) -> Result<&[StoredTurn], CliError> {
        let rounds = self.0[0].layout.rounds;
        let round = turn_ref.round.unwrap_or(rounds);
        let found = self.0.chunk_by(|a, b| a.round == b.round).find(|turns| turns[0].round == round);
        found.ok_or_else(|| {
            CliError::usage(
                format!("conversation {} has no round {round}", self.conversation_id()),
                format!("the number of its last round is {rounds}"),
            )
        })
    }

    /// The answer that `turn_ref` refers to. If every round has one answer, the number of an answer is that of its
    /// round. Without a number: the picked answer, else the only answer of the round; `None` if there are several.
    pub(crate) fn answer(&self, turn_ref: TurnRef) -> Result<Option<&StoredTurn>, CliError> {
        let Some(number) = turn_ref.answer else {
            let round = self.round(turn_ref)?;
            let picked = round.iter().find(|turn| turn.picked);
            return Ok(picked.or(round.first().filter(|_| round.len() == 1)));
        };
        let found = if self.has_parallel_answers() || turn_ref.round.is_some() {
            self.round(turn_ref)?.iter().find(|turn| turn.answer_number == number)
        } else {
            self.0.iter().find(|turn| turn.round == number)
        };
        found.map(Some).ok_or_else(|| {
            let known: Vec<String> = self.0.iter().map(StoredTurn::reference).collect();
            let message = format!("conversation {} has no answer {number}", self.conversation_id());
            CliError::usage(message, format!("available: {}", known.join(", ")))
        })
    }

    /// `last` and the turns that it continues, oldest first.
    pub(crate) fn chain_to(&self, last: &StoredTurn) -> Vec<StoredTurn> {
        // One pass is enough: a turn is stored after the one it continues.
        let mut chain = vec![last.clone()];
        for earlier in self.0.iter().rev() {
            if chain[chain.len() - 1].parent == Some(earlier.id) {
                chain.push(earlier.clone());
            }
        }
        chain.reverse();
        chain
    }
}

/// The turns that a new request continues.
#[derive(Clone, Debug)]
pub(crate) struct HistoryPrefix {
    /// The turns up to the one that is continued; never empty.
    turns: Vec<StoredTurn>,
    /// The last turn has parallel answers, so that continuing it forks the conversation.
    forks: bool,
}

impl HistoryPrefix {
    /// The history up to the turn `reference`. Of several parallel answers, one must be referenced or picked.
    pub(crate) fn find(context: &Context, reference: &str) -> Result<Self, CliError> {
        let turn_ref = reference.parse()?;
        let conversation = StoredConversation::find_required(context, turn_ref, NOTHING_TO_CONTINUE)?;
        let Some(last) = conversation.answer(turn_ref)? else {
            let round = conversation.round(turn_ref)?;
            let names: Vec<String> = round.iter().map(StoredTurn::reference).collect();
            return Err(CliError::usage(
                format!("conversation {} has {} parallel answers", conversation.conversation_id(), round.len()),
                format!("name one of them: {}; or run \"mmchat pick {}\"", names.join(", "), names[0]),
            ));
        };
        Ok(Self::new(&conversation, last))
    }

    /// Like [`HistoryPrefix::find`], for sending its last prompt again: takes the first of several parallel answers,
    /// because their prompt is the same.
    pub(crate) fn find_any(context: &Context, reference: &str) -> Result<Self, CliError> {
        let turn_ref = reference.parse()?;
        let conversation = StoredConversation::find_required(context, turn_ref, "no stored prompt to send again")?;
        let last = match conversation.answer(turn_ref)? {
            Some(last) => last,
            None => &conversation.round(turn_ref)?[0],
        };
        Ok(Self::new(&conversation, last))
    }

    /// The history of `conversation` up to `last`.
    pub(crate) fn new(conversation: &StoredConversation, last: &StoredTurn) -> Self {
        Self { turns: conversation.chain_to(last), forks: conversation.has_parallel_answers() }
    }

    /// The placement of a turn that continues this history.
    pub(crate) fn continuation(&self) -> Continuation {
        Continuation::Append { turns: vec![Some(self.last().id)], fork: self.forks }
    }

    /// The placement of a turn that continues the history before the last turn.
    pub(crate) fn continuation_before_last(&self) -> Continuation {
        match self.turns.len().checked_sub(2) {
            Some(index) => Continuation::Append { turns: vec![Some(self.turns[index].id)], fork: self.forks },
            None => Continuation::New,
        }
    }

    /// The model or route of the last turn.
    pub(crate) fn requested_name(&self) -> &str {
        &self.last().requested
    }

    /// The turn that is continued.
    pub(crate) fn last(&self) -> &StoredTurn {
        self.turns.last().expect("a history has at least one turn")
    }

    /// Prints a warning if a part of the history is missing.
    pub(crate) fn warn_missing(&self) {
        if let Some(warning) = self.missing_warning() {
            write_stderr(&format!("warning: {warning}\n"));
        }
    }

    /// A warning if a part of the history is missing.
    pub(crate) fn missing_warning(&self) -> Option<&'static str> {
        let has_images = self.turns.iter().any(|turn| turn.image_count > 0);
        has_images.then_some("the images of this conversation are not stored and will not be sent again")
    }

    /// Inserts the history before the messages of the request, whose own system prompt takes precedence.
    pub(crate) fn prepend_to(&self, request: &mut ModelRequest) {
        let Some(chat) = request.as_chat_mut() else { return };
        let index = chat.messages.iter().position(|message| message.role == Role::System);
        let system = index.map(|index| chat.messages.remove(index));
        let history = self.messages(system, self.turns.len());
        chat.messages.splice(0..0, history);
    }

    /// A request that repeats the last prompt.
    pub(crate) fn repeat_request(&self, stream: bool) -> ModelRequest {
        let mut messages = self.messages(None, self.turns.len() - 1);
        messages.push(Message::text(Role::User, self.last().prompt.clone()));
        ModelRequest::Chat(ChatRequest { messages, stream, ..ChatRequest::default() })
    }

    /// The messages of the first `count` turns, after the system prompt: `system`, else the stored one.
    fn messages(&self, system: Option<Message>, count: usize) -> Vec<Message> {
        let answered = self.turns[..count].iter().filter(|turn| !turn.answer.is_empty());
        let stored_system = || self.last().system.clone().map(|text| Message::text(Role::System, text));
        let messages = answered.flat_map(|turn| {
            let question = Message::text(Role::User, turn.prompt.clone());
            [question, Message::text(Role::Assistant, turn.answer.clone())]
        });
        system.or_else(stored_system).into_iter().chain(messages).collect()
    }
}

/// Joins `--continue` with a following turn reference, and `--diff` with two following numbers. These values are
/// optional, and clap would take them as part of the prompt.
pub(crate) fn join_option_values(arguments: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let (mut joined, mut in_options) = (Vec::<OsString>::new(), true);
    let mut arguments = arguments.peekable();
    while let Some(argument) = arguments.next() {
        let text = argument.to_str().unwrap_or_default().to_owned();
        in_options &= text != "--";
        let last = joined.last().and_then(|last| last.to_str()).filter(|_| in_options);
        let next = arguments.peek().and_then(|next| next.to_str()).unwrap_or_default();
        match last {
            Some("--continue") if is_turn_ref(&text) => {
                joined.pop();
                joined.push(format!("--continue={text}").into());
            }
            Some("--diff") if is_number(&text) && is_number(next) => {
                joined.pop();
                joined.push(format!("--diff={text},{next}").into());
                arguments.next();
            }
            _ => joined.push(argument),
        }
    }
    joined
}

fn is_number(text: &str) -> bool {
    (1..=3).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn is_turn_ref(text: &str) -> bool {
    text.parse::<TurnRef>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_after_continue_and_diff_are_joined_and_words_stay_the_prompt() {
        let joined = |words: &[&str]| {
            let words = join_option_values(words.iter().map(OsString::from));
            words.into_iter().map(|word| word.into_string().expect("arguments are UTF-8")).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(joined(&["ask", "--continue", "12@2", "and", "then"]), "ask --continue=12@2 and then");
        assert_eq!(joined(&["ask", "--continue", "last@1", "x"]), "ask --continue=last@1 x");
        assert_eq!(joined(&["ask", "--continue", "and then"]), "ask --continue and then");
        assert_eq!(joined(&["ask", "--", "--continue", "12"]), "ask -- --continue 12");
        assert_eq!(joined(&["compare", "--diff", "1", "3", "x"]), "compare --diff=1,3 x");
        assert_eq!(joined(&["compare", "--diff", "2", "is", "even?"]), "compare --diff 2 is even?");
    }

    #[test]
    fn turn_references_are_parsed() {
        let parse =
            |text: &str| text.parse::<TurnRef>().map(|reference| (reference.conversation, reference.answer)).ok();
        assert_eq!(
            (parse("12"), parse("12@2"), parse("last@1"), parse("@3")),
            (Some((Some(12), None)), Some((Some(12), Some(2))), Some((None, Some(1))), Some((None, Some(3))))
        );
        assert_eq!("12.1@2".parse::<TurnRef>().map(|reference| reference.round).ok(), Some(Some(1)));
        assert_eq!((parse("x"), parse("12@"), parse(""), parse("@"), parse("1.@2")), (None, None, None, None, None));
    }
}
