//! Writes one JSON log line per request.
//!
//! A line has metrics and names, never a prompt, an answer or a key. Logging never blocks: the sink drops lines that it
//! cannot take.

use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::json;

use super::request_context::RequestContext;
use crate::{
    engine::{CallRecord, Notice},
    model::{ErrorClass, sanitize::escape_in_json},
    transport::keys::KeyError,
};

/// Sink of log lines.
pub struct Log(Box<dyn Fn(String) + Send + Sync>);

impl std::fmt::Debug for Log {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Log")
    }
}

/// Log line of one request. Field names are the JSON keys.
#[derive(Serialize)]
struct LogLine<'l> {
    at: String,
    request_id: &'l str,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_request_id: Option<&'l str>,
    path: &'l str,
    #[serde(skip_serializing_if = "Option::is_none")]
    client: Option<&'l str>,
    #[serde(rename = "asked", skip_serializing_if = "Option::is_none")]
    requested: Option<&'l str>,
    /// The name that the client has sent, if it is an alias of the requested one.
    #[serde(skip_serializing_if = "Option::is_none")]
    alias: Option<&'l str>,
    stream: bool,
    status: u16,
    /// `ok`, `client-gone`, an error class or a rejection code.
    class: &'l str,
    #[serde(flatten)]
    call: Option<CallFields<'l>>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    notices: &'l [String],
}

/// Fields of a request that reached the engine.
#[derive(Serialize)]
struct CallFields<'l> {
    endpoint: Option<&'l str>,
    model: Option<&'l str>,
    upstream_model: Option<&'l str>,
    attempts: Vec<AttemptFields<'l>>,
    ttft_ms: Option<f64>,
    total_ms: f64,
    overhead_us: Option<u64>,
    input: Option<u64>,
    output: Option<u64>,
    estimated: bool,
    cost: Option<f64>,
    currency: Option<&'l str>,
}

#[derive(Serialize)]
struct AttemptFields<'l> {
    endpoint: &'l str,
    model: &'l str,
    class: &'l str,
    status: Option<u16>,
    ms: f64,
    request_id: Option<&'l str>,
}

/// Log text of a notice, without text of an endpoint or a client; `None` for notices that the attempts already show.
pub(super) fn notice_text(notice: &Notice) -> Option<String> {
    let model = notice.target();
    Some(match notice {
        Notice::WorkaroundApplied(_, workaround) => format!("{model}: {workaround}"),
        Notice::NoFinishReason(_) => format!("{model}: the answer has no finish reason"),
        Notice::ErrorAfterEnd(_, error) => format!("{model}: {} error after the complete answer", error.class.as_str()),
        Notice::Skipped(_, cause) => format!("{model}: skipped: {cause}"),
        Notice::AllUnavailable(_, wait) => {
            format!("{model}: all candidates are unavailable; trying this one in {:.1} s", wait.as_secs_f64())
        }
        Notice::Hedged(slow, hedge, after) => {
            format!("{slow}: no output for {:.1} s; also trying {hedge}", after.as_secs_f64())
        }
        Notice::SpendUnchecked(_, cause) => format!("{model}: cannot check the spend limits: {cause}"),
        Notice::WaitingForFirstToken(..) | Notice::Backoff(..) | Notice::Unavailable(..) => return None,
    })
}

/// `class` of a call in the log and the metrics.
pub(super) fn result_class(record: &CallRecord) -> &'static str {
    match record.class() {
        None => "ok",
        Some(_) if record.stopped => CLIENT_GONE,
        Some(class) => class.as_str(),
    }
}

/// Class of a call whose client disconnected before the answer was complete.
const CLIENT_GONE: &str = "client-gone";

impl Log {
    /// Creates a log that passes lines to `sink`, which must not block.
    pub fn new(sink: impl Fn(String) + Send + Sync + 'static) -> Self {
        Self(Box::new(sink))
    }

    fn write(&self, line: String) {
        self.0(escape_in_json(line));
    }

    /// Logs an event of the server itself.
    pub fn event(&self, event: &str, message: &str) {
        self.write(json!({"at": now(), "event": event, "message": message}).to_string());
    }

    /// Logs a finished call.
    pub(super) fn finished(&self, context: &RequestContext, status: u16, record: &CallRecord) {
        let target = record.target.as_ref();
        let attempts = record.attempts.iter().map(|attempt| AttemptFields {
            endpoint: &attempt.target.endpoint.name,
            model: &attempt.target.id.0,
            class: attempt.class().map_or("ok", ErrorClass::as_str),
            status: attempt.status,
            ms: milliseconds(attempt.took),
            request_id: attempt.request_id.as_deref(),
        });
        let key_errors = record.attempts.iter().filter_map(|attempt| {
            let error = attempt.error.as_ref()?.cause::<KeyError>()?;
            Some(format!("{}: {error}", attempt.target.id))
        });
        let notices: Vec<String> = context.notices.iter().cloned().chain(key_errors).collect();
        let cost = record.cost();
        let call = CallFields {
            endpoint: target.map(|target| target.endpoint.name.as_str()),
            model: target.map(|target| target.id.0.as_str()),
            upstream_model: target.map(|target| target.upstream_id.as_str()),
            attempts: attempts.collect(),
            ttft_ms: record.first_output.map(milliseconds),
            total_ms: milliseconds(record.total),
            overhead_us: context.overhead.map(|overhead| u64::try_from(overhead.as_micros()).unwrap_or(u64::MAX)),
            input: record.usage.and_then(|usage| usage.input),
            output: record.usage.and_then(|usage| usage.output),
            estimated: record.usage.is_some_and(|usage| usage.estimated),
            cost: cost.map(|(cost, _)| cost),
            currency: cost.map(|(_, currency)| currency),
        };
        self.write_line(context, status, result_class(record), Some(call), &notices);
    }

    /// Logs a rejected request.
    pub(super) fn rejected(&self, context: &RequestContext, status: u16, code: &str) {
        self.write_line(context, status, code, None, &context.notices);
    }

    fn write_line(
        &self,
        context: &RequestContext,
        status: u16,
        class: &str,
        call: Option<CallFields<'_>>,
        notices: &[String],
    ) {
        let line = LogLine {
            at: now(),
            request_id: &context.request_id,
            client_request_id: context.client_request_id.as_deref(),
            path: &context.path,
            client: context.client.as_deref(),
            requested: context.requested_name.as_deref(),
            alias: context.alias.as_deref(),
            stream: context.stream,
            status,
            class,
            call,
            notices,
        };
        self.write(serde_json::to_string(&line).expect("strings and numbers are valid JSON"));
    }
}

/// Milliseconds, rounded to microseconds.
fn milliseconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

fn now() -> String {
    Timestamp::now().to_string()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use parking_lot::Mutex;

    use super::*;

    #[test]
    fn lines_have_no_control_characters() {
        let lines: Arc<Mutex<Vec<String>>> = Arc::default();
        let sink = Arc::clone(&lines);
        let log = Log::new(move |line| sink.lock().push(line));
        let text = "m\u{9d}52;c;aGk=\u{9c}\u{1b}[2J\u{202e}\u{7f}";
        log.event("event", text);
        let context =
            RequestContext { requested_name: Some(text.into()), ..RequestContext::new("/", &http::HeaderMap::new()) };
        log.rejected(&context, 404, text);
        for line in lines.lock().iter() {
            assert!(line.is_ascii() && !line.contains(|c: char| c.is_control()), "{line:?}");
            assert!(line.contains("\\u009d") && line.contains("\\u202e"), "{line:?}");
        }
        assert_eq!(lines.lock().len(), 2);
    }
}
