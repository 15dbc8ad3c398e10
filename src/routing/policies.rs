//! The policies of retries, failover, circuit breakers, cooldowns and hedge requests, as data with defaults.
//!
//! The functions of this layer get them as parameters; `engine` holds one [`Policies`].

use std::time::Duration;

pub use super::{
    attempt_budget::{AttemptPolicy, RetryBudgetPolicy},
    breaker::{BreakerPolicy, TripPolicy},
    cooldown::{CooldownDuration, CooldownPolicy},
    decision::RetryPolicy,
    hedge::HedgePolicy,
};

/// All policies of an engine.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Policies {
    /// Circuit breakers, cooldowns and probes.
    pub health: HealthPolicy,
    /// Retries on the same endpoint.
    pub retry: RetryPolicy,
    /// The attempts of one call.
    pub attempts: AttemptPolicy,
    /// The retries of all calls together.
    pub retry_budget: RetryBudgetPolicy,
    /// Hedge requests.
    pub hedge: HedgePolicy,
    /// Timeouts that the config does not set.
    pub timeouts: TimeoutPolicy,
}

/// The policy of circuit breakers, cooldowns and probes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HealthPolicy {
    /// Circuit breakers.
    pub breaker: BreakerPolicy,
    /// Cooldowns.
    pub cooldown: CooldownPolicy,
    /// Probes of half-open breakers.
    pub probe: ProbePolicy,
}

/// The policy of probes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ProbePolicy {
    /// Maximum duration of a probe lease before it must be renewed, since its process may be killed.
    pub max_lease: Duration,
    /// Added to the first-token timeout for the lease: time before the request is sent and after its timeout.
    pub lease_margin: Duration,
    /// The longest wait for the result of the probe of another request.
    pub max_wait: Duration,
    /// If all candidates are unavailable, one is probed this long after its last failure, before its cooldown is over:
    /// without an alternative, a service that has recovered must not stay unused for minutes.
    pub early_delay: Duration,
}

impl Default for ProbePolicy {
    fn default() -> Self {
        Self {
            max_lease: Duration::from_secs(60),
            lease_margin: Duration::from_secs(5),
            max_wait: Duration::from_secs(10),
            early_delay: Duration::from_secs(5),
        }
    }
}

/// Timeouts for endpoints and models whose config sets none.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TimeoutPolicy {
    /// Time to the first token while other candidates are left.
    pub first_token: Duration,
    /// Time to the first token of reasoning models and at private addresses, while other candidates are left.
    pub slow_first_token: Duration,
    /// Lower bound of these two, as a multiple of the 95th percentile of the model's time to first token.
    pub first_token_p95_factor: u32,
    /// Limit of the time to the first delta, over all attempts: after it no attempt is started.
    pub search: Duration,
    /// Time between two reads after the first delta.
    pub idle: Duration,
    /// Time for the complete answer.
    pub total: Duration,
    /// Time in the queue of an endpoint with local limits.
    pub queue: Duration,
}

impl Default for TimeoutPolicy {
    fn default() -> Self {
        Self {
            first_token: Duration::from_secs(10),
            slow_first_token: Duration::from_secs(60),
            first_token_p95_factor: 3,
            search: Duration::from_secs(120),
            idle: Duration::from_secs(60),
            total: Duration::from_secs(600),
            queue: Duration::from_secs(30),
        }
    }
}
