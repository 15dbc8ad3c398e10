//! What was spent, from the record, against what may be.

use std::path::PathBuf;

use jiff::{Timestamp, ToSpan, Zoned, tz::TimeZone};

use super::{
    Database, RecordError,
    insert::{BY_MODEL, hour},
};
use crate::{
    route::spend::{Period, Reached, SpendLedger, SpendLimit, SpendScope},
    target::Target,
};

/// The limits, and the record they are held against. The record is read for each request: other processes spend, too.
#[derive(Clone, Debug)]
pub struct Ledger {
    limits: Vec<SpendLimit>,
    place: PathBuf,
}

impl Ledger {
    /// These limits against the record at `place`.
    #[must_use]
    pub fn new(limits: Vec<SpendLimit>, place: PathBuf) -> Self {
        Self { limits, place }
    }
}

impl SpendLedger for Ledger {
    fn reached(&self, target: &Target) -> Result<Option<Reached>, String> {
        let mut limits = self.limits.iter().filter(|limit| limit.covers(target)).peekable();
        if limits.peek().is_none() {
            return Ok(None);
        }
        let Some(database) = Database::open_existing(&self.place).map_err(|error| error.to_string())? else {
            // Nothing was spent yet; a limit of nothing is reached all the same.
            return Ok(limits
                .find(|limit| limit.amount <= 0.0)
                .map(|limit| Reached { limit: limit.clone(), spent: 0.0 }));
        };
        let now = Timestamp::now().to_zoned(TimeZone::system());
        for limit in limits {
            let spent = database.spent(limit, &now).map_err(|error| error.to_string())?;
            if spent >= limit.amount {
                return Ok(Some(Reached { limit: limit.clone(), spent }));
            }
        }
        Ok(None)
    }
}

impl Database {
    /// What was spent of `limit` in the period that `now` is in. Where midnight is not on a full hour of UTC, the whole hour
    /// it falls into counts. What a clock that was wrong once put into the future does not.
    pub fn spent(&self, limit: &SpendLimit, now: &Zoned) -> Result<f64, RecordError> {
        let midnight = now.start_of_day().unwrap_or_else(|_| now.clone());
        let start = match limit.period {
            Period::Day => midnight,
            Period::Month => midnight.checked_sub(i64::from(now.day() - 1).days()).unwrap_or(midnight),
        };
        let (endpoint, model) = match &limit.scope {
            SpendScope::All => (None, None),
            SpendScope::Endpoint(name) => (Some(name), None),
            SpendScope::Model(name) => (None, Some(name)),
        };
        self.told(self.connection.query_row(
            "SELECT coalesce(sum(cost), 0.0) FROM hours WHERE hour BETWEEN ?1 AND ?6 AND lane = ?2 AND currency = ?3
             AND (?4 IS NULL OR endpoint = ?4) AND (?5 IS NULL OR name = ?5)",
            rusqlite::params![
                hour(start.timestamp()),
                BY_MODEL,
                limit.currency,
                endpoint,
                model,
                hour(now.timestamp())
            ],
            |row| row.get(0),
        ))
    }
}
