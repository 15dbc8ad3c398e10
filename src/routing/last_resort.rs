//! Decides when a request that has no available candidate is sent to a restricted one.
//!
//! No request waits for a circuit breaker or a cooldown that mmchat has chosen itself: it is sent at once, as in Envoy's
//! panic mode, because a service may have recovered, and a wait only turns a failure into a slow failure. Where that would
//! flood a service that has asked for less, only some requests are sent; the others get the error that the service gave
//! last. Only a wait that the service itself has asked for is kept.

use std::time::Duration;

use jiff::Timestamp;

use super::{
    backoff::jittered,
    breaker::saturating_add,
    cooldown::CooldownKind,
    health::{Restriction, RestrictionKind},
};

/// The limits of requests to restricted candidates.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LastResortPolicy {
    /// Whether the limits apply. On the command line one person asks once, so only `max_wait` does.
    pub is_limited: bool,
    /// After a rate limit without Retry-After, one request is sent in this time for each key and model.
    pub rate_interval: Duration,
    /// During a hard restriction, one request is sent in this time for each key and model.
    pub hard_interval: Duration,
    /// During a wait that a service has asked for, one request is sent in this time, so that one wrong header cannot
    /// disable the only model.
    pub retry_after_interval: Duration,
    /// Maximum Retry-After that a request waits for, once; `None`: 20 s with `is_limited`, else 60 s.
    pub max_wait: Option<Duration>,
    /// The wait is this share longer at most, at random.
    pub wait_jitter: f64,
    /// Maximum requests that wait for one model at one endpoint.
    pub max_waiting: usize,
    /// How long a request that may not be sent waits for the result of the one that was.
    pub result_wait: Duration,
}

impl LastResortPolicy {
    /// Maximum Retry-After that a request waits for.
    #[must_use]
    pub fn max_wait(&self) -> Duration {
        self.max_wait.unwrap_or(Duration::from_secs(if self.is_limited { 20 } else { 60 }))
    }

    /// The time until which a request waits that may be sent at `until`. `random` is in 0..1.
    #[must_use]
    pub fn wait_until(&self, until: Timestamp, now: Timestamp, random: f64) -> Timestamp {
        let wait = Duration::try_from(until.duration_since(now)).unwrap_or_default();
        saturating_add(until, jittered(Duration::ZERO, wait.mul_f64(self.wait_jitter.clamp(0.0, 1.0)), random))
    }
}

impl Default for LastResortPolicy {
    fn default() -> Self {
        const SECOND: Duration = Duration::from_secs(1);
        Self {
            is_limited: false,
            rate_interval: SECOND,
            hard_interval: 5 * SECOND,
            retry_after_interval: 10 * SECOND,
            max_wait: None,
            wait_jitter: 0.2,
            max_waiting: 64,
            result_wait: SECOND,
        }
    }
}

/// The requests of this process to one key and model while these are restricted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RestrictedRequests {
    /// When the last one was sent.
    pub last_sent: Option<Timestamp>,
    /// The number in flight.
    pub in_flight: usize,
    /// The number that wait for the end of the restriction.
    pub waiting: usize,
}

impl RestrictedRequests {
    /// Whether a later request depends on it.
    #[must_use]
    pub fn is_needed(&self, policy: &LastResortPolicy, now: Timestamp) -> bool {
        let longest = policy.rate_interval.max(policy.hard_interval).max(policy.retry_after_interval);
        let is_recent = |sent: Timestamp| saturating_add(sent, longest) > now;
        self.in_flight > 0 || self.waiting > 0 || self.last_sent.is_some_and(is_recent)
    }
}

/// The last failure of a restricted candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastFailure {
    /// When it was.
    pub at: Timestamp,
    /// Whether the service sent nothing in time.
    pub is_timeout: bool,
}

/// What a request does that has only restricted candidates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// It is sent.
    Send,
    /// It waits for the result of a request in flight, for a short time.
    AwaitResult,
    /// It waits until this time, as the service has asked.
    WaitUntil(Timestamp),
    /// It fails with the last error of the candidate.
    Refuse,
}

