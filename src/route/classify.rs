//! What to do about a failure: the table of `docs/errors.md` as a function.
//!
//! Owns the decision for one failed attempt. Refuses to carry it out, and to know how the failure was recognised.

use std::time::Duration;

use jiff::Timestamp;

use super::backoff::between;
use crate::{chat::ErrorClass, protocol::ApiError};

/// What else could be tried when an attempt failed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Situation {
    /// Candidates that were not asked yet.
    pub others_left: bool,
    /// Keys of the same endpoint that were not tried yet.
    pub keys_left: bool,
    /// A repeat on the same endpoint is within the budget.
    pub repeat_left: bool,
    /// The endpoint is a gateway, which has retried already.
    pub gateway: bool,
    /// A filter's refusal goes on to the next candidate (`on_filter = "next"`).
    pub filter_goes_on: bool,
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Ask the same endpoint again after a wait.
    Repeat {
        /// How long to wait.
        after: Duration,
        /// Over a new connection.
        fresh: bool,
    },
    /// Ask the same endpoint with its next key.
    NextKey,
    /// Ask the next candidate.
    Next,
    /// Ask the next candidate that reads more tokens than this one.
    NextLarger,
    /// Asking anybody else is no use: the request itself is at fault.
    GiveUp,
}

const MS: Duration = Duration::from_millis(1);
/// A rate limit without a date is over in so long, as far as anybody knows.
const RATE_WAIT: Duration = Duration::from_secs(5);
/// The longest anybody waits for the last candidate instead of being told of its error.
const LONGEST_LAST_WAIT: Duration = Duration::from_secs(10);
const LONGEST_SHORT_WAIT: Duration = Duration::from_secs(2);

/// What to do about `error`. `chance` is in 0..1.
#[must_use]
pub fn decide(error: &ApiError, situation: Situation, now: Timestamp, chance: f64) -> Decision {
    if situation.keys_left && matches!(error.class, ErrorClass::Auth | ErrorClass::Quota) {
        return Decision::NextKey;
    }
    if may_repeat(error, situation)
        && let Some((after, fresh)) = repeat(error, situation, now, chance)
    {
        return Decision::Repeat { after, fresh };
    }
    match error.class {
        ErrorClass::Context => Decision::NextLarger,
        ErrorClass::Filter if !situation.filter_goes_on => Decision::GiveUp,
        ErrorClass::Request => Decision::GiveUp,
        _ => Decision::Next,
    }
}

fn may_repeat(error: &ApiError, situation: Situation) -> bool {
    situation.repeat_left && !situation.gateway && !error.server.is_gateway() && error.should_retry != Some(false)
}

