//! The table at the end: how each lane did.
//!
//! Owns the figures a person compares by. What was estimated carries a star, which is explained.

use super::{
    lane::{LaneView, Stage},
    status::costs,
};
use crate::render::{
    stats::{self, COLUMNS},
    table::Table,
    wrap::{cells, wrap},
};

/// The table; on a terminal too narrow for it a line for each lane.
pub(super) fn summary(lanes: &[LaneView], width: Option<usize>, styled: bool) -> String {
    let mut table = Table::new(&COLUMNS);
    for (index, lane) in lanes.iter().enumerate() {
        table.row(std::iter::once((index + 1).to_string()).chain(lane.figures().cells()).collect());
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

fn narrow(lane: &LaneView, width: usize) -> Vec<String> {
    let figures =
        lane.outcome().map(|outcome| stats::line("", lane.usage().as_ref(), lane.cost(), outcome)).unwrap_or_default();
    let text = format!("{}: {}, {}", lane.figures().who(), lane.state(), figures.trim().replace("  ", ", "));
    wrap(&text, width).into_iter().map(|row| row.text).collect()
}

/// What the stars mean, and the sum of what was spent.
fn foot(lanes: &[LaneView]) -> Option<String> {
    let estimated = lanes.iter().any(|lane| lane.figures().is_estimated());
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
