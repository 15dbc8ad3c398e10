//! When a place that fails is left alone, and how it comes back.
//!
//! Owns the circuit breaker: closed, open for a while, half-open until a probe closes or opens it. Pure: `now` and chance
//! are passed in. Refuses to know what a place is, which failures count, and who may be the probe (`health`).
//!
//! Opening for good is what it must never do: the longest it stays open is 20 s, so that a service that is back is
//! asked again within that time. What closes it is a first delta, not a connection: a service that takes requests and
//! says nothing is not back.

use std::{collections::VecDeque, time::Duration};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::backoff::between;

/// How many failures open it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// So many in a row.
    pub in_a_row: u32,
    /// Or so many within [`WINDOW`], when they are at least half of the calls.
    pub in_window: Option<u32>,
}

impl Rule {
    /// An endpoint that cannot be connected to: two in a row say enough.
    pub const ENDPOINT: Self = Self { in_a_row: 2, in_window: None };
    /// A model at an endpoint.
    pub const MODEL: Self = Self { in_a_row: 3, in_window: Some(5) };
}

/// Older calls say nothing about now.
pub const WINDOW: Duration = Duration::from_secs(30);
/// The first time it is open for so long; then twice as long each time, up to [`LONGEST`].
const FIRST: Duration = Duration::from_secs(5);
/// The longest it stays open, chance included.
pub const LONGEST: Duration = Duration::from_secs(20);
/// The share of its calls is known well enough from so many.
const MOST_KEPT: usize = 20;

/// One breaker. Its default is closed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Breaker {
    /// Failures since the last whole answer.
    #[serde(skip_serializing_if = "is_zero")]
    row: u32,
    /// How often it opened since the last whole answer.
    #[serde(skip_serializing_if = "is_zero")]
    openings: u32,
    /// When calls ended lately, and whether well.
    #[serde(with = "recent", skip_serializing_if = "VecDeque::is_empty")]
    recent: VecDeque<(Timestamp, bool)>,
    #[serde(skip_serializing_if = "Option::is_none")]
    open_until: Option<Timestamp>,
    /// When it opened.
    #[serde(skip_serializing_if = "Option::is_none")]
    opened: Option<Timestamp>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands over a reference")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// Whether requests may pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// All of them.
    Closed,
    /// None, until then.
    Open(Timestamp),
    /// One, as the probe.
    HalfOpen,
}

impl Breaker {
    /// How it is at `now`.
    #[must_use]
    pub fn state(&self, now: Timestamp) -> State {
        match self.open_until {
            None => State::Closed,
            Some(until) if until > now => State::Open(until),
            Some(_) => State::HalfOpen,
        }
    }

    /// A request that was sent at `sent` got its first delta: the place is back, unless it opened after that.
    pub fn began(&mut self, sent: Timestamp) {
        if self.opened.is_none_or(|opened| sent >= opened) {
            self.open_until = None;
        }
    }

    /// A request that was sent at `sent` got its whole answer by `now`.
    pub fn ended_well(&mut self, sent: Timestamp, now: Timestamp) {
        self.note(now, true);
        if self.opened.is_none_or(|opened| sent >= opened) {
            *self = Self { recent: std::mem::take(&mut self.recent), ..Self::default() };
        }
    }

    /// A request that was sent at `sent` failed in a way that counts; whether that opened the breaker. `chance` is in 0..1.
    pub fn failed(&mut self, rule: Rule, sent: Timestamp, now: Timestamp, chance: f64) -> bool {
        self.note(now, false);
        // Requests that were under way when it opened tell nothing new, and are no probe.
        if self.opened.is_some_and(|opened| sent < opened) {
            return false;
        }
        let state = self.state(now);
        self.row = self.row.saturating_add(1);
        if let State::Open(until) = state {
            // Somebody asked before its time was over: nothing is to follow that at once.
            self.open_until = Some(until.max(later(now, Self::wait(self.openings.saturating_sub(1), chance))));
            return false;
        }
        if state == State::Closed && !self.too_many(rule, now) {
            return false;
        }
        self.open_until = Some(later(now, Self::wait(self.openings, chance)));
        self.openings = self.openings.saturating_add(1);
        self.opened = Some(now);
        true
    }

