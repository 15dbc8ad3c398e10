//! The report as Markdown.

use std::fmt::Write as _;

use super::Report;
use crate::{
    model::sanitize::one_line,
    render::{
        diff,
        stats::{COLUMNS, is_figure},
    },
};

pub(super) fn page(report: &Report) -> String {
    let mut out = String::from("# Comparison\n\n");
    if let Some(system) = &report.system {
        let _ = write!(out, "*{}*\n\n", one_line(system));
    }
    for line in report.prompt.lines() {
        let _ = writeln!(out, "> {line}");
    }
    let (names, lines) = (COLUMNS.map(|name| name.trim_start_matches('>')), COLUMNS.map(line));
    let _ = writeln!(out, "\n| {} |\n|{}|", names.join(" | "), lines.join("|"));
    for (index, lane) in report.lanes.iter().enumerate() {
        let cells = lane.figures.cells().map(|cell| cell.replace('|', "\\|"));
        let _ = writeln!(out, "| {} | {} |", index + 1, cells.join(" | "));
    }
    if report.lanes.iter().any(|lane| lane.figures.is_estimated()) {
        out.push_str("\n\\* estimated\n");
    }
    let names: Vec<String> = report.lanes.iter().map(|lane| lane.figures.name.clone()).collect();
    if let Some(vote) = &report.vote {
        let _ = write!(out, "\n```\n{}```\n", diff::vote(&names, vote));
    }
    if let Some(known) = &report.difference {
        let _ = write!(out, "\n```\n{}```\n", diff::difference(&names, known));
    }
    for (index, lane) in report.lanes.iter().enumerate() {
        let _ = write!(out, "\n## {} {} ({})\n\n", index + 1, lane.figures.name, lane.figures.state);
        if !lane.text.trim().is_empty() {
            let _ = writeln!(out, "{}", lane.text.trim_end());
        }
        if let Some(note) = &lane.note {
            let _ = writeln!(out, "\n*{}*", one_line(note));
        }
    }
    out
}

/// What stands below a column's name, and says on which side its cells stand.
fn line(column: &str) -> &'static str {
    if is_figure(column) { "--:" } else { "---" }
}
