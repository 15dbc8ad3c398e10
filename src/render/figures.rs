//! The record's figures as a table, CSV or JSON.
//!
//! Owns the columns, and what counts as bad. Refuses to know where the figures are from.

use std::{collections::BTreeMap, time::Duration};

use serde_json::{Value, json};

use super::{notice::duration, stats::money, table::Table, wrap::cells};
use crate::store::{
    histogram::Spread,
    record::{Figures, StatsRow},
};

/// One call of twenty that fails is worth a look.
const BAD: f64 = 0.95;
const LEVELS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// Columns that go first where there is no room for all, the least telling first.
const SPARE: [&str; 9] =
    ["TTFT, old to new", "total p99", "TTFT p99", "total p95", "endpoint", "in", "out", "tok/s", "total p50"];

/// The table, for so many cells; `what` is the name of its first column.
#[must_use]
pub fn table(what: &'static str, rows: &[StatsRow], width: Option<usize>) -> Table {
    let mut left_out = 0;
    loop {
        let table = with_columns(what, rows, &SPARE[..left_out]);
        let fits = width.is_none_or(|width| table.lines().iter().all(|line| cells(line) <= width));
        if fits || left_out == SPARE.len() {
            return table;
        }
        left_out += 1;
    }
}

fn with_columns(what: &'static str, rows: &[StatsRow], without: &[&str]) -> Table {
    let with = |name: &str| !without.contains(&name);
    let endpoint = with("endpoint") && rows.iter().any(|row| row.endpoint.is_some());
    let trend = with("TTFT, old to new") && rows.iter().any(|row| !row.figures.course.is_empty());
    let all = [
        (what, true),
        ("endpoint", endpoint),
        (">calls", true),
        (">ok", true),
        (">TTFT p50", true),
        (">TTFT p95", with("TTFT p95")),
        (">TTFT p99", with("TTFT p99")),
        (">total p50", with("total p50")),
        (">total p95", with("total p95")),
        (">total p99", with("total p99")),
        (">in", with("in")),
        (">out", with("out")),
        (">tok/s", with("tok/s")),
        (">cost", true),
        ("TTFT, old to new", trend),
        ("failures", true),
    ];
    let columns: Vec<&'static str> = all.iter().filter(|(_, shown)| *shown).map(|(name, _)| *name).collect();
    let mut table = Table::new(&columns);
    for row in rows {
        let shown = cells_of(row).into_iter().zip(all).filter(|(_, (_, shown))| *shown);
        table.row(shown.map(|(cell, _)| cell).collect());
        if row.figures.success().is_some_and(|success| success < BAD) {
            table.mark_bad();
        }
    }
    table
}

/// A row's cells, in the order of the columns.
fn cells_of(StatsRow { name, endpoint, figures }: &StatsRow) -> [String; 16] {
    let [ttft50, ttft95, ttft99] = percentiles(&figures.ttft);
    let [total50, total95, total99] = percentiles(&figures.total);
    let about = if figures.estimated > 0 { "~" } else { "" };
    let beside =
        [("failovers", figures.failovers), ("stopped", figures.stopped)].into_iter().filter(|(_, count)| *count > 0);
    let classes = figures.classes.iter().map(|(class, count)| (class.as_str(), *count)).chain(beside);
    let classes = classes.map(|(class, count)| format!("{class} {count}"));
    [
        name.clone(),
        endpoint.clone().unwrap_or_default(),
        figures.calls.to_string(),
        figures.success().map(percent).unwrap_or_default(),
        ttft50,
        ttft95,
        ttft99,
        total50,
        total95,
        total99,
        format!("{about}{}", figures.input),
        format!("{about}{}", figures.output),
        figures.tokens_per_second().map(|speed| format!("{speed:.0}")).unwrap_or_default(),
        cost(&figures.cost),
        sparkline(&figures.course),
        classes.collect::<Vec<_>>().join(", "),
    ]
}

fn percent(share: f64) -> String {
    // What is not all must not look like it.
    let shown = (share * 1000.0).floor() / 10.0;
    if (shown - shown.round()).abs() < 0.05 { format!("{shown:.0} %") } else { format!("{shown:.1} %") }
}

fn percentiles(spread: &Spread) -> [String; 3] {
    SHARES.map(|(_, share)| spread.quantile(share).map(duration).unwrap_or_default())
}

const SHARES: [(&str, f64); 3] = [("p50", 0.5), ("p95", 0.95), ("p99", 0.99)];

fn cost(cost: &BTreeMap<String, f64>) -> String {
    cost.iter().map(|(currency, amount)| money(*amount, currency)).collect::<Vec<_>>().join(" + ")
}

/// The median of each part of the time, as a bar; a part without answers is a gap.
fn sparkline(course: &[Spread]) -> String {
    bars(&course.iter().map(|spread| spread.quantile(0.5)).collect::<Vec<_>>())
}

fn bars(times: &[Option<Duration>]) -> String {
    let highest = times.iter().flatten().max().copied().unwrap_or_default().as_secs_f64();
    let bar = |time: &Option<Duration>| {
        let Some(time) = time else { return ' ' };
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a place among eight")]
        let level = (time.as_secs_f64() / highest.max(f64::MIN_POSITIVE) * 7.0).round() as usize;
        LEVELS[level.min(7)]
    };
    times.iter().map(bar).collect()
}

