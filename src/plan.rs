//! From the names a person asked for to what is run: lanes, each a call and the targets that may answer it.
//!
//! Owns the look-up of names. Refuses to know how lanes run or what they print.

use std::{sync::Arc, time::Duration};

use crate::{chat::Call, target::Target};

/// Everything one command asks for at once.
#[derive(Clone, Debug)]
pub struct Plan {
    /// One answer each.
    pub lanes: Vec<Lane>,
}

/// One answer to be produced.
#[derive(Clone, Debug)]
pub struct Lane {
    /// What it was asked for as: a model, a route, or `endpoint/id`.
    pub name: String,
    /// The request.
    pub call: Call,
    /// The targets that may answer, in order; never empty.
    pub candidates: Vec<Arc<Target>>,
    /// What happens when an answer breaks off after it was shown.
    pub on_cut: OnCut,
    /// A filter's refusal goes on to the next candidate.
    pub filter_goes_on: bool,
    /// For the whole lane; only time spent waiting for the network counts.
    pub deadline: Option<Duration>,
}

/// What happens when an answer breaks off after some of it was shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnCut {
    /// It ends there, as a failure.
    #[default]
    Error,
    /// The next candidate starts again, below what was shown.
    Restart,
    /// Nothing is shown until the answer is whole, so that the next candidate can start unnoticed.
    Buffer,
}
