//! Implements the table of `docs/errors.md`: the next step after a failed attempt ([`decide`]), and the effect of the
//! failure on the health of endpoint, model and key ([`health_effect`]).

use std::time::Duration;

use jiff::Timestamp;

use super::{OnFilter, backoff::jittered};
use crate::{model::ErrorClass, protocol::CallError};

/// What else can be tried when an attempt failed.
#[derive(Clone, Copy, Debug, Default)]
pub struct RetryContext {
    /// There are candidates that were not tried yet.
    pub has_more_candidates: bool,
    /// There are keys of the same endpoint that were not tried yet.
    pub has_more_keys: bool,
    /// A retry on the same endpoint is within the budget.
    pub has_retry_budget: bool,
    /// The endpoint is a gateway, which has already retried.
    pub is_gateway: bool,
    /// A content filter error fails over to the next candidate (`on_filter = "next"`).
    pub on_filter: OnFilter,
}

/// The next step after a failed attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Retry on the same endpoint after a delay.
    RetrySame {
        /// The delay.
        delay: Duration,
        /// Whether to use a new connection.
        new_connection: bool,
    },
    /// Retry on the same endpoint with its next key.
    RotateKey,
    /// Try the next candidate.
    Failover,
    /// Try the next candidate with a larger context window.
    FailoverLarger,
    /// Stop: the error is in the request, so other candidates would fail too.
    GiveUp,
}

/// The delays of retries on the same endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// The shortest and the longest delay; the delay is random in between.
    pub delay: (Duration, Duration),
    /// The same after a failed connection.
    pub connect_delay: (Duration, Duration),
    /// Assumed duration of a rate limit without Retry-After.
    pub rate_delay: Duration,
    /// Maximum delay before a retry while there are other candidates.
    pub max_short_delay: Duration,
    /// Maximum delay before the last candidate is retried; above it the error is returned.
    pub max_last_delay: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        const MS: Duration = Duration::from_millis(1);
        Self {
            delay: (300 * MS, 1000 * MS),
            connect_delay: (100 * MS, 300 * MS),
            rate_delay: 5000 * MS,
            max_short_delay: 2000 * MS,
            max_last_delay: 10_000 * MS,
        }
    }
}

/// The next step after `error`. `random` is in 0..1.
#[must_use]
pub fn decide(policy: &RetryPolicy, error: &CallError, context: RetryContext, now: Timestamp, random: f64) -> Decision {
    if context.has_more_keys && matches!(error.class, ErrorClass::Auth | ErrorClass::Quota | ErrorClass::Rate) {
        return Decision::RotateKey;
    }
    if may_retry(error, context)
        && let Some((delay, new_connection)) = retry_delay(policy, error, context, now, random)
    {
        return Decision::RetrySame { delay, new_connection };
    }
    match error.class {
        ErrorClass::Context => Decision::FailoverLarger,
        ErrorClass::Filter if context.on_filter == OnFilter::Stop => Decision::GiveUp,
        ErrorClass::Request => Decision::GiveUp,
        _ => Decision::Failover,
    }
}

/// The effect of a failure on the health of endpoint, model and key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HealthEffect {
    /// No effect: the cause is the request or mmchat itself.
    Unaffected,
    /// Counts as a failure of the model at this endpoint.
    ModelFailure,
    /// Counts as a connection failure of the endpoint.
    EndpointUnreachable,
    /// Starts a cooldown.
    Cooldown {
        /// What the cooldown applies to.
        scope: CooldownScope,
        /// The duration that the service requests.
        requested: Option<Duration>,
        /// The duration if the service requests none.
        time: CooldownTime,
    },
}

/// What a cooldown applies to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CooldownScope {
    /// The endpoint, with all its models.
    Endpoint,
    /// The model at the endpoint, with every key.
    Model,
    /// The key at the endpoint, for every model.
    Key,
    /// The key, for this model only.
    KeyForModel,
}

/// The duration of a cooldown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CooldownTime {
    /// The first duration; doubled each time, up to `max`.
    pub initial: Duration,
    /// The maximum duration.
    pub max: Duration,
}