    /// How long it is open after so many openings.
    fn wait(openings: u32, chance: f64) -> Duration {
        let open = (FIRST * 2u32.saturating_pow(openings.min(8))).min(LONGEST);
        between(open.mul_f64(0.8), open.mul_f64(1.2), chance).min(LONGEST)
    }

    /// Whether there is nothing that the next process must know.
    #[must_use]
    pub fn is_forgettable(&self) -> bool {
        self.is_clean() && self.recent.iter().all(|(_, ok)| *ok)
    }

    /// Whether it is blamed for nothing.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.row == 0 && self.openings == 0 && self.open_until.is_none()
    }

    /// After a jump of the clock nothing lies further ahead than it can; and what is long ago is forgotten.
    pub fn clamp(&mut self, now: Timestamp) {
        self.open_until = self.open_until.map(|until| until.min(later(now, LONGEST)));
        self.opened = self.opened.map(|opened| opened.min(now));
        self.recent.retain(|(at, _)| *at <= now && now.duration_since(*at) < as_signed(WINDOW));
    }

    fn too_many(&self, rule: Rule, now: Timestamp) -> bool {
        if self.row >= rule.in_a_row {
            return true;
        }
        let Some(least) = rule.in_window else { return false };
        let calls = self.recent.iter().filter(|(at, _)| now.duration_since(*at) < as_signed(WINDOW));
        let (all, failed) = calls.fold((0, 0), |(all, failed), (_, ok)| (all + 1, failed + u32::from(!ok)));
        failed >= least && failed * 2 >= all
    }

    fn note(&mut self, now: Timestamp, ok: bool) {
        let old = |(at, _): &(Timestamp, bool)| now.duration_since(*at) >= as_signed(WINDOW);
        while self.recent.front().is_some_and(old) || self.recent.len() >= MOST_KEPT {
            self.recent.pop_front();
        }
        self.recent.push_back((now, ok));
    }
}

/// Calls in a file that every process reads: their times in milliseconds.
mod recent {
    use std::collections::VecDeque;

