//! Formats the metrics of the record as a table, CSV or JSON, for `mmchat stats`.

use std::{collections::BTreeMap, time::Duration};

use serde_json::{Value, json};

use super::{metrics::format_money, notice::format_duration, table::Table, wrap::display_width};
use crate::{
    model::sanitize::sanitize,
    store::{
        histogram::Histogram,
        record::{GroupMetrics, StatsRow},
    },
};

/// A row is highlighted if its success rate is below this: more than one call in twenty failed.
const SUCCESS_THRESHOLD: f64 = 0.95;
const SPARKLINE_LEVELS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// Columns to omit if the table is too wide, in this order.
const OPTIONAL_COLUMNS: [&str; 9] =
    ["TTFT trend", "total p99", "TTFT p99", "total p95", "endpoint", "in", "out", "tok/s", "total p50"];

/// The table for a terminal of `width` cells. `group` is the name of the first column.
#[must_use]
pub(crate) fn table(group: &'static str, rows: &[StatsRow], width: Option<usize>) -> Table {
    let mut omitted = 0;
    loop {
        let table = table_without(group, rows, &OPTIONAL_COLUMNS[..omitted]);
        let fits = width.is_none_or(|width| table.lines().iter().all(|line| display_width(line) <= width));
        if fits || omitted == OPTIONAL_COLUMNS.len() {
            return table;
        }
        omitted += 1;
    }
}

fn table_without(group: &'static str, rows: &[StatsRow], omitted: &[&str]) -> Table {
    let is_included = |name: &str| !omitted.contains(&name);
    let has_endpoint = is_included("endpoint") && rows.iter().any(|row| row.endpoint.is_some());
    let has_trend = is_included("TTFT trend") && rows.iter().any(|row| !row.metrics.ttft_trend.is_empty());
    let all_columns = [
        (group, true),
        ("endpoint", has_endpoint),
        (">calls", true),
        (">ok", true),
        (">TTFT p50", true),
        (">TTFT p95", is_included("TTFT p95")),
        (">TTFT p99", is_included("TTFT p99")),
        (">total p50", is_included("total p50")),
        (">total p95", is_included("total p95")),
        (">total p99", is_included("total p99")),
        (">in", is_included("in")),
        (">out", is_included("out")),
        (">tok/s", is_included("tok/s")),
        (">cost", true),
        ("TTFT trend", has_trend),
        ("failures", true),
    ];
    let columns: Vec<&'static str> = all_columns.iter().filter(|(_, shown)| *shown).map(|(name, _)| *name).collect();
    let mut table = Table::new(&columns);
    for row in rows {
        let shown = row_cells(row).into_iter().zip(all_columns).filter(|(_, (_, shown))| *shown);
        table.add_row(shown.map(|(cell, _)| cell).collect());
        if row.metrics.success_rate().is_some_and(|success| success < SUCCESS_THRESHOLD) {
            table.highlight_last_row();
        }
    }
    table
}

/// The cells of a row, in column order.
fn row_cells(StatsRow { name, endpoint, metrics }: &StatsRow) -> [String; 16] {
    let [ttft50, ttft95, ttft99] = percentiles(&metrics.ttft);
    let [total50, total95, total99] = percentiles(&metrics.total);
    let estimate_mark = if metrics.estimated > 0 { "~" } else { "" };
    let other_counts =
        [("failovers", metrics.failovers), ("stopped", metrics.stopped)].into_iter().filter(|(_, count)| *count > 0);
    let failures = metrics.failures_by_class.iter().map(|(class, count)| (class.as_str(), *count)).chain(other_counts);
    let failures = failures.map(|(class, count)| format!("{class} {count}"));
    [
        name.clone(),
        endpoint.clone().unwrap_or_default(),
        metrics.calls.to_string(),
        metrics.success_rate().map(format_percent).unwrap_or_default(),
        ttft50,
        ttft95,
        ttft99,
        total50,
        total95,
        total99,
        format!("{estimate_mark}{}", metrics.input),
        format!("{estimate_mark}{}", metrics.output),
        metrics.tokens_per_second().map(|speed| format!("{speed:.0}")).unwrap_or_default(),
        format_cost(&metrics.cost),
        sparkline(&metrics.ttft_trend),
        failures.collect::<Vec<_>>().join(", "),
    ]
}

