//! A circuit breaker: closed, open for a limited time, half-open until a probe closes or reopens it.
//!
//! It trips after N failures in a row, or when at least half of the recent calls failed. [`super::health`] decides which
//! failures count, and its `acquire_probe` which request is the probe of a half-open breaker.
//!
//! It stays open for at most 20 s, so that a service that has recovered gets requests again within that time. A first
//! delta closes it, but a connection does not: a service that accepts requests but sends nothing has not recovered.

use std::{collections::VecDeque, time::Duration};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::backoff::jittered;

/// The failures that trip the breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TripPolicy {
    /// Failures in a row.
    pub consecutive_failures: u32,
    /// Or failures within [`WINDOW`], if they are at least half of the calls.
    pub window_failures: Option<u32>,
}

impl TripPolicy {
    /// Connection failures of an endpoint.
    pub const ENDPOINT: Self = Self { consecutive_failures: 2, window_failures: None };
    /// Failures of a model at an endpoint.
    pub const MODEL: Self = Self { consecutive_failures: 3, window_failures: Some(5) };
}

/// Calls older than this are not counted.
pub const WINDOW: Duration = Duration::from_secs(30);
/// The first open time; doubled each time, up to [`MAX_OPEN`].
const INITIAL_OPEN: Duration = Duration::from_secs(5);
/// Maximum open time, jitter included.
pub const MAX_OPEN: Duration = Duration::from_secs(20);
/// Maximum calls recorded to compute the failure ratio.
const MAX_RECENT: usize = 20;

/// A circuit breaker; closed by default.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Breaker {
    /// Failures since the last complete answer.
    #[serde(skip_serializing_if = "is_zero")]
    consecutive_failures: u32,
    /// Number of times it opened since the last complete answer.
    #[serde(skip_serializing_if = "is_zero")]
    open_count: u32,
    /// The end of recent calls, and whether they succeeded.
    #[serde(with = "recent", skip_serializing_if = "VecDeque::is_empty")]
    recent_calls: VecDeque<(Timestamp, bool)>,
    #[serde(skip_serializing_if = "Option::is_none")]
    open_until: Option<Timestamp>,
    /// When it last opened.
    #[serde(skip_serializing_if = "Option::is_none")]
    opened_at: Option<Timestamp>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// The state of a breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerState {
    /// Requests are sent.
    Closed,
    /// No requests are sent until this time.
    Open(Timestamp),
    /// One request is sent, as the probe.
    HalfOpen,
}

impl Breaker {
    /// The state at `now`.
    #[must_use]
    pub fn state(&self, now: Timestamp) -> BreakerState {
        match self.open_until {
            None => BreakerState::Closed,
            Some(until) if until > now => BreakerState::Open(until),
            Some(_) => BreakerState::HalfOpen,
        }
    }

    /// Records the first delta of a request sent at `sent`: closes the breaker, unless it opened after `sent`.
    pub fn record_first_delta(&mut self, sent: Timestamp) {
        if self.opened_at.is_none_or(|opened| sent >= opened) {
            self.open_until = None;
        }
    }

    /// Records the complete answer of a request sent at `sent`: resets the breaker, unless it opened after `sent`.
    pub fn record_success(&mut self, sent: Timestamp, now: Timestamp) {
        self.record(now, true);
        if self.opened_at.is_none_or(|opened| sent >= opened) {
            *self = Self { recent_calls: std::mem::take(&mut self.recent_calls), ..Self::default() };
        }
    }

    /// Records the failure of a request sent at `sent`; returns whether the breaker opened. `random` is in 0..1.
    pub fn record_failure(&mut self, policy: TripPolicy, sent: Timestamp, now: Timestamp, random: f64) -> bool {
        self.record(now, false);
        // Requests that were in flight when it opened are part of the same outage, and not a probe.
        if self.opened_at.is_some_and(|opened| sent < opened) {
            return false;
        }
        let state = self.state(now);
        self.consecutive_failures = self.consecutive_failures.saturating_add(1);
        if let BreakerState::Open(until) = state {
            // A request was sent although the breaker was open: extend the open time, so that no other request follows
            // at once.
            self.open_until =
                Some(until.max(saturating_add(now, Self::open_duration(self.open_count.saturating_sub(1), random))));
            return false;
        }
        if state == BreakerState::Closed && !self.should_trip(policy, now) {
            return false;
        }
        // A half-open breaker opens again on any failure.
        self.open_until = Some(saturating_add(now, Self::open_duration(self.open_count, random)));
        self.open_count = self.open_count.saturating_add(1);
        self.opened_at = Some(now);
        true
    }

