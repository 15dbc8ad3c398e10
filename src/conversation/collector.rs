//! What came of a round: the answers, with their figures.
//!
//! Owns what a conversation remembers of an answer, whole or not. Refuses what is shown of it while it comes.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use crate::{
    engine::{Account, Event, EventKind, LaneOutcome, Progress},
    model::{Usage, target::Target},
};

/// An answer, as far as it came.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answer {
    /// What was said.
    pub text: String,
    /// Nothing is missing of it.
    pub is_whole: bool,
    /// Its tokens.
    pub usage: Option<Usage>,
    /// What it cost, with the currency.
    pub cost: Option<(f64, String)>,
    /// The time to its first token.
    pub ttft: Option<Duration>,
}

/// Listens to the lanes of one round.
#[derive(Debug)]
pub struct Heard {
    lanes: Vec<Lane>,
}

#[derive(Debug)]
struct Lane {
    prompt_tokens: u64,
    account: Account,
    /// Who is asked.
    target: Option<Arc<Target>>,
    /// `None`: it is over.
    progress: Option<Progress>,
    answer: Answer,
}

impl Heard {
    /// For lanes that begin at `now` and whose prompts have so many tokens, by our estimate.
    #[must_use]
    pub fn new(prompts: impl IntoIterator<Item = u64>, now: Instant) -> Self {
        let lane = |prompt_tokens| Lane {
            prompt_tokens,
            account: Account::default(),
            progress: Some(Progress::new(now)),
            target: None,
            answer: Answer::default(),
        };
        Self { lanes: prompts.into_iter().map(lane).collect() }
    }

    /// Takes notice of what happened.
    pub fn event(&mut self, event: &Event) {
        let Some(lane) = self.lanes.get_mut(event.lane) else { return };
        if let Some(progress) = &mut lane.progress {
            progress.event(event);
        }
        match &event.kind {
            EventKind::Deltas(deltas) | EventKind::Held(deltas) => {
                for delta in deltas {
                    lane.account.add(delta, true);
                }
            }
            EventKind::Failed { record, .. } => lane.account.begin_again(&record.target, lane.prompt_tokens),
            EventKind::Again => {
                lane.account.ask_again(lane.target.as_deref(), lane.prompt_tokens);
                lane.progress = Some(Progress::new(event.at));
            }
            EventKind::Finished(outcome) => lane.over(outcome),
            EventKind::Started(target) => lane.target = Some(Arc::clone(target)),
            EventKind::Ttft(_) | EventKind::Notice(_) => {}
        }
    }

    /// Nothing more comes from `now` on: what there is of each answer.
    #[must_use]
    pub fn answers(self, now: Instant) -> Vec<Answer> {
        let whole = |mut lane: Lane| {
            if let Some(progress) = lane.progress.take() {
                lane.over(&progress.interrupted(now));
            }
            lane.answer
        };
        self.lanes.into_iter().map(whole).collect()
    }
}

impl Lane {
    fn over(&mut self, outcome: &LaneOutcome) {
        self.progress = None;
        self.account.close(outcome, self.prompt_tokens);
        let usage = self.account.usage(outcome, self.prompt_tokens);
        let cost = self.account.cost(usage.as_ref(), outcome).map(|(cost, currency)| (cost, currency.to_owned()));
        let answer = &self.account.answer;
        let text = if answer.text.is_empty() { &answer.refusal } else { &answer.text }.clone();
        self.answer = Answer { text, is_whole: outcome.result.is_ok(), usage, cost, ttft: outcome.ttft };
    }
}
