//! Chooses the error of a call that has failed, and when its client may try again.

use std::time::Duration;

use super::CallTask;
use crate::{
    engine::AttemptRecord,
    model::{ErrorClass, target::TargetId},
    protocol::{CallError, RetryAfter, RetryWhen},
    routing::{backoff::jittered, decision::is_transient},
};

/// When a candidate may be tried again that has named no time.
const UNNAMED_DELAY: Duration = Duration::from_secs(1);

impl CallTask {
    /// Keeps the error of a candidate that is not tried because of it.
    pub(super) fn remember(&mut self, target: &TargetId, error: CallError) {
        self.untried_errors.retain(|(known, _)| known != target);
        self.untried_errors.push((target.clone(), error));
    }

    /// The most recoverable error of all candidates, with the soonest Retry-After.
    pub(super) fn representative_error(&mut self) -> CallError {
        let untried_errors = std::mem::take(&mut self.untried_errors);
        let accumulator = self.accumulator();
        let attempts = &accumulator.attempts;
        // A candidate that was tried later has another error.
        let is_untried = |(target, _): &&(_, _)| !attempts.iter().any(|attempt| attempt.target.id == *target);
        let untried = untried_errors.iter().filter(is_untried).map(|(_, error)| error);
        let errors: Vec<&CallError> =
            attempts.iter().filter_map(|attempt| attempt.error.as_ref()).chain(untried).collect();
        // Of errors with the same priority, the first: `max_by_key` returns the last one.
        let representative = errors.into_iter().rev().max_by_key(|error| error.class.priority()).cloned();
        drop(accumulator);
        let mut error =
            representative.unwrap_or_else(|| CallError::new(ErrorClass::LocalLimit, "no candidate was available"));
        if error.retry_after.is_some() {
            error.retry_after = self.soonest_retry_after().or(error.retry_after);
        }
        if self.retry_budget_spent && error.retry_after.is_none() {
            // Clients that retry come back at different times.
            let delay = jittered(Duration::from_secs(1), Duration::from_secs(5), self.engine.random_unit());
            error.retry_after = Some(RetryAfter::after(delay));
        }
        error
    }

    /// The soonest time at which a candidate may answer: that its service has named, or at which it is expected back.
    fn soonest_retry_after(&self) -> Option<RetryAfter> {
        let health = &self.engine.health;
        let now = health.now();
        let accumulator = self.accumulator();
        // A permanent error does not pass by itself.
        let transient = last_errors(&accumulator.attempts).filter(|(_, error)| is_transient(error));
        let named = transient.map(|(attempt, error)| {
            let Some(retry_after) = &error.retry_after else { return UNNAMED_DELAY };
            let since_sent = Duration::try_from(now.duration_since(attempt.sent_at)).unwrap_or_default();
            let is_relative = matches!(retry_after.when, RetryWhen::After(_));
            let age = if is_relative { since_sent.saturating_sub(attempt.took) } else { Duration::ZERO };
            retry_after.delay_from(now).saturating_sub(age)
        });
        // Of a candidate that was tried, its service has named the time; another key may be free sooner.
        let with_keys = self.failed.iter().filter(|candidate| candidate.target.endpoint.keys.len() > 1);
        let others = self.queue.restricted.iter().chain(&self.queue.skipped).chain(with_keys);
        let expected = others.filter_map(|candidate| {
            let Some(restriction) = health.availability(&candidate.health_keys).restriction() else {
                return Some(UNNAMED_DELAY);
            };
            let delay = Duration::try_from(restriction.until.duration_since(now)).unwrap_or_default();
            (!restriction.kind.is_hard()).then_some(delay)
        });
        let soonest = named.chain(expected).min();
        soonest.map(RetryAfter::after)
    }
}

/// The attempts that failed, without those after which the same was tried again.
fn last_errors(attempts: &[AttemptRecord]) -> impl Iterator<Item = (&AttemptRecord, &CallError)> {
    let is_last = |(index, attempt): &(usize, &AttemptRecord)| {
        let is_same =
            |later: &AttemptRecord| later.target.id == attempt.target.id && later.key_index == attempt.key_index;
        !attempts[index + 1..].iter().any(is_same)
    };
    let last = attempts.iter().enumerate().filter(is_last);
    last.filter_map(|(_, attempt)| Some((attempt, attempt.error.as_ref()?)))
}
