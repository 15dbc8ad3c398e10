//! Decides the next step after a failed attempt: retry, another key, another candidate, or give up. The table is in
//! `docs/errors.md`; `protocol::error::classify` gives the class of an error.

use std::time::Duration;

use jiff::Timestamp;

use super::{OnFilter, backoff::jittered};
use crate::{
    model::ErrorClass,
    protocol::CallError,
    transport::{TransportError, TransportErrorKind},
};

/// What else can be tried when an attempt failed.
#[derive(Clone, Copy, Debug, Default)]
pub struct RetryContext {
    /// Available candidates are left; restricted ones do not count.
    pub has_available_candidates: bool,
    /// There are keys of the same endpoint that were not tried yet.
    pub has_more_keys: bool,
    /// A retry on the same endpoint is within the budget, and the candidate may get one: it is not a probe, for example.
    pub may_retry_same: bool,
    /// The endpoint is a gateway, which has already retried.
    pub is_gateway: bool,
    /// The request must not be processed twice: it creates images, for example.
    pub is_unsafe_to_repeat: bool,
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

/// The delays of retries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// The shortest and the longest delay before a retry on the same endpoint; the delay is random in between.
    pub delay: (Duration, Duration),
    /// Maximum Retry-After that is waited for before a retry on the same endpoint while there are other candidates.
    pub max_retry_after: Duration,
    /// The longest delay before the first further attempt of a call whose candidates have all failed; doubled for each
    /// further one. The delay is random between zero and this, as recommended against synchronized retries in
    /// <https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/>.
    pub backoff: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        const MS: Duration = Duration::from_millis(1);
        Self { delay: (100 * MS, 300 * MS), max_retry_after: 300 * MS, backoff: 500 * MS }
    }
}

impl RetryPolicy {
    /// The delay before further attempt `number`, from 0. `random` is in 0..1.
    #[must_use]
    pub fn backoff_delay(&self, number: u32, random: f64) -> Duration {
        jittered(Duration::ZERO, self.backoff.saturating_mul(2u32.saturating_pow(number.min(8))), random)
    }
}

/// The next step after `error`. `random` is in 0..1.
#[must_use]
pub fn decide(policy: &RetryPolicy, error: &CallError, context: RetryContext, now: Timestamp, random: f64) -> Decision {
    use ErrorClass as C;
    if context.is_unsafe_to_repeat && !is_surely_unprocessed(error) {
        return Decision::GiveUp;
    }
    if context.has_more_keys && matches!(error.class, C::Auth | C::Quota | C::Rate | C::Forbidden) {
        return Decision::RotateKey;
    }
    if may_retry_same(error, context)
        && let Some((delay, new_connection)) = retry_delay(policy, error, context, now, random)
    {
        return Decision::RetrySame { delay, new_connection };
    }
    match error.class {
        C::Context => Decision::FailoverLarger,
        C::Filter if context.on_filter == OnFilter::Stop => Decision::GiveUp,
        C::Request => Decision::GiveUp,
        // The memory for answers is used up, and would be again.
        C::LocalLimit if error.should_retry == Some(false) => Decision::GiveUp,
        _ => Decision::Failover,
    }
}

/// Whether the service has certainly not processed the request.
fn is_surely_unprocessed(error: &CallError) -> bool {
    matches!(error.class, ErrorClass::Connect | ErrorClass::LocalLimit | ErrorClass::Spend)
        || matches!(error.status, Some(401 | 403 | 404 | 429 | 503))
}

/// Whether the failure may pass within seconds, so that a call whose candidates have all failed tries again.
#[must_use]
pub fn is_transient(error: &CallError) -> bool {
    use ErrorClass as C;
    let class_is_transient = matches!(
        error.class,
        C::Connect | C::Reset | C::Server | C::Overloaded | C::Rate | C::GatewayTimeout | C::Conflict | C::InStream
    );
    // 501 means that the service lacks the operation.
    class_is_transient && error.should_retry != Some(false) && error.status != Some(501)
}

fn may_retry_same(error: &CallError, context: RetryContext) -> bool {
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
    use ErrorClass as C;
    let jitter = jittered(policy.delay.0, policy.delay.1, random);
    let retry_after = error.retry_after.as_ref().map(|retry_after| retry_after.delay_from(now)).unwrap_or_default();
    match error.class {
        // A connection that times out, or has no route, will not succeed at once.
        C::Connect => (!is_slow_connect(error)).then_some((jitter, true)),
        C::Reset => Some((Duration::ZERO, true)),
        // Without another available candidate, the call goes on with further attempts after the last candidate.
        C::Server | C::Overloaded | C::InStream if !context.has_available_candidates => None,
        // Another candidate answers sooner than an endpoint with a long Retry-After.
        C::Server | C::Overloaded | C::InStream | C::Conflict => {
            (retry_after <= policy.max_retry_after).then_some((jitter.max(retry_after), false))
        }
        // An empty response (`should_retry` is true) may be transient; an HTML page means that the URL serves no API.
        C::InvalidResponse if error.should_retry == Some(true) => Some((jitter, true)),
        _ => None,
    }
}

