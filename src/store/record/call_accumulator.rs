//! Listening to one lane: from its events to the record of its call.
//!
//! Owns what each of a lane's requests used and what came of it, also when it is stopped in the middle. Refuses to write:
//! whoever listens keeps the record, logs it or counts it, and all of them have the same figures.

use jiff::Timestamp;
use tokio::time::Instant;

use super::{CallRecord, Said};
use crate::{
    engine::{Account, AttemptRecord, Event, EventKind, LaneOutcome, Progress, plan::Lane},
    model::{Call, Message, Part, Role, Usage, target::TargetId},
};

/// One lane, as far as it has come.
#[derive(Debug)]
pub struct Listener {
    asked: String,
    is_route: bool,
    prompt_tokens: u64,
    /// What is asked; the answer is added when there is one. `None`: words are not kept.
    said: Option<Said>,
    account: Account,
    /// What each request used that said anything, by when it was sent and to whom.
    used: Vec<(Timestamp, TargetId, Usage)>,
    /// How far it has come, in case it is stopped; `None`: it is over.
    progress: Option<Progress>,
}

impl Listener {
    /// A listener to `lane`; `words`: what is said is kept, too.
    #[must_use]
    pub fn new(lane: &Lane, words: bool) -> Self {
        Self {
            asked: lane.name.clone(),
            is_route: lane.route.is_some(),
            prompt_tokens: lane.prompt_tokens,
            said: words.then(|| asked_of(&lane.call)),
            account: Account::default(),
            used: Vec::new(),
            progress: Some(Progress::new(Instant::now())),
        }
    }

    /// Takes notice of what happened. What came of the lane, when that is that it is over.
    pub fn event(&mut self, event: &Event) -> Option<CallRecord> {
        if let Some(progress) = &mut self.progress {
            progress.event(event);
        }
        match &event.kind {
            EventKind::Deltas(deltas) | EventKind::Held(deltas) => {
                for delta in deltas {
                    self.account.add(delta, self.said.is_some());
                }
            }
            EventKind::Failed { record, .. } => {
                let used = self.account.used(self.prompt_tokens);
                self.used.extend(used.map(|usage| (record.at, record.target.id.clone(), usage)));
                self.account.begin_again(&record.target, self.prompt_tokens);
            }
            EventKind::Finished(outcome) => return Some(self.over((**outcome).clone())),
            EventKind::Again => {
                (self.account, self.used) = Default::default();
                self.progress = Some(Progress::new(event.at));
            }
            EventKind::Started(_) | EventKind::Ttft(_) | EventKind::Notice(_) => {}
        }
        None
    }

    /// Nobody wants more of it: what came of it is paid for all the same. `None`: it was over.
    pub fn stop(&mut self) -> Option<CallRecord> {
        let progress = self.progress.take()?;
        Some(self.over(progress.interrupted(Instant::now())))
    }

    fn over(&mut self, outcome: LaneOutcome) -> CallRecord {
        self.progress = None;
        let mut account = std::mem::take(&mut self.account);
        let own = account.usage(&outcome, self.prompt_tokens).filter(|_| outcome.result.is_ok());
        let own = own.or_else(|| account.used(self.prompt_tokens));
        let last = outcome.attempts.last().zip(own);
        self.used.extend(last.map(|(attempt, usage)| (attempt.at, attempt.target.id.clone(), usage)));
        account.close(&outcome, self.prompt_tokens);
        let said = self.said.clone().map(|asked| Said {
            answer: [account.answer.text.as_str(), account.answer.refusal.as_str()].concat(),
            reasoning: account.answer.reasoning.clone(),
            ..asked
        });
        CallRecord {
            at: Timestamp::now().checked_sub(outcome.total).unwrap_or_default(),
            command: "",
            client: None,
            lane: 0,
            asked: self.asked.clone(),
            is_route: self.is_route,
            usage: account.usage(&outcome, self.prompt_tokens),
            used: by_request(&outcome.attempts, std::mem::take(&mut self.used)),
            outcome,
            said,
        }
    }
}

/// What each request used: those that said nothing used nothing that is known.
fn by_request(attempts: &[AttemptRecord], mut used: Vec<(Timestamp, TargetId, Usage)>) -> Vec<Option<Usage>> {
    let of = |attempt: &AttemptRecord| {
        let place = used.iter().position(|(at, target, _)| *at == attempt.at && *target == attempt.target.id)?;
        Some(used.remove(place).2)
    };
    attempts.iter().map(of).collect()
}

/// What a call asks, for the record.
fn asked_of(call: &Call) -> Said {
    let Some(chat) = call.chat() else { return Said::default() };
    let text = |role| chat.messages.iter().rfind(|message| message.role == role).map(Message::words);
    let last = chat.messages.iter().rfind(|message| message.role == Role::User);
    let images = last.map_or(0, |message| message.parts.iter().filter(|part| matches!(part, Part::Image(_))).count());
    Said { system: text(Role::System), prompt: text(Role::User).unwrap_or_default(), images, ..Said::default() }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use super::*;
    use crate::{
        model::{ErrorClass, target::testing},
        protocol::ApiError,
    };

    #[test]
    fn what_was_used_is_the_requests_that_used_it() {
        let (a, b) = (Arc::new(testing::target("a")), Arc::new(testing::target("b")));
        let at = |second| Timestamp::from_second(second).expect("a date");
        let sent = |target: &Arc<_>, second| AttemptRecord::new(Arc::clone(target), at(second), Duration::ZERO);
        // It was paid for although it said nothing.
        let withheld = AttemptRecord { error: Some(ApiError::new(ErrorClass::Filter, "no")), ..sent(&a, 1) };
        let attempts = [withheld, sent(&a, 2), sent(&b, 3)];
        let tokens = |output| Usage { output: Some(output), ..Usage::default() };
        let used = vec![(at(1), a.id.clone(), tokens(1)), (at(3), b.id.clone(), tokens(3))];
        assert_eq!(by_request(&attempts, used), [Some(tokens(1)), None, Some(tokens(3))]);
    }
}
