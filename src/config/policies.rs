//! The keys of `[retry]` and `[availability]`: the numbers of `routing::policies`.

#[cfg(feature = "schema")]
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::values::{DurationEntry, Spanned, nonzero_duration};
use crate::routing::policies::Policies;

/// How often requests are repeated, and for how long.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RetryEntry {
    /// Maximum models that one request tries; default 8.
    pub max_candidates: Option<Spanned<u32>>,
    /// Retries on the same endpoint before the next model is tried; default 1.
    pub retries: Option<Spanned<u32>>,
    /// Further attempts when all models have failed with errors that may pass; default 2.
    pub further_attempts: Option<Spanned<u32>>,
    /// Maximum attempts of a request for which no model is available; default 2.
    pub restricted_attempts: Option<Spanned<u32>>,
    /// Maximum changes to a request that a model refuses; default 5.
    pub workarounds: Option<Spanned<u32>>,
    /// The longest wait before the first further attempt; doubled for the next one; default 500 ms.
    pub backoff: Option<DurationEntry>,
    /// Maximum retries on one model at one endpoint, in percent of the requests to it in the last 10 s; default 20.
    pub budget_percent: Option<Spanned<u32>>,
    /// Retries on one model at one endpoint in 10 s that are always allowed; default 3.
    pub budget_min: Option<Spanned<u32>>,
    /// Maximum hedge requests of routes with `hedge_after`, in percent of the requests; default 5.
    pub hedge_percent: Option<Spanned<u32>>,
    /// Time to the first token while another available model is left, unless `timeouts` sets one; default 10 s.
    #[serde(default, deserialize_with = "nonzero_duration")]
    pub first_token: Option<DurationEntry>,
    /// The same for reasoning models and for loopback and private addresses; default 60 s.
    #[serde(default, deserialize_with = "nonzero_duration")]
    pub slow_first_token: Option<DurationEntry>,
    /// Silence while an answer in one piece is awaited and another available model is left; default 60 s with
    /// `mmchat serve`, else none.
    #[serde(default, deserialize_with = "nonzero_duration")]
    pub one_piece: Option<DurationEntry>,
    /// How long the usage that a request asks for is awaited after the answer; default 10 s.
    pub usage: Option<DurationEntry>,
    /// No attempt is started after this time without an answer; default 120 s.
    #[serde(default, deserialize_with = "nonzero_duration")]
    pub search: Option<DurationEntry>,
    /// The longest Retry-After that a request waits for, once; default 20 s with `mmchat serve`, else 60 s.
    pub max_wait: Option<DurationEntry>,
    /// Maximum requests that wait for one model at one endpoint; default 64.
    pub max_waiting: Option<Spanned<u32>>,
}

