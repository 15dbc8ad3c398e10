//! The report as Markdown.

use std::fmt::Write as _;

use super::{Report, ReportLane};
use crate::{
    chat::sanitise::one_line,
    render::{difference, notice::duration, stats::money},
};

pub(super) fn page(report: &Report) -> String {
    let mut out = String::from("# Comparison\n\n");
    if let Some(system) = &report.system {
        let _ = write!(out, "*{}*\n\n", one_line(system));
    }
    for line in report.prompt.lines() {
        let _ = writeln!(out, "> {line}");
    }
    out.push_str("\n| # | model | state | TTFT | total | in / out | tok/s | cost |\n");
    out.push_str("|--:|---|---|--:|--:|--:|--:|--:|\n");
    for (index, lane) in report.lanes.iter().enumerate() {
        let cells = row(lane).map(|cell| cell.replace('|', "\\|"));
        let _ = writeln!(out, "| {} | {} |", index + 1, cells.join(" | "));
    }
    if report.lanes.iter().any(|lane| lane.usage.is_some_and(|usage| usage.estimated)) {
        out.push_str("\n\\* estimated\n");
    }
    let names: Vec<String> = report.lanes.iter().map(|lane| lane.name.clone()).collect();
    if let Some(vote) = &report.vote {
        let _ = write!(out, "\n```\n{}```\n", difference::vote(&names, vote));
    }
    if let Some(known) = &report.difference {
        let _ = write!(out, "\n```\n{}```\n", difference::difference(&names, known));
    }
    for (index, lane) in report.lanes.iter().enumerate() {
        let _ = write!(out, "\n## {} {} ({})\n\n", index + 1, lane.name, lane.state);
        if !lane.text.trim().is_empty() {
            let _ = writeln!(out, "{}", lane.text.trim_end());
        }
        if let Some(note) = &lane.note {
            let _ = writeln!(out, "\n*{}*", one_line(note));
        }
    }
    out
}

/// The figures of one answer, as the table has them.
pub(super) fn row(lane: &ReportLane) -> [String; 7] {
    let figure = |count: Option<u64>| count.map_or_else(|| "?".to_owned(), |count| count.to_string());
    let name = match &lane.model {
        Some(model) if *model != lane.name => format!("{} ({model})", lane.name),
        _ => lane.name.clone(),
    };
    let tokens = lane.usage.map(|usage| {
        let star = if usage.estimated { "*" } else { "" };
        format!("{} / {}{star}", figure(usage.input), figure(usage.output))
    });
    let or_none = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    [
        name,
        lane.state.clone(),
        or_none(lane.ttft.map(duration)),
        or_none(lane.total.map(duration)),
        or_none(tokens),
        or_none(lane.tokens_per_second.map(|speed| format!("{speed:.0}"))),
        or_none(lane.cost.as_ref().map(|(cost, currency)| money(*cost, currency))),
    ]
}
