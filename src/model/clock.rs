//! The wall clock.

use std::sync::Arc;

use jiff::Timestamp;

/// Reads the wall clock at the moment: it moves on while a machine is suspended, and may be set in both directions. Tests
/// replace it.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> Timestamp + Send + Sync>);

impl Clock {
    /// A clock that shows the result of `read`.
    pub fn new(read: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        Self(Arc::new(read))
    }

    /// The current time.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        (self.0)()
    }
}

impl std::fmt::Debug for Clock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Clock")
    }
}

#[cfg(not(test))]
impl Default for Clock {
    /// The clock of the system.
    fn default() -> Self {
        Self::new(Timestamp::now)
    }
}

#[cfg(test)]
impl Default for Clock {
    /// A clock that follows the time of the runtime, which may be paused.
    fn default() -> Self {
        let (at, start) = (Timestamp::now(), tokio::time::Instant::now());
        Self::new(move || at.checked_add(start.elapsed()).unwrap_or(Timestamp::MAX))
    }
}
