//! Two pictures of a run, as SVG: when each answer began and ended, and how it grew.
//!
//! Owns the geometry. Colours are the page's (`--c0` to `--c7`), so that they fit light and dark; every line is also labelled.

use std::{fmt::Write as _, time::Duration};

use super::{Report, html::escaped};
use crate::render::notice::duration;

const WIDTH: f64 = 720.0;
const LEFT: f64 = 130.0;
const RIGHT: f64 = 120.0;
const ROW: f64 = 26.0;
const HEIGHT: f64 = 260.0;
const COLOURS: usize = 8;
/// A name that is longer would stand in the picture.
const LONGEST_NAME: usize = 16;

/// The longest of the run; never nothing.
fn longest(report: &Report) -> f64 {
    let ends = report.lanes.iter().filter_map(|lane| lane.figures.total);
    let points = report.lanes.iter().flat_map(|lane| lane.timeline.points().map(|(at, _)| at));
    ends.chain(points).max().unwrap_or_default().as_secs_f64().max(0.001)
}

fn name(index: usize, name: &str) -> String {
    let short: String = name.chars().take(LONGEST_NAME).collect();
    let more = if short.len() < name.len() { "…" } else { "" };
    escaped(&format!("{} {short}{more}", index + 1))
}

/// A bar for each answer: the wait for the first token, then the rest.
pub(super) fn bars(report: &Report) -> String {
    let (longest, room) = (longest(report), WIDTH - LEFT - RIGHT);
    let height = ROW * count(report.lanes.len()) + 24.0;
    let mut out = open("Time to the first token and in all", height);
    for (index, lane) in report.lanes.iter().enumerate() {
        let (y, colour) = (ROW * count(index) + 6.0, index % COLOURS);
        let x = |time: Duration| LEFT + time.as_secs_f64() / longest * room;
        let _ = write!(
            out,
            "<text class=n x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            LEFT - 8.0,
            y + 12.0,
            name(index, &lane.figures.name)
        );
        let total = lane.figures.total.unwrap_or_default();
        let first = lane.first.unwrap_or(total).min(total);
        let _ = write!(
            out,
            "<rect class=w x=\"{LEFT}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"16\"/>\
             <rect x=\"{:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"16\" fill=\"var(--c{colour})\"/>",
            x(first) - LEFT,
            x(first),
            (x(total) - x(first)).max(0.0),
        );
        let told = match lane.figures.ttft {
            Some(ttft) => format!("{} / {}", duration(ttft), duration(total)),
            None => duration(total),
        };
        let _ = write!(out, "<text class=t x=\"{:.1}\" y=\"{:.1}\">{told}</text>", x(total) + 5.0, y + 12.0);
    }
    let _ = write!(
        out,
        "<text class=a x=\"{LEFT}\" y=\"{:.1}\">to the first token (grey), then the answer</text></svg>",
        height - 6.0
    );
    out
}

/// Tokens over time, a line for each answer.
pub(super) fn lines(report: &Report) -> String {
    let (longest, room) = (longest(report), WIDTH - LEFT - RIGHT);
    let most = report.lanes.iter().flat_map(|lane| lane.timeline.points().map(|(_, tokens)| tokens)).max().unwrap_or(0);
    let (top, bottom) = (12.0, HEIGHT - 30.0);
    let mut out = open("Tokens over time", HEIGHT);
    let _ = write!(
        out,
        "<path class=g d=\"M{LEFT} {top}V{bottom}H{:.1}\"/>\
         <text class=n x=\"{:.1}\" y=\"{:.1}\">{most} tokens</text><text class=n x=\"{:.1}\" y=\"{bottom}\">0</text>\
         <text class=e x=\"{:.1}\" y=\"{:.1}\">{}</text>",
        LEFT + room,
        LEFT - 8.0,
        top + 6.0,
        LEFT - 8.0,
        LEFT + room,
        bottom + 16.0,
        duration(Duration::from_secs_f64(longest)),
    );
    for (index, lane) in report.lanes.iter().enumerate() {
        let place = |(at, tokens): (Duration, u64)| {
            let x = LEFT + at.as_secs_f64() / longest * room;
            #[expect(clippy::cast_precision_loss, reason = "token counts are far below 2^52")]
            let y = bottom - tokens as f64 / most.max(1) as f64 * (bottom - top);
            (x, y)
        };
        let points: Vec<(f64, f64)> = lane.timeline.points().map(place).collect();
        let Some(&(x, y)) = points.last() else { continue };
        let path: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1} {y:.1}")).collect();
        let colour = index % COLOURS;
        let _ = write!(
            out,
            "<path fill=\"none\" stroke=\"var(--c{colour})\" stroke-width=\"2\" d=\"M{}\"/>\
             <text class=t x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            path.join("L"),
            x + 4.0,
            y + 4.0,
            index + 1,
        );
    }
    out.push_str("</svg>");
    out
}

fn open(title: &str, height: f64) -> String {
    format!("<svg viewBox=\"0 0 {WIDTH} {height:.0}\" role=\"img\" aria-label=\"{title}\"><title>{title}</title>")
}

#[expect(clippy::cast_precision_loss, reason = "lanes are few")]
fn count(lanes: usize) -> f64 {
    lanes as f64
}
