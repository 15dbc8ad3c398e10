//! Tracks which output a response has produced, which determines the class of an error that follows.

/// The most advanced output so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum OutputSeen {
    Nothing,
    /// Reasoning, which can be discarded.
    Reasoning,
    /// Part of the answer.
    Answer,
}
