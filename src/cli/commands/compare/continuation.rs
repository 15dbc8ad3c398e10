//! `compare --continue`: one more round of a comparison.
//!
//! Owns what each lane goes on with: its own answers, or one that all of them see. Refuses to know how they are asked.

use std::sync::Arc;

use crate::{
    cli::{
        CliError, Context,
        support::turn_ref::{Conversation, Place, Thread},
    },
    config::{Config, RoundContext},
    engine::plan::{self, Lane},
    model::Call,
    routing::OnCut,
    store::record::{Exchange, GoesOn},
};

/// A conversation that goes on with several models.
pub(super) struct Going {
    conversation: Conversation,
    /// The round that is gone on with.
    round: Vec<Exchange>,
    /// The answer that all see; `None`: each sees its own.
    shared: Option<Exchange>,
}

impl Going {
    /// The one at `place`. An answer that is named is seen by all, and so is the only one there is. What the flag says goes
    /// before what is `usual`.
    pub(super) fn find(
        context: &Context,
        place: &str,
        (flag, usual): (Option<RoundContext>, RoundContext),
    ) -> Result<Self, CliError> {
        let place: Place = place.parse()?;
        let conversation = Conversation::get(context, place)?;
        let answer = conversation.answer(place)?.cloned();
        let round = match &answer {
            Some(answer) => conversation.exchanges().iter().filter(|one| one.round == answer.round).cloned().collect(),
            None => conversation.round(place)?.to_vec(),
        };
        let named = place.number.is_some();
        if named && flag == Some(RoundContext::Separate) {
            return Err(CliError::usage(
                "an answer that is named is what all models go on with",
                "leave out --context separate, or what stands behind @",
            ));
        }
        let is_only = round.len() == 1 && flag.is_none();
        let shared = match flag.unwrap_or(usual) {
            RoundContext::Separate => answer.filter(|_| named || is_only),
            RoundContext::Shared if answer.is_none() => {
                return Err(CliError::usage(
                    format!("no answer of conversation {} was picked", conversation.number()),
                    format!(
                        "pick one: mmchat pick {}; name it after --continue; or say --context separate",
                        round[0].place()
                    ),
                ));
            }
            RoundContext::Shared => answer,
        };
        Ok(Self { conversation, round, shared })
    }

    /// The lanes of the round before, asked once more.
    pub(super) fn lanes(&self, config: &Config, call: &Arc<Call>, on_cut: OnCut) -> Result<Vec<Lane>, CliError> {
        let mut lanes: Vec<Lane> = Vec::new();
        for exchange in &self.round {
            let lane = plan::lane(config, Some(&exchange.asked), call, on_cut)?;
            let twin = |other: &&Exchange| other.asked == exchange.asked;
            let sample = 1 + lanes.iter().filter(|known| known.name == lane.name).count();
            let several = self.round.iter().filter(twin).count() > 1;
            lanes.push(Lane { sample: several.then_some(sample), ..lane });
        }
        Ok(lanes)
    }

    /// Puts before each lane's call what it sees of the conversation, and tells who sees nothing of it.
    pub(super) fn before(&self, lanes: &mut [Lane], warnings: &mut Vec<String>) -> GoesOn {
        let mut left: Vec<&Exchange> = self.round.iter().collect();
        let exchanges = lanes.iter_mut().map(|lane| {
            let own = || {
                let place = left.iter().position(|exchange| exchange.asked == lane.name)?;
                Some(left.remove(place))
            };
            let Some(exchange) = self.shared.as_ref().or_else(own) else {
                let (label, id) = (lane.label(), self.conversation.number());
                warnings.push(format!(
                    "`{label}` has no answer in conversation {id} to go on with, and sees nothing of it"
                ));
                return None;
            };
            let thread = Thread::new(&self.conversation, exchange);
            lane.change(|call| thread.before(call));
            if let Some(warning) = thread.lacking()
                && !warnings.iter().any(|known| known == warning)
            {
                warnings.push(warning.to_owned());
            }
            Some(exchange.id)
        });
        GoesOn::After { exchanges: exchanges.collect(), apart: false }
    }
}
