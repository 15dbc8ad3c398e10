//! Reading the record's figures: calls, failures, times, tokens and cost, by model, route, endpoint or day.
//!
//! Owns the grouping of the hours' sums. Refuses to know how the figures are shown.

use std::{collections::BTreeMap, time::Duration};

use jiff::{Timestamp, ToSpan, civil::Date, tz::TimeZone};
use rusqlite::Row;

use super::{Database, RecordError};
use crate::store::histogram::Spread;
use crate::store::record::rollup::{BY_CLIENT, BY_MODEL, BY_ROUTE, FAILOVER, STOPPED, hour};

/// What figures are summed by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// Each model: its upstream requests.
    Model,
    /// Each endpoint: its upstream requests.
    Endpoint,
    /// Each route: what was asked of it.
    Route,
    /// Each key that programs brought: what was asked with it.
    Client,
    /// Each day, in the person's time zone: upstream requests.
    Day,
}

/// From when on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Since(pub Timestamp);

impl Since {
    /// Reads `24h`, `7d`, `2w`, a date, or a moment; `now` is what the first ones are before.
    pub fn parse(text: &str, now: Timestamp) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no time: write it like 24h, 7d, 2w or 2026-01-31");
        let text = text.trim();
        if let Ok(date) = text.parse::<Date>() {
            let midnight = date.to_zoned(TimeZone::system()).map_err(|_| wrong())?;
            return Ok(Self(midnight.timestamp()));
        }
        if let Ok(moment) = text.parse::<Timestamp>() {
            return Ok(Self(moment));
        }
        let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?);
        let number: i64 = number.parse().map_err(|_| wrong())?;
        let hours = match unit {
            "h" => number,
            "d" => number.checked_mul(24).ok_or_else(wrong)?,
            "w" => number.checked_mul(24 * 7).ok_or_else(wrong)?,
            _ => return Err(wrong()),
        };
        let span = 1.hours().checked_mul(hours).map_err(|_| wrong())?;
        now.checked_sub(span).map(Self).map_err(|_| wrong())
    }
}

/// The figures of one thing.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// Calls, or upstream requests.
    pub calls: u64,
    /// Those that failed.
    pub failed: u64,
    /// By class, the most frequent first.
    pub classes: Vec<(String, u64)>,
    /// How often another model was asked because one failed; of routes and keys.
    pub failovers: u64,
    /// Calls that whoever asked had enough of before they were whole; of routes and keys.
    pub stopped: u64,
    /// Tokens read.
    pub input: u64,
    /// Tokens written.
    pub output: u64,
    /// Calls whose tokens are our own estimate.
    pub estimated: u64,
    /// What it cost, by currency.
    pub cost: BTreeMap<String, f64>,
    /// Times to the first token.
    pub ttft: Spread,
    /// Times of whole answers.
    pub total: Spread,
    /// Tokens after the first, and the microseconds they took.
    pub spoken: (u64, u64),
    /// Times to the first token over time, old to new: in twelve parts of all there is, or none when that is an hour.
    pub course: Vec<Spread>,
}

/// As many parts as a course has.
pub(super) const PARTS: usize = 12;

impl Figures {
    /// The share of calls that went well; `None`: there were none.
    #[must_use]
    pub fn success(&self) -> Option<f64> {
        #[expect(clippy::cast_precision_loss, reason = "fewer than 2^52 calls")]
        (self.calls > 0).then(|| 1.0 - self.failed as f64 / self.calls as f64)
    }

    /// Tokens a second, after the first; `None`: too little is known.
    #[must_use]
    pub fn tokens_per_second(&self) -> Option<f64> {
        let (tokens, micros) = self.spoken;
        #[expect(clippy::cast_precision_loss, reason = "fewer than 2^52")]
        (tokens > 0 && micros >= 10_000).then(|| tokens as f64 / (Duration::from_micros(micros).as_secs_f64()))
    }
}

/// One thing with its figures.
#[derive(Clone, Debug)]
pub struct StatsRow {
    /// Its name.
    pub name: String,
    /// The endpoint of a model.
    pub endpoint: Option<String>,
    /// Its figures.
    pub figures: Figures,
}

/// Which row an hour's sums belong to.
type Group = (String, Option<String>);

impl Database {
    /// The figures since then (whole hours), the busiest first; days in order. Only of `name`, if one is given.
    pub fn stats(&self, by: By, since: Option<Since>, name: Option<&str>) -> Result<Vec<StatsRow>, RecordError> {
        let from = since.map_or(i64::MIN, |since| hour(since.0));
        let lane = match by {
            By::Client => BY_CLIENT,
            By::Route => BY_ROUTE,
            By::Day if self.is_route(name)? => BY_ROUTE,
            By::Day | By::Model | By::Endpoint => BY_MODEL,
        };
        let mut groups: BTreeMap<Group, Figures> = BTreeMap::new();
        self.told(self.hours(by, lane, from, name, &mut groups))?;
        self.told(self.failures(by, lane, from, name, &mut groups))?;
        let mut rows: Vec<StatsRow> =
            groups.into_iter().map(|((name, endpoint), figures)| StatsRow { name, endpoint, figures }).collect();
        if by != By::Day {
            rows.sort_by_key(|row| std::cmp::Reverse(row.figures.calls));
        }
        for row in &mut rows {
            row.figures.classes.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        }
        Ok(rows)
    }