fn format_percent(share: f64) -> String {
    // Rounded down, so that 100 % means that every call succeeded.
    let shown = (share * 1000.0).floor() / 10.0;
    if (shown - shown.round()).abs() < 0.05 { format!("{shown:.0} %") } else { format!("{shown:.1} %") }
}

fn percentiles(histogram: &Histogram) -> [String; 3] {
    PERCENTILES.map(|(_, share)| histogram.quantile(share).map(format_duration).unwrap_or_default())
}

const PERCENTILES: [(&str, f64); 3] = [("p50", 0.5), ("p95", 0.95), ("p99", 0.99)];

fn format_cost(cost: &BTreeMap<String, f64>) -> String {
    cost.iter().map(|(currency, amount)| format_money(*amount, currency)).collect::<Vec<_>>().join(" + ")
}

/// The median of each part of the period as a bar; a part without answers is a gap.
fn sparkline(trend: &[Histogram]) -> String {
    bars(&trend.iter().map(|histogram| histogram.quantile(0.5)).collect::<Vec<_>>())
}

fn bars(times: &[Option<Duration>]) -> String {
    let max_seconds = times.iter().flatten().max().copied().unwrap_or_default().as_secs_f64();
    let bar = |time: &Option<Duration>| {
        let Some(time) = time else { return ' ' };
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and 7")]
        let level = (time.as_secs_f64() / max_seconds.max(f64::MIN_POSITIVE) * 7.0).round() as usize;
        SPARKLINE_LEVELS[level.min(7)]
    };
    times.iter().map(bar).collect()
}

/// The metrics as JSON objects; times in milliseconds.
#[must_use]
pub(crate) fn to_json(group: &str, rows: &[StatsRow]) -> Value {
    rows.iter().map(|row| row_to_json(group, row)).collect()
}

fn row_to_json(group: &str, StatsRow { name, endpoint, metrics }: &StatsRow) -> Value {
    let failures: serde_json::Map<String, Value> =
        metrics.failures_by_class.iter().map(|(class, count)| (class.clone(), (*count).into())).collect();
    let mut object = json!({group: name});
    if let Some(endpoint) = endpoint {
        object["endpoint"] = endpoint.as_str().into();
    }
    let fields = json!({
        "calls": metrics.calls,
        "failed": metrics.failed,
        "success_rate": metrics.success_rate(),
        "failures": failures,
        "failovers": metrics.failovers,
        "stopped": metrics.stopped,
        "ttft_ms": percentiles_json(&metrics.ttft),
        "total_ms": percentiles_json(&metrics.total),
        "input_tokens": metrics.input,
        "output_tokens": metrics.output,
        "estimated_calls": metrics.estimated,
        "tokens_per_second": metrics.tokens_per_second(),
        "cost": metrics.cost,
    });
    if let (Some(object), Value::Object(fields)) = (object.as_object_mut(), fields) {
        object.extend(fields);
    }
    object
}

fn percentiles_json(histogram: &Histogram) -> Value {
    let entry = |(name, share): (&str, f64)| {
        (name.to_owned(), json!(histogram.quantile(share).map(|time| time.as_secs_f64() * 1e3)))
    };
    PERCENTILES.into_iter().map(entry).collect::<serde_json::Map<_, _>>().into()
}

/// Characters at the start of a formula; spreadsheets also accept them in full width.
const FORMULA_STARTS: [char; 8] = ['=', '+', '-', '@', '＝', '＋', '－', '＠'];

