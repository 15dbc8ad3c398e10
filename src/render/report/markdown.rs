//! Formats the report as Markdown.

use std::fmt::Write as _;

use super::Report;
use crate::{
    model::sanitize::{one_line, sanitize},
    render::{
        diff,
        metrics::{COLUMNS, is_right_aligned},
    },
};

pub(super) fn page(report: &Report) -> String {
    let mut out = String::from("# Comparison\n\n");
    if let Some(system) = &report.system_prompt {
        let _ = write!(out, "*{}*\n\n", one_line(system));
    }
    for line in sanitize(&report.prompt).lines() {
        let _ = writeln!(out, "> {line}");
    }
    let (names, delimiters) = (COLUMNS.map(|name| name.trim_start_matches('>')), COLUMNS.map(column_delimiter));
    let _ = writeln!(out, "\n| {} |\n|{}|", names.join(" | "), delimiters.join("|"));
    for (index, call) in report.calls.iter().enumerate() {
        let cells = call.metrics.to_cells().map(|cell| cell.replace('|', "\\|"));
        let _ = writeln!(out, "| {} | {} |", index + 1, cells.join(" | "));
    }
    if report.calls.iter().any(|call| call.metrics.is_estimated()) {
        out.push_str("\n\\* estimated\n");
    }
    let names: Vec<String> = report.calls.iter().map(|call| call.metrics.name.clone()).collect();
    if let Some(vote) = &report.vote {
        let _ = write!(out, "\n```\n{}```\n", diff::render_vote(&names, vote));
    }
    if let Some(difference) = &report.difference {
        let _ = write!(out, "\n```\n{}```\n", diff::render_difference(&names, difference));
    }
    for (index, call) in report.calls.iter().enumerate() {
        let _ = write!(out, "\n## {} {} ({})\n\n", index + 1, call.metrics.name, call.metrics.state);
        if !call.text.trim().is_empty() {
            let _ = writeln!(out, "{}", call.text.trim_end());
        }
        if let Some(note) = &call.note {
            let _ = writeln!(out, "\n*{}*", one_line(note));
        }
    }
    out
}

/// The delimiter below a column name, which sets the alignment.
fn column_delimiter(column: &str) -> &'static str {
    if is_right_aligned(column) { "--:" } else { "---" }
}
