//! The states of models, endpoints and keys that `mmchat status` and `GET /status` show.

use std::str::FromStr;

use jiff::Timestamp;

use super::{Availability, HealthSnapshot};
use crate::model::ErrorClass;

/// Why requests are sent or not. The names are documented in `docs/errors.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::IntoStaticStr)]
#[strum(serialize_all = "kebab-case")]
pub enum HealthState {
    /// Requests are sent.
    Available,
    /// The service reported a rate limit or an overload.
    Cooldown,
    /// The next request is the probe, or the probe is in flight.
    HalfOpen,
    /// The circuit breaker is open after repeated failures.
    Open,
    /// A key was rejected or is out of quota, or the model or URL is wrong.
    Unavailable,
}

impl HealthState {
    /// Name, as shown in tables and JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

impl HealthSnapshot {
    /// The state to show for `availability`, which was read from this snapshot at `now`.
    #[must_use]
    pub fn state(&self, availability: Availability, now: Timestamp) -> HealthState {
        let (until, cause) = match availability {
            Availability::Closed => return HealthState::Available,
            Availability::HalfOpen => return HealthState::HalfOpen,
            Availability::Open { until, cause } => (until, cause),
        };
        let Some(entry) = self.entries.get(&cause) else { return HealthState::Open };
        if entry.cooldown.as_ref().is_some_and(|cooldown| cooldown.until == until) {
            let class = entry.last_error.as_ref().and_then(|error| ErrorClass::from_str(&error.class).ok());
            return match class {
                Some(ErrorClass::Rate | ErrorClass::Overloaded) => HealthState::Cooldown,
                _ => HealthState::Unavailable,
            };
        }
        if entry.probe_expiry(now) == Some(until) { HealthState::HalfOpen } else { HealthState::Open }
    }
}
