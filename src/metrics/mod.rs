//! Many figures as a few.
//!
//! Owns how times are summed up so that percentiles can be told later. Refuses to know what was timed, and to keep it.

mod spread;

pub use spread::Spread;