/// The metrics as CSV.
#[must_use]
pub(crate) fn to_csv(group: &str, rows: &[StatsRow]) -> String {
    // When grouped by endpoint, the first column is the endpoint.
    let endpoint_column = if group == "endpoint" { "" } else { ",endpoint" };
    let mut lines = vec![format!(
        "{group}{endpoint_column},calls,failed,ttft_p50_ms,ttft_p95_ms,ttft_p99_ms,total_p50_ms,\
         total_p95_ms,total_p99_ms,input_tokens,output_tokens,tokens_per_second,cost,currency,failures,failovers,stopped"
    )];
    for StatsRow { name, endpoint, metrics } in rows {
        let mut fields = vec![name.clone()];
        fields.extend((!endpoint_column.is_empty()).then(|| endpoint.clone().unwrap_or_default()));
        fields.extend([metrics.calls.to_string(), metrics.failed.to_string()]);
        for histogram in [&metrics.ttft, &metrics.total] {
            fields.extend(PERCENTILES.map(|(_, share)| {
                histogram.quantile(share).map(|time| format!("{:.3}", time.as_secs_f64() * 1e3)).unwrap_or_default()
            }));
        }
        fields.extend([metrics.input.to_string(), metrics.output.to_string()]);
        fields.push(metrics.tokens_per_second().map(|speed| format!("{speed:.1}")).unwrap_or_default());
        // Several currencies share a field, separated by spaces, as several classes do.
        fields.push(metrics.cost.values().map(|amount| format!("{amount:.6}")).collect::<Vec<_>>().join(" "));
        fields.push(metrics.cost.keys().cloned().collect::<Vec<_>>().join(" "));
        fields.push(
            metrics
                .failures_by_class
                .iter()
                .map(|(class, count)| format!("{class}:{count}"))
                .collect::<Vec<_>>()
                .join(" "),
        );
        fields.extend([metrics.failovers.to_string(), metrics.stopped.to_string()]);
        lines.push(fields.iter().map(|field| csv_field(field)).collect::<Vec<_>>().join(","));
    }
    lines.join("\n") + "\n"
}

/// A CSV field, quoted if necessary (RFC 4180), without control sequences. Text that a spreadsheet would take for a formula
/// begins with `'`.
pub(super) fn csv_field(field: &str) -> String {
    let mut text = sanitize(field);
    if text.trim_start().starts_with(FORMULA_STARTS) && text.parse::<f64>().is_err() {
        text.insert(0, '\'');
    }
    if text.contains([',', '"', '\n', '\t']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text }
}

/// The totals of all rows, for the line below the table.
#[must_use]
pub(crate) fn totals(rows: &[StatsRow]) -> String {
    let (mut calls, mut failed, mut sums) = (0, 0, BTreeMap::<String, f64>::new());
    for GroupMetrics { calls: row_calls, failed: row_failed, cost, .. } in rows.iter().map(|row| &row.metrics) {
        calls += row_calls;
        failed += row_failed;
        for (currency, amount) in cost {
            *sums.entry(currency.clone()).or_default() += amount;
        }
    }
    let cost = if sums.is_empty() { String::new() } else { format!(", {}", format_cost(&sums)) };
    format!("{calls} calls, {failed} failed{cost}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bar_height_follows_the_time_and_missing_times_are_gaps() {
        let ms = |ms| Some(Duration::from_millis(ms));
        assert_eq!(bars(&[ms(0), ms(500), None, ms(1000)]), "▁▅ █");
        assert_eq!(bars(&[]), "");
    }

    #[test]
    fn percentages_are_rounded_down_so_that_100_means_all() {
        assert_eq!(
            (format_percent(1.0), format_percent(0.9999), format_percent(0.5)),
            ("100 %".into(), "99.9 %".into(), "50 %".into())
        );
    }

    #[test]
    fn csv_fields_with_commas_are_quoted() {
        let metrics = GroupMetrics { calls: 2, failures_by_class: vec![("rate".into(), 1)], ..GroupMetrics::default() };
        let rows = [StatsRow { name: "a,\"b\"".into(), endpoint: None, metrics }];
        let text = to_csv("model", &rows);
        assert!(to_csv("endpoint", &rows).starts_with("endpoint,calls,"), "the endpoint column appears once");
        assert!(text.lines().nth(1).is_some_and(|line| line.starts_with("\"a,\"\"b\"\"\",,2,0,")), "{text}");
        assert_eq!(text.lines().next().map(|line| line.split(',').count()), Some(18));
    }

    #[test]
    fn csv_fields_are_no_formulas_and_have_no_control_characters() {
        for (field, want) in [
            ("=1+1", "'=1+1"),
            (" @SUM(A1)", "' @SUM(A1)"),
            ("+cmd|' /C calc'!A0", "'+cmd|' /C calc'!A0"),
            ("\u{1b}[1m=x,y", "\"'=x,y\""),
            ("\t-x", "\"'\t-x\""),
            ("＝x", "'＝x"),
            ("-12.5", "-12.5"),
            ("a=b", "a=b"),
            ("over\u{202e}ride\r\nnext", "\"overU+202Eride\nnext\""),
        ] {
            assert_eq!(csv_field(field), want, "{field:?}");
        }
    }
}
