//! Routing policies: candidate order, retries, failover, circuit breakers and cooldowns.
//!
//! The policies are data and pure functions; `now` and random numbers are passed in, so that they are tested without a
//! clock. `engine` carries out the decisions.

use std::time::Duration;

use strategy::Strategy;
use strum::{EnumString, IntoStaticStr, VariantNames};

pub mod attempt_budget;
pub mod backoff;
pub mod breaker;
pub mod cooldown;
pub mod decision;
pub mod health;
pub mod hedge;
pub mod last_resort;
pub mod latency;
pub mod policies;
pub mod rate_window;
pub mod spend;
pub mod strategy;

/// How a route chooses among its models.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RoutePolicy {
    /// The strategy that orders the models.
    pub strategy: Strategy,
    /// The weights of the models under `weighted`, in the order of the models.
    pub weights: Vec<u32>,
    /// Session affinity: requests with the same affinity key go to one model while it is available.
    pub sticky: bool,
    /// Time without a first token after which a hedge request is sent to the next candidate.
    pub hedge_after: Option<Duration>,
}

/// What happens when a content filter rejects the request or ends its answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, EnumString, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "kebab-case")]
pub enum OnFilter {
    /// The call fails.
    #[default]
    Stop,
    /// The next candidate is tried.
    Next,
}

/// What happens when an answer is incomplete after part of it was shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, EnumString, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "kebab-case")]
pub enum OnIncomplete {
    /// The answer ends there, as a failure.
    #[default]
    Error,
    /// The next candidate restarts the answer, below the partial one.
    Restart,
    /// Nothing is shown until the answer is complete, so that a restart on the next candidate is invisible.
    Buffer,
}
