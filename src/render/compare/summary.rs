//! The table at the end: how each lane did.
//!
//! Owns the figures a person compares by. What was estimated carries a star, which is explained.

use super::{
    lane::{LaneView, Stage},
    status::costs,
};
use crate::render::{
    notice::duration,
    stats::{self, money},
    table::Table,
    wrap::{cells, wrap},
};

/// The table; on a terminal too narrow for it a line for each lane.
pub(super) fn summary(lanes: &[LaneView], width: Option<usize>, styled: bool) -> String {
    let mut table = Table::new(&["#", "model", "state", ">TTFT", ">total", ">in / out", ">tok/s", ">cost"]);
    for (index, lane) in lanes.iter().enumerate() {
        table.row(row(index + 1, lane));
    }
    let mut lines = table.lines();
    // The last cell of a row stays empty.
    if let Some(width) = width.filter(|width| lines.iter().any(|line| cells(line) >= *width)) {
        lines = lanes.iter().flat_map(|lane| narrow(lane, width.saturating_sub(1))).collect();
    } else if styled {
        for (line, lane) in lines[1..].iter_mut().zip(lanes) {
            if lane.stage() == Stage::Bad {
                *line = format!("\u{1b}[31m{line}\u{1b}[0m");
            }
        }
    }
    lines.extend(foot(lanes));
    lines.push(String::new());
    lines.join("\n")
}

fn row(number: usize, lane: &LaneView) -> Vec<String> {
    let outcome = lane.outcome();
    let figure = |count: Option<u64>| count.map_or_else(|| "?".to_owned(), |count| count.to_string());
    let usage = lane.usage();
    let tokens = usage.map(|usage| {
        let star = if usage.estimated { "*" } else { "" };
        format!("{} / {}{star}", figure(usage.input), figure(usage.output))
    });
    let speed = outcome.zip(usage).and_then(|(outcome, usage)| stats::tokens_per_second(&usage, outcome));
    vec![
        number.to_string(),
        name(lane),
        lane.state(),
        lane.ttft().map(duration).unwrap_or_default(),
        outcome.map(|outcome| duration(outcome.total)).unwrap_or_default(),
        tokens.unwrap_or_default(),
        speed.map(|speed| format!("{speed:.0}")).unwrap_or_default(),
        lane.cost().map(|(cost, currency)| money(cost, currency)).unwrap_or_default(),
    ]
}

/// The lane's name; with a route also who answered.
fn name(lane: &LaneView) -> String {
    match lane.target().filter(|target| target.id.0 != lane.name) {
        Some(target) => format!("{} ({})", lane.name, target.id),
        None => lane.name.clone(),
    }
}

fn narrow(lane: &LaneView, width: usize) -> Vec<String> {
    let figures =
        lane.outcome().map(|outcome| stats::line("", lane.usage().as_ref(), lane.cost(), outcome)).unwrap_or_default();
    let text = format!("{}: {}, {}", name(lane), lane.state(), figures.trim().replace("  ", ", "));
    wrap(&text, width).into_iter().map(|row| row.text).collect()
}

/// What the stars mean, and the sum of what was spent.
fn foot(lanes: &[LaneView]) -> Option<String> {
    let estimated = lanes.iter().any(|lane| lane.usage().is_some_and(|usage| usage.estimated));
    let sums = if lanes.len() > 1 { costs(lanes) } else { Vec::new() };
    let mut parts = Vec::new();
    if estimated {
        parts.push("* estimated".to_owned());
    }
    if !sums.is_empty() {
        parts.push(format!("together {}", sums.join(" + ")));
    }
    (!parts.is_empty()).then(|| parts.join("    "))
}
