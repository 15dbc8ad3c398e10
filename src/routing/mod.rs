//! Which target is asked next, and when not to ask again.
//!
//! Owns the rules as data and pure functions: `now` and chance are passed in, so every rule is tested without a clock.
//! Refuses I/O and the runtime; `engine` carries out what is decided here.

use std::time::Duration;

use strategy::Strategy;

pub mod attempts;
pub mod backoff;
pub mod breaker;
pub mod classify;
pub mod health;
pub mod hedge;
pub mod latency;
pub mod spend;
pub mod strategy;

/// How a name that stands for several models chooses among them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// The order.
    pub strategy: Strategy,
    /// The models' shares under `weighted`, in their order.
    pub weights: Vec<u32>,
    /// Requests that belong together go to one model while it is well.
    pub sticky: bool,
    /// When nothing came for so long, the next one is asked, too.
    pub hedge_after: Option<Duration>,
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
