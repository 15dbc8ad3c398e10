//! One line for each thing that happened: what a person reads on stderr.
//!
//! Owns the wording. Messages are lower-case fragments; hints stand apart.

use std::time::Duration;

use crate::{
    engine::{AttemptRecord, LaneOutcome, Next, Notice},
    model::{ErrorClass, api_key::masked_url, sanitize::one_line},
    protocol::ApiError,
};

/// `250 ms`, `1.4 s`, `12 s`.
#[must_use]
pub fn duration(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    if seconds < 1.0 {
        format!("{:.0} ms", seconds * 1e3)
    } else if seconds < 10.0 {
        format!("{seconds:.1} s")
    } else {
        format!("{seconds:.0} s")
    }
}

/// A failed attempt and what is tried now; `None` for what only `--verbose` tells.
#[must_use]
pub fn failed(record: &AttemptRecord, next: &Next, verbose: bool) -> Option<String> {
    let name = &record.target.id;
    let what = record.error.as_ref().map(|error| brief(&reason(error))).unwrap_or_default();
    match next {
        Next::Candidate(next) => Some(format!("{name}: {what}; asking {next}")),
        Next::Awaited(next) => Some(format!("{name}: {what}; waiting for {next}")),
        Next::Restart(next) => Some(format!("[cut at {name}, restarted on {next}] {what}")),
        Next::Key => Some(format!("{name}: {what}; trying the next key")),
        Next::Repeat => verbose.then(|| format!("{name}: {what}; asking again")),
    }
}

/// The start of a long reason: the whole is in `attempts`, and below the error when everybody failed.
fn brief(reason: &str) -> String {
    const LONGEST: usize = 120;
    match reason.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &reason[..end]),
        None => reason.to_owned(),
    }
}

/// A class, the status and what the service said, on one line.
#[must_use]
pub fn reason(error: &ApiError) -> String {
    let message = one_line(&error.message);
    let status = error
        .status
        .map(|status| status.to_string())
        .filter(|status| status != "200" && !message.starts_with(status.as_str()));
    let status = status.map(|status| format!(" {status}")).unwrap_or_default();
    format!("{}{status}: {message}", error.class)
}

/// Whether only `--verbose` tells it.
#[must_use]
pub fn is_detail(notice: &Notice) -> bool {
    matches!(notice, Notice::SetAside(..))
}

/// Something to know although nothing failed.
#[must_use]
pub fn notice(notice: &Notice) -> String {
    match notice {
        Notice::Adjusted(target, adjustment) => format!("{target}: the service refused a parameter; {adjustment}"),
        Notice::Waiting(target, time) => format!("{target}: no answer for {}; still waiting", duration(*time)),
        Notice::Backoff(target, time) => format!("{target}: asking again in {}", duration(*time)),
        Notice::NoReason(target) => format!("warning: {target} gave no finish reason; the answer should be whole"),
        Notice::AfterEnd(target, error) => {
            format!("warning: {target}, after the answer was complete: {}", reason(error))
        }
        Notice::PassedOver(target, why) => format!("{target}: not asked, {why}"),
        Notice::SetAside(target, time, why) => {
            format!("{target}: left alone for {} more, after {why}", duration(*time))
        }
        Notice::AllAside(target, time) => {
            format!("everybody failed lately; asking {target} in {}", duration(*time))
        }
        Notice::Hedged(target, other, time) => {
            format!("{target}: nothing for {}; asking {other} as well", duration(*time))
        }
        Notice::Unchecked(target, why) => format!("warning: the spend limits of {target} could not be checked: {why}"),
    }
}

/// Everything there is to say about a lane that failed: the headline, each reason, and hints.
#[must_use]
pub fn failure(name: &str, error: &ApiError, outcome: &LaneOutcome) -> String {
    let mut lines = Vec::new();
    let asked: Vec<&AttemptRecord> = outcome.attempts.iter().filter(|record| record.error.is_some()).collect();
    if outcome.cut {
        let why = if error.class == ErrorClass::Cut { one_line(&error.message) } else { reason(error) };
        lines.push(format!("error: the answer of {} was cut: {why}", last_name(outcome, name)));
        lines.extend(asked.iter().filter(|record| record.error.as_ref() != Some(error)).map(|record| each(record)));
    } else if asked.len() > 1 {
        lines.push(format!("error: {name}: {}", reason(error)));
        lines.extend(asked.iter().map(|record| each(record)));
    } else {
        let at = asked.first().map(|record| format!(" ({})", place(record))).unwrap_or_default();
        lines.push(format!("error: {}{at}: {}", last_name(outcome, name), reason(error)));
    }
    if let Some(id) = &error.request_id {
        lines.push(format!("  request id: {}", one_line(id)));
    }
    if let Some(after) = &error.retry_after {
        lines.push(format!("  retry after: {}", one_line(&after.raw)));
    }
    let hints = asked.iter().filter_map(|record| record.error.as_ref()?.hint.as_ref()).chain(&error.hint);
    for hint in hints.map(|hint| format!("  hint: {hint}")) {
        if !lines.contains(&hint) {
            lines.push(hint);
        }
    }
    lines.join("\n")
}

fn each(record: &AttemptRecord) -> String {
    let what = record.error.as_ref().map(reason).unwrap_or_default();
    format!("  {} ({}) after {}: {what}", record.target.id, place(record), duration(record.took))
}

fn last_name(outcome: &LaneOutcome, asked: &str) -> String {
    outcome.target.as_ref().map_or_else(|| asked.to_owned(), |target| target.id.to_string())
}

fn place(record: &AttemptRecord) -> String {
    masked_url(&record.target.endpoint.base_url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_two_figures_that_matter() {
        let shown = |ms| duration(Duration::from_millis(ms));
        assert_eq!((shown(250), shown(1430), shown(61_000)), ("250 ms".into(), "1.4 s".into(), "61 s".into()));
    }

    #[test]
    fn a_reason_is_one_line_with_its_status_once() {
        let error = ApiError { status: Some(429), ..ApiError::new(ErrorClass::Rate, "slow\ndown") };
        assert_eq!(reason(&error), "rate 429: slow down");
        let error = ApiError { status: Some(502), ..ApiError::new(ErrorClass::Server, "502 Bad Gateway") };
        assert_eq!(reason(&error), "server: 502 Bad Gateway");
    }
}
