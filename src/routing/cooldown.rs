//! Decides what a failed attempt means for the health of its endpoint, model and key: a failure of a breaker, or a
//! cooldown. The table is in `docs/errors.md`; `protocol::error::classify` gives the class of an error.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{model::ErrorClass, protocol::CallError};

/// The effect of a failure on the health of endpoint, model and key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HealthEffect {
    /// Counts as a failure of the model at this endpoint.
    ModelFailure,
    /// Counts as a connection failure of the endpoint.
    EndpointUnreachable,
    /// Starts a cooldown.
    Cooldown {
        /// What the cooldown applies to.
        scope: CooldownScope,
        /// What requests may still be sent during it.
        kind: CooldownKind,
        /// The duration that the service requests.
        requested: Option<Duration>,
        /// The duration if the service requests none.
        time: CooldownDuration,
    },
}

/// What a cooldown means for requests that have no other candidate; see `last_resort`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CooldownKind {
    /// Soft: the service is busy and named no time.
    #[default]
    Backoff,
    /// Soft: the service named the time of the next request.
    RetryAfter,
    /// Hard: requests fail until someone changes something, such as the key or the balance of the account.
    Hard,
}

/// What a cooldown applies to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CooldownScope {
    /// The endpoint, with all its models.
    Endpoint,
    /// The endpoint, for requests of the same operation. For chats, this is the endpoint itself.
    Operation,
    /// The model at the endpoint, with every key.
    Model,
    /// The key at the endpoint, for every model.
    Key,
    /// The key, for this model only.
    KeyForModel,
}

/// The duration of a cooldown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CooldownDuration {
    /// The first duration; doubled each time, up to `max`.
    pub initial: Duration,
    /// The maximum duration.
    pub max: Duration,
}

impl CooldownDuration {
    /// The same duration each time.
    #[must_use]
    pub const fn fixed(time: Duration) -> Self {
        Self { initial: time, max: time }
    }
}

/// The durations of cooldowns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CooldownPolicy {
    /// After class `rate`.
    pub rate: CooldownDuration,
    /// After class `quota`.
    pub quota: CooldownDuration,
    /// After class `auth`.
    pub auth: CooldownDuration,
    /// After classes `no-channel`, `forbidden` and `model`.
    pub access: CooldownDuration,
    /// After class `path`.
    pub path: CooldownDuration,
    /// After class `redirect`.
    pub redirect: CooldownDuration,
    /// Minimum cooldown that a service can request: services that send `Retry-After: 0` do not accept an immediate
    /// retry either.
    pub min_retry_after: Duration,
    /// Maximum cooldown that a service can request.
    pub max_retry_after: Duration,
    /// Maximum duration of any cooldown.
    pub max: Duration,
}

impl Default for CooldownPolicy {
    fn default() -> Self {
        const SECOND: Duration = Duration::from_secs(1);
        const MINUTE: Duration = Duration::from_secs(60);
        Self {
            rate: CooldownDuration { initial: 5 * SECOND, max: MINUTE },
            quota: CooldownDuration { initial: 10 * MINUTE, max: 60 * MINUTE },
            auth: CooldownDuration::fixed(10 * MINUTE),
            access: CooldownDuration::fixed(10 * MINUTE),
            path: CooldownDuration { initial: 30 * SECOND, max: 10 * MINUTE },
            redirect: CooldownDuration::fixed(10 * MINUTE),
            min_retry_after: SECOND,
            max_retry_after: 300 * SECOND,
            max: 60 * MINUTE,
        }
    }
}