impl CooldownTime {
    const fn fixed(time: Duration) -> Self {
        Self { initial: time, max: time }
    }
}

/// The durations of cooldowns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CooldownPolicy {
    /// After class `overloaded`.
    pub overloaded: CooldownTime,
    /// After class `rate`.
    pub rate: CooldownTime,
    /// After class `quota`.
    pub quota: CooldownTime,
    /// After class `auth`.
    pub auth: CooldownTime,
    /// After classes `no-channel`, `forbidden` and `model`.
    pub access: CooldownTime,
    /// After classes `path` and `redirect`.
    pub path: CooldownTime,
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
            overloaded: CooldownTime::fixed(10 * SECOND),
            rate: CooldownTime { initial: 5 * SECOND, max: MINUTE },
            quota: CooldownTime { initial: 10 * MINUTE, max: 60 * MINUTE },
            auth: CooldownTime::fixed(10 * MINUTE),
            access: CooldownTime::fixed(10 * MINUTE),
            path: CooldownTime::fixed(10 * MINUTE),
            min_retry_after: SECOND,
            max_retry_after: 300 * SECOND,
            max: 60 * MINUTE,
        }
    }
}

/// The effect of `error` on the health of endpoint, model and key.
#[must_use]
pub fn health_effect(policy: &CooldownPolicy, error: &CallError, now: Timestamp) -> HealthEffect {
    use ErrorClass as C;
    let fixed = |scope, time| HealthEffect::Cooldown { scope, requested: None, time };
    let requested = error
        .retry_after
        .as_ref()
        .map(|retry_after| retry_after.delay_from(now).clamp(policy.min_retry_after, policy.max_retry_after));
    match error.class {
        C::Connect => HealthEffect::EndpointUnreachable,
        C::Reset
        | C::Timeout
        | C::Server
        | C::GatewayTimeout
        | C::Conflict
        | C::InvalidResponse
        | C::InStream
        | C::Incomplete
        | C::InvalidChunk => HealthEffect::ModelFailure,
        C::Overloaded => HealthEffect::Cooldown { scope: CooldownScope::Model, requested, time: policy.overloaded },
        C::Rate => HealthEffect::Cooldown { scope: CooldownScope::KeyForModel, requested, time: policy.rate },
        C::Quota => fixed(CooldownScope::Key, policy.quota),
        // A key that could not be read was not rejected by the service: the next request reads it again.
        C::Auth if error.status.is_none() => HealthEffect::Unaffected,
        C::Auth => fixed(CooldownScope::Key, policy.auth),
        // Another key may have access.
        C::NoChannel | C::Forbidden | C::Model => fixed(CooldownScope::KeyForModel, policy.access),
        C::Path | C::Redirect => fixed(CooldownScope::Endpoint, policy.path),
        C::Context | C::Filter | C::Request | C::Spend | C::LocalLimit => HealthEffect::Unaffected,
    }
}

fn may_retry(error: &CallError, context: RetryContext) -> bool {
    context.has_retry_budget && !context.is_gateway && !error.server.is_gateway() && error.should_retry != Some(false)
}

