//! Records every call in SQLite: request, result, times, tokens and cost, and optionally the prompt and answer.
//!
//! A [`RecordWriter`] sends finished calls to one background thread, which opens the [`Database`] and writes them.
//! `stats`, `history` and `spend` read the database. A record that cannot be written causes a warning; it never fails an
//! answer.

mod convert;
mod database;
mod history;
mod insert;
mod placement;
mod rollup;
mod run_calls;
mod spend;
mod stats;
mod writer;

use std::sync::Arc;

pub use database::{Database, RecordError};
pub use history::{ConversationLayout, ConversationSummary, SearchHit, StoredTurn};
pub use placement::{Continuation, RunPlacement, StoredRound};
pub use run_calls::RunCalls;
pub use spend::SqliteSpendLedger;
pub use stats::{GroupBy, GroupMetrics, Since, StatsRow};
pub use writer::{RecordWriter, WhenFull, WritePolicy};

use crate::{
    engine::CallRecord,
    model::{Message, ModelRequest, Part, Role},
};

/// A finished call as it is stored.
#[derive(Clone, Debug)]
pub struct StoredCall {
    /// The record of the call.
    pub record: Arc<CallRecord>,
    /// The command that made the call.
    pub command: &'static str,
    /// The name of the client key, for calls through `serve`.
    pub client: Option<String>,
    /// The index of the call in its plan, from 0.
    pub index: usize,
    /// Prompt and answer; `None` if content is not stored, and then error messages are not stored either.
    pub transcript: Option<Transcript>,
}

/// The stored content of a call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transcript {
    /// The system prompt.
    pub system: Option<String>,
    /// The last user message.
    pub prompt: String,
    /// The number of images in the user message.
    pub image_count: usize,
    /// The answer.
    pub answer: String,
    /// The reasoning of the model.
    pub reasoning: String,
}

impl Transcript {
    /// The prompt of a request.
    #[must_use]
    pub fn of_request(request: &ModelRequest) -> Self {
        let Some(chat) = request.as_chat() else { return Self::default() };
        let text = |role| chat.messages.iter().rfind(|message| message.role == role).map(Message::joined_text);
        let user_message = chat.messages.iter().rfind(|message| message.role == Role::User);
        let is_image = |part: &&Part| matches!(part, Part::Image(_));
        Self {
            system: text(Role::System),
            prompt: text(Role::User).unwrap_or_default(),
            image_count: user_message.map_or(0, |message| message.parts.iter().filter(is_image).count()),
            ..Self::default()
        }
    }

    /// The prompt with the answer of `record`.
    #[must_use]
    pub fn with_answer(self, record: &CallRecord) -> Self {
        let answer = &record.answer.content;
        Self {
            answer: [answer.text.as_str(), answer.refusal.as_str()].concat(),
            reasoning: answer.reasoning.clone(),
            ..self
        }
    }
}

#[cfg(test)]
mod tests;
