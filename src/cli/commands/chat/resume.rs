//! Loads a stored conversation to resume it in a chat.
//!
//! Each model sees its own answers, unless one answer was picked or referenced.

use std::sync::Arc;

use crate::{
    cli::{
        CliError, Context,
        support::turn_ref::{HistoryPrefix, StoredConversation, TurnRef},
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
        let turn: TurnRef = reference.parse()?;
        let conversation = StoredConversation::find_required(context, turn)?;
        let answer = conversation.answer(turn)?;
        let round = match answer {
            Some(answer) if turn.answer.is_some() || answer.layout.is_comparison => std::slice::from_ref(answer),
            _ => conversation.round(turn)?,
        };
        let single = round.len() == 1;
        if let Some(warning) = round
            .iter()
            .find_map(|exchange| HistoryPrefix::new(&conversation, exchange).missing_warning().map(str::to_owned))
        {
            write_stderr(&format!("warning: {warning}\n"));
        }
        // All models of a conversation continue with the picked answer.
        let history = |own: &StoredTurn| turns(&conversation, answer.filter(|_| !single).unwrap_or(own));
        let members = round.iter().map(|own| Member { name: own.requested.clone(), turns: history(own) });
        Ok(Self {
            members: members.collect(),
            system: round.first().and_then(|exchange| exchange.system.clone()),
            forks: single && conversation.has_parallel_answers(),
        })
    }
}

fn turns(conversation: &StoredConversation, last: &StoredTurn) -> Vec<Arc<Turn>> {
    let turn = |exchange: StoredTurn| {
        let question = Message::text(Role::User, exchange.prompt);
        let answer = (exchange.answer, exchange.class.is_none());
        Arc::new(Turn::from_stored(question, answer, exchange.requested, exchange.id))
    };
    conversation.chain_to(last).into_iter().map(turn).collect()
}
