//! `compare --continue`: continues a stored comparison with another round.
//!
//! Decides which history each call gets: its own answers, or one answer shared by all calls.

use std::sync::Arc;

use crate::{
    cli::{
        CliError, Context,
        support::turn_ref::{HistoryPrefix, NOTHING_TO_CONTINUE, StoredConversation, TurnRef},
    },
    config::{Config, RoundContext},
    engine::plan::{self, Call},
    model::ModelRequest,
    routing::OnIncomplete,
    store::record::{Continuation, StoredTurn},
};

/// A stored conversation that is continued with several models.
pub(super) struct ContinuedComparison {
    conversation: StoredConversation,
    /// The answers of the round that is continued.
    round: Vec<StoredTurn>,
    /// The answer that all calls continue; `None`: each call continues its own.
    shared: Option<StoredTurn>,
}

impl ContinuedComparison {
    /// Loads the conversation `reference`. A referenced answer is shared by all calls, and so is the only answer of a
    /// round. `flag` takes precedence over `default`.
    pub(super) fn find(
        context: &Context,
        reference: &str,
        (flag, default): (Option<RoundContext>, RoundContext),
    ) -> Result<Self, CliError> {
        let turn_ref: TurnRef = reference.parse()?;
        let conversation = StoredConversation::find_required(context, turn_ref, NOTHING_TO_CONTINUE)?;
        let answer = conversation.answer(turn_ref)?.cloned();
        let round = match &answer {
            Some(answer) => conversation.turns().iter().filter(|turn| turn.round == answer.round).cloned().collect(),
            None => conversation.round(turn_ref)?.to_vec(),
        };
        let is_referenced = turn_ref.answer.is_some();
        if is_referenced && flag == Some(RoundContext::Separate) {
            return Err(CliError::usage(
                "--context separate does not apply to a single answer",
                "remove --context separate, or the @ and the number after it",
            ));
        }
        let is_only = round.len() == 1 && flag.is_none();
        let shared = match flag.unwrap_or(default) {
            RoundContext::Separate => answer.filter(|_| is_referenced || is_only),
            RoundContext::Shared if answer.is_none() => {
                return Err(CliError::usage(
                    format!("no answer of conversation {} is picked", conversation.conversation_id()),
                    format!(
                        "run \"mmchat pick {}\", name an answer after --continue, or add --context separate",
                        round[0].reference()
                    ),
                ));
            }
            RoundContext::Shared => answer,
        };
        Ok(Self { conversation, round, shared })
    }

    /// The calls to the models of the previous round.
    pub(super) fn repeat_calls(
        &self,
        config: &Config,
        request: &Arc<ModelRequest>,
        on_incomplete: OnIncomplete,
    ) -> Result<Vec<Call>, CliError> {
        let mut calls: Vec<Call> = Vec::new();
        for turn in &self.round {
            let call = plan::resolve_call(config, Some(&turn.requested), request, on_incomplete)?;
            let same_model = |other: &&StoredTurn| other.requested == turn.requested;
            let sample = 1 + calls.iter().filter(|known| known.name == call.name).count();
            let several = self.round.iter().filter(same_model).count() > 1;
            calls.push(Call { sample: several.then_some(sample), ..call });
        }
        Ok(calls)
    }

    /// Inserts the history into each call, and adds a warning for a call without history.
    pub(super) fn prepend_history(&self, calls: &mut [Call], warnings: &mut Vec<String>) -> Continuation {
        let mut unassigned: Vec<&StoredTurn> = self.round.iter().collect();
        let turns = calls.iter_mut().map(|call| {
            let own = || {
                let index = unassigned.iter().position(|turn| turn.requested == call.name)?;
                Some(unassigned.remove(index))
            };
            let Some(turn) = self.shared.as_ref().or_else(own) else {
                let (label, id) = (call.label(), self.conversation.conversation_id());
                warnings.push(format!(
                    "\"{label}\" has no answer in conversation {id} to continue with, and gets no history"
                ));
                return None;
            };
            let history = HistoryPrefix::new(&self.conversation, turn);
            call.update_request(|request| history.prepend_to(request));
            if let Some(warning) = history.missing_warning()
                && !warnings.iter().any(|other| other == warning)
            {
                warnings.push(warning.to_owned());
            }
            Some(turn.id)
        });
        Continuation::Append { turns: turns.collect(), fork: false }
    }
}
