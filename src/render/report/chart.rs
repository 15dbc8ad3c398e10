//! Draws two SVG charts of a run: the time to first token and total time of each answer, and its tokens over time.
//!
//! Colors are those of the page (`--c0` to `--c7`), for light and dark mode; each line is also labeled.

use std::{fmt::Write as _, time::Duration};

use super::{Report, escape::escape_html};
use crate::{model::sanitize::truncate_chars, render::notice::format_duration};

const WIDTH: f64 = 720.0;
const LEFT: f64 = 130.0;
const RIGHT: f64 = 120.0;
const ROW: f64 = 26.0;
const HEIGHT: f64 = 260.0;
const COLORS: usize = 8;
/// Maximum characters of a name; a longer one would overlap the chart.
const MAX_NAME_CHARS: usize = 16;

/// The longest time in the run in seconds; never 0.
fn max_seconds(report: &Report) -> f64 {
    let ends = report.calls.iter().filter_map(|call| call.metrics.total);
    let points = report.calls.iter().flat_map(|call| call.timeline.points().map(|(at, _)| at));
    ends.chain(points).max().unwrap_or_default().as_secs_f64().max(0.001)
}

fn label(index: usize, name: &str) -> String {
    escape_html(&format!("{} {}", index + 1, truncate_chars(name, MAX_NAME_CHARS)))
}

/// One bar per answer: the time to first token, then the output.
pub(super) fn timing_chart(report: &Report) -> String {
    let (longest, plot_width) = (max_seconds(report), WIDTH - LEFT - RIGHT);
    let height = ROW * to_f64(report.calls.len()) + 24.0;
    let mut out = svg_start("Time to first token and total time", height);
    for (index, call) in report.calls.iter().enumerate() {
        let (y, color) = (ROW * to_f64(index) + 6.0, index % COLORS);
        let x = |time: Duration| LEFT + time.as_secs_f64() / longest * plot_width;
        let _ = write!(
            out,
            "<text class=n x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            LEFT - 8.0,
            y + 12.0,
            label(index, &call.metrics.name)
        );
        let total = call.metrics.total.unwrap_or_default();
        let first_output = call.first_output.unwrap_or(total).min(total);
        let _ = write!(
            out,
            "<rect class=w x=\"{LEFT}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"16\"/>\
             <rect x=\"{:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"16\" fill=\"var(--c{color})\"/>",
            x(first_output) - LEFT,
            x(first_output),
            (x(total) - x(first_output)).max(0.0),
        );
        let label = match call.metrics.ttft {
            Some(ttft) => format!("{} / {}", format_duration(ttft), format_duration(total)),
            None => format_duration(total),
        };
        let _ = write!(out, "<text class=t x=\"{:.1}\" y=\"{:.1}\">{label}</text>", x(total) + 5.0, y + 12.0);
    }
    let _ = write!(
        out,
        "<text class=a x=\"{LEFT}\" y=\"{:.1}\">time to first token (gray), then output</text></svg>",
        height - 6.0
    );
    out
}

/// Tokens over time, one line per answer.
pub(super) fn token_chart(report: &Report) -> String {
    let (longest, plot_width) = (max_seconds(report), WIDTH - LEFT - RIGHT);
    let peak = report.calls.iter().flat_map(|call| call.timeline.points().map(|(_, tokens)| tokens)).max().unwrap_or(0);
    let (top, bottom) = (12.0, HEIGHT - 30.0);
    let mut out = svg_start("Tokens over time", HEIGHT);
    let _ = write!(
        out,
        "<path class=g d=\"M{LEFT} {top}V{bottom}H{:.1}\"/>\
         <text class=n x=\"{:.1}\" y=\"{:.1}\">{peak} tokens</text><text class=n x=\"{:.1}\" y=\"{bottom}\">0</text>\
         <text class=e x=\"{:.1}\" y=\"{:.1}\">{}</text>",
        LEFT + plot_width,
        LEFT - 8.0,
        top + 6.0,
        LEFT - 8.0,
        LEFT + plot_width,
        bottom + 16.0,
        format_duration(Duration::from_secs_f64(longest)),
    );
    for (index, call) in report.calls.iter().enumerate() {
        let position = |(at, tokens): (Duration, u64)| {
            let x = LEFT + at.as_secs_f64() / longest * plot_width;
            #[expect(clippy::cast_precision_loss, reason = "token counts are far below 2^52")]
            let y = bottom - tokens as f64 / peak.max(1) as f64 * (bottom - top);
            (x, y)
        };
        let points: Vec<(f64, f64)> = call.timeline.points().map(position).collect();
        let Some(&(x, y)) = points.last() else { continue };
        let path: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1} {y:.1}")).collect();
        let color = index % COLORS;
        let _ = write!(
            out,
            "<path fill=\"none\" stroke=\"var(--c{color})\" stroke-width=\"2\" d=\"M{}\"/>\
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

fn svg_start(title: &str, height: f64) -> String {
    format!("<svg viewBox=\"0 0 {WIDTH} {height:.0}\" role=\"img\" aria-label=\"{title}\"><title>{title}</title>")
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52 calls")]
fn to_f64(calls: usize) -> f64 {
    calls as f64
}
