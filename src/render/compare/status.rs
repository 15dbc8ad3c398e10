//! One row for each lane while answers come, where there is no room for columns, and one for all of them.
//!
//! Owns what a row says and which rows there is room for. A pure function of the lanes, the size and the time; no row is
//! wider than the screen, its last cell stays empty.

use std::time::Duration;

use tokio::time::Instant;

use super::lane::{LaneView, Stage};
use crate::render::{
    notice::duration,
    stats::money,
    wrap::{cells, end_of, most_cells, shortened},
};

/// A name takes no more of a row.
const WIDEST_NAME: usize = 24;
/// Fewer cells show nothing of a text.
const NARROWEST_TAIL: usize = 12;

/// What the rows are made for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Screen {
    pub(super) width: usize,
    pub(super) height: usize,
    pub(super) styled: bool,
    pub(super) now: Instant,
    pub(super) begun: Instant,
}

/// A row for each lane, those under way first when there is not room for all.
pub(super) fn rows(lanes: &[LaneView], room: usize, screen: Screen) -> Vec<String> {
    let width = screen.width.saturating_sub(1);
    let names = lanes.iter().map(|lane| cells(&lane.name)).max().unwrap_or(0).min(WIDEST_NAME).min(width / 3);
    let digits = lanes.len().to_string().len();
    let shown = shown(lanes, room).into_iter();
    shown.map(|index| row(index + 1, digits, &lanes[index], names, width, screen)).collect()
}

/// Which lanes get a row, in their order: all, or first those under way.
fn shown(lanes: &[LaneView], room: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..lanes.len()).collect();
    if lanes.len() > room {
        order.sort_by_key(|&index| match lanes[index].stage() {
            Stage::Coming => 0,
            Stage::Waiting => 1,
            Stage::Bad => 2,
            Stage::Odd => 3,
            Stage::Good => 4,
            Stage::Queued => 5,
        });
        order.truncate(room);
        order.sort_unstable();
    }
    order
}

/// ` 1 fast  ..   212 ms   88 tok   96 t/s  the end of its text`
fn row(number: usize, digits: usize, lane: &LaneView, names: usize, width: usize, screen: Screen) -> String {
    let name = shortened(&lane.name, names);
    let padding = " ".repeat(names - cells(&name));
    let mut out = format!(" {number:digits$} {name}{padding}  ");
    out.push_str(&figures_in_place(lane, screen.now));
    let mut out = shortened(&out, width);
    let left = width.saturating_sub(most_cells(&out));
    if left >= NARROWEST_TAIL && lane.stage() != Stage::Queued {
        let tail = tail(lane);
        out.push_str("  ");
        match end_of(&tail, left - 2) {
            whole if whole.len() == tail.len() => out.push_str(whole),
            _ => out.extend(["…", end_of(&tail, left - 3)]),
        }
    }
    paint(out, lane.stage(), screen.styled)
}

/// The state in a word; of one that waits how long.
pub(super) fn state(lane: &LaneView, now: Instant) -> String {
    match lane.stage() {
        Stage::Waiting => format!(".. {}", duration(lane.waiting(now))),
        _ => lane.state(),
    }
}

/// Time to the first token, speed, tokens, time in all: those that are known, the most telling first.
pub(super) fn figures(lane: &LaneView, now: Instant) -> impl Iterator<Item = String> {
    let total = lane.outcome().map(|outcome| duration(outcome.total));
    [lane.ttft().map(duration), speed(lane, now), tokens(lane), total].into_iter().flatten()
}

fn tokens(lane: &LaneView) -> Option<String> {
    let about = if lane.reported_tokens().is_none() { "~" } else { "" };
    Some(lane.tokens()).filter(|&tokens| tokens > 0).map(|tokens| format!("{about}{tokens} tok"))
}

fn speed(lane: &LaneView, now: Instant) -> Option<String> {
    lane.speed(now).map(|speed| format!("{speed:.0} t/s"))
}

/// State, time to the first token, tokens, speed: each in its place.
fn figures_in_place(lane: &LaneView, now: Instant) -> String {
    let ttft = lane.ttft().map(duration).unwrap_or_default();
    let (tokens, speed) = (tokens(lane).unwrap_or_default(), speed(lane, now).unwrap_or_default());
    let text = format!("{:<10} {ttft:>7} {tokens:>9} {speed:>8}", state(lane, now));
    text.trim_end().to_owned()
}

/// The end of the open line; whom a route asks, as long as it has said nothing.
fn tail(lane: &LaneView) -> String {
    let target = lane.target().map(|target| target.id.0.as_str()).filter(|id| *id != lane.name);
    match (lane.tail(), target) {
        ("", Some(target)) => format!("({target})"),
        (tail, _) => tail.replace('\t', " "),
    }
}

/// `2/3 running  $0.0004  4.2 s`
pub(super) fn total(lanes: &[LaneView], unseen: usize, screen: Screen) -> String {
    let under_way = lanes.iter().filter(|lane| lane.outcome().is_none()).count();
    let failed = lanes.iter().filter(|lane| lane.stage() == Stage::Bad).count();
    let mut parts = vec![format!(" {under_way}/{} running", lanes.len())];
    if failed > 0 {
        parts.push(format!("{failed} failed"));
    }
    if unseen > 0 {
        parts.push(format!("{unseen} not shown"));
    }
    parts.extend(costs(lanes));
    let elapsed: Duration = screen.now.saturating_duration_since(screen.begun);
    parts.push(duration(elapsed));
    parts.join("  ")
}

/// What the lanes cost so far, each currency by itself.
pub(super) fn costs(lanes: &[LaneView]) -> Vec<String> {
    let mut sums: Vec<(&str, f64)> = Vec::new();
    for (cost, currency) in lanes.iter().filter_map(LaneView::cost) {
        match sums.iter_mut().find(|(known, _)| *known == currency) {
            Some((_, sum)) => *sum += cost,
            None => sums.push((currency, cost)),
        }
    }
    sums.into_iter().map(|(currency, sum)| money(sum, currency)).collect()
}

fn paint(row: String, stage: Stage, styled: bool) -> String {
    let code = match stage {
        _ if !styled => return row,
        Stage::Bad => "31",
        Stage::Odd => "33",
        Stage::Queued | Stage::Waiting => "2",
        Stage::Coming | Stage::Good => return row,
    };
    format!("\u{1b}[{code}m{row}\u{1b}[0m")
}
