//! The wall clock.

use std::sync::Arc;

use jiff::Timestamp;
use tokio::time::Instant;

/// Reads the wall clock at the moment: it moves on while a machine is suspended, and may be set in both directions.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> Timestamp + Send + Sync>);

impl Clock {
    /// A clock that shows the result of `read`.
    pub fn new(read: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        Self(Arc::new(read))
    }

    /// A clock that follows the time of the runtime, for simulations: that time may be paused.
    #[must_use]
    pub fn of_runtime() -> Self {
        let (at, start) = (Timestamp::now(), Instant::now());
        Self::new(move || at.checked_add(start.elapsed()).unwrap_or(Timestamp::MAX))
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

impl Default for Clock {
    /// The clock of the system; in unit tests, whose time is mostly paused, that of the runtime.
    fn default() -> Self {
        if cfg!(test) { Self::of_runtime() } else { Self::new(Timestamp::now) }
    }
}
