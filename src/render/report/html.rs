//! The report as one HTML page that needs nothing else: no network, no file beside it.
//!
//! Owns that text of models cannot do anything on it. Its HTML is shown as text, pictures and odd links are named instead of
//! loaded, and the page's policy allows no script but the one that sorts the table, by its digest.

use std::fmt::Write as _;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd, html::push_html};

use super::{Report, ReportLane, chart};
use crate::render::{
    diff,
    stats::{COLUMNS, is_figure},
};

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

pub(super) fn page(report: &Report) -> String {
    let digest = BASE64_STANDARD.encode(ring::digest::digest(&ring::digest::SHA256, SCRIPT.as_bytes()));
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; \
         script-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"referrer\" content=\"no-referrer\">\n\
         <title>Comparison: {}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n",
        escaped(&short(&report.prompt))
    );
    head(report, &mut out);
    table(report, &mut out);
    common(report, &mut out);
    if report.lanes.iter().any(|lane| lane.figures.total.is_some()) {
        let _ = write!(
            out,
            "<div class=\"charts\">\n<figure>{}<figcaption>Time</figcaption></figure>\n\
             <figure>{}<figcaption>Tokens over time (our estimate while it came)</figcaption></figure>\n</div>\n",
            chart::bars(report),
            chart::lines(report)
        );
    }
    out.push_str("<div class=\"answers\">\n");
    for (index, lane) in report.lanes.iter().enumerate() {
        answer(index, lane, &mut out);
    }
    let _ = write!(out, "</div>\n<p class=\"foot\">made by mmchat</p>\n<script>{SCRIPT}</script>\n</body>\n</html>\n");
    out
}

/// The start of a prompt, on one line.
fn short(prompt: &str) -> String {
    const LONGEST: usize = 60;
    let line = crate::model::sanitize::one_line(prompt);
    match line.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

fn head(report: &Report, out: &mut String) {
    let run = report.run.map(|run| format!(", run {run}")).unwrap_or_default();
    let at = report.at.to_zoned(jiff::tz::TimeZone::system()).strftime("%Y-%m-%d %H:%M").to_string();
    let _ = writeln!(out, "<h1>Comparison</h1>\n<p class=\"meta\">{at}{run}, {} answers</p>", report.lanes.len());
    if let Some(system) = &report.system {
        let _ =
            writeln!(out, "<blockquote class=\"prompt\" dir=\"auto\"><b>system</b> {}</blockquote>", escaped(system));
    }
    let _ = writeln!(out, "<blockquote class=\"prompt\" dir=\"auto\">{}</blockquote>", escaped(&report.prompt));
}

/// The class that paints a state.
fn class(lane: &ReportLane) -> &'static str {
    match (lane.is_whole, lane.figures.state.as_str()) {
        (true, "ok") => "good",
        (true, _) => "odd",
        (false, _) => "bad",
    }
}

fn table(report: &Report, out: &mut String) {
    out.push_str("<div class=\"scroll\"><table class=\"figures\"><thead><tr>");
    for name in COLUMNS {
        let class = if is_figure(name) { " class=\"r\"" } else { "" };
        let name = name.trim_start_matches('>');
        let _ = write!(out, "<th{class}><button type=\"button\">{name}</button></th>");
    }
    out.push_str("</tr></thead><tbody>\n");
    for (index, lane) in report.lanes.iter().enumerate() {
        let [name, state, ttft, total, tokens, speed, cost] = lane.figures.cells().map(|cell| escaped(&cell));
        let number = |value: Option<f64>| value.map(|value| value.to_string()).unwrap_or_default();
        #[expect(clippy::cast_precision_loss, reason = "token counts are far below 2^52")]
        let output = lane.figures.usage.and_then(|usage| usage.output).map(|output| output as f64);
        let _ = write!(
            out,
            "<tr><td class=\"r\">{}</td><td>{name}</td><td class=\"{}\">{state}</td>",
            index + 1,
            class(lane)
        );
        let sorted = [
            (ttft, lane.figures.ttft.map(|time| time.as_secs_f64())),
            (total, lane.figures.total.map(|time| time.as_secs_f64())),
            (tokens, output),
            (speed, lane.figures.tokens_per_second),
            (cost, lane.figures.cost.as_ref().map(|(cost, _)| *cost)),
        ];
        for (shown, value) in sorted {
            let _ = write!(out, "<td class=\"r\" data-v=\"{}\">{shown}</td>", number(value));
        }
        out.push_str("</tr>\n");
    }
    out.push_str("</tbody></table></div>\n");
    if report.lanes.iter().any(|lane| lane.figures.is_estimated()) {
        out.push_str("<p class=\"meta\">* estimated</p>\n");
    }
}

/// What the answers have in common.
fn common(report: &Report, out: &mut String) {
    let names: Vec<String> = report.lanes.iter().map(|lane| lane.figures.name.clone()).collect();
    if let Some(vote) = &report.vote {
        let _ = writeln!(out, "<pre class=\"plain\">{}</pre>", escaped(&diff::vote(&names, vote)));
    }
    if let Some(known) = &report.difference {
        let _ = writeln!(out, "<pre class=\"plain\">{}</pre>", escaped(&diff::difference(&names, known)));
    }
}

fn answer(index: usize, lane: &ReportLane, out: &mut String) {
    let _ = write!(
        out,
        "<article>\n<header><h2>{} {}</h2><span class=\"{}\">{}</span></header>\n",
        index + 1,
        escaped(&lane.figures.name),
        class(lane),
        escaped(&lane.figures.state)
    );
    if !lane.reasoning.trim().is_empty() {
        let thought = escaped(lane.reasoning.trim());
        let _ = writeln!(out, "<details><summary>thinking</summary><pre dir=\"auto\">{thought}</pre></details>");
    }
    if !lane.text.trim().is_empty() {
        let _ = writeln!(out, "<div class=\"text\" dir=\"auto\">{}</div>", rendered(&lane.text));
    }
    if let Some(note) = &lane.note {
        let _ = writeln!(out, "<p class=\"note\">{}</p>", escaped(note));
    }
    out.push_str("</article>\n");
}

/// Markdown as HTML that only shows.
fn rendered(text: &str) -> String {
    let options = Options::ENABLE_TABLES | Options::ENABLE_STRIKETHROUGH | Options::ENABLE_TASKLISTS;
    // Whether each open link leads where a link may.
    let mut links = Vec::new();
    let events = Parser::new_ext(text, options).filter_map(|event| match event {
        Event::Html(html) | Event::InlineHtml(html) => Some(Event::Text(html)),
        // A picture would be fetched: its description stands for it.
        Event::Start(Tag::Image { dest_url, .. }) => Some(Event::Text(format!("[picture {dest_url}: ").into())),
        Event::End(TagEnd::Image) => Some(Event::Text("]".into())),
        Event::Start(Tag::Link { ref dest_url, .. }) => {
            links.push(is_harmless(dest_url));
            links.last().copied().unwrap_or(false).then_some(event)
        }
        Event::End(TagEnd::Link) => links.pop().unwrap_or(false).then_some(event),
        event => Some(event),
    });
    let mut out = String::new();
    push_html(&mut out, events);
    out
}

/// What a reader may follow.
fn is_harmless(address: &str) -> bool {
    let lower = address.trim_start().to_ascii_lowercase();
    ["http://", "https://", "mailto:"].iter().any(|scheme| lower.starts_with(scheme))
}

/// `text` as it is shown, in text and in attributes.
pub(super) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}