fn is_slow_connect(error: &CallError) -> bool {
    error.cause::<TransportError>().is_some_and(|error| error.kind == TransportErrorKind::Connect)
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
                C::Server | C::Overloaded | C::InStream | C::Conflict => retry(100, false),
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
    fn last_candidate_is_not_retried_in_place_after_a_server_error() {
        let last_candidate = RetryContext { has_available_candidates: false, ..full_context() };
        for class in [ErrorClass::Server, ErrorClass::Overloaded, ErrorClass::Rate] {
            assert_eq!(decision(class, last_candidate), Decision::Failover, "{class}");
            assert!(is_transient(&CallError::new(class, "")), "the call tries again after its last candidate");
        }
        assert!(matches!(decision(ErrorClass::Reset, last_candidate), Decision::RetrySame { .. }));
    }

    #[test]
    fn long_retry_after_fails_over() {
        for class in [ErrorClass::Server, ErrorClass::Overloaded, ErrorClass::Rate] {
            let error = error_with_retry_after(class, 1);
            assert_eq!(decide(&RetryPolicy::default(), &error, full_context(), now(), 0.0), Decision::Failover);
        }
    }

    #[test]
    fn backoff_doubles_and_is_random_from_zero() {
        let policy = RetryPolicy::default();
        let delays =
            [(0, 0.0), (0, 1.0), (1, 1.0), (1, 0.5)].map(|(number, random)| policy.backoff_delay(number, random));
        assert_eq!(delays.map(|delay| delay.as_millis()), [0, 500, 1000, 500]);
    }

    #[test]
    fn unsafe_request_is_repeated_only_if_it_was_not_processed() {
        let context = RetryContext { is_unsafe_to_repeat: true, has_more_keys: true, ..full_context() };
        let decision = |class, status| {
            let error = CallError { status, ..CallError::new(class, "") };
            decide(&RetryPolicy::default(), &error, context, now(), 0.0)
        };
        assert_eq!(decision(ErrorClass::Reset, None), Decision::GiveUp);
        assert_eq!(decision(ErrorClass::Server, Some(500)), Decision::GiveUp);
        assert_eq!(decision(ErrorClass::Timeout, None), Decision::GiveUp);
        assert_eq!(decision(ErrorClass::Model, Some(404)), Decision::Failover);
        assert_eq!(decision(ErrorClass::Auth, Some(401)), Decision::RotateKey);
        assert!(matches!(decision(ErrorClass::Overloaded, Some(503)), Decision::RetrySame { .. }));
        assert!(matches!(decision(ErrorClass::Connect, None), Decision::RetrySame { .. }));
    }

    #[test]
    fn keys_are_rotated_before_failover_and_gateways_are_not_retried() {
        let more_keys = RetryContext { has_more_keys: true, ..full_context() };
        assert_eq!(decision(ErrorClass::Auth, more_keys), Decision::RotateKey);
        assert_eq!(decision(ErrorClass::Quota, more_keys), Decision::RotateKey);
        assert_eq!(decision(ErrorClass::Rate, more_keys), Decision::RotateKey);
        assert_eq!(decision(ErrorClass::Forbidden, more_keys), Decision::RotateKey);
        assert_eq!(
            decision(ErrorClass::Server, RetryContext { is_gateway: true, ..full_context() }),
            Decision::Failover
        );
        let from_gateway = CallError { server: ServerKind::OneApi, ..CallError::new(ErrorClass::Server, "") };
        assert_eq!(decide(&RetryPolicy::default(), &from_gateway, full_context(), now(), 0.0), Decision::Failover);
    }

    #[test]
    fn slow_connect_error_is_not_retried_in_place() {
        let error = |kind| CallError::from_source(ErrorClass::Connect, TransportError::new(kind, "no"));
        let decision = |kind| decide(&RetryPolicy::default(), &error(kind), full_context(), now(), 0.0);
        assert_eq!(decision(TransportErrorKind::Connect), Decision::Failover);
        assert!(matches!(decision(TransportErrorKind::Refused), Decision::RetrySame { .. }));
    }

    #[test]
    fn connect_error_with_should_retry_false_is_not_retried() {
        let error = CallError { should_retry: Some(false), ..CallError::new(ErrorClass::Connect, "") };
        assert_eq!(decide(&RetryPolicy::default(), &error, full_context(), now(), 0.0), Decision::Failover);
    }
}
