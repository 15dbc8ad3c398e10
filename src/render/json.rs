//! Answers and events as JSON.
//!
//! Owns the shape of `--format json` (one object per answer) and `jsonl` (one per event). Control characters are
//! escaped by JSON itself, so nothing is stripped.

use std::{fmt::Write as _, time::Duration};

use serde_json::{Value, json};

use super::{Output, stats::tokens_per_second};
use crate::{
    engine::{AttemptRecord, Event, EventKind, LaneOutcome, Next},
    model::{Answer, Delta, DeltaKind, FinishReason, Usage},
    protocol::ApiError,
};

/// One answer, whole or not, that used and cost so much. Takes its text over, since it may be large.
#[must_use]
pub fn answer(
    name: &str,
    answer: Answer,
    (usage, cost): (Option<&Usage>, Option<f64>),
    outcome: &LaneOutcome,
) -> Value {
    let target = outcome.target.as_ref();
    let finish = match &outcome.result {
        Ok(whole) => whole.reason.as_ref(),
        Err(_) => answer.finish.as_ref(),
    };
    let finish = finish.map(|reason| reason.as_str().to_owned());
    let mut object = json!({
        "model": name,
        "endpoint": target.map(|target| target.endpoint.name.as_str()),
        "upstream_model": target.map(|target| target.upstream.as_str()),
        "served_model": answer.model,
        "content": null,
        "reasoning": null,
        "truncated": outcome.result.is_err() || finish.as_deref() == Some(FinishReason::Length.as_str()),
        "finish_reason": finish,
        "usage": usage.map(usage_object),
        "cost": cost,
        "timing": {
            "ttft_ms": outcome.ttft.map(milliseconds),
            "total_ms": milliseconds(outcome.total),
            "tokens_per_second": usage.and_then(|usage| tokens_per_second(usage, outcome)),
        },
        "attempts": outcome.attempts.iter().map(AttemptRecord::facts).collect::<Vec<_>>(),
        "error": outcome.result.as_ref().err().map(error),
    });
    // Moved, not copied: these may be large.
    object["content"] = answer.text.into();
    object["reasoning"] = answer.reasoning.into();
    if !answer.tool_calls.is_empty() {
        let calls = answer.tool_calls.iter();
        object["tool_calls"] =
            calls.map(|call| json!({"id": call.id, "name": call.name, "arguments": call.arguments})).collect();
    }
    if !answer.refusal.is_empty() {
        object["refusal"] = answer.refusal.into();
    }
    object
}

/// One event; `None` for those without a line of their own (the end is [`answer`]).
#[must_use]
pub fn event(event: &Event) -> Vec<Value> {
    let line = |kind: &str, mut body: Value| {
        body["event"] = kind.into();
        body["lane"] = event.lane.into();
        body
    };
    match &event.kind {
        EventKind::Started(target) => {
            let (endpoint, upstream) = (&target.endpoint.name, &target.upstream);
            vec![line("started", json!({"model": target.id.0, "endpoint": endpoint, "upstream_model": upstream}))]
        }
        EventKind::Ttft(ttft) => vec![line("ttft", json!({"ttft_ms": milliseconds(*ttft)}))],
        EventKind::Deltas(shown) => deltas(event.lane, shown),
        EventKind::Failed { record, next } => {
            let (word, to) = match next {
                Next::Repeat => ("repeat", None),
                Next::Key => ("next-key", None),
                Next::Candidate(to) => ("failover", Some(to)),
                Next::Awaited(to) => ("awaited", Some(to)),
                Next::Restart(to) => ("restart", Some(to)),
            };
            vec![line("failed", json!({"attempt": record.facts(), "next": word, "to": to.map(|to| &to.0)}))]
        }
        EventKind::Notice(notice) => vec![line("notice", json!({"message": super::notice::notice(notice)}))],
        EventKind::Again => vec![line("again", json!({}))],
        // What is held has its lines when it is shown.
        EventKind::Held(_) | EventKind::Finished(_) => Vec::new(),
    }
}

/// The first line of a run of several lanes: who is asked.
#[must_use]
pub fn run(names: &[&str]) -> Value {
    json!({"event": "run", "lanes": names})
}

/// Each value on a line of its own.
pub fn lines(values: &[Value], to: &mut Output) {
    for value in values {
        // Writing to a String cannot fail.
        let _ = writeln!(to.out(), "{value}");
    }
}

/// A line for each of `deltas`.
#[must_use]
pub fn deltas(lane: usize, deltas: &[Delta]) -> Vec<Value> {
    let line = |delta| {
        let mut body = delta_object(delta);
        body["event"] = "delta".into();
        body["lane"] = lane.into();
        body
    };
    deltas.iter().map(line).collect()
}

fn delta_object(delta: &Delta) -> Value {
    let (key, value) = match &delta.kind {
        DeltaKind::Text(text) => ("content", json!(text)),
        DeltaKind::Reasoning(text) => ("reasoning", json!(text)),
        DeltaKind::Refusal(text) => ("refusal", json!(text)),
        DeltaKind::ToolCall(call) => {
            ("tool_call", json!({"index": call.index, "id": call.id, "name": call.name, "arguments": call.arguments}))
        }
        DeltaKind::Usage(usage) => ("usage", usage_object(usage)),
        DeltaKind::Finish(reason) => ("finish_reason", json!(reason.as_str())),
        DeltaKind::Model(model) => ("served_model", json!(model)),
        DeltaKind::Opaque(bytes) => ("bytes", json!(bytes)),
    };
    json!({"choice": delta.choice, key: value})
}

/// A failure.
#[must_use]
pub fn error(error: &ApiError) -> Value {
    json!({
        "class": error.class.as_str(),
        "status": error.status,
        "code": error.code,
        "message": error.message,
        "hint": error.hint,
        "request_id": error.request_id,
        "retry_after": error.retry_after.as_ref().map(|after| after.raw.as_str()),
    })
}

fn usage_object(usage: &Usage) -> Value {
    json!({
        "input": usage.input,
        "output": usage.output,
        "cached": usage.cached,
        "reasoning": usage.reasoning,
        "estimated": usage.estimated,
    })
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
