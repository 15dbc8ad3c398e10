//! Converts values of calls for the database.

use std::time::Duration;

use crate::engine::{AttemptRecord, CallRecord};

/// The last attempt of the call's target, which represents the call.
pub(super) fn representative_attempt(call: &CallRecord) -> Option<&AttemptRecord> {
    let target = call.target.as_ref().map(|target| &target.id);
    call.attempts.iter().rfind(|attempt| Some(&attempt.target.id) == target)
}

pub(super) fn micros(time: Duration) -> i64 {
    i64::try_from(time.as_micros()).unwrap_or(i64::MAX)
}

/// SQLite integers are signed 64-bit.
pub(super) fn saturating_i64(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
