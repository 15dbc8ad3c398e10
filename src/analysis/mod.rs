//! Compares several answers without a model: equality, similarity, numbers, word diffs and votes.
//!
//! Pure functions of the texts.

pub mod diff;
pub mod numeric;
mod tokenize;
pub mod vote;

pub use diff::{AnswerComparison, DiffSegment, word_diff};
pub use vote::{Vote, VoteKind};