/// What a request does whose best candidate has this restriction.
#[must_use]
pub fn turn(
    policy: &LastResortPolicy,
    restriction: Restriction,
    last_failure: Option<LastFailure>,
    requests: &RestrictedRequests,
    now: Timestamp,
) -> Turn {
    let is_over = |last: Option<Timestamp>, interval| last.is_none_or(|last| saturating_add(last, interval) <= now);
    let failed_at = last_failure.map(|failure| failure.at);
    let await_or_refuse = if requests.in_flight > 0 { Turn::AwaitResult } else { Turn::Refuse };
    match restriction.kind {
        RestrictionKind::Cooldown(CooldownKind::RetryAfter) => {
            let named = restriction.named.unwrap_or(restriction.until);
            let wait = Duration::try_from(named.duration_since(now)).unwrap_or_default();
            if is_over(requests.last_sent.max(failed_at), policy.retry_after_interval) {
                Turn::Send
            } else if wait <= policy.max_wait() && requests.waiting < policy.max_waiting {
                Turn::WaitUntil(named)
            } else if policy.is_limited {
                Turn::Refuse
            } else {
                Turn::Send
            }
        }
        _ if !policy.is_limited => Turn::Send,
        RestrictionKind::Stalled => Turn::Send,
        // Each request that a silent service keeps open costs it and us a connection.
        RestrictionKind::Open | RestrictionKind::Probing
            if requests.in_flight > 0 && last_failure.is_some_and(|failure| failure.is_timeout) =>
        {
            Turn::AwaitResult
        }
        RestrictionKind::Open | RestrictionKind::Probing => Turn::Send,
        // The failure itself does not count: another service may have failed since, so this one may answer.
        RestrictionKind::Cooldown(CooldownKind::Backoff) => {
            if is_over(requests.last_sent, policy.rate_interval) {
                Turn::Send
            } else {
                await_or_refuse
            }
        }
        RestrictionKind::Cooldown(CooldownKind::Hard) => {
            let last = requests.last_sent.max(failed_at);
            if is_over(last, policy.hard_interval) { Turn::Send } else { Turn::Refuse }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routing::health::HealthKey;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).expect("valid timestamp")
    }

    fn restriction(kind: RestrictionKind, until: i64) -> Restriction {
        Restriction {
            kind,
            until: at(until),
            named: None,
            cause: HealthKey::try_from("1".to_owned()).expect("valid key"),
        }
    }

    fn failed(seconds: i64) -> LastFailure {
        LastFailure { at: at(seconds), is_timeout: false }
    }

    const BACKOFF: RestrictionKind = RestrictionKind::Cooldown(CooldownKind::Backoff);
    const RETRY_AFTER: RestrictionKind = RestrictionKind::Cooldown(CooldownKind::RetryAfter);
    const HARD: RestrictionKind = RestrictionKind::Cooldown(CooldownKind::Hard);

    fn limited() -> LastResortPolicy {
        LastResortPolicy { is_limited: true, ..LastResortPolicy::default() }
    }

    #[test]
    fn open_breaker_does_not_delay_a_request() {
        let policy = limited();
        let busy = RestrictedRequests { in_flight: 9, last_sent: Some(at(10)), waiting: 0 };
        assert_eq!(turn(&policy, restriction(RestrictionKind::Open, 20), Some(failed(10)), &busy, at(10)), Turn::Send);
        assert_eq!(turn(&policy, restriction(RestrictionKind::Stalled, 20), None, &busy, at(10)), Turn::Send);
    }

    #[test]
    fn service_that_timed_out_gets_one_request_at_a_time() {
        let policy = limited();
        let failure = Some(LastFailure { at: at(0), is_timeout: true });
        let mut requests = RestrictedRequests::default();
        let open = restriction(RestrictionKind::Open, 20);
        assert_eq!(turn(&policy, open, failure, &requests, at(1)), Turn::Send);
        requests.in_flight = 1;
        assert_eq!(turn(&policy, open, failure, &requests, at(1)), Turn::AwaitResult);
        assert_eq!(turn(&LastResortPolicy::default(), open, failure, &requests, at(1)), Turn::Send);
    }

    #[test]
    fn rate_limited_key_gets_one_request_in_a_second() {
        let policy = limited();
        let mut requests = RestrictedRequests::default();
        let limited = restriction(BACKOFF, 60);
        assert_eq!(turn(&policy, limited, Some(failed(10)), &requests, at(10)), Turn::Send);
        requests = RestrictedRequests { last_sent: Some(at(10)), in_flight: 1, waiting: 0 };
        assert_eq!(turn(&policy, limited, Some(failed(10)), &requests, at(10)), Turn::AwaitResult);
        requests.in_flight = 0;
        assert_eq!(turn(&policy, limited, Some(failed(10)), &requests, at(10)), Turn::Refuse);
        assert_eq!(turn(&policy, limited, Some(failed(10)), &requests, at(11)), Turn::Send);
    }

    #[test]
    fn hard_restriction_gets_one_request_in_five_seconds() {
        let policy = limited();
        let (hard, requests) = (restriction(HARD, 600), RestrictedRequests::default());
        assert_eq!(turn(&policy, hard, Some(failed(10)), &requests, at(14)), Turn::Refuse);
        assert_eq!(turn(&policy, hard, Some(failed(10)), &requests, at(15)), Turn::Send);
        let sent = RestrictedRequests { last_sent: Some(at(15)), ..requests };
        assert_eq!(turn(&policy, hard, Some(failed(10)), &sent, at(16)), Turn::Refuse);
        assert_eq!(turn(&LastResortPolicy::default(), hard, Some(failed(10)), &sent, at(16)), Turn::Send);
    }

    #[test]
    fn retry_after_is_waited_for_up_to_the_limit_and_ignored_by_one_request_in_ten_seconds() {
        let (server, person) = (limited(), LastResortPolicy::default());
        let requests = RestrictedRequests::default();
        let turn_at =
            |policy, until, now| turn(policy, restriction(RETRY_AFTER, until), Some(failed(0)), &requests, at(now));
        assert_eq!(turn_at(&server, 20, 1), Turn::WaitUntil(at(20)));
        assert_eq!((turn_at(&server, 30, 1), turn_at(&person, 30, 1)), (Turn::Refuse, Turn::WaitUntil(at(30))));
        assert_eq!((turn_at(&server, 300, 1), turn_at(&person, 300, 1)), (Turn::Refuse, Turn::Send));
        assert_eq!((turn_at(&server, 300, 9), turn_at(&server, 300, 10)), (Turn::Refuse, Turn::Send));
        let full = RestrictedRequests { waiting: server.max_waiting, ..requests };
        assert_eq!(turn(&server, restriction(RETRY_AFTER, 5), Some(failed(0)), &full, at(1)), Turn::Refuse);
    }

    #[test]
    fn wait_is_up_to_a_fifth_longer() {
        let policy = LastResortPolicy::default();
        assert_eq!(policy.wait_until(at(110), at(100), 0.0), at(110));
        assert_eq!(policy.wait_until(at(110), at(100), 1.0), at(112));
    }
}
