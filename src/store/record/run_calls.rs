//! Builds the stored call of each finished call of a run, with its prompt and answer if they are stored.

use std::sync::Arc;

use super::{StoredCall, Transcript};
use crate::engine::{
    CallRecord, Event, EventKind,
    plan::{Call, Plan},
};

/// The calls of one run, as they are stored.
#[derive(Debug)]
pub struct RunCalls {
    command: &'static str,
    stores_content: bool,
    /// The transcript of each call without its answer; `None` if content is not stored.
    transcripts: Vec<Option<Transcript>>,
}

impl RunCalls {
    /// The calls of `plan`, run by `command`. They must retain their text if content is stored.
    #[must_use]
    pub fn new(command: &'static str, stores_content: bool, plan: &Plan) -> Self {
        let transcript = |call: &Call| stores_content.then(|| Transcript::of_request(&call.request));
        Self { command, stores_content, transcripts: plan.calls.iter().map(transcript).collect() }
    }

    /// The stored call, if `event` ends a call that is recorded.
    #[must_use]
    pub fn stored_call(&self, event: &Event) -> Option<Box<StoredCall>> {
        let EventKind::Finished(record) = &event.kind else { return None };
        let transcript = self.transcripts.get(event.call)?;
        self.is_recorded(record).then(|| {
            Box::new(StoredCall {
                record: Arc::clone(record),
                command: self.command,
                client: None,
                index: event.call,
                transcript: transcript.clone().map(|transcript| transcript.with_answer(record)),
            })
        })
    }

    /// A call without an attempt is not recorded, unless it is one of several answers: it has a number in the round.
    fn is_recorded(&self, record: &CallRecord) -> bool {
        !record.attempts.is_empty() || self.transcripts.len() > 1 && self.stores_content
    }
}
