//! What to do about a failure: the table of `docs/errors.md` as two functions.
//!
//! Owns the decision for one failed attempt ([`decide`]), and what is to be left alone because of it and for how long
//! ([`cooling`]). Refuses to carry either out, and to know how the failure was recognised.

use std::time::Duration;

use jiff::Timestamp;

use super::backoff::between;
use crate::{model::ErrorClass, protocol::ApiError};

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
const SECOND: Duration = Duration::from_secs(1);
/// A rate limit without a date is over in so long, as far as anybody knows.
const RATE_WAIT: Duration = Duration::from_secs(5);
/// The longest anybody waits for the last candidate instead of being told of its error.
const LONGEST_LAST_WAIT: Duration = Duration::from_secs(10);
const LONGEST_SHORT_WAIT: Duration = Duration::from_secs(2);

/// What to do about `error`. `chance` is in 0..1.
#[must_use]
pub fn decide(error: &ApiError, situation: Situation, now: Timestamp, chance: f64) -> Decision {
    if situation.keys_left && matches!(error.class, ErrorClass::Auth | ErrorClass::Quota | ErrorClass::Rate) {
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

/// What a failure says about whom not to ask for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cooling {
    /// Nothing: the request was at fault, or we were.
    Nothing,
    /// The model at this endpoint failed once more.
    Counts,
    /// The endpoint could not be connected to once more.
    Unreachable,
    /// It is left alone.
    Aside {
        /// What is.
        scope: Scope,
        /// For as long as the service asks.
        asked: Option<Duration>,
        /// When it does not say: so long the first time, and twice as long each time after it, up to `longest`.
        first: Duration,
        /// The longest.
        longest: Duration,
    },
}

/// What is left alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The endpoint, with all its models.
    Endpoint,
    /// The model at the endpoint, with every key.
    Model,
    /// The key at the endpoint, for every model.
    Key,
    /// The key, for this model alone.
    KeyForModel,
}

const MINUTE: Duration = Duration::from_secs(60);
/// What a service asks for beyond this is not believed.
const LONGEST_ASKED: Duration = Duration::from_secs(300);
/// `Retry-After: 0` is said by services that would rather not be asked again at once, all the same.
const SHORTEST_ASKED: Duration = Duration::from_secs(1);

/// What `error` says about whom not to ask for a while.
#[must_use]
pub fn cooling(error: &ApiError, now: Timestamp) -> Cooling {
    use ErrorClass as C;
    let aside = |scope, first, longest| Cooling::Aside { scope, asked: None, first, longest };
    let asked = error.retry_after.as_ref().map(|after| after.from(now).clamp(SHORTEST_ASKED, LONGEST_ASKED));
    match error.class {
        C::Connect => Cooling::Unreachable,
        C::Reset
        | C::Silent
        | C::Server
        | C::GatewayTimeout
        | C::Conflict
        | C::Garbage
        | C::InStream
        | C::Cut
        | C::Garbled => Cooling::Counts,
        C::Overloaded => Cooling::Aside { scope: Scope::Model, asked, first: 10 * SECOND, longest: 10 * SECOND },
        C::Rate => Cooling::Aside { scope: Scope::KeyForModel, asked, first: RATE_WAIT, longest: MINUTE },
        C::Quota => aside(Scope::Key, 10 * MINUTE, 60 * MINUTE),
        // A key that could not be read was never refused: the next request looks again.
        C::Auth if error.status.is_none() => Cooling::Nothing,
        C::Auth => aside(Scope::Key, 10 * MINUTE, 10 * MINUTE),
        // Another key may have what this one has not.
        C::NoChannel | C::Forbidden | C::Model => aside(Scope::KeyForModel, 10 * MINUTE, 10 * MINUTE),
        C::Path | C::Redirect => aside(Scope::Endpoint, 10 * MINUTE, 10 * MINUTE),
        C::Context | C::Filter | C::Request | C::Spend | C::Local => Cooling::Nothing,
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
    fn every_class_says_whom_to_leave_alone() {
        use ErrorClass as C;
        let minutes = |minutes: u32| minutes * MINUTE;
        let aside = |scope, first, longest| Cooling::Aside { scope, asked: None, first, longest };
        for class in C::ALL {
            let want = match class {
                C::Connect => Cooling::Unreachable,
                C::Overloaded => aside(Scope::Model, 10 * SECOND, 10 * SECOND),
                C::Rate => aside(Scope::KeyForModel, 5 * SECOND, MINUTE),
                C::Quota => aside(Scope::Key, minutes(10), minutes(60)),
                C::Auth => aside(Scope::Key, minutes(10), minutes(10)),
                C::NoChannel | C::Forbidden | C::Model => aside(Scope::KeyForModel, minutes(10), minutes(10)),
                C::Path | C::Redirect => aside(Scope::Endpoint, minutes(10), minutes(10)),
                C::Context | C::Filter | C::Request | C::Spend | C::Local => Cooling::Nothing,
                _ => Cooling::Counts,
            };
            let error = ApiError { status: Some(401), ..ApiError::new(class, "") };
            assert_eq!(cooling(&error, now()), want, "{class}");
        }
        assert_eq!(cooling(&ApiError::new(C::Auth, "not set"), now()), Cooling::Nothing);
    }

    #[test]
    fn a_service_is_left_alone_as_long_as_it_asks_but_not_for_a_day() {
        let wait = |class, seconds| match cooling(&with_wait(class, seconds), now()) {
            Cooling::Aside { asked: Some(asked), .. } => asked.as_secs(),
            other => panic!("{other:?}"),
        };
        assert_eq!((wait(ErrorClass::Overloaded, 3), wait(ErrorClass::Rate, 42)), (3, 42));
        assert_eq!((wait(ErrorClass::Rate, 86_400), wait(ErrorClass::Rate, 0)), (300, 1));
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
        assert_eq!(decision(ErrorClass::Rate, keys), Decision::NextKey);
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
