//! Formats answers and events as JSON: `--format json` (one object per answer) and `jsonl` (one per event).
//!
//! No text is sanitized: control characters and those that reorder text are escaped.

use std::time::Duration;

use serde_json::{Value, json};

use super::{Output, metrics::tokens_per_second};
use crate::{
    engine::{AttemptRecord, CallRecord, Event, EventKind, NextStep},
    model::{Answer, Delta, DeltaKind, FinishReason, Usage, sanitize::escape_in_json},
    protocol::CallError,
};

/// One answer, complete or incomplete, with its usage and cost. The answer is moved because its text may be large.
#[must_use]
pub(crate) fn answer(
    name: &str,
    answer: Answer,
    (usage, cost): (Option<&Usage>, Option<f64>),
    record: &CallRecord,
) -> Value {
    let target = record.target.as_ref();
    let finish_reason = match &record.result {
        Ok(completion) => completion.finish_reason.as_ref(),
        Err(_) => answer.finish_reason.as_ref(),
    };
    let finish_reason = finish_reason.map(|reason| reason.as_str().to_owned());
    let mut object = json!({
        "model": name,
        "endpoint": target.map(|target| target.endpoint.name.as_str()),
        "upstream_model": target.map(|target| target.upstream_id.as_str()),
        "served_model": answer.model,
        "content": null,
        "reasoning": null,
        "truncated": record.result.is_err() || finish_reason.as_deref() == Some(FinishReason::Length.as_str()),
        "finish_reason": finish_reason,
        "usage": usage.map(usage_json),
        "cost": cost,
        "timing": {
            "ttft_ms": record.ttft.map(milliseconds),
            "total_ms": milliseconds(record.total),
            "tokens_per_second": usage.and_then(|usage| tokens_per_second(usage, record)),
        },
        "attempts": record.attempts.iter().map(AttemptRecord::to_json).collect::<Vec<_>>(),
        "error": record.result.as_ref().err().map(error),
    });
    // Moved, not cloned: these may be large.
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

/// The lines of one event; empty for events without a line (the end of a call is [`answer`]).
#[must_use]
pub(crate) fn event(event: &Event) -> Vec<Value> {
    let line = |kind: &str, mut body: Value| {
        body["event"] = kind.into();
        body["call"] = event.call.into();
        body
    };
    match &event.kind {
        EventKind::Started(target) => {
            let (endpoint, upstream) = (&target.endpoint.name, &target.upstream_id);
            vec![line("started", json!({"model": target.id.0, "endpoint": endpoint, "upstream_model": upstream}))]
        }
        EventKind::FirstToken(ttft) => vec![line("ttft", json!({"ttft_ms": milliseconds(*ttft)}))],
        EventKind::Deltas(batch) => deltas(event.call, &batch.deltas),
        EventKind::Failed { record, next } => {
            let (name, target) = match next {
                NextStep::RetrySame => ("repeat", None),
                NextStep::RotateKey => ("next-key", None),
                NextStep::Failover(target) => ("failover", Some(target)),
                NextStep::AwaitHedge(target) => ("awaited", Some(target)),
                NextStep::RestartOutput(target) => ("restart", Some(target)),
            };
            vec![line(
                "failed",
                json!({"attempt": record.to_json(), "next": name, "to": target.map(|target| &target.0)}),
            )]
        }
        EventKind::Notice(notice) => vec![line("notice", json!({"message": super::notice::format_notice(notice)}))],
        EventKind::Restarted => vec![line("again", json!({}))],
        // Buffered deltas get their lines when they are shown.
        EventKind::Headers(_) | EventKind::BufferedDeltas(_) | EventKind::Finished(_) => Vec::new(),
    }
}

/// The first line of a run of several calls: the requested names.
#[must_use]
pub(crate) fn run_started(names: &[&str]) -> Value {
    json!({"event": "run", "calls": names})
}

/// Writes each value on its own line.
pub(crate) fn write_lines(values: &[Value], output: &mut Output) {
    for value in values {
        let out = output.out();
        out.push_str(&escape_in_json(value.to_string()));
        out.push('\n');
    }
}

/// The text of a JSON document.
#[must_use]
pub(crate) fn document(value: &Value) -> String {
    escape_in_json(format!("{value:#}\n"))
}

/// One line per delta. `index`: the index of the call.
#[must_use]
pub(crate) fn deltas(index: usize, deltas: &[Delta]) -> Vec<Value> {
    let line = |delta| {
        let mut body = delta_json(delta);
        body["event"] = "delta".into();
        body["call"] = index.into();
        body
    };
    deltas.iter().map(line).collect()
}

fn delta_json(delta: &Delta) -> Value {
    let (key, value) = match &delta.kind {
        DeltaKind::Text(text) => ("content", json!(text)),
        DeltaKind::Reasoning(text) => ("reasoning", json!(text)),
        DeltaKind::Refusal(text) => ("refusal", json!(text)),
        DeltaKind::ToolCall(call) => {
            ("tool_call", json!({"index": call.index, "id": call.id, "name": call.name, "arguments": call.arguments}))
        }
        DeltaKind::Usage(usage) => ("usage", usage_json(usage)),
        DeltaKind::Finish(reason) => ("finish_reason", json!(reason.as_str())),
        DeltaKind::Model(model) => ("served_model", json!(model)),
        DeltaKind::Opaque(bytes) => ("bytes", json!(bytes)),
        DeltaKind::OpaqueReasoning(bytes) => ("reasoning_bytes", json!(bytes)),
    };
    json!({"choice": delta.choice, key: value})
}

/// An error as a JSON object.
#[must_use]
pub(crate) fn error(error: &CallError) -> Value {
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

fn usage_json(usage: &Usage) -> Value {
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
