//! The policy of circuit breakers, cooldowns, probes and stalled models, as data with defaults.

use std::time::Duration;

use crate::routing::{breaker::BreakerPolicy, cooldown::CooldownPolicy};

/// The policy of circuit breakers, cooldowns and probes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HealthPolicy {
    /// Circuit breakers.
    pub breaker: BreakerPolicy,
    /// Cooldowns.
    pub cooldown: CooldownPolicy,
    /// Probes of half-open breakers.
    pub probe: ProbePolicy,
    /// Models whose requests wait too long for their first delta.
    pub stall: StallPolicy,
}

/// When a model is stalled: several requests wait for their first delta, and none arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StallPolicy {
    /// The number of waiting requests.
    pub requests: usize,
    /// How long each has waited, and how long there was no first delta: this at least,
    pub min_wait: Duration,
    /// and this multiple of the 95th percentile of the model's time to first token.
    pub p95_factor: u32,
}

impl Default for StallPolicy {
    fn default() -> Self {
        Self { requests: 3, min_wait: Duration::from_secs(1), p95_factor: 3 }
    }
}

/// The policy of probes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ProbePolicy {
    /// Maximum duration of a probe lease before it must be renewed, since its process may be killed.
    pub max_lease: Duration,
    /// Added to the first-token timeout for the lease: time before the request is sent and after its timeout.
    pub lease_margin: Duration,
    /// Without a first delta after this time, the next available candidate is tried beside the probe.
    pub hedge_after: Duration,
}

impl Default for ProbePolicy {
    fn default() -> Self {
        Self {
            max_lease: Duration::from_secs(60),
            lease_margin: Duration::from_secs(5),
            hedge_after: Duration::from_secs(1),
        }
    }
}
