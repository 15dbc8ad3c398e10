//! Reads metrics from the hourly rollup: calls, failures, times, tokens and cost, by model, route, client key or day.

use std::{collections::BTreeMap, time::Duration};

use jiff::{Timestamp, ToSpan, civil::Date, tz::TimeZone};
use rusqlite::Row;

use super::{Database, RecordError};
use crate::store::histogram::Histogram;
use crate::store::record::rollup::{BY_CLIENT, BY_MODEL, BY_ROUTE, FAILOVER, STOPPED, hour_since_epoch};

/// What to group the metrics by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupBy {
    /// By model; counts upstream requests.
    Model,
    /// By endpoint; counts upstream requests.
    Endpoint,
    /// By route; counts calls.
    Route,
    /// By client key; counts calls.
    Client,
    /// By day in the local time zone; counts upstream requests, or the calls of a route.
    Day,
}

/// The start of a period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Since(pub Timestamp);

impl Since {
    /// Parses a duration before `now` (`24h`, `7d`, `2w`), a date, or a timestamp.
    pub fn parse(text: &str, now: Timestamp) -> Result<Self, String> {
        let invalid = || format!("invalid time \"{text}\": expected 24h, 7d, 2w or a date such as 2026-01-31");
        let text = text.trim();
        if let Ok(date) = text.parse::<Date>() {
            let midnight = date.to_zoned(TimeZone::system()).map_err(|_| invalid())?;
            return Ok(Self(midnight.timestamp()));
        }
        if let Ok(moment) = text.parse::<Timestamp>() {
            return Ok(Self(moment));
        }
        let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).ok_or_else(invalid)?);
        let number: i64 = number.parse().map_err(|_| invalid())?;
        let hours = match unit {
            "h" => number,
            "d" => number.checked_mul(24).ok_or_else(invalid)?,
            "w" => number.checked_mul(24 * 7).ok_or_else(invalid)?,
            _ => return Err(invalid()),
        };
        let span = 1.hours().checked_mul(hours).map_err(|_| invalid())?;
        now.checked_sub(span).map(Self).map_err(|_| invalid())
    }
}

/// Aggregated metrics of one group.
#[derive(Clone, Debug, Default)]
pub struct GroupMetrics {
    /// Calls, or upstream requests.
    pub calls: u64,
    /// Failed calls or requests.
    pub failed: u64,
    /// Failures by error class, the most frequent first.
    pub failures_by_class: Vec<(String, u64)>,
    /// Failovers to another model; only for routes and client keys.
    pub failovers: u64,
    /// Calls stopped by the user or client before the answer was complete; only for routes and client keys.
    pub stopped: u64,
    /// Input tokens.
    pub input: u64,
    /// Output tokens.
    pub output: u64,
    /// Calls whose token counts are estimated by mmchat.
    pub estimated: u64,
    /// Cost by currency.
    pub cost: BTreeMap<String, f64>,
    /// Times to first token.
    pub ttft: Histogram,
    /// Durations of complete answers.
    pub total: Histogram,
    /// Output tokens after the first, and the microseconds they took.
    pub timed_output: (u64, u64),
    /// Times to first token over time, oldest first: the period in up to twelve parts; empty if it is one hour.
    pub ttft_trend: Vec<Histogram>,
}

/// The maximum number of parts of the trend.
const TREND_PARTS: usize = 12;

impl GroupMetrics {
    /// The share of calls that succeeded; `None` without calls.
    #[must_use]
    pub fn success_rate(&self) -> Option<f64> {
        #[expect(clippy::cast_precision_loss, reason = "fewer than 2^52 calls")]
        (self.calls > 0).then(|| 1.0 - self.failed as f64 / self.calls as f64)
    }

    /// Output tokens per second after the first token; `None` without tokens or below 10 ms.
    #[must_use]
    pub fn tokens_per_second(&self) -> Option<f64> {
        let (tokens, micros) = self.timed_output;
        #[expect(clippy::cast_precision_loss, reason = "fewer than 2^52")]
        (tokens > 0 && micros >= 10_000).then(|| tokens as f64 / (Duration::from_micros(micros).as_secs_f64()))
    }
}

/// A group and its metrics.
#[derive(Clone, Debug)]
pub struct StatsRow {
    /// The name of the model, route, endpoint, client key or day.
    pub name: String,
    /// The endpoint, for a model.
    pub endpoint: Option<String>,
    /// The metrics.
    pub metrics: GroupMetrics,
}

/// Name and endpoint of a group.
type GroupKey = (String, Option<String>);

impl Database {
    /// The metrics since the hour of `since`, most calls first, or days in order; if given, only those of `name`.
    pub fn stats(&self, by: GroupBy, since: Option<Since>, name: Option<&str>) -> Result<Vec<StatsRow>, RecordError> {
        let from = since.map_or(i64::MIN, |since| hour_since_epoch(since.0));
        let dimension = match by {
            GroupBy::Client => BY_CLIENT,
            GroupBy::Route => BY_ROUTE,
            GroupBy::Day if self.is_route(name)? => BY_ROUTE,
            GroupBy::Day | GroupBy::Model | GroupBy::Endpoint => BY_MODEL,
        };
        let mut groups: BTreeMap<GroupKey, GroupMetrics> = BTreeMap::new();
        self.map_error(self.read_totals(by, dimension, from, name, &mut groups))?;
        self.map_error(self.read_failures(by, dimension, from, name, &mut groups))?;
        let mut rows: Vec<StatsRow> =
            groups.into_iter().map(|((name, endpoint), metrics)| StatsRow { name, endpoint, metrics }).collect();
        if by != GroupBy::Day {
            rows.sort_by_key(|row| std::cmp::Reverse(row.metrics.calls));
        }
        for row in &mut rows {
            row.metrics.failures_by_class.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        }
        Ok(rows)
    }

