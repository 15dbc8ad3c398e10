//! Which target is asked next, and when not to ask again.
//!
//! Owns the rules as data and pure functions: `now` and chance are passed in, so every rule is tested without a clock.
//! Refuses I/O and the runtime; `engine` carries out what is decided here.

pub mod attempts;
pub mod backoff;
pub mod classify;
pub mod strategy;

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