/// The delay before a retry on the same endpoint, and whether to use a new connection; `None`: no retry.
fn retry_delay(
    policy: &RetryPolicy,
    error: &CallError,
    context: RetryContext,
    now: Timestamp,
    random: f64,
) -> Option<(Duration, bool)> {
    let jitter = jittered(policy.delay.0, policy.delay.1, random);
    let retry_after = error.retry_after.as_ref().map(|retry_after| retry_after.delay_from(now));
    match error.class {
        ErrorClass::Connect => Some((jittered(policy.connect_delay.0, policy.connect_delay.1, random), true)),
        ErrorClass::Reset => Some((Duration::ZERO, true)),
        ErrorClass::Server | ErrorClass::InStream | ErrorClass::Conflict => {
            let delay = retry_after.unwrap_or_default().max(jitter);
            // Another candidate answers sooner than an endpoint with a long Retry-After.
            let max = if context.has_more_candidates { policy.max_short_delay } else { policy.max_last_delay };
            (delay <= max).then_some((delay, false))
        }
        ErrorClass::Overloaded => {
            retry_after.filter(|delay| *delay <= policy.max_short_delay).map(|delay| (delay.max(jitter), false))
        }
        ErrorClass::Rate if !context.has_more_candidates => {
            let delay = retry_after.unwrap_or(policy.rate_delay).max(jitter);
            (delay <= policy.max_last_delay).then_some((delay, false))
        }
        // An empty response (`should_retry` is true) may be transient; an HTML page means that the URL serves no API.
        ErrorClass::InvalidResponse if error.should_retry == Some(true) => Some((jitter, true)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{RetryAfter, RetryWhen, ServerKind};

    fn full_context() -> RetryContext {
        RetryContext {
            has_more_candidates: true,
            has_more_keys: false,
            has_retry_budget: true,
            ..RetryContext::default()
        }
    }

    fn now() -> Timestamp {
        "2026-01-01T00:00:00Z".parse().expect("valid timestamp")
    }

    fn decision(class: ErrorClass, context: RetryContext) -> Decision {
        decide(&RetryPolicy::default(), &CallError::new(class, ""), context, now(), 0.0)
    }

    fn error_with_retry_after(class: ErrorClass, seconds: u64) -> CallError {
        let retry_after = RetryAfter { raw: String::new(), when: RetryWhen::After(Duration::from_secs(seconds)) };
        CallError { retry_after: Some(retry_after), ..CallError::new(class, "") }
    }

    #[test]
    fn decision_for_each_class() {
        use Decision as D;
        use ErrorClass as C;
        let retry = |ms, new_connection| D::RetrySame { delay: Duration::from_millis(ms), new_connection };
        for &class in C::ALL {
            let want = match class {
                C::Connect => retry(100, true),
                C::Reset => retry(0, true),
                C::Server | C::InStream | C::Conflict => retry(300, false),
                C::Context => D::FailoverLarger,
                C::Filter | C::Request => D::GiveUp,
                _ => D::Failover,
            };
            assert_eq!(decision(class, full_context()), want, "{class}");
            let exhausted = RetryContext { has_retry_budget: false, ..full_context() };
            assert!(!matches!(decision(class, exhausted), D::RetrySame { .. }), "{class}");
        }
    }

    #[test]
    fn health_effect_for_each_class() {
        use ErrorClass as C;
        let seconds = Duration::from_secs;
        let minutes = |minutes: u64| seconds(minutes * 60);
        let cooldown = |scope, initial, max| HealthEffect::Cooldown {
            scope,
            requested: None,
            time: CooldownTime { initial, max },
        };
        for &class in C::ALL {
            let want = match class {
                C::Connect => HealthEffect::EndpointUnreachable,
                C::Overloaded => cooldown(CooldownScope::Model, seconds(10), seconds(10)),
                C::Rate => cooldown(CooldownScope::KeyForModel, seconds(5), minutes(1)),
                C::Quota => cooldown(CooldownScope::Key, minutes(10), minutes(60)),
                C::Auth => cooldown(CooldownScope::Key, minutes(10), minutes(10)),
                C::NoChannel | C::Forbidden | C::Model => {
                    cooldown(CooldownScope::KeyForModel, minutes(10), minutes(10))
                }
                C::Path | C::Redirect => cooldown(CooldownScope::Endpoint, minutes(10), minutes(10)),
                C::Context | C::Filter | C::Request | C::Spend | C::LocalLimit => HealthEffect::Unaffected,
                _ => HealthEffect::ModelFailure,
            };
            let error = CallError { status: Some(401), ..CallError::new(class, "") };
            assert_eq!(health_effect(&CooldownPolicy::default(), &error, now()), want, "{class}");
        }
        assert_eq!(
            health_effect(&CooldownPolicy::default(), &CallError::new(C::Auth, "not set"), now()),
            HealthEffect::Unaffected
        );
    }

    #[test]
    fn cooldown_follows_retry_after_within_limits() {
        let cooldown_secs = |class, seconds| match health_effect(
            &CooldownPolicy::default(),
            &error_with_retry_after(class, seconds),
            now(),
        ) {
            HealthEffect::Cooldown { requested: Some(requested), .. } => requested.as_secs(),
            other => panic!("{other:?}"),
        };
        assert_eq!((cooldown_secs(ErrorClass::Overloaded, 3), cooldown_secs(ErrorClass::Rate, 42)), (3, 42));
        assert_eq!((cooldown_secs(ErrorClass::Rate, 86_400), cooldown_secs(ErrorClass::Rate, 0)), (300, 1));
    }

    #[test]
    fn timeout_is_not_retried_on_the_same_endpoint() {
        let last_candidate = RetryContext { has_more_candidates: false, ..full_context() };
        assert_eq!(decision(ErrorClass::Timeout, last_candidate), Decision::Failover);
    }

    #[test]
    fn rate_limit_is_retried_only_on_the_last_candidate_and_after_a_short_delay() {
        let last_candidate = RetryContext { has_more_candidates: false, ..full_context() };
        let short =
            decide(&RetryPolicy::default(), &error_with_retry_after(ErrorClass::Rate, 2), last_candidate, now(), 0.0);
        assert_eq!(short, Decision::RetrySame { delay: Duration::from_secs(2), new_connection: false });
        assert_eq!(
            decide(&RetryPolicy::default(), &error_with_retry_after(ErrorClass::Rate, 11), last_candidate, now(), 0.0),
            Decision::Failover
        );
        assert_eq!(
            decide(&RetryPolicy::default(), &error_with_retry_after(ErrorClass::Rate, 2), full_context(), now(), 0.0),
            Decision::Failover
        );
    }

    #[test]
    fn server_error_with_long_retry_after_fails_over_unless_it_is_the_last_candidate() {
        let error = error_with_retry_after(ErrorClass::Server, 5);
        assert_eq!(decide(&RetryPolicy::default(), &error, full_context(), now(), 0.0), Decision::Failover);
        let last_candidate = RetryContext { has_more_candidates: false, ..full_context() };
        let retry = Decision::RetrySame { delay: Duration::from_secs(5), new_connection: false };
        assert_eq!(decide(&RetryPolicy::default(), &error, last_candidate, now(), 0.0), retry);
    }

    #[test]
    fn keys_are_rotated_before_failover_and_gateways_are_not_retried() {
        let more_keys = RetryContext { has_more_keys: true, ..full_context() };
        assert_eq!(decision(ErrorClass::Auth, more_keys), Decision::RotateKey);
        assert_eq!(decision(ErrorClass::Quota, more_keys), Decision::RotateKey);
        assert_eq!(decision(ErrorClass::Rate, more_keys), Decision::RotateKey);
        assert_eq!(
            decision(ErrorClass::Server, RetryContext { is_gateway: true, ..full_context() }),
            Decision::Failover
        );
        let from_gateway = CallError { server: ServerKind::OneApi, ..CallError::new(ErrorClass::Server, "") };
        assert_eq!(decide(&RetryPolicy::default(), &from_gateway, full_context(), now(), 0.0), Decision::Failover);
    }

    #[test]
    fn overloaded_server_is_retried_only_with_a_short_retry_after() {
        assert_eq!(decision(ErrorClass::Overloaded, full_context()), Decision::Failover);
        let soon = decide(
            &RetryPolicy::default(),
            &error_with_retry_after(ErrorClass::Overloaded, 1),
            full_context(),
            now(),
            0.0,
        );
        assert_eq!(soon, Decision::RetrySame { delay: Duration::from_secs(1), new_connection: false });
        assert_eq!(
            decide(
                &RetryPolicy::default(),
                &error_with_retry_after(ErrorClass::Overloaded, 3),
                full_context(),
                now(),
                0.0
            ),
            Decision::Failover
        );
    }

    #[test]
    fn connect_error_with_should_retry_false_is_not_retried() {
        let error = CallError { should_retry: Some(false), ..CallError::new(ErrorClass::Connect, "") };
        assert_eq!(decide(&RetryPolicy::default(), &error, full_context(), now(), 0.0), Decision::Failover);
    }
}
