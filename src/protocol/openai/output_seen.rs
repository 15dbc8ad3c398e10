//! How far an answer has progressed, which decides what an error in the stream means.

/// The output seen so far, which determines the class of an error that follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum OutputSeen {
    Nothing,
    /// Reasoning, which can be discarded.
    Reasoning,
    /// Part of the answer.
    Answer,
}
