//! Compares several answers without a model: equality, similarity, numbers, word diffs and votes.
//!
//! Pure functions of the texts.

pub(crate) mod diff;
pub(crate) mod numeric;
mod tokenize;
pub(crate) mod vote;

pub(crate) use diff::{AnswerComparison, DiffSegment, word_diff};
pub(crate) use vote::{Vote, VoteKind};
