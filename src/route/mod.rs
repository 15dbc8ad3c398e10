//! Which target is asked next, and when not to ask again.
//!
//! Owns the rules as data and pure functions: `now` and chance are passed in, so every rule is tested without a clock.
//! Refuses I/O and the runtime; `engine` carries out what is decided here.

pub mod attempts;
pub mod backoff;
pub mod classify;
pub mod strategy;