/// When models are tried last, and what requests without an available model do.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub(crate) struct AvailabilityEntry {
    /// Failures in a row that open the circuit breaker of a model; default 3.
    pub failures: Option<Spanned<u32>>,
    /// Or failures within `window`, if they are at least half of the calls; default 5.
    pub window_failures: Option<Spanned<u32>>,
    /// The time for `window_failures`; default 30 s.
    #[serde(default, deserialize_with = "nonzero_duration")]
    pub window: Option<DurationEntry>,
    /// Failed connections in a row that open the circuit breaker of an endpoint; default 2.
    pub endpoint_failures: Option<Spanned<u32>>,
    /// How long a circuit breaker is open the first time; doubled each time; default 5 s.
    #[serde(default, deserialize_with = "nonzero_duration")]
    pub open: Option<DurationEntry>,
    /// The longest time that a circuit breaker is open; default 20 s.
    #[serde(default, deserialize_with = "nonzero_duration")]
    pub max_open: Option<DurationEntry>,
    /// Without a first token of a probe after this time, the next model is tried beside it; default 1 s.
    #[serde(default, deserialize_with = "nonzero_duration")]
    pub probe_hedge_after: Option<DurationEntry>,
    /// Requests that wait too long for their first token before a model is tried last; default 3.
    pub stalled_requests: Option<Spanned<u32>>,
    /// How long these have waited at least; default 1 s.
    #[serde(default, deserialize_with = "nonzero_duration")]
    pub stalled_after: Option<DurationEntry>,
    /// Cooldown after a rate limit without Retry-After; doubled each time; default 5 s.
    #[serde(default, deserialize_with = "nonzero_duration")]
    pub rate_cooldown: Option<DurationEntry>,
    /// The longest such cooldown; default 60 s.
    #[serde(default, deserialize_with = "nonzero_duration")]
    pub max_rate_cooldown: Option<DurationEntry>,
    /// Cooldown of a key whose account is used up; doubled each time; default 10 min.
    #[serde(default, deserialize_with = "nonzero_duration")]
    pub quota_cooldown: Option<DurationEntry>,
    /// The longest such cooldown; default 1 h.
    #[serde(default, deserialize_with = "nonzero_duration")]
    pub max_quota_cooldown: Option<DurationEntry>,
    /// Cooldown of a rejected key; default 10 min.
    #[serde(default, deserialize_with = "nonzero_duration")]
    pub auth_cooldown: Option<DurationEntry>,
    /// Cooldown of a model that is unknown, forbidden or not served; default 10 min.
    #[serde(default, deserialize_with = "nonzero_duration")]
    pub access_cooldown: Option<DurationEntry>,
    /// Cooldown of an endpoint without an API at its URL; doubled each time; default 30 s.
    #[serde(default, deserialize_with = "nonzero_duration")]
    pub path_cooldown: Option<DurationEntry>,
    /// The longest such cooldown; default 10 min.
    #[serde(default, deserialize_with = "nonzero_duration")]
    pub max_path_cooldown: Option<DurationEntry>,
    /// Cooldown of an endpoint that redirects to another server; default 10 min.
    #[serde(default, deserialize_with = "nonzero_duration")]
    pub redirect_cooldown: Option<DurationEntry>,
    /// The longest Retry-After that is used; default 300 s.
    #[serde(default, deserialize_with = "nonzero_duration")]
    pub max_retry_after: Option<DurationEntry>,
    /// With `mmchat serve`, when no model is available: time between two requests to a model after a rate limit
    /// without Retry-After; default 1 s.
    pub rate_interval: Option<DurationEntry>,
    /// The same for rejected keys, used-up accounts, unknown models and URLs; default 5 s.
    pub hard_interval: Option<DurationEntry>,
    /// The same for a model that asked for a longer wait than `max_wait`; default 10 s.
    pub retry_after_interval: Option<DurationEntry>,
}

impl RetryEntry {
    /// These settings, with those of `lower` where none is set.
    pub(super) fn or(self, lower: Self) -> Self {
        Self {
            max_candidates: self.max_candidates.or(lower.max_candidates),
            retries: self.retries.or(lower.retries),
            further_attempts: self.further_attempts.or(lower.further_attempts),
            restricted_attempts: self.restricted_attempts.or(lower.restricted_attempts),
            workarounds: self.workarounds.or(lower.workarounds),
            backoff: self.backoff.or(lower.backoff),
            budget_percent: self.budget_percent.or(lower.budget_percent),
            budget_min: self.budget_min.or(lower.budget_min),
            hedge_percent: self.hedge_percent.or(lower.hedge_percent),
            first_token: self.first_token.or(lower.first_token),
            slow_first_token: self.slow_first_token.or(lower.slow_first_token),
            one_piece: self.one_piece.or(lower.one_piece),
            usage: self.usage.or(lower.usage),
            search: self.search.or(lower.search),
            max_wait: self.max_wait.or(lower.max_wait),
            max_waiting: self.max_waiting.or(lower.max_waiting),
        }
    }
}

