//! Events, effects and data types of a chat session.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use super::Answer;
use crate::{
    model::{Message, Part},
    store::record::{Continuation, StoredRound},
};

/// An input of the state machine.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    /// An input line.
    Line(String),
    /// Ctrl-C while no round is running.
    Interrupted,
    /// The input ended.
    InputEnded,
    /// A file to attach was read.
    Attached {
        /// The name of the file.
        name: String,
        /// Its content.
        part: Part,
    },
    /// The round could not be started.
    RoundNotStarted,
    /// All models of the round have finished.
    RoundFinished {
        /// The answers, in the order of the round.
        answers: Vec<Answer>,
        /// The user interrupted the round.
        interrupted: bool,
        /// Where the answers are stored, if they are.
        stored: Option<StoredRound>,
    },
}

/// An action for the driver of the state machine.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Effect {
    /// Start a round.
    StartRound(Round),
    /// Show a message.
    ShowMessage(String),
    /// Show an error and a hint.
    ShowError(String, String),
    /// Read the file at this path to attach it.
    Attach(String),
    /// Save the conversation to this path.
    Save(String),
    /// Copy this text to the clipboard.
    Copy(String),
    /// Mark this stored turn as picked.
    Pick(i64),
    /// Show the metrics.
    ShowStats,
    /// Show the commands.
    ShowHelp,
    /// Show the available models.
    ShowModels,
    /// Quit; true if by Ctrl-C.
    Quit(bool),
}

/// One question to all models of the conversation.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Round {
    /// The name of each model and the messages it receives.
    pub calls: Vec<(String, Vec<Message>)>,
    /// How the round continues the stored conversation.
    pub continuation: Continuation,
}

/// A question and its answer, in the history of one model.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Turn {
    /// The question.
    pub question: Message,
    /// The answer; empty if it failed.
    pub answer: String,
    /// Whether the answer is complete.
    pub is_complete: bool,
    /// The model that answered.
    pub model: String,
    /// The id of the turn in the record.
    pub(super) stored_id: Option<i64>,
}

impl Turn {
    /// A turn that is stored in the record as `stored_id`.
    #[must_use]
    pub(crate) fn from_stored(
        question: Message,
        (answer, is_complete): (String, bool),
        model: String,
        stored_id: i64,
    ) -> Self {
        Self { question, answer, is_complete, model, stored_id: Some(stored_id) }
    }

    /// Whether the answer has text.
    #[must_use]
    pub(crate) fn has_answer(&self) -> bool {
        !self.answer.trim().is_empty()
    }
}

/// A model in the conversation.
#[derive(Clone, Debug, Default)]
pub(crate) struct Member {
    /// The name of the model or route.
    pub name: String,
    /// Its history.
    pub turns: Vec<Arc<Turn>>,
}

/// Totals of the answers of one model.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct ModelTotals {
    /// Answers, failed ones included.
    pub answers: u64,
    /// Answers that failed or are incomplete.
    pub failed: u64,
    /// Input tokens.
    pub input: u64,
    /// Output tokens.
    pub output: u64,
    /// Whether any token count is estimated by mmchat.
    pub estimated: bool,
    /// Cost by currency.
    pub cost: BTreeMap<String, f64>,
    /// Times to first token.
    pub ttft: Vec<Duration>,
}

impl ModelTotals {
    pub(super) fn add(&mut self, answer: &Answer) {
        self.answers += 1;
        self.failed += u64::from(!answer.is_complete);
        if let Some(usage) = &answer.usage {
            self.input += usage.input.unwrap_or_default();
            self.output += usage.output.unwrap_or_default();
            self.estimated |= usage.estimated;
        }
        if let Some((cost, currency)) = &answer.cost {
            *self.cost.entry(currency.clone()).or_default() += cost;
        }
        self.ttft.extend(answer.ttft);
    }
}