/// The figures as objects; times in milliseconds.
#[must_use]
pub fn document(what: &str, rows: &[StatsRow]) -> Value {
    rows.iter().map(|row| object(what, row)).collect()
}

fn object(what: &str, StatsRow { name, endpoint, figures }: &StatsRow) -> Value {
    let classes: serde_json::Map<String, Value> =
        figures.classes.iter().map(|(class, count)| (class.clone(), (*count).into())).collect();
    let mut object = json!({what: name});
    if let Some(endpoint) = endpoint {
        object["endpoint"] = endpoint.as_str().into();
    }
    let rest = json!({
        "calls": figures.calls,
        "failed": figures.failed,
        "success_rate": figures.success(),
        "failures": classes,
        "failovers": figures.failovers,
        "stopped": figures.stopped,
        "ttft_ms": times(&figures.ttft),
        "total_ms": times(&figures.total),
        "input_tokens": figures.input,
        "output_tokens": figures.output,
        "estimated_calls": figures.estimated,
        "tokens_per_second": figures.tokens_per_second(),
        "cost": figures.cost,
    });
    if let (Some(object), Value::Object(rest)) = (object.as_object_mut(), rest) {
        object.extend(rest);
    }
    object
}

fn times(spread: &Spread) -> Value {
    let at = |(name, share): (&str, f64)| {
        (name.to_owned(), json!(spread.quantile(share).map(|time| time.as_secs_f64() * 1e3)))
    };
    SHARES.into_iter().map(at).collect::<serde_json::Map<_, _>>().into()
}

/// The figures for a spreadsheet.
#[must_use]
pub fn csv(what: &str, rows: &[StatsRow]) -> String {
    // Only a model has an endpoint beside its own name.
    let beside = if what == "endpoint" { "" } else { ",endpoint" };
    let mut lines = vec![format!(
        "{what}{beside},calls,failed,ttft_p50_ms,ttft_p95_ms,ttft_p99_ms,total_p50_ms,total_p95_ms,total_p99_ms,\
         input_tokens,output_tokens,tokens_per_second,cost,currency,failures,failovers,stopped"
    )];
    for StatsRow { name, endpoint, figures } in rows {
        let mut fields = vec![name.clone()];
        fields.extend((!beside.is_empty()).then(|| endpoint.clone().unwrap_or_default()));
        fields.extend([figures.calls.to_string(), figures.failed.to_string()]);
        for spread in [&figures.ttft, &figures.total] {
            fields.extend(SHARES.map(|(_, share)| {
                spread.quantile(share).map(|time| format!("{:.3}", time.as_secs_f64() * 1e3)).unwrap_or_default()
            }));
        }
        fields.extend([figures.input.to_string(), figures.output.to_string()]);
        fields.push(figures.tokens_per_second().map(|speed| format!("{speed:.1}")).unwrap_or_default());
        // Several currencies stand beside each other, as several classes do.
        fields.push(figures.cost.values().map(|amount| format!("{amount:.6}")).collect::<Vec<_>>().join(" "));
        fields.push(figures.cost.keys().cloned().collect::<Vec<_>>().join(" "));
        fields.push(
            figures.classes.iter().map(|(class, count)| format!("{class}:{count}")).collect::<Vec<_>>().join(" "),
        );
        fields.extend([figures.failovers.to_string(), figures.stopped.to_string()]);
        lines.push(fields.iter().map(|field| quoted(field)).collect::<Vec<_>>().join(","));
    }
    lines.join("\n") + "\n"
}

/// A field of CSV (RFC 4180).
pub(super) fn quoted(field: &str) -> String {
    if field.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", field.replace('"', "\"\""))
    } else {
        field.to_owned()
    }
}

/// What all rows come to, for the line below the table.
#[must_use]
pub fn total(rows: &[StatsRow]) -> String {
    let (mut calls, mut failed, mut sums) = (0, 0, BTreeMap::<String, f64>::new());
    for Figures { calls: more, failed: bad, cost, .. } in rows.iter().map(|row| &row.figures) {
        calls += more;
        failed += bad;
        for (currency, amount) in cost {
            *sums.entry(currency.clone()).or_default() += amount;
        }
    }
    let cost = if sums.is_empty() { String::new() } else { format!(", {}", cost(&sums)) };
    format!("{calls} calls, {failed} failed{cost}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_as_high_as_the_times_and_a_gap_is_none() {
        let ms = |ms| Some(Duration::from_millis(ms));
        assert_eq!(bars(&[ms(0), ms(500), None, ms(1000)]), "▁▅ █");
        assert_eq!(bars(&[]), "");
    }

    #[test]
    fn ninety_nine_in_a_thousand_is_not_all() {
        assert_eq!((percent(1.0), percent(0.9999), percent(0.5)), ("100 %".into(), "99.9 %".into(), "50 %".into()));
    }

    #[test]
    fn csv_fields_with_commas_are_quoted() {
        let figures = Figures { calls: 2, classes: vec![("rate".into(), 1)], ..Figures::default() };
        let rows = [StatsRow { name: "a,\"b\"".into(), endpoint: None, figures }];
        let text = csv("model", &rows);
        assert!(csv("endpoint", &rows).starts_with("endpoint,calls,"), "one column of that name");
        assert!(text.lines().nth(1).is_some_and(|line| line.starts_with("\"a,\"\"b\"\"\",,2,0,")), "{text}");
        assert_eq!(text.lines().next().map(|line| line.split(',').count()), Some(18));
    }
}
