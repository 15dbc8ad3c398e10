//! Loads a stored conversation to resume it in a chat.
//!
//! Each model continues with its own answers, unless one answer was picked or referenced.

use std::sync::Arc;

use crate::{
    cli::{
        CliError, Context,
        support::turn_ref::{HistoryPrefix, NOTHING_TO_CONTINUE, StoredConversation, TurnRef},
    },
    conversation::{Member, Turn},
    model::{Message, Role},
    store::record::StoredTurn,
    term::output::write_stderr,
};

/// A resumed conversation; empty for a new one.
#[derive(Debug, Default)]
pub(super) struct ResumedConversation {
    pub(super) members: Vec<Member>,
    pub(super) system: Option<String>,
    /// Continuing forks the conversation: other answers of the round are not continued.
    pub(super) forks: bool,
}

impl ResumedConversation {
    /// Loads the conversation `reference`: with all models of the last round, or with a single answer if one is
    /// referenced or was picked from a comparison.
    pub(super) fn load(context: &Context, reference: &str) -> Result<Self, CliError> {
        let turn_ref: TurnRef = reference.parse()?;
        let conversation = StoredConversation::find_required(context, turn_ref, NOTHING_TO_CONTINUE)?;
        let answer = conversation.answer(turn_ref)?;
        let round = match answer {
            Some(answer) if turn_ref.answer.is_some() || answer.layout.is_comparison => std::slice::from_ref(answer),
            _ => conversation.round(turn_ref)?,
        };
        let is_single = round.len() == 1;
        if let Some(warning) =
            round.iter().find_map(|turn| HistoryPrefix::new(&conversation, turn).missing_warning().map(str::to_owned))
        {
            write_stderr(&format!("warning: {warning}\n"));
        }
        // All models of a conversation continue with the picked answer.
        let history = |turn: &StoredTurn| turns(&conversation, answer.filter(|_| !is_single).unwrap_or(turn));
        let members = round.iter().map(|turn| Member { name: turn.requested.clone(), turns: history(turn) });
        Ok(Self {
            members: members.collect(),
            system: round.first().and_then(|turn| turn.system.clone()),
            forks: is_single && conversation.has_parallel_answers(),
        })
    }
}

fn turns(conversation: &StoredConversation, last: &StoredTurn) -> Vec<Arc<Turn>> {
    let convert = |turn: StoredTurn| {
        let question = Message::text(Role::User, turn.prompt);
        let answer = (turn.answer, turn.class.is_none());
        Arc::new(Turn::from_stored(question, answer, turn.requested, turn.id))
    };
    conversation.chain_to(last).into_iter().map(convert).collect()
}
