//! What a conversation goes on with, read from the record.
//!
//! Owns what each model knows of it: its own answers, or the one that was picked.

use std::sync::Arc;

use crate::{
    cli::{
        CliError, Context,
        support::turn_ref::{Conversation, Place, Thread},
    },
    conversation::{Member, Turn},
    model::{Message, Role},
    store::record::Exchange,
    term::output::say,
};

/// It, or nothing.
#[derive(Debug, Default)]
pub(super) struct Begun {
    pub(super) members: Vec<Member>,
    pub(super) system: Option<String>,
    /// It stands beside answers that are not gone on with.
    pub(super) apart: bool,
}

impl Begun {
    /// The conversation at `place`: with everybody who answered last, or with one answer alone where one is named, or was
    /// picked from a comparison.
    pub(super) fn again(context: &Context, place: &str) -> Result<Self, CliError> {
        let place: Place = place.parse()?;
        let conversation = Conversation::get(context, place)?;
        let answer = conversation.answer(place)?;
        let round = match answer {
            Some(answer) if place.number.is_some() || answer.shape.is_comparison => std::slice::from_ref(answer),
            _ => conversation.round(place)?,
        };
        let alone = round.len() == 1;
        if let Some(warning) =
            round.iter().find_map(|exchange| Thread::new(&conversation, exchange).lacking().map(str::to_owned))
        {
            say(&format!("warning: {warning}\n"));
        }
        // All of a conversation go on with the one that was picked.
        let known = |own: &Exchange| turns(&conversation, answer.filter(|_| !alone).unwrap_or(own));
        let members = round.iter().map(|own| Member { name: own.asked.clone(), turns: known(own) });
        Ok(Self {
            members: members.collect(),
            system: round.first().and_then(|exchange| exchange.system.clone()),
            apart: alone && conversation.is_wide(),
        })
    }
}

fn turns(conversation: &Conversation, last: &Exchange) -> Vec<Arc<Turn>> {
    let turn = |exchange: Exchange| {
        let question = Message::text(Role::User, exchange.prompt);
        let answer = (exchange.answer, exchange.class.is_none());
        Arc::new(Turn::kept(question, answer, exchange.asked, exchange.id))
    };
    conversation.up_to(last).into_iter().map(turn).collect()
}