impl AvailabilityEntry {
    /// These settings, with those of `lower` where none is set.
    pub(super) fn or(self, lower: Self) -> Self {
        Self {
            failures: self.failures.or(lower.failures),
            window_failures: self.window_failures.or(lower.window_failures),
            window: self.window.or(lower.window),
            endpoint_failures: self.endpoint_failures.or(lower.endpoint_failures),
            open: self.open.or(lower.open),
            max_open: self.max_open.or(lower.max_open),
            probe_hedge_after: self.probe_hedge_after.or(lower.probe_hedge_after),
            stalled_requests: self.stalled_requests.or(lower.stalled_requests),
            stalled_after: self.stalled_after.or(lower.stalled_after),
            rate_cooldown: self.rate_cooldown.or(lower.rate_cooldown),
            max_rate_cooldown: self.max_rate_cooldown.or(lower.max_rate_cooldown),
            quota_cooldown: self.quota_cooldown.or(lower.quota_cooldown),
            max_quota_cooldown: self.max_quota_cooldown.or(lower.max_quota_cooldown),
            auth_cooldown: self.auth_cooldown.or(lower.auth_cooldown),
            access_cooldown: self.access_cooldown.or(lower.access_cooldown),
            path_cooldown: self.path_cooldown.or(lower.path_cooldown),
            max_path_cooldown: self.max_path_cooldown.or(lower.max_path_cooldown),
            redirect_cooldown: self.redirect_cooldown.or(lower.redirect_cooldown),
            max_retry_after: self.max_retry_after.or(lower.max_retry_after),
            rate_interval: self.rate_interval.or(lower.rate_interval),
            hard_interval: self.hard_interval.or(lower.hard_interval),
            retry_after_interval: self.retry_after_interval.or(lower.retry_after_interval),
        }
    }
}

impl From<&Policies> for RetryEntry {
    fn from(policies: &Policies) -> Self {
        Self {
            max_candidates: Some(count(policies.attempts.max_candidates)),
            retries: Some(count(policies.attempts.retries)),
            further_attempts: Some(count(policies.attempts.further_attempts)),
            restricted_attempts: Some(count(policies.attempts.restricted_attempts)),
            workarounds: Some(count(policies.attempts.workarounds)),
            backoff: Some(DurationEntry(policies.retry.backoff)),
            budget_percent: Some(policies.retry_budget.max_percent.into()),
            budget_min: Some(count(policies.retry_budget.min_retries)),
            hedge_percent: Some(policies.hedge.percent.into()),
            first_token: Some(DurationEntry(policies.timeouts.first_token)),
            slow_first_token: Some(DurationEntry(policies.timeouts.slow_first_token)),
            one_piece: policies.timeouts.one_piece.map(DurationEntry),
            usage: Some(DurationEntry(policies.timeouts.usage)),
            search: Some(DurationEntry(policies.timeouts.search)),
            max_wait: policies.last_resort.max_wait.map(DurationEntry),
            max_waiting: Some(count(policies.last_resort.max_waiting)),
        }
    }
}

impl From<&Policies> for AvailabilityEntry {
    fn from(policies: &Policies) -> Self {
        Self {
            failures: Some(policies.health.breaker.model.consecutive_failures.into()),
            window_failures: policies.health.breaker.model.window_failures.map(Into::into),
            window: Some(DurationEntry(policies.health.breaker.window)),
            endpoint_failures: Some(policies.health.breaker.endpoint.consecutive_failures.into()),
            open: Some(DurationEntry(policies.health.breaker.initial_open)),
            max_open: Some(DurationEntry(policies.health.breaker.max_open)),
            probe_hedge_after: Some(DurationEntry(policies.health.probe.hedge_after)),
            stalled_requests: Some(count(policies.health.stall.requests)),
            stalled_after: Some(DurationEntry(policies.health.stall.min_wait)),
            rate_cooldown: Some(DurationEntry(policies.health.cooldown.rate.initial)),
            max_rate_cooldown: Some(DurationEntry(policies.health.cooldown.rate.max)),
            quota_cooldown: Some(DurationEntry(policies.health.cooldown.quota.initial)),
            max_quota_cooldown: Some(DurationEntry(policies.health.cooldown.quota.max)),
            auth_cooldown: Some(DurationEntry(policies.health.cooldown.auth.initial)),
            access_cooldown: Some(DurationEntry(policies.health.cooldown.access.initial)),
            path_cooldown: Some(DurationEntry(policies.health.cooldown.path.initial)),
            max_path_cooldown: Some(DurationEntry(policies.health.cooldown.path.max)),
            redirect_cooldown: Some(DurationEntry(policies.health.cooldown.redirect.initial)),
            max_retry_after: Some(DurationEntry(policies.health.cooldown.max_retry_after)),
            rate_interval: Some(DurationEntry(policies.last_resort.rate_interval)),
            hard_interval: Some(DurationEntry(policies.last_resort.hard_interval)),
            retry_after_interval: Some(DurationEntry(policies.last_resort.retry_after_interval)),
        }
    }
}

fn count(number: usize) -> Spanned<u32> {
    u32::try_from(number).unwrap_or(u32::MAX).into()
}
