//! A comparison as a file to keep or to hand on: HTML, Markdown, JSON or CSV, by the file's ending.
//!
//! Owns what a report says. The page runs nothing and loads nothing that a model said; the other formats hold answers as they
//! are, without control sequences: what opens them may do more with Markdown and formulas.

mod chart;
mod html;
mod markdown;
#[cfg(test)]
mod tests;

use std::{path::Path, time::Duration};

use jiff::Timestamp;
use serde_json::{Value, json};

use super::compare::Timeline;
use crate::render::diff;
use crate::{
    analysis::{Difference, Vote},
    render::stats::Figures,
};

/// Everything that is told of a run.
#[derive(Clone, Debug)]
pub struct Report {
    /// When it was made.
    pub at: Timestamp,
    /// Its number in the record.
    pub run: Option<i64>,
    /// The system text.
    pub system: Option<String>,
    /// What was asked.
    pub prompt: String,
    /// The answers, in the order asked for.
    pub lanes: Vec<ReportLane>,
    /// What they have in common, where there are several.
    pub difference: Option<Difference>,
    /// How they voted, where that was asked for.
    pub vote: Option<Vote>,
}

/// One answer.
#[derive(Clone, Debug, Default)]
pub struct ReportLane {
    /// How it went.
    pub figures: Figures,
    /// Its endpoint.
    pub endpoint: Option<String>,
    /// The answer is whole.
    pub is_whole: bool,
    /// What there is to say about how it ended.
    pub note: Option<String>,
    /// The answer, without control sequences.
    pub text: String,
    /// What was thought.
    pub reasoning: String,
    /// To the first token, from the start: as the person felt it.
    pub first: Option<Duration>,
    /// Requests that were sent.
    pub attempts: usize,
    /// How it grew.
    pub timeline: Timeline,
}

/// A report as the text of a file.
pub type ReportFormat = fn(&Report) -> String;

/// Every format, by the ending of its files.
pub static REPORTS: &[(&str, ReportFormat)] =
    &[("html", html::page), ("md", markdown::page), ("json", document), ("csv", csv)];

/// The format for this file.
#[must_use]
pub fn report(path: &Path) -> Option<ReportFormat> {
    let ending = path.extension()?.to_str()?.to_lowercase();
    let ending = if ending == "htm" { "html" } else { ending.as_str() };
    REPORTS.iter().find(|(known, _)| *known == ending).map(|&(_, format)| format)
}

fn milliseconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

fn document(report: &Report) -> String {
    let lanes = report.lanes.iter().map(|lane| {
        let usage = lane.figures.usage.map(|usage| {
            json!({"input": usage.input, "output": usage.output, "cached": usage.cached, "reasoning": usage.reasoning,
                   "estimated": usage.estimated})
        });
        json!({
            "name": lane.figures.name, "model": lane.figures.model, "endpoint": lane.endpoint, "state": lane.figures.state,
            "whole": lane.is_whole, "note": lane.note, "content": lane.text, "reasoning": lane.reasoning, "usage": usage,
            "cost": lane.figures.cost.as_ref().map(|(cost, _)| cost), "currency": lane.figures.cost.as_ref().map(|(_, currency)| currency),
            "ttft_ms": lane.figures.ttft.map(milliseconds), "total_ms": lane.figures.total.map(milliseconds),
            "tokens_per_second": lane.figures.tokens_per_second, "attempts": lane.attempts,
            "timeline": lane.timeline.points().map(|(at, tokens)| json!([milliseconds(at), tokens])).collect::<Vec<_>>(),
        })
    });
    let document = json!({
        "at": report.at.to_string(), "run": report.run, "system": report.system, "prompt": report.prompt,
        "answers": lanes.collect::<Vec<Value>>(),
        "difference": report.difference.as_ref().map(diff::difference_object),
        "vote": report.vote.as_ref().map(diff::vote_object),
    });
    format!("{document:#}\n")
}

/// One row for each answer, quoted as RFC 4180 has it.
fn csv(report: &Report) -> String {
    let mut out = String::from(
        "number,name,model,endpoint,state,ttft_ms,total_ms,input_tokens,output_tokens,estimated,tokens_per_second,cost,\
         currency,attempts,answer\n",
    );
    for (index, lane) in report.lanes.iter().enumerate() {
        let figure = |count: Option<u64>| count.map(|count| count.to_string()).unwrap_or_default();
        let time =
            |time: Option<Duration>| time.map(|time| format!("{:.3}", time.as_secs_f64() * 1e3)).unwrap_or_default();
        let fields = [
            (index + 1).to_string(),
            lane.figures.name.clone(),
            lane.figures.model.clone().unwrap_or_default(),
            lane.endpoint.clone().unwrap_or_default(),
            lane.figures.state.clone(),
            time(lane.figures.ttft),
            time(lane.figures.total),
            figure(lane.figures.usage.and_then(|usage| usage.input)),
            figure(lane.figures.usage.and_then(|usage| usage.output)),
            lane.figures.usage.map(|usage| usage.estimated.to_string()).unwrap_or_default(),
            lane.figures.tokens_per_second.map(|speed| format!("{speed:.1}")).unwrap_or_default(),
            lane.figures.cost.as_ref().map(|(cost, _)| format!("{cost:.6}")).unwrap_or_default(),
            lane.figures.cost.as_ref().map(|(_, currency)| currency.clone()).unwrap_or_default(),
            lane.attempts.to_string(),
            lane.text.clone(),
        ];
        out.push_str(&fields.iter().map(|field| super::figures::quoted(field)).collect::<Vec<_>>().join(","));
        out.push('\n');
    }
    out
}