/// The wait before the same endpoint is asked again, and whether over a new connection; `None`: it is not.
fn repeat(error: &ApiError, situation: Situation, now: Timestamp, chance: f64) -> Option<(Duration, bool)> {
    let jitter = between(300 * MS, 1000 * MS, chance);
    let asked_to_wait = error.retry_after.as_ref().map(|after| after.from(now));
    match error.class {
        ErrorClass::Connect => Some((between(100 * MS, 300 * MS, chance), true)),
        ErrorClass::Reset => Some((Duration::ZERO, true)),
        ErrorClass::Server | ErrorClass::InStream | ErrorClass::Conflict => {
            let wait = asked_to_wait.unwrap_or_default().max(jitter);
            // Who else is there answers sooner than one that wants to be left alone for long.
            let longest = if situation.others_left { LONGEST_SHORT_WAIT } else { LONGEST_LAST_WAIT };
            (wait <= longest).then_some((wait, false))
        }
        ErrorClass::Overloaded => {
            asked_to_wait.filter(|wait| *wait <= LONGEST_SHORT_WAIT).map(|wait| (wait.max(jitter), false))
        }
        ErrorClass::Rate if !situation.others_left => {
            let wait = asked_to_wait.unwrap_or(RATE_WAIT).max(jitter);
            (wait <= LONGEST_LAST_WAIT).then_some((wait, false))
        }
        // An empty reply may be a blink; a page of HTML is what is served there.
        ErrorClass::Garbage if error.should_retry == Some(true) => Some((jitter, true)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{RetryAfter, RetryWhen, ServerKind};

    fn all_left() -> Situation {
        Situation { others_left: true, keys_left: false, repeat_left: true, ..Situation::default() }
    }

    fn now() -> Timestamp {
        "2026-01-01T00:00:00Z".parse().expect("a date")
    }

    fn decision(class: ErrorClass, situation: Situation) -> Decision {
        decide(&ApiError::new(class, ""), situation, now(), 0.0)
    }

    fn with_wait(class: ErrorClass, seconds: u64) -> ApiError {
        let after = RetryAfter { raw: String::new(), when: RetryWhen::After(Duration::from_secs(seconds)) };
        ApiError { retry_after: Some(after), ..ApiError::new(class, "") }
    }

    #[test]
    fn every_class_has_its_row() {
        use Decision as D;
        use ErrorClass as C;
        let repeat = |ms: u32, fresh| D::Repeat { after: ms * MS, fresh };
        for class in C::ALL {
            let want = match class {
                C::Connect => repeat(100, true),
                C::Reset => repeat(0, true),
                C::Server | C::InStream | C::Conflict => repeat(300, false),
                C::Context => D::NextLarger,
                C::Filter | C::Request => D::GiveUp,
                _ => D::Next,
            };
            assert_eq!(decision(class, all_left()), want, "{class}");
            let spent = Situation { repeat_left: false, ..all_left() };
            assert!(!matches!(decision(class, spent), D::Repeat { .. }), "{class}");
        }
    }

    #[test]
    fn a_silent_endpoint_is_never_asked_twice() {
        let alone = Situation { others_left: false, ..all_left() };
        assert_eq!(decision(ErrorClass::Silent, alone), Decision::Next);
    }

    #[test]
    fn a_rate_limit_is_waited_for_only_by_the_last_and_not_long() {
        let alone = Situation { others_left: false, ..all_left() };
        let short = decide(&with_wait(ErrorClass::Rate, 2), alone, now(), 0.0);
        assert_eq!(short, Decision::Repeat { after: Duration::from_secs(2), fresh: false });
        assert_eq!(decide(&with_wait(ErrorClass::Rate, 11), alone, now(), 0.0), Decision::Next);
        assert_eq!(decide(&with_wait(ErrorClass::Rate, 2), all_left(), now(), 0.0), Decision::Next);
    }

    #[test]
    fn a_failed_server_is_left_alone_as_long_as_it_asks_while_others_are_there() {
        let error = with_wait(ErrorClass::Server, 5);
        assert_eq!(decide(&error, all_left(), now(), 0.0), Decision::Next);
        let alone = Situation { others_left: false, ..all_left() };
        let repeat = Decision::Repeat { after: Duration::from_secs(5), fresh: false };
        assert_eq!(decide(&error, alone, now(), 0.0), repeat);
    }

    #[test]
    fn keys_come_before_candidates_and_gateways_are_asked_once() {
        let keys = Situation { keys_left: true, ..all_left() };
        assert_eq!(decision(ErrorClass::Auth, keys), Decision::NextKey);
        assert_eq!(decision(ErrorClass::Quota, keys), Decision::NextKey);
        assert_eq!(decision(ErrorClass::Server, Situation { gateway: true, ..all_left() }), Decision::Next);
        let from_gateway = ApiError { server: ServerKind::OneApi, ..ApiError::new(ErrorClass::Server, "") };
        assert_eq!(decide(&from_gateway, all_left(), now(), 0.0), Decision::Next);
    }

    #[test]
    fn an_overloaded_server_is_asked_again_only_when_it_says_soon() {
        assert_eq!(decision(ErrorClass::Overloaded, all_left()), Decision::Next);
        let soon = decide(&with_wait(ErrorClass::Overloaded, 1), all_left(), now(), 0.0);
        assert_eq!(soon, Decision::Repeat { after: Duration::from_secs(1), fresh: false });
        assert_eq!(decide(&with_wait(ErrorClass::Overloaded, 3), all_left(), now(), 0.0), Decision::Next);
    }

    #[test]
    fn a_name_without_address_is_not_asked_for_twice() {
        let error = ApiError { should_retry: Some(false), ..ApiError::new(ErrorClass::Connect, "") };
        assert_eq!(decide(&error, all_left(), now(), 0.0), Decision::Next);
    }
}
