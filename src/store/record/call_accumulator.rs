//! Accumulates the events of one call into its [`CallRecord`], also if the call is stopped early.
//!
//! The writers of the record, the log and the metrics all use this record, so that their numbers agree.

use jiff::Timestamp;
use tokio::time::Instant;

use super::{StoredCall, Transcript};
use crate::{
    engine::{AccumulatedAnswer, AttemptRecord, CallRecord, CallProgress, Event, EventKind, plan::Call},
    model::{Message, ModelRequest, Part, Role, Usage, target::TargetId},
};

/// The state of one call so far.
#[derive(Debug)]
pub struct CallListener {
    requested: String,
    is_route: bool,
    prompt_tokens: u64,
    /// The prompt; the answer is added at the end. `None` if content is not stored.
    transcript: Option<Transcript>,
    accumulator: AccumulatedAnswer,
    /// The usage of each attempt with output, by its time and target.
    attempt_usage: Vec<(Timestamp, TargetId, Usage)>,
    /// The progress, in case the call is stopped; `None` once it is finished.
    progress: Option<CallProgress>,
}

impl CallListener {
    /// A listener for `call`; `store_content` includes the prompt and the answer in the record.
    #[must_use]
    pub fn new(lane: &Call, store_content: bool) -> Self {
        Self {
            requested: lane.name.clone(),
            is_route: lane.route.is_some(),
            prompt_tokens: lane.prompt_tokens,
            transcript: store_content.then(|| request_transcript(&lane.request)),
            accumulator: AccumulatedAnswer::default(),
            attempt_usage: Vec::new(),
            progress: Some(CallProgress::new(Instant::now())),
        }
    }

    /// Handles an event. Returns the record when the call is finished.
    pub fn on_event(&mut self, event: &Event) -> Option<StoredCall> {
        if let Some(progress) = &mut self.progress {
            progress.apply(event);
        }
        match &event.kind {
            EventKind::Deltas(deltas) | EventKind::BufferedDeltas(deltas) => {
                for delta in deltas {
                    self.accumulator.add(delta, self.transcript.is_some());
                }
            }
            EventKind::Failed { record, .. } => {
                let used = self.accumulator.current_usage(self.prompt_tokens);
                self.attempt_usage.extend(used.map(|usage| (record.sent_at, record.target.id.clone(), usage)));
                self.accumulator.reset_after_failure(&record.target, self.prompt_tokens);
            }
            EventKind::Finished(outcome) => return Some(self.finish((**outcome).clone())),
            EventKind::Restarted => {
                (self.accumulator, self.attempt_usage) = Default::default();
                self.progress = Some(CallProgress::new(event.at));
            }
            EventKind::Started(_) | EventKind::FirstToken(_) | EventKind::Notice(_) => {}
        }
        None
    }

    /// Stops the call. Returns its record, because its output so far is billed; `None` if it was finished.
    pub fn stop(&mut self) -> Option<StoredCall> {
        let progress = self.progress.take()?;
        Some(self.finish(progress.into_interrupted_outcome(Instant::now())))
    }

    fn finish(&mut self, outcome: CallRecord) -> StoredCall {
        self.progress = None;
        let mut account = std::mem::take(&mut self.accumulator);
        let own = account.usage(&outcome, self.prompt_tokens).filter(|_| outcome.result.is_ok());
        let own = own.or_else(|| account.current_usage(self.prompt_tokens));
        let last = outcome.attempts.last().zip(own);
        self.attempt_usage.extend(last.map(|(attempt, usage)| (attempt.sent_at, attempt.target.id.clone(), usage)));
        account.finish(&outcome, self.prompt_tokens);
        let said = self.transcript.clone().map(|prompt| Transcript {
            answer: [account.answer.text.as_str(), account.answer.refusal.as_str()].concat(),
            reasoning: account.answer.reasoning.clone(),
            ..prompt
        });
        StoredCall {
            at: Timestamp::now().checked_sub(outcome.total).unwrap_or_default(),
            command: "",
            client: None,
            index: 0,
            requested: self.requested.clone(),
            is_route: self.is_route,
            usage: account.usage(&outcome, self.prompt_tokens),
            attempt_usage: usage_by_attempt(&outcome.attempts, std::mem::take(&mut self.attempt_usage)),
            record: outcome,
            transcript: said,
        }
    }
}

/// The usage of each attempt; `None` for attempts without output.
fn usage_by_attempt(attempts: &[AttemptRecord], mut used: Vec<(Timestamp, TargetId, Usage)>) -> Vec<Option<Usage>> {
    let take = |attempt: &AttemptRecord| {
        let index = used.iter().position(|(at, target, _)| *at == attempt.sent_at && *target == attempt.target.id)?;
        Some(used.remove(index).2)
    };
    attempts.iter().map(take).collect()
}

/// The prompt of a request, for the record.
fn request_transcript(call: &ModelRequest) -> Transcript {
    let Some(chat) = call.as_chat() else { return Transcript::default() };
    let text = |role| chat.messages.iter().rfind(|message| message.role == role).map(Message::joined_text);
    let last = chat.messages.iter().rfind(|message| message.role == Role::User);
    let images = last.map_or(0, |message| message.parts.iter().filter(|part| matches!(part, Part::Image(_))).count());
    Transcript {
        system: text(Role::System),
        prompt: text(Role::User).unwrap_or_default(),
        image_count: images,
        ..Transcript::default()
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use super::*;
    use crate::{
        model::{ErrorClass, target::testing},
        protocol::CallError,
    };

    #[test]
    fn usage_is_assigned_to_its_attempt() {
        let (a, b) = (Arc::new(testing::target("a")), Arc::new(testing::target("b")));
        let at = |second| Timestamp::from_second(second).expect("valid time");
        let sent = |target: &Arc<_>, second| AttemptRecord::new(Arc::clone(target), at(second), Duration::ZERO);
        // A filtered request is billed although it has no output.
        let filtered = AttemptRecord { error: Some(CallError::new(ErrorClass::Filter, "no")), ..sent(&a, 1) };
        let attempts = [filtered, sent(&a, 2), sent(&b, 3)];
        let tokens = |output| Usage { output: Some(output), ..Usage::default() };
        let used = vec![(at(1), a.id.clone(), tokens(1)), (at(3), b.id.clone(), tokens(3))];
        assert_eq!(usage_by_attempt(&attempts, used), [Some(tokens(1)), None, Some(tokens(3))]);
    }
}
