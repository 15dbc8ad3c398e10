//! What a conversation is made of: what happens, what is to be done, who takes part, what it takes.
//!
//! Owns the shapes. What follows from what is the state machine's.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use super::Answer;
use crate::{
    model::{Message, Part},
    store::record::{GoesOn, Kept},
};

/// What happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// The person said this.
    Line(String),
    /// Ctrl-C, while nobody is asked.
    Interrupted,
    /// There is nothing more to come from the person.
    Ended,
    /// A file was read.
    Attached {
        /// Its name.
        name: String,
        /// What is in it.
        part: Part,
    },
    /// Nobody could be asked.
    Unasked,
    /// Everybody who was asked is done.
    Answered {
        /// What they said, in the order of the round.
        answers: Vec<Answer>,
        /// The person stopped them.
        interrupted: bool,
        /// Where it is kept.
        kept: Option<Kept>,
    },
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Ask these, at once.
    Ask(Round),
    /// Say this.
    Tell(String),
    /// Say that something cannot be done, and what can be.
    Refuse(String, String),
    /// Read this file.
    Attach(String),
    /// Write the conversation there.
    Save(String),
    /// Put this on the clipboard.
    Copy(String),
    /// Mark this exchange as the one that is gone on with.
    Pick(i64),
    /// Show the figures.
    Stats,
    /// Show the commands.
    Help,
    /// Show whom there is to ask.
    Names,
    /// It is over; whether by Ctrl-C.
    Leave(bool),
}

/// One question to everybody.
#[derive(Clone, Debug, PartialEq)]
pub struct Round {
    /// Whom, each with all it is to see.
    pub lanes: Vec<(String, Vec<Message>)>,
    /// Where in the record the answers belong.
    pub goes_on: GoesOn,
}

/// A question and its answer, as one model knows it.
#[derive(Clone, Debug, PartialEq)]
pub struct Turn {
    /// What was asked.
    pub question: Message,
    /// What was said; nothing, where it failed.
    pub answer: String,
    /// Nothing is missing of it.
    pub is_whole: bool,
    /// Who said it.
    pub model: String,
    /// It in the record.
    pub(super) exchange: Option<i64>,
}

impl Turn {
    /// One that is kept as this exchange.
    #[must_use]
    pub fn kept(question: Message, (answer, is_whole): (String, bool), model: String, exchange: i64) -> Self {
        Self { question, answer, is_whole, model, exchange: Some(exchange) }
    }

    /// Whether there is anything in the answer.
    #[must_use]
    pub fn is_answered(&self) -> bool {
        !self.answer.trim().is_empty()
    }
}

/// A model in the conversation.
#[derive(Clone, Debug, Default)]
pub struct Member {
    /// What it is asked as.
    pub name: String,
    /// What was said so far, as it sees it.
    pub turns: Vec<Arc<Turn>>,
}

/// What a model's answers took.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sums {
    /// Answers, and failures.
    pub answers: u64,
    /// Those that are not whole.
    pub failed: u64,
    /// Tokens.
    pub input: u64,
    /// Tokens.
    pub output: u64,
    /// Some of them are our own estimate.
    pub estimated: bool,
    /// By currency.
    pub cost: BTreeMap<String, f64>,
    /// Times to the first token.
    pub ttft: Vec<Duration>,
}

impl Sums {
    pub(super) fn add(&mut self, answer: &Answer) {
        self.answers += 1;
        self.failed += u64::from(!answer.is_whole);
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
