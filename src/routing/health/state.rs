//! The states of models, endpoints and keys that `mmchat status` and `GET /status` show.

use super::{Availability, RestrictionKind};
use crate::routing::cooldown::CooldownKind;

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
    /// The circuit breaker is open after repeated failures, or several requests have waited long for their first token.
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

    /// The state to show for an availability.
    #[must_use]
    pub fn of(availability: Availability) -> Self {
        match availability {
            Availability::Available => Self::Available,
            Availability::HalfOpen => Self::HalfOpen,
            Availability::Restricted(restriction) => match restriction.kind {
                RestrictionKind::Probing => Self::HalfOpen,
                RestrictionKind::Stalled | RestrictionKind::Open => Self::Open,
                RestrictionKind::Cooldown(CooldownKind::Hard) => Self::Unavailable,
                RestrictionKind::Cooldown(_) => Self::Cooldown,
            },
        }
    }
}
