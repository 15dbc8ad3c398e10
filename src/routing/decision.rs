//! Decides the next step after a failed attempt: retry, another key, another candidate, or give up. The table is in
//! `docs/errors.md`; `protocol::error::classify` gives the class of an error.

use std::time::Duration;

use jiff::Timestamp;

use super::{OnFilter, backoff::jittered};
use crate::{model::ErrorClass, protocol::CallError};

/// What else can be tried when an attempt failed.
#[derive(Clone, Copy, Debug, Default)]
pub struct RetryContext {
    /// Available candidates are left; unavailable ones do not count.
    pub has_available_candidates: bool,
    /// There are keys of the same endpoint that were not tried yet.
    pub has_more_keys: bool,
    /// A retry on the same endpoint is within the budget, and the candidate may get one: it is not a probe, for example.
    pub may_retry_same: bool,
    /// The endpoint is a gateway, which has already retried.
    pub is_gateway: bool,
    /// What to do after a content filter error.
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
    /// The shortest and the longest delay after a failed connection.
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

fn may_retry(error: &CallError, context: RetryContext) -> bool {
    context.may_retry_same && !context.is_gateway && !error.server.is_gateway() && error.should_retry != Some(false)
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
            let max = if context.has_available_candidates { policy.max_short_delay } else { policy.max_last_delay };
            (delay <= max).then_some((delay, false))
        }
        ErrorClass::Overloaded => {
            retry_after.filter(|delay| *delay <= policy.max_short_delay).map(|delay| (delay.max(jitter), false))
        }
        ErrorClass::Rate if !context.has_available_candidates => {
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
            has_available_candidates: true,
            has_more_keys: false,
            may_retry_same: true,
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
            let exhausted = RetryContext { may_retry_same: false, ..full_context() };
            assert!(!matches!(decision(class, exhausted), D::RetrySame { .. }), "{class}");
        }
    }

    #[test]
    fn timeout_is_not_retried_on_the_same_endpoint() {
        let last_candidate = RetryContext { has_available_candidates: false, ..full_context() };
        assert_eq!(decision(ErrorClass::Timeout, last_candidate), Decision::Failover);
    }

    #[test]
    fn rate_limit_is_retried_only_on_the_last_candidate_and_after_a_short_delay() {
        let last_candidate = RetryContext { has_available_candidates: false, ..full_context() };
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
        let last_candidate = RetryContext { has_available_candidates: false, ..full_context() };
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