    /// Whether the record has `name` as a route, and not as a model or an endpoint.
    pub fn is_route(&self, name: Option<&str>) -> Result<bool, RecordError> {
        let query = "SELECT EXISTS (SELECT 1 FROM hourly_totals WHERE dimension = ?2 AND name = ?1)
                     AND NOT EXISTS (SELECT 1 FROM hourly_totals WHERE dimension = ?3 AND (name = ?1 OR endpoint = ?1))";
        let Some(name) = name else { return Ok(false) };
        self.map_error(self.connection.query_row(query, rusqlite::params![name, BY_ROUTE, BY_MODEL], |row| row.get(0)))
    }

    fn read_totals(
        &self,
        by: GroupBy,
        dimension: i64,
        from: i64,
        name: Option<&str>,
        groups: &mut BTreeMap<GroupKey, GroupMetrics>,
    ) -> rusqlite::Result<()> {
        let (first, last): (Option<i64>, Option<i64>) = self.connection.query_row(
            "SELECT min(hour), max(hour) FROM hourly_totals WHERE hour >= ?1 AND dimension = ?2",
            [from, dimension],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )?;
        let hour_count = first.zip(last).map_or(0, |(first, last)| last - first + 1);
        let parts = usize::try_from(hour_count).unwrap_or(0).min(TREND_PARTS);
        let mut statement = self.connection.prepare(
            "SELECT hour, name, endpoint, currency, calls, failed, input_tokens, output_tokens, estimated_calls, cost, output_tokens_timed, output_us, ttft_histogram,
             total_histogram FROM hourly_totals WHERE hour >= ?1 AND dimension = ?2 AND (?3 IS NULL OR name = ?3 OR endpoint = ?3)",
        )?;
        let mut rows = statement.query(rusqlite::params![from, dimension, name])?;
        while let Some(row) = rows.next()? {
            let metrics = groups.entry(group_key(by, row, 1, 2)?).or_default();
            metrics.calls += unsigned(row, 4)?;
            metrics.failed += unsigned(row, 5)?;
            metrics.input += unsigned(row, 6)?;
            metrics.output += unsigned(row, 7)?;
            metrics.estimated += unsigned(row, 8)?;
            let (currency, cost): (String, f64) = (row.get(3)?, row.get(9)?);
            if !currency.is_empty() {
                *metrics.cost.entry(currency).or_default() += cost;
            }
            metrics.timed_output.0 += unsigned(row, 10)?;
            metrics.timed_output.1 += unsigned(row, 11)?;
            // An invalid histogram only loses its own values.
            let ttft = row.get_ref(12)?.as_blob()?;
            metrics.ttft.merge_encoded(ttft);
            metrics.total.merge_encoded(row.get_ref(13)?.as_blob()?);
            if by != GroupBy::Day && parts > 1 {
                let hour = row.get::<_, i64>(0)?.saturating_sub(first.unwrap_or(0));
                let offset = usize::try_from(hour).unwrap_or(0);
                metrics.ttft_trend.resize(parts, Histogram::default());
                let part = offset.saturating_mul(parts) / usize::try_from(hour_count).unwrap_or(1);
                metrics.ttft_trend[part.min(parts - 1)].merge_encoded(ttft);
            }
        }
        Ok(())
    }

    fn read_failures(
        &self,
        by: GroupBy,
        dimension: i64,
        from: i64,
        name: Option<&str>,
        groups: &mut BTreeMap<GroupKey, GroupMetrics>,
    ) -> rusqlite::Result<()> {
        let mut statement = self.connection.prepare(
            "SELECT hour, name, endpoint, event, count FROM hourly_events
             WHERE hour >= ?1 AND dimension = ?2 AND (?3 IS NULL OR name = ?3 OR endpoint = ?3)",
        )?;
        let mut rows = statement.query(rusqlite::params![from, dimension, name])?;
        while let Some(row) = rows.next()? {
            let (event, count): (String, u64) = (row.get(3)?, unsigned(row, 4)?);
            let metrics = groups.entry(group_key(by, row, 1, 2)?).or_default();
            match (event.as_str(), metrics.failures_by_class.iter_mut().find(|(class, _)| *class == event)) {
                (FAILOVER, _) => metrics.failovers += count,
                (STOPPED, _) => metrics.stopped += count,
                (_, Some((_, sum))) => *sum += count,
                (_, None) => metrics.failures_by_class.push((event, count)),
            }
        }
        Ok(())
    }
}

fn group_key(by: GroupBy, row: &Row<'_>, name_column: usize, endpoint_column: usize) -> rusqlite::Result<GroupKey> {
    Ok(match by {
        GroupBy::Model => (row.get(name_column)?, Some(row.get(endpoint_column)?)),
        GroupBy::Route | GroupBy::Client => (row.get(name_column)?, None),
        GroupBy::Endpoint => (row.get(endpoint_column)?, None),
        GroupBy::Day => {
            let hour: i64 = row.get(0)?;
            let moment = Timestamp::from_second(hour.saturating_mul(3600)).unwrap_or_default();
            (moment.to_zoned(TimeZone::system()).date().to_string(), None)
        }
    })
}

fn unsigned(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    let number: i64 = row.get(column)?;
    Ok(u64::try_from(number).unwrap_or_default())
}
