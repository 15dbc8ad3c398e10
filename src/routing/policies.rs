//! The policies of retries, failover, circuit breakers, cooldowns and hedge requests, as data with defaults.
//!
//! The functions of this layer get them as parameters; `engine` holds one [`Policies`].

use std::time::Duration;

pub use super::{
    attempt_budget::{AttemptPolicy, RetryBudgetPolicy},
    breaker::{BreakerPolicy, TripPolicy},
    cooldown::{CooldownDuration, CooldownPolicy},
    decision::RetryPolicy,
    health::{HealthPolicy, ProbePolicy, StallPolicy},
    hedge::HedgePolicy,
    last_resort::LastResortPolicy,
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
    /// The retries on one model at one endpoint.
    pub retry_budget: RetryBudgetPolicy,
    /// Requests without an available candidate.
    pub last_resort: LastResortPolicy,
    /// Hedge requests.
    pub hedge: HedgePolicy,
    /// Timeouts that the config does not set.
    pub timeouts: TimeoutPolicy,
    /// The size of one answer.
    pub answer: AnswerPolicy,
}

/// How long a server waits in silence for an answer in one piece while other candidates are left.
const ONE_PIECE_TIMEOUT: Duration = Duration::from_secs(60);

impl Policies {
    /// The policies of a server, whose clients must not wait for each other.
    #[must_use]
    pub fn for_server(self) -> Self {
        let one_piece = self.timeouts.one_piece.or(Some(ONE_PIECE_TIMEOUT));
        let timeouts = TimeoutPolicy { one_piece, ..self.timeouts };
        let last_resort = LastResortPolicy { is_limited: true, ..self.last_resort };
        Self { last_resort, timeouts, ..self }
    }
}

/// Limits of one answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnswerPolicy {
    /// Maximum size in bytes, whatever it consists of; about eight million tokens.
    pub max_bytes: usize,
}

impl Default for AnswerPolicy {
    fn default() -> Self {
        Self { max_bytes: 32 * 1024 * 1024 }
    }
}

/// Timeouts for endpoints and models whose config sets none.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TimeoutPolicy {
    /// Time to the first token while other candidates are left.
    pub first_token: Duration,
    /// Time to the first token of reasoning models and at private addresses, while other candidates are left.
    pub slow_first_token: Duration,
    /// Silence while an answer in one piece is awaited and other candidates are left; `None`: only `total` applies.
    pub one_piece: Option<Duration>,
    /// Lower bound of these, as a multiple of the 95th percentile of the model's time to first token, or of its total time.
    pub first_token_p95_factor: u32,
    /// Limit of the time to the first delta, over all attempts: after it no attempt is started.
    pub search: Duration,
    /// Time between two reads after the first delta.
    pub idle: Duration,
    /// How long the usage that the request asked for is awaited after the answer: some services count it only then.
    pub usage: Duration,
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
            one_piece: None,
            first_token_p95_factor: 3,
            search: Duration::from_secs(120),
            idle: Duration::from_secs(60),
            usage: Duration::from_secs(10),
            total: Duration::from_secs(600),
            queue: Duration::from_secs(30),
        }
    }
}