/// The effect of `error` on the health of endpoint, model and key; `None` if the cause is the request or mmchat itself.
#[must_use]
pub fn health_effect(policy: &CooldownPolicy, error: &CallError, now: Timestamp) -> Option<HealthEffect> {
    use ErrorClass as C;
    if error.request_specific {
        return None;
    }
    let hard = |scope, time| HealthEffect::Cooldown { scope, kind: CooldownKind::Hard, requested: None, time };
    let requested = error
        .retry_after
        .as_ref()
        .map(|retry_after| retry_after.delay_from(now).clamp(policy.min_retry_after, policy.max_retry_after));
    Some(match error.class {
        C::Connect => HealthEffect::EndpointUnreachable,
        C::Overloaded if requested.is_some() => HealthEffect::Cooldown {
            scope: CooldownScope::Model,
            kind: CooldownKind::RetryAfter,
            requested,
            time: policy.rate,
        },
        C::Overloaded
        | C::Reset
        | C::Timeout
        | C::Server
        | C::GatewayTimeout
        | C::Conflict
        | C::Blocked
        | C::InvalidResponse
        | C::InStream
        | C::Incomplete
        | C::InvalidChunk => HealthEffect::ModelFailure,
        C::Rate => {
            let kind = if requested.is_some() { CooldownKind::RetryAfter } else { CooldownKind::Backoff };
            HealthEffect::Cooldown { scope: CooldownScope::KeyForModel, kind, requested, time: policy.rate }
        }
        C::Quota => hard(CooldownScope::Key, policy.quota),
        // A key that could not be read was not rejected by the service: the next request reads it again.
        C::Auth if error.status.is_none() => return None,
        C::Auth => hard(CooldownScope::Key, policy.auth),
        C::NoChannel => hard(CooldownScope::Model, policy.access),
        // Another key may have access.
        C::Forbidden | C::Model => hard(CooldownScope::KeyForModel, policy.access),
        C::Path => hard(CooldownScope::Operation, policy.path),
        C::Redirect => hard(CooldownScope::Endpoint, policy.redirect),
        C::Context | C::TooLarge | C::Filter | C::Request | C::Spend | C::LocalLimit => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{RetryAfter, RetryWhen};

    fn now() -> Timestamp {
        "2026-01-01T00:00:00Z".parse().expect("valid timestamp")
    }

    fn error_with_retry_after(class: ErrorClass, seconds: u64) -> CallError {
        let retry_after = RetryAfter { raw: String::new(), when: RetryWhen::After(Duration::from_secs(seconds)) };
        CallError { retry_after: Some(retry_after), ..CallError::new(class, "") }
    }

    #[test]
    fn health_effect_for_each_class() {
        use ErrorClass as C;
        let seconds = Duration::from_secs;
        let minutes = |minutes: u64| seconds(minutes * 60);
        let cooldown = |scope, kind, initial, max| {
            Some(HealthEffect::Cooldown { scope, kind, requested: None, time: CooldownDuration { initial, max } })
        };
        let hard = |scope, initial, max| cooldown(scope, CooldownKind::Hard, initial, max);
        for &class in C::ALL {
            let want = match class {
                C::Connect => Some(HealthEffect::EndpointUnreachable),
                C::Rate => cooldown(CooldownScope::KeyForModel, CooldownKind::Backoff, seconds(5), minutes(1)),
                C::Quota => hard(CooldownScope::Key, minutes(10), minutes(60)),
                C::Auth => hard(CooldownScope::Key, minutes(10), minutes(10)),
                C::NoChannel => hard(CooldownScope::Model, minutes(10), minutes(10)),
                C::Forbidden | C::Model => hard(CooldownScope::KeyForModel, minutes(10), minutes(10)),
                C::Path => hard(CooldownScope::Operation, seconds(30), minutes(10)),
                C::Redirect => hard(CooldownScope::Endpoint, minutes(10), minutes(10)),
                C::Context | C::TooLarge | C::Filter | C::Request | C::Spend | C::LocalLimit => None,
                _ => Some(HealthEffect::ModelFailure),
            };
            let error = CallError { status: Some(401), ..CallError::new(class, "") };
            assert_eq!(health_effect(&CooldownPolicy::default(), &error, now()), want, "{class}");
        }
        assert_eq!(health_effect(&CooldownPolicy::default(), &CallError::new(C::Auth, "not set"), now()), None);
        let specific = CallError { request_specific: true, ..CallError::new(C::Quota, "the prompt is too expensive") };
        assert_eq!(health_effect(&CooldownPolicy::default(), &specific, now()), None);
    }

    #[test]
    fn cooldown_follows_retry_after_within_limits() {
        let cooldown_secs = |class, seconds| match health_effect(
            &CooldownPolicy::default(),
            &error_with_retry_after(class, seconds),
            now(),
        ) {
            Some(HealthEffect::Cooldown { kind: CooldownKind::RetryAfter, requested: Some(requested), .. }) => {
                requested.as_secs()
            }
            other => panic!("{other:?}"),
        };
        assert_eq!((cooldown_secs(ErrorClass::Overloaded, 3), cooldown_secs(ErrorClass::Rate, 42)), (3, 42));
        assert_eq!((cooldown_secs(ErrorClass::Rate, 86_400), cooldown_secs(ErrorClass::Rate, 0)), (300, 1));
    }
}
