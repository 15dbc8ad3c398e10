//! Formats a comparison as a file: HTML, Markdown, JSON or CSV, by its extension.
//!
//! The HTML page executes and loads nothing from an answer. The other formats contain the answers unchanged except for
//! control sequences: a program that opens them may interpret Markdown or formulas.

mod chart;
mod escape;
mod html;
mod markdown;
#[cfg(test)]
mod tests;

use std::{path::Path, time::Duration};

use jiff::Timestamp;
use serde_json::{Value, json};

use super::timeline::Timeline;
use crate::{
    analysis::{AnswerComparison, Vote},
    render::{diff, json, metrics::CallMetrics},
};

/// The data of a report.
#[derive(Clone, Debug)]
pub(crate) struct Report {
    /// When the report was created.
    pub created_at: Timestamp,
    /// The number of the conversation in the record.
    pub run: Option<i64>,
    /// The system prompt.
    pub system_prompt: Option<String>,
    /// The prompt.
    pub prompt: String,
    /// The answers, in the requested order.
    pub calls: Vec<ReportCall>,
    /// The comparison of the answers, if there are several.
    pub difference: Option<AnswerComparison>,
    /// The vote, if requested.
    pub vote: Option<Vote>,
}

/// One answer.
#[derive(Clone, Debug, Default)]
pub(crate) struct ReportCall {
    /// The metrics of the call.
    pub metrics: CallMetrics,
    /// The endpoint.
    pub endpoint: Option<String>,
    /// Whether the answer is complete.
    pub is_complete: bool,
    /// The message about how the call ended.
    pub note: Option<String>,
    /// The answer, without control sequences.
    pub text: String,
    /// The reasoning, without control sequences.
    pub reasoning: String,
    /// Time to first token from the start of the call, as the user perceives it.
    pub first_output: Option<Duration>,
    /// Number of upstream requests.
    pub attempt_count: usize,
    /// Tokens over time.
    pub timeline: Timeline,
}

/// Formats a report as the text of a file.
pub(crate) type ReportFormat = fn(&Report) -> String;

/// All formats by file extension.
pub(crate) static REPORT_FORMATS: &[(&str, ReportFormat)] =
    &[("html", html::page), ("md", markdown::page), ("json", to_json), ("csv", to_csv)];

/// The format for the extension of `path`.
#[must_use]
pub(crate) fn format_for_path(path: &Path) -> Option<ReportFormat> {
    let extension = path.extension()?.to_str()?.to_lowercase();
    let extension = if extension == "htm" { "html" } else { extension.as_str() };
    REPORT_FORMATS.iter().find(|(known, _)| *known == extension).map(|&(_, format)| format)
}

fn milliseconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

fn to_json(report: &Report) -> String {
    let answers = report.calls.iter().map(|call| {
        let usage = call.metrics.usage.map(|usage| {
            json!({"input": usage.input, "output": usage.output, "cached": usage.cached, "reasoning": usage.reasoning,
                   "estimated": usage.estimated})
        });
        json!({
            "name": call.metrics.name, "model": call.metrics.model, "endpoint": call.endpoint, "state": call.metrics.state,
            "complete": call.is_complete, "note": call.note, "content": call.text, "reasoning": call.reasoning, "usage": usage,
            "cost": call.metrics.cost.as_ref().map(|(cost, _)| cost), "currency": call.metrics.cost.as_ref().map(|(_, currency)| currency),
            "ttft_ms": call.metrics.ttft.map(milliseconds), "total_ms": call.metrics.total.map(milliseconds),
            "tokens_per_second": call.metrics.tokens_per_second, "attempts": call.attempt_count,
            "timeline": call.timeline.points().map(|(at, tokens)| json!([milliseconds(at), tokens])).collect::<Vec<_>>(),
        })
    });
    let document = json!({
        "at": report.created_at.to_string(), "run": report.run, "system": report.system_prompt, "prompt": report.prompt,
        "answers": answers.collect::<Vec<Value>>(),
        "difference": report.difference.as_ref().map(diff::difference_json),
        "vote": report.vote.as_ref().map(diff::vote_json),
    });
    json::document(&document)
}

/// One row per answer (RFC 4180).
fn to_csv(report: &Report) -> String {
    let mut out = String::from(
        "number,name,model,endpoint,state,ttft_ms,total_ms,input_tokens,output_tokens,estimated,tokens_per_second,cost,\
         currency,attempts,answer\n",
    );
    for (index, call) in report.calls.iter().enumerate() {
        let number = |count: Option<u64>| count.map(|count| count.to_string()).unwrap_or_default();
        let time =
            |time: Option<Duration>| time.map(|time| format!("{:.3}", time.as_secs_f64() * 1e3)).unwrap_or_default();
        let fields = [
            (index + 1).to_string(),
            call.metrics.name.clone(),
            call.metrics.model.clone().unwrap_or_default(),
            call.endpoint.clone().unwrap_or_default(),
            call.metrics.state.clone(),
            time(call.metrics.ttft),
            time(call.metrics.total),
            number(call.metrics.usage.and_then(|usage| usage.input)),
            number(call.metrics.usage.and_then(|usage| usage.output)),
            call.metrics.usage.map(|usage| usage.estimated.to_string()).unwrap_or_default(),
            call.metrics.tokens_per_second.map(|speed| format!("{speed:.1}")).unwrap_or_default(),
            call.metrics.cost.as_ref().map(|(cost, _)| format!("{cost:.6}")).unwrap_or_default(),
            call.metrics.cost.as_ref().map(|(_, currency)| currency.clone()).unwrap_or_default(),
            call.attempt_count.to_string(),
            call.text.clone(),
        ];
        out.push_str(&fields.iter().map(|field| super::record_stats::csv_field(field)).collect::<Vec<_>>().join(","));
        out.push('\n');
    }
    out
}
