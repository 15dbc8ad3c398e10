//! One line for each request, as JSON.
//!
//! Owns what a line says: figures and names, never a word of what was asked or answered, and no key. Refuses to wait: where
//! lines go takes them or loses them.

use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::json;

use super::exchange::Facts;
use crate::{engine::Notice, model::ErrorClass, store::record::CallRecord};

/// Where lines go.
pub struct Log(Box<dyn Fn(String) + Send + Sync>);

impl std::fmt::Debug for Log {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Log")
    }
}

/// One request.
#[derive(Serialize)]
struct Line<'l> {
    at: String,
    request_id: &'l str,
    path: &'l str,
    #[serde(skip_serializing_if = "Option::is_none")]
    client: Option<&'l str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    asked: Option<&'l str>,
    stream: bool,
    status: u16,
    /// `ok`, or the class of its failure.
    class: &'l str,
    #[serde(flatten)]
    served: Option<Served<'l>>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    notices: &'l [String],
}

/// By whom, and how.
#[derive(Serialize)]
struct Served<'l> {
    endpoint: Option<&'l str>,
    model: Option<&'l str>,
    upstream_model: Option<&'l str>,
    attempts: Vec<Attempt<'l>>,
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
struct Attempt<'l> {
    endpoint: &'l str,
    model: &'l str,
    class: &'l str,
    status: Option<u16>,
    ms: f64,
    request_id: Option<&'l str>,
}

/// What of a notice whoever runs this server should know, in none of a service's or a client's words.
pub(super) fn notice(notice: &Notice) -> Option<String> {
    let model = notice.target();
    Some(match notice {
        Notice::Adjusted(_, adjustment) => format!("{model}: {adjustment}"),
        Notice::NoReason(_) => format!("{model}: the answer has no finish reason"),
        Notice::AfterEnd(_, error) => format!("{model}: {} after the answer was complete", error.class.as_str()),
        Notice::PassedOver(_, why) => format!("{model} was passed over: {why}"),
        Notice::AllAside(_, wait) => {
            format!("everybody is left alone; {model} is asked in {:.1} s", wait.as_secs_f64())
        }
        Notice::Hedged(slow, other, after) => {
            format!("nothing of {slow} for {:.1} s; {other} was asked as well", after.as_secs_f64())
        }
        Notice::Unchecked(_, why) => format!("the spend limits of {model} could not be checked: {why}"),
        // The attempts tell.
        Notice::Waiting(..) | Notice::Backoff(..) | Notice::SetAside(..) => return None,
    })
}

/// The word for how a call ended.
pub(super) fn class_of(call: &CallRecord) -> &'static str {
    match call.class() {
        None => "ok",
        Some(_) if call.outcome.stopped => GONE,
        Some(class) => class.as_str(),
    }
}

/// The client left before its answer was whole.
pub(super) const GONE: &str = "client-gone";

impl Log {
    /// Lines go to `take`, which must not wait.
    pub fn new(take: impl Fn(String) + Send + Sync + 'static) -> Self {
        Self(Box::new(take))
    }

    /// Something happened to the server itself.
    pub fn event(&self, event: &str, message: &str) {
        self.0(json!({"at": now(), "event": event, "message": message}).to_string());
    }

    /// A request that somebody was asked about.
    pub(super) fn call(&self, facts: &Facts, status: u16, call: &CallRecord) {
        let (outcome, target) = (&call.outcome, call.outcome.target.as_ref());
        let attempts = outcome.attempts.iter().map(|attempt| Attempt {
            endpoint: &attempt.target.endpoint.name,
            model: &attempt.target.id.0,
            class: attempt.class().map_or("ok", ErrorClass::as_str),
            status: attempt.status,
            ms: milliseconds(attempt.took),
            request_id: attempt.request_id.as_deref(),
        });
        let cost = call.cost();
        let served = Served {
            endpoint: target.map(|target| target.endpoint.name.as_str()),
            model: target.map(|target| target.id.0.as_str()),
            upstream_model: target.map(|target| target.upstream.as_str()),
            attempts: attempts.collect(),
            ttft_ms: outcome.first.map(milliseconds),
            total_ms: milliseconds(outcome.total),
            overhead_us: facts.overhead.map(|overhead| u64::try_from(overhead.as_micros()).unwrap_or(u64::MAX)),
            input: call.usage.and_then(|usage| usage.input),
            output: call.usage.and_then(|usage| usage.output),
            estimated: call.usage.is_some_and(|usage| usage.estimated),
            cost: cost.map(|(cost, _)| cost),
            currency: cost.map(|(_, currency)| currency),
        };
        self.line(facts, status, class_of(call), Some(served));
    }

    /// A request that was refused before anybody was asked.
    pub(super) fn refused(&self, facts: &Facts, status: u16, code: &str) {
        self.line(facts, status, code, None);
    }

    fn line(&self, facts: &Facts, status: u16, class: &str, served: Option<Served<'_>>) {
        let line = Line {
            at: now(),
            request_id: &facts.request_id,
            path: facts.path,
            client: facts.client.as_deref(),
            asked: facts.asked.as_deref(),
            stream: facts.stream,
            status,
            class,
            served,
            notices: &facts.notices,
        };
        self.0(serde_json::to_string(&line).expect("names and numbers"));
    }
}

/// To the microsecond.
fn milliseconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

fn now() -> String {
    Timestamp::now().to_string()
}