    /// The open time of a breaker that opened `open_count` times before.
    fn open_duration(open_count: u32, random: f64) -> Duration {
        let duration = (INITIAL_OPEN * 2u32.saturating_pow(open_count.min(8))).min(MAX_OPEN);
        jittered(duration.mul_f64(0.8), duration.mul_f64(1.2), random).min(MAX_OPEN)
    }

    /// Whether there are no failures, so that the state need not be saved.
    #[must_use]
    pub fn has_no_failures(&self) -> bool {
        self.is_clean() && self.recent_calls.iter().all(|(_, succeeded)| *succeeded)
    }

    /// Whether there was no failure since the last complete answer.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.consecutive_failures == 0 && self.open_count == 0 && self.open_until.is_none()
    }

    /// Limits future times after a clock jump, and drops calls outside the window.
    pub fn clamp(&mut self, now: Timestamp) {
        self.open_until = self.open_until.map(|until| until.min(saturating_add(now, MAX_OPEN)));
        self.opened_at = self.opened_at.map(|opened| opened.min(now));
        self.recent_calls.retain(|(at, _)| *at <= now && now.duration_since(*at) < as_signed(WINDOW));
    }

    fn should_trip(&self, policy: TripPolicy, now: Timestamp) -> bool {
        if self.consecutive_failures >= policy.consecutive_failures {
            return true;
        }
        let Some(min_failures) = policy.window_failures else { return false };
        let calls = self.recent_calls.iter().filter(|(at, _)| now.duration_since(*at) < as_signed(WINDOW));
        let (total, failed) =
            calls.fold((0, 0), |(total, failed), (_, succeeded)| (total + 1, failed + u32::from(!succeeded)));
        failed >= min_failures && failed * 2 >= total
    }

    fn record(&mut self, now: Timestamp, succeeded: bool) {
        let is_old = |(at, _): &(Timestamp, bool)| now.duration_since(*at) >= as_signed(WINDOW);
        while self.recent_calls.front().is_some_and(is_old) || self.recent_calls.len() >= MAX_RECENT {
            self.recent_calls.pop_front();
        }
        self.recent_calls.push_back((now, succeeded));
    }
}

/// Serializes recent calls with times in milliseconds, to keep the health file small.
mod recent {
    use std::collections::VecDeque;