    use jiff::Timestamp;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(calls: &VecDeque<(Timestamp, bool)>, to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(calls.iter().map(|(at, ok)| (at.as_millisecond(), *ok)))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<VecDeque<(Timestamp, bool)>, D::Error> {
        let calls = Vec::<(i64, bool)>::deserialize(from)?;
        calls
            .into_iter()
            .map(|(at, ok)| Timestamp::from_millisecond(at).map(|at| (at, ok)).map_err(D::Error::custom))
            .collect()
    }
}

fn as_signed(time: Duration) -> jiff::SignedDuration {
    jiff::SignedDuration::try_from(time).unwrap_or(jiff::SignedDuration::MAX)
}

/// `time` after `now`; at the end of time there is nothing later.
pub(super) fn later(now: Timestamp, time: Duration) -> Timestamp {
    now.checked_add(as_signed(time)).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn at(seconds: u64) -> Timestamp {
        later("2026-01-01T00:00:00Z".parse().expect("a date"), SECOND * u32::try_from(seconds).expect("few"))
    }

    fn fail(breaker: &mut Breaker, seconds: u64) -> bool {
        breaker.failed(Rule::MODEL, at(seconds), at(seconds), 0.5)
    }

    fn end(breaker: &mut Breaker, second: u64) {
        breaker.ended_well(at(second), at(second));
    }

    #[test]
    fn three_in_a_row_open_it_for_twice_as_long_each_time() {
        let mut breaker = Breaker::default();
        assert_eq!([0, 1, 2].map(|second| fail(&mut breaker, second)), [false, false, true]);
        let mut now = 2;
        for open in [5, 10, 20, 20] {
            assert_eq!(breaker.state(at(now)), State::Open(at(now + open)));
            now += open;
            assert_eq!(breaker.state(at(now)), State::HalfOpen);
            assert!(fail(&mut breaker, now), "a probe that fails opens it again");
        }
        breaker.began(at(now + 20));
        assert_eq!(breaker.state(at(now + 20)), State::Closed);
        assert!(fail(&mut breaker, now + 21), "an answer that breaks off is no recovery");
        end(&mut breaker, now + 60);
        assert!(breaker.is_clean());
    }

    #[test]
    fn news_of_before_it_opened_closes_nothing() {
        let mut breaker = Breaker::default();
        for second in 1..4 {
            fail(&mut breaker, second);
        }
        breaker.began(at(0));
        breaker.ended_well(at(0), at(4));
        assert!(matches!(breaker.state(at(4)), State::Open(_)), "it began before the outage");
    }

    #[test]
    fn half_of_the_calls_of_half_a_minute_open_it_too() {
        let mut breaker = Breaker::default();
        let mut opened = Vec::new();
        for second in 0..5 {
            end(&mut breaker, second * 2);
            opened.push(fail(&mut breaker, second * 2 + 1));
        }
        assert_eq!(opened, [false, false, false, false, true]);
        let mut slow = Breaker::default();
        for second in 0..9 {
            end(&mut slow, second * 10);
            assert!(!fail(&mut slow, second * 10 + 5), "five failures, but not in half a minute");
        }
    }

    #[test]
    fn what_was_under_way_when_it_opened_changes_nothing() {
        let mut breaker = Breaker::default();
        for second in 0..3 {
            fail(&mut breaker, second);
        }
        let open = breaker.state(at(3));
        assert!(!breaker.failed(Rule::MODEL, at(1), at(3), 0.5));
        assert_eq!(breaker.state(at(3)), open);
        // One that took so long that the probe is under way: the verdict is the probe's.
        assert_eq!(breaker.state(at(8)), State::HalfOpen);
        assert!(!breaker.failed(Rule::MODEL, at(0), at(8), 0.5));
        assert_eq!(breaker.state(at(8)), State::HalfOpen);
        breaker.began(at(7));
        assert_eq!(breaker.state(at(9)), State::Closed);
    }

    #[test]
    fn who_asks_before_its_time_and_in_vain_is_followed_by_nobody_at_once() {
        let mut breaker = Breaker::default();
        for second in 0..3 {
            fail(&mut breaker, second);
        }
        assert_eq!(breaker.state(at(3)), State::Open(at(7)));
        assert!(!fail(&mut breaker, 6), "that is no further opening");
        assert_eq!(breaker.state(at(6)), State::Open(at(11)));
    }

    #[test]
    fn a_clock_that_jumped_back_leaves_nothing_open_for_long() {
        let mut breaker = Breaker::default();
        for second in 0..3 {
            fail(&mut breaker, 1_000_000 + second);
        }
        breaker.clamp(at(0));
        assert_eq!(breaker.state(at(0)), State::Open(at(20)));
        assert_eq!(breaker.state(at(20)), State::HalfOpen);
    }

    proptest! {
        #[test]
        fn it_is_never_open_for_longer_than_its_longest(
            steps in proptest::collection::vec((0u64..8, 0u8..4, 0.0f64..1.0), 1..200)
        ) {
            let (mut breaker, mut now) = (Breaker::default(), 0);
            for (wait, what, chance) in steps {
                now += wait;
                match what {
                    0 | 1 => { breaker.failed(Rule::MODEL, at(now), at(now), chance); }
                    2 => breaker.began(at(now)),
                    _ => end(&mut breaker, now),
                }
                prop_assert!(!matches!(breaker.state(at(now + 20)), State::Open(_)));
            }
        }
    }
}