    /// Whether `name` is on the record as a route's alone.
    pub fn is_route(&self, name: Option<&str>) -> Result<bool, RecordError> {
        let query = "SELECT EXISTS (SELECT 1 FROM hours WHERE lane = ?2 AND name = ?1)
                     AND NOT EXISTS (SELECT 1 FROM hours WHERE lane = ?3 AND (name = ?1 OR endpoint = ?1))";
        let Some(name) = name else { return Ok(false) };
        self.told(self.connection.query_row(query, rusqlite::params![name, BY_ROUTE, BY_MODEL], |row| row.get(0)))
    }

    fn hours(
        &self,
        by: By,
        lane: i64,
        from: i64,
        name: Option<&str>,
        groups: &mut BTreeMap<Group, Figures>,
    ) -> rusqlite::Result<()> {
        let (first, last): (Option<i64>, Option<i64>) = self.connection.query_row(
            "SELECT min(hour), max(hour) FROM hours WHERE hour >= ?1 AND lane = ?2",
            [from, lane],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )?;
        let hours = first.zip(last).map_or(0, |(first, last)| last - first + 1);
        let parts = usize::try_from(hours).unwrap_or(0).min(PARTS);
        let mut statement = self.connection.prepare(
            "SELECT hour, name, endpoint, currency, calls, failed, input, output, estimated, cost, spoken, speaking_us, ttft,
             total FROM hours WHERE hour >= ?1 AND lane = ?2 AND (?3 IS NULL OR name = ?3 OR endpoint = ?3)",
        )?;
        let mut rows = statement.query(rusqlite::params![from, lane, name])?;
        while let Some(row) = rows.next()? {
            let figures = groups.entry(group(by, row, 1, 2)?).or_default();
            figures.calls += unsigned(row, 4)?;
            figures.failed += unsigned(row, 5)?;
            figures.input += unsigned(row, 6)?;
            figures.output += unsigned(row, 7)?;
            figures.estimated += unsigned(row, 8)?;
            let (currency, cost): (String, f64) = (row.get(3)?, row.get(9)?);
            if !currency.is_empty() {
                *figures.cost.entry(currency).or_default() += cost;
            }
            figures.spoken.0 += unsigned(row, 10)?;
            figures.spoken.1 += unsigned(row, 11)?;
            // A packed spread that is broken costs its figures, and nothing else.
            let ttft = row.get_ref(12)?.as_blob()?;
            figures.ttft.add_packed(ttft);
            figures.total.add_packed(row.get_ref(13)?.as_blob()?);
            if by != By::Day && parts > 1 {
                let since = usize::try_from(row.get::<_, i64>(0)? - first.unwrap_or(0)).unwrap_or(0);
                figures.course.resize(parts, Spread::default());
                let part = since * parts / usize::try_from(hours).unwrap_or(1);
                figures.course[part.min(parts - 1)].add_packed(ttft);
            }
        }
        Ok(())
    }

    fn failures(
        &self,
        by: By,
        lane: i64,
        from: i64,
        name: Option<&str>,
        groups: &mut BTreeMap<Group, Figures>,
    ) -> rusqlite::Result<()> {
        let mut statement = self.connection.prepare(
            "SELECT hour, name, endpoint, class, count FROM failures
             WHERE hour >= ?1 AND lane = ?2 AND (?3 IS NULL OR name = ?3 OR endpoint = ?3)",
        )?;
        let mut rows = statement.query(rusqlite::params![from, lane, name])?;
        while let Some(row) = rows.next()? {
            let (class, count): (String, u64) = (row.get(3)?, unsigned(row, 4)?);
            let figures = groups.entry(group(by, row, 1, 2)?).or_default();
            match (class.as_str(), figures.classes.iter_mut().find(|(known, _)| *known == class)) {
                (FAILOVER, _) => figures.failovers += count,
                (STOPPED, _) => figures.stopped += count,
                (_, Some((_, sum))) => *sum += count,
                (_, None) => figures.classes.push((class, count)),
            }
        }
        Ok(())
    }
}

fn group(by: By, row: &Row<'_>, name: usize, endpoint: usize) -> rusqlite::Result<Group> {
    Ok(match by {
        By::Model => (row.get(name)?, Some(row.get(endpoint)?)),
        By::Route | By::Client => (row.get(name)?, None),
        By::Endpoint => (row.get(endpoint)?, None),
        By::Day => {
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
