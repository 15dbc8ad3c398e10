//! What several answers have in common, without asking a model: equal ones, likeness, numbers, words, votes.
//!
//! Pure functions of texts. Refuses to know where texts are from and how results are shown.

pub mod difference;
pub mod number;
pub mod vote;
mod words;

pub use difference::{Change, Difference, changes};
pub use vote::{Kind, Vote};
