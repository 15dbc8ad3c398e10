//! Renders the table of metrics at the end of a comparison.
//!
//! Estimated values are marked with a star, which the last line explains.

use super::{
    call::{CallView, Stage},
    status::total_costs,
};
use crate::render::{
    RESET,
    metrics::{self, COLUMNS},
    table::Table,
    wrap::{display_width, wrap},
};

/// The table; on a terminal too narrow for it, one line per call.
pub(super) fn summary_table(calls: &[CallView], width: Option<usize>, styled: bool) -> String {
    let mut table = Table::new(&COLUMNS);
    for (index, call) in calls.iter().enumerate() {
        table.add_row(std::iter::once((index + 1).to_string()).chain(call.metrics().to_cells()).collect());
    }
    let mut lines = table.lines();
    // The last cell of a row stays empty, so that the terminal does not wrap it.
    if let Some(width) = width.filter(|width| lines.iter().any(|line| display_width(line) >= *width)) {
        lines = calls.iter().flat_map(|call| narrow_lines(call, width.saturating_sub(1))).collect();
    } else if styled {
        for (line, call) in lines[1..].iter_mut().zip(calls) {
            if call.stage() == Stage::Failed {
                *line = format!("\u{1b}[31m{line}{RESET}");
            }
        }
    }
    lines.extend(footer(calls));
    lines.push(String::new());
    lines.join("\n")
}

fn narrow_lines(call: &CallView, width: usize) -> Vec<String> {
    let metrics = call
        .record()
        .map(|record| metrics::summary_line("", call.usage().as_ref(), call.cost(), record))
        .unwrap_or_default();
    let text = format!("{}: {}, {}", call.metrics().label(), call.state_label(), metrics.trim().replace("  ", ", "));
    wrap(&text, width).into_iter().map(|row| row.text).collect()
}

/// The explanation of the stars, and the total cost.
fn footer(calls: &[CallView]) -> Option<String> {
    let estimated = calls.iter().any(|call| call.metrics().is_estimated());
    let sums = if calls.len() > 1 { total_costs(calls) } else { Vec::new() };
    let mut parts = Vec::new();
    if estimated {
        parts.push("* estimated".to_owned());
    }
    if !sums.is_empty() {
        parts.push(format!("total {}", sums.join(" + ")));
    }
    (!parts.is_empty()).then(|| parts.join("    "))
}
