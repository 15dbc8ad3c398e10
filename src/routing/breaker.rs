//! A circuit breaker: closed, open for a limited time, half-open until a probe closes or reopens it.
//!
//! It trips after N failures in a row, or when at least half of the recent calls failed. `cooldown::health_effect`
//! decides which failures count, and `HealthSnapshot::acquire_probe` which request is the probe of a half-open breaker.
//!
//! Each failure opens it for at most `max_open`, so that a service that has recovered gets a request again within that
//! time. A first delta closes it, but a connection does not: a service that accepts requests but sends nothing has not
//! recovered.

use std::{collections::VecDeque, time::Duration};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::backoff::jittered;

/// When breakers open, and for how long.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BreakerPolicy {
    /// Connection failures of an endpoint.
    pub endpoint: TripPolicy,
    /// Failures of a model at an endpoint.
    pub model: TripPolicy,
    /// Calls older than this are not counted.
    pub window: Duration,
    /// The first open time; doubled each time, up to `max_open`.
    pub initial_open: Duration,
    /// Maximum open time, jitter included.
    pub max_open: Duration,
}

impl Default for BreakerPolicy {
    fn default() -> Self {
        Self {
            endpoint: TripPolicy { consecutive_failures: 2, window_failures: None },
            model: TripPolicy { consecutive_failures: 3, window_failures: Some(5) },
            window: Duration::from_secs(30),
            initial_open: Duration::from_secs(5),
            max_open: Duration::from_secs(20),
        }
    }
}

/// The failures that trip a breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TripPolicy {
    /// Failures in a row.
    pub consecutive_failures: u32,
    /// Or failures within the window, if they are at least half of the calls.
    pub window_failures: Option<u32>,
}

/// Maximum calls recorded to compute the failure ratio; they are kept in the health file.
pub const MAX_RECENT: usize = 20;

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

impl BreakerPolicy {
    /// The open time of a breaker that opened `open_count` times before.
    fn open_duration(&self, open_count: u32, random: f64) -> Duration {
        /// Keeps the arithmetic below in range, for any policy.
        const MAX: Duration = Duration::from_secs(365 * 24 * 3600);
        let doubled = self.initial_open.saturating_mul(2u32.saturating_pow(open_count.min(8)));
        let duration = doubled.min(self.max_open).min(MAX);
        jittered(duration.mul_f64(0.8), duration.mul_f64(1.2), random).min(self.max_open)
    }
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
    pub fn record_success(&mut self, policy: &BreakerPolicy, sent: Timestamp, now: Timestamp) {
        self.record(policy, now, true);
        if self.opened_at.is_none_or(|opened| sent >= opened) {
            *self = Self { recent_calls: std::mem::take(&mut self.recent_calls), ..Self::default() };
        }
    }

    /// Records the failure of a request sent at `sent`; returns whether the breaker opened. `random` is in 0..1.
    pub fn record_failure(
        &mut self,
        policy: &BreakerPolicy,
        trip: TripPolicy,
        sent: Timestamp,
        now: Timestamp,
        random: f64,
    ) -> bool {
        self.record(policy, now, false);
        // Requests that were in flight when it opened are part of the same outage, and not a probe.
        if self.opened_at.is_some_and(|opened| sent < opened) {
            return false;
        }
        let state = self.state(now);
        self.consecutive_failures = self.consecutive_failures.saturating_add(1);
        if let BreakerState::Open(until) = state {
            // A request was sent although the breaker was open: extend the open time, so that no other request follows
            // at once.
            let duration = policy.open_duration(self.open_count.saturating_sub(1), random);
            self.open_until = Some(until.max(saturating_add(now, duration)));
            return false;
        }
        if state == BreakerState::Closed && !self.should_trip(policy, trip, now) {
            return false;
        }
        // A half-open breaker opens again on any failure that counts.
        self.open_until = Some(saturating_add(now, policy.open_duration(self.open_count, random)));
        self.open_count = self.open_count.saturating_add(1);
        self.opened_at = Some(now);
        true
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
    pub fn clamp(&mut self, policy: &BreakerPolicy, now: Timestamp) {
        self.open_until = self.open_until.map(|until| until.min(saturating_add(now, policy.max_open)));
        self.opened_at = self.opened_at.map(|opened| opened.min(now));
        self.recent_calls.retain(|(at, _)| *at <= now && now.duration_since(*at) < as_signed(policy.window));
    }

    fn should_trip(&self, policy: &BreakerPolicy, trip: TripPolicy, now: Timestamp) -> bool {
        if self.consecutive_failures >= trip.consecutive_failures {
            return true;
        }
        let Some(min_failures) = trip.window_failures else { return false };
        let calls = self.recent_calls.iter().filter(|(at, _)| now.duration_since(*at) < as_signed(policy.window));
        let (total, failed) =
            calls.fold((0, 0), |(total, failed), (_, succeeded)| (total + 1, failed + u32::from(!succeeded)));
        failed >= min_failures && failed * 2 >= total
    }

    fn record(&mut self, policy: &BreakerPolicy, now: Timestamp, succeeded: bool) {
        let is_old = |(at, _): &(Timestamp, bool)| now.duration_since(*at) >= as_signed(policy.window);
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
        fail_request_sent_at(breaker, seconds, seconds, 0.5)
    }

    fn fail_request_sent_at(breaker: &mut Breaker, sent: u64, now: u64, random: f64) -> bool {
        let policy = BreakerPolicy::default();
        breaker.record_failure(&policy, policy.model, at(sent), at(now), random)
    }

    fn succeed(breaker: &mut Breaker, second: u64) {
        breaker.record_success(&BreakerPolicy::default(), at(second), at(second));
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
        breaker.record_success(&BreakerPolicy::default(), at(0), at(4));
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
        assert!(!fail_request_sent_at(&mut breaker, 1, 3, 0.5));
        assert_eq!(breaker.state(at(3)), open_state);
        // A request that was sent before the breaker opened does not change it.
        assert_eq!(breaker.state(at(8)), BreakerState::HalfOpen);
        assert!(!fail_request_sent_at(&mut breaker, 0, 8, 0.5));
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
        breaker.clamp(&BreakerPolicy::default(), at(0));
        assert_eq!(breaker.state(at(0)), BreakerState::Open(at(20)));
        assert_eq!(breaker.state(at(20)), BreakerState::HalfOpen);
    }

    #[test]
    fn policy_decides_when_it_opens_and_for_how_long() {
        let trip = TripPolicy { consecutive_failures: 1, window_failures: None };
        let policy =
            BreakerPolicy { model: trip, initial_open: 60 * SECOND, max_open: 90 * SECOND, ..Default::default() };
        let mut breaker = Breaker::default();
        assert!(breaker.record_failure(&policy, policy.model, at(0), at(0), 0.5), "the first failure opens it");
        assert_eq!(breaker.state(at(0)), BreakerState::Open(at(60)));
        breaker.record_failure(&policy, policy.model, at(60), at(60), 0.5);
        assert_eq!(breaker.state(at(60)), BreakerState::Open(at(150)));
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
                    0 | 1 => { fail_request_sent_at(&mut breaker, now, now, random); }
                    2 => breaker.record_first_delta(at(now)),
                    _ => succeed(&mut breaker, now),
                }
                prop_assert!(!matches!(breaker.state(at(now + 20)), BreakerState::Open(_)));
            }
        }
    }
}
