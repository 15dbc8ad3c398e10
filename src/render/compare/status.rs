//! Renders one status row per call, if there is no room for columns, and one row of totals.
//!
//! A pure function of the calls, the size and the time. Rows are narrower than the screen: the last cell stays empty.

use std::time::Duration;

use tokio::time::Instant;

use super::call::{CallView, Stage};
use crate::render::{
    RESET,
    metrics::format_money,
    notice::format_duration,
    wrap::{display_width, max_display_width, tail_to_width, truncate_to_width},
};

/// Maximum width of a name.
const MAX_NAME_WIDTH: usize = 24;
/// Minimum width for the end of a text to be shown.
const MIN_TAIL_WIDTH: usize = 12;

/// The screen and the time that rows are rendered for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Screen {
    pub(super) width: usize,
    pub(super) height: usize,
    pub(super) styled: bool,
    pub(super) now: Instant,
    pub(super) started_at: Instant,
}

/// One row per call, at most `max_rows`; if there are more calls, running ones are preferred.
pub(super) fn status_rows(calls: &[CallView], max_rows: usize, screen: Screen) -> Vec<String> {
    let width = screen.width.saturating_sub(1);
    let name_width =
        calls.iter().map(|call| display_width(&call.name)).max().unwrap_or(0).min(MAX_NAME_WIDTH).min(width / 3);
    let digits = calls.len().to_string().len();
    let indices = visible_indices(calls, max_rows).into_iter();
    indices.map(|index| status_row(index + 1, digits, &calls[index], name_width, width, screen)).collect()
}

/// The indices of the calls that get a row, in order; running ones are preferred.
fn visible_indices(calls: &[CallView], max_rows: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..calls.len()).collect();
    if calls.len() > max_rows {
        order.sort_by_key(|&index| match calls[index].stage() {
            Stage::Streaming => 0,
            Stage::Waiting => 1,
            Stage::Failed => 2,
            Stage::Warning => 3,
            Stage::Complete => 4,
            Stage::Queued => 5,
        });
        order.truncate(max_rows);
        order.sort_unstable();
    }
    order
}

/// ` 1 fast  ..   212 ms   88 tok   96 t/s  the end of the text`
fn status_row(
    number: usize,
    digits: usize,
    call: &CallView,
    name_width: usize,
    width: usize,
    screen: Screen,
) -> String {
    let name = truncate_to_width(&call.name, name_width);
    let padding = " ".repeat(name_width - display_width(&name));
    let mut out = format!(" {number:digits$} {name}{padding}  ");
    out.push_str(&aligned_metrics(call, screen.now));
    let mut out = truncate_to_width(&out, width);
    let free_width = width.saturating_sub(max_display_width(&out));
    if free_width >= MIN_TAIL_WIDTH && call.stage() != Stage::Queued {
        let tail = tail_text(call);
        out.push_str("  ");
        match tail_to_width(&tail, free_width - 2) {
            complete if complete.len() == tail.len() => out.push_str(complete),
            _ => out.extend(["…", tail_to_width(&tail, free_width - 3)]),
        }
    }
    apply_style(out, call.stage(), screen.styled)
}

/// The state in a word; for a waiting call also the time waited.
pub(super) fn state_text(call: &CallView, now: Instant) -> String {
    match call.stage() {
        Stage::Waiting => format!(".. {}", format_duration(call.waiting_time(now))),
        _ => call.state_label(),
    }
}

/// Time to first token, speed, tokens and total time, as far as known, the most important first.
pub(super) fn metrics(call: &CallView, now: Instant) -> impl Iterator<Item = String> {
    let total = call.record().map(|record| format_duration(record.total));
    [call.ttft().map(format_duration), speed_text(call, now), token_text(call), total].into_iter().flatten()
}

fn token_text(call: &CallView) -> Option<String> {
    let prefix = if call.reported_tokens().is_none() { "~" } else { "" };
    Some(call.tokens()).filter(|&tokens| tokens > 0).map(|tokens| format!("{prefix}{tokens} tok"))
}

fn speed_text(call: &CallView, now: Instant) -> Option<String> {
    call.tokens_per_second(now).map(|speed| format!("{speed:.0} t/s"))
}

/// State, time to first token, tokens and speed, in aligned columns.
fn aligned_metrics(call: &CallView, now: Instant) -> String {
    let ttft = call.ttft().map(format_duration).unwrap_or_default();
    let (tokens, speed) = (token_text(call).unwrap_or_default(), speed_text(call, now).unwrap_or_default());
    let text = format!("{:<10} {ttft:>7} {tokens:>9} {speed:>8}", state_text(call, now));
    text.trim_end().to_owned()
}

/// The last line of the text; before there is text, the current candidate of a route.
fn tail_text(call: &CallView) -> String {
    let target = call.target().map(|target| target.id.0.as_str()).filter(|id| *id != call.name);
    match (call.last_line(), target) {
        ("", Some(target)) => format!("({target})"),
        (tail, _) => tail.replace('\t', " "),
    }
}

/// `2/3 running  $0.0004  4.2 s`
pub(super) fn total_row(calls: &[CallView], hidden: usize, screen: Screen) -> String {
    let running = calls.iter().filter(|call| call.record().is_none()).count();
    let failed = calls.iter().filter(|call| call.stage() == Stage::Failed).count();
    let mut parts = vec![format!(" {running}/{} running", calls.len())];
    if failed > 0 {
        parts.push(format!("{failed} failed"));
    }
    if hidden > 0 {
        parts.push(format!("{hidden} not shown"));
    }
    parts.extend(total_costs(calls));
    let elapsed: Duration = screen.now.saturating_duration_since(screen.started_at);
    parts.push(format_duration(elapsed));
    parts.join("  ")
}

/// The total cost of the calls so far, one sum per currency.
pub(super) fn total_costs(calls: &[CallView]) -> Vec<String> {
    let mut sums: Vec<(&str, f64)> = Vec::new();
    for (cost, currency) in calls.iter().filter_map(CallView::cost) {
        match sums.iter_mut().find(|(known, _)| *known == currency) {
            Some((_, sum)) => *sum += cost,
            None => sums.push((currency, cost)),
        }
    }
    sums.into_iter().map(|(currency, sum)| format_money(sum, currency)).collect()
}

fn apply_style(row: String, stage: Stage, styled: bool) -> String {
    let code = match stage {
        _ if !styled => return row,
        Stage::Failed => "31",
        Stage::Warning => "33",
        Stage::Queued | Stage::Waiting => "2",
        Stage::Streaming | Stage::Complete => return row,
    };
    format!("\u{1b}[{code}m{row}{RESET}")
}
