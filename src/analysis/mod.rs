//! What several answers have in common, without asking a model: equal ones, likeness, numbers, words, votes.
//!
//! Pure functions of texts. Refuses to know where texts are from and how results are shown.

pub mod diff;
pub mod numeric;
mod tokenize;
pub mod vote;

pub use diff::{Change, Difference, changes};
pub use vote::{Kind, Vote};
