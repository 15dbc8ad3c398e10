//! Formats failures and notices as lines for stderr.
//!
//! Messages are lowercase fragments; hints are on separate lines.

use std::time::Duration;

use crate::{
    engine::{AttemptRecord, CallRecord, NextStep, Notice},
    model::{
        ErrorClass,
        api_key::redact_url,
        sanitize::{one_line, truncate_chars},
    },
    protocol::{CallError, RetryWhen},
};

/// `250 ms`, `1.4 s`, `12 s`.
#[must_use]
pub fn format_duration(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    if seconds < 1.0 {
        format!("{:.0} ms", seconds * 1e3)
    } else if seconds < 10.0 {
        format!("{seconds:.1} s")
    } else {
        format!("{seconds:.0} s")
    }
}

/// A failed attempt and the next step; `None` for a retry of the same endpoint unless `verbose`.
#[must_use]
pub fn format_attempt_failure(attempt: &AttemptRecord, next: &NextStep, verbose: bool) -> Option<String> {
    let name = &attempt.target.id;
    let cause = attempt.error.as_ref().map(|error| shorten(&format_reason(error))).unwrap_or_default();
    match next {
        NextStep::Failover(target) => Some(format!("{name}: {cause}; trying {target}")),
        NextStep::AwaitHedge(target) => Some(format!("{name}: {cause}; waiting for {target}")),
        NextStep::RestartOutput(target) => Some(format!("{name}: {cause}; restarting on {target}")),
        NextStep::RotateKey => Some(format!("{name}: {cause}; trying the next key")),
        NextStep::RetrySame => verbose.then(|| format!("{name}: {cause}; retrying")),
    }
}

/// The start of a long reason. The full text is in `attempts`, and below the error if all attempts failed.
fn shorten(reason: &str) -> String {
    const MAX_CHARS: usize = 120;
    truncate_chars(reason, MAX_CHARS)
}

/// The error class, the HTTP status and the message, on one line.
#[must_use]
pub fn format_reason(error: &CallError) -> String {
    let message = one_line(&error.message);
    let status = error
        .status
        .map(|status| status.to_string())
        .filter(|status| status != "200" && !message.starts_with(status.as_str()));
    let status = status.map(|status| format!(" {status}")).unwrap_or_default();
    format!("{}{status}: {message}", error.class)
}

/// Whether the notice is shown only with `--verbose`.
#[must_use]
pub fn is_verbose_only(notice: &Notice) -> bool {
    matches!(notice, Notice::Unavailable(..))
}

/// A notice about something other than a failure.
#[must_use]
pub fn format_notice(notice: &Notice) -> String {
    match notice {
        Notice::WorkaroundApplied(target, workaround) => {
            format!("{target}: the service rejected a parameter; mmchat {workaround} and sent the request again")
        }
        Notice::WaitingForFirstToken(target, time) => {
            format!("{target}: no output for {}; still waiting", format_duration(*time))
        }
        Notice::Backoff(target, time) => format!("{target}: retrying in {}", format_duration(*time)),
        Notice::NoFinishReason(target) => {
            format!("warning: {target} sent no finish reason; the answer is probably complete")
        }
        Notice::ErrorAfterEnd(target, error) => {
            let message = one_line(&error.message);
            format!("warning: {target}: the answer is complete, but the service then sent an error: {message}")
        }
        Notice::Skipped(target, reason) => format!("{target}: skipped: {reason}"),
        Notice::Unavailable(target, time, cause) => {
            format!("{target}: unavailable for {} after {cause}", format_duration(*time))
        }
        Notice::AllUnavailable(target, time) => {
            format!("all candidates are unavailable; trying {target} in {}", format_duration(*time))
        }
        Notice::Hedged(target, other, time) => {
            format!("{target}: no output for {}; also trying {other}", format_duration(*time))
        }
        Notice::SpendUnchecked(target, error) => format!("warning: cannot check the spend limits of {target}: {error}"),
    }
}

/// The full report of a failed call: the headline, the reason of each attempt, and hints.
#[must_use]
pub fn format_call_failure(name: &str, error: &CallError, record: &CallRecord) -> String {
    let mut lines = Vec::new();
    let failed: Vec<&AttemptRecord> = record.attempts.iter().filter(|attempt| attempt.error.is_some()).collect();
    if record.incomplete {
        let cause = if error.class == ErrorClass::Incomplete { one_line(&error.message) } else { format_reason(error) };
        lines.push(format!("error: the answer of {} is incomplete: {cause}", target_name(record, name)));
        lines.extend(
            failed.iter().filter(|attempt| attempt.error.as_ref() != Some(error)).map(|attempt| attempt_line(attempt)),
        );
    } else if failed.len() > 1 {
        lines.push(format!("error: {name}: {}", format_reason(error)));
        lines.extend(failed.iter().map(|attempt| attempt_line(attempt)));
    } else {
        let url = failed.first().map(|attempt| format!(" ({})", endpoint_url(attempt))).unwrap_or_default();
        lines.push(format!("error: {}{url}: {}", target_name(record, name), format_reason(error)));
    }
    if let Some(id) = &error.request_id {
        lines.push(format!("  request id: {}", one_line(id)));
    }
    if let Some(after) = &error.retry_after {
        let time = match after.when {
            RetryWhen::After(delay) => format_duration(delay),
            RetryWhen::At(_) => one_line(&after.raw),
        };
        lines.push(format!("  retry after {time}"));
    }
    let hints = failed.iter().filter_map(|attempt| attempt.error.as_ref()?.hint.as_ref()).chain(&error.hint);
    for hint in hints.map(|hint| format!("hint: {hint}")) {
        if !lines.contains(&hint) {
            lines.push(hint);
        }
    }
    lines.join("\n")
}

fn attempt_line(attempt: &AttemptRecord) -> String {
    let cause = attempt.error.as_ref().map(format_reason).unwrap_or_default();
    format!("  {} ({}) after {}: {cause}", attempt.target.id, endpoint_url(attempt), format_duration(attempt.took))
}

fn target_name(record: &CallRecord, requested: &str) -> String {
    record.target.as_ref().map_or_else(|| requested.to_owned(), |target| target.id.to_string())
}

fn endpoint_url(attempt: &AttemptRecord) -> String {
    redact_url(&attempt.target.endpoint.base_url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_two_significant_digits() {
        let shown = |ms| format_duration(Duration::from_millis(ms));
        assert_eq!((shown(250), shown(1430), shown(61_000)), ("250 ms".into(), "1.4 s".into(), "61 s".into()));
    }

    #[test]
    fn reason_is_one_line_and_shows_the_status_once() {
        let error = CallError { status: Some(429), ..CallError::new(ErrorClass::Rate, "slow\ndown") };
        assert_eq!(format_reason(&error), "rate 429: slow down");
        let error = CallError { status: Some(502), ..CallError::new(ErrorClass::Server, "502 Bad Gateway") };
        assert_eq!(format_reason(&error), "server: 502 Bad Gateway");
    }
}