    use jiff::Timestamp;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(
        calls: &VecDeque<(Timestamp, bool)>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(calls.iter().map(|(at, succeeded)| (at.as_millisecond(), *succeeded)))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<VecDeque<(Timestamp, bool)>, D::Error> {
        let calls = Vec::<(i64, bool)>::deserialize(deserializer)?;
        calls
            .into_iter()
            .map(|(at, succeeded)| Timestamp::from_millisecond(at).map(|at| (at, succeeded)).map_err(D::Error::custom))
            .collect()
    }
}

fn as_signed(duration: Duration) -> jiff::SignedDuration {
    jiff::SignedDuration::try_from(duration).unwrap_or(jiff::SignedDuration::MAX)
}

/// `now + duration`, saturating at [`Timestamp::MAX`].
pub(super) fn saturating_add(now: Timestamp, duration: Duration) -> Timestamp {
    now.checked_add(as_signed(duration)).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn at(seconds: u64) -> Timestamp {
        saturating_add(
            "2026-01-01T00:00:00Z".parse().expect("valid timestamp"),
            SECOND * u32::try_from(seconds).expect("fits u32"),
        )
    }

    fn fail(breaker: &mut Breaker, seconds: u64) -> bool {
        breaker.record_failure(TripPolicy::MODEL, at(seconds), at(seconds), 0.5)
    }

    fn succeed(breaker: &mut Breaker, second: u64) {
        breaker.record_success(at(second), at(second));
    }

    #[test]
    fn opens_after_three_failures_in_a_row_and_doubles_the_time() {
        let mut breaker = Breaker::default();
        assert_eq!([0, 1, 2].map(|second| fail(&mut breaker, second)), [false, false, true]);
        let mut now = 2;
        for open_secs in [5, 10, 20, 20] {
            assert_eq!(breaker.state(at(now)), BreakerState::Open(at(now + open_secs)));
            now += open_secs;
            assert_eq!(breaker.state(at(now)), BreakerState::HalfOpen);
            assert!(fail(&mut breaker, now), "a failed probe reopens it");
        }
        breaker.record_first_delta(at(now + 20));
        assert_eq!(breaker.state(at(now + 20)), BreakerState::Closed);
        assert!(fail(&mut breaker, now + 21), "an incomplete answer does not reset it");
        succeed(&mut breaker, now + 60);
        assert!(breaker.is_clean());
    }

    #[test]
    fn success_of_a_request_sent_before_opening_does_not_close_it() {
        let mut breaker = Breaker::default();
        for second in 1..4 {
            fail(&mut breaker, second);
        }
        breaker.record_first_delta(at(0));
        breaker.record_success(at(0), at(4));
        assert!(matches!(breaker.state(at(4)), BreakerState::Open(_)), "sent before the outage");
    }

    #[test]
    fn opens_when_half_of_the_calls_in_the_window_failed() {
        let mut breaker = Breaker::default();
        let mut opened = Vec::new();
        for second in 0..5 {
            succeed(&mut breaker, second * 2);
            opened.push(fail(&mut breaker, second * 2 + 1));
        }
        assert_eq!(opened, [false, false, false, false, true]);
        let mut slow = Breaker::default();
        for second in 0..9 {
            succeed(&mut slow, second * 10);
            assert!(!fail(&mut slow, second * 10 + 5), "five failures, but not within the window");
        }
    }

    #[test]
    fn failure_of_a_request_sent_before_opening_is_ignored() {
        let mut breaker = Breaker::default();
        for second in 0..3 {
            fail(&mut breaker, second);
        }
        let open_state = breaker.state(at(3));
        assert!(!breaker.record_failure(TripPolicy::MODEL, at(1), at(3), 0.5));
        assert_eq!(breaker.state(at(3)), open_state);
        // A failure while the probe is in flight: only the probe decides.
        assert_eq!(breaker.state(at(8)), BreakerState::HalfOpen);
        assert!(!breaker.record_failure(TripPolicy::MODEL, at(0), at(8), 0.5));
        assert_eq!(breaker.state(at(8)), BreakerState::HalfOpen);
        breaker.record_first_delta(at(7));
        assert_eq!(breaker.state(at(9)), BreakerState::Closed);
    }

    #[test]
    fn failure_while_open_extends_the_open_time() {
        let mut breaker = Breaker::default();
        for second in 0..3 {
            fail(&mut breaker, second);
        }
        assert_eq!(breaker.state(at(3)), BreakerState::Open(at(7)));
        assert!(!fail(&mut breaker, 6), "it was open already");
        assert_eq!(breaker.state(at(6)), BreakerState::Open(at(11)));
    }

    #[test]
    fn clock_jump_backward_does_not_extend_the_open_time() {
        let mut breaker = Breaker::default();
        for second in 0..3 {
            fail(&mut breaker, 1_000_000 + second);
        }
        breaker.clamp(at(0));
        assert_eq!(breaker.state(at(0)), BreakerState::Open(at(20)));
        assert_eq!(breaker.state(at(20)), BreakerState::HalfOpen);
    }

    proptest! {
        #[test]
        fn open_time_never_exceeds_the_maximum(
            steps in proptest::collection::vec((0u64..8, 0u8..4, 0.0f64..1.0), 1..200)
        ) {
            let (mut breaker, mut now) = (Breaker::default(), 0);
            for (wait, step, random) in steps {
                now += wait;
                match step {
                    0 | 1 => { breaker.record_failure(TripPolicy::MODEL, at(now), at(now), random); }
                    2 => breaker.record_first_delta(at(now)),
                    _ => succeed(&mut breaker, now),
                }
                prop_assert!(!matches!(breaker.state(at(now + 20)), BreakerState::Open(_)));
            }
        }
    }
}
