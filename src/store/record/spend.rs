//! Checks spend limits against the costs in the record.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use jiff::{ToSpan, Zoned, tz::TimeZone};
use parking_lot::{Mutex, RwLock};

use super::{Database, RecordError};
use crate::store::record::rollup::{BY_CLIENT, BY_MODEL, hour_since_epoch};
use crate::{
    model::{clock::Clock, target::Target},
    routing::spend::{Period, ReachedLimit, SpendLedger, SpendLimit, SpendScope},
};

/// How long a request waits while another process opens the record.
const OPEN_TIMEOUT: Duration = Duration::from_millis(500);
/// The time between attempts to open a record that could not be opened.
const RETRY_INTERVAL: Duration = Duration::from_secs(10);

/// Spend limits, checked against the record. The record is read for each request, because other processes write to it
/// too. A server, which may have thousands of requests a second, reads it a few times a second.
#[derive(Debug)]
pub struct SqliteSpendLedger {
    limits: RwLock<Vec<SpendLimit>>,
    path: PathBuf,
    connection: Mutex<LedgerConnection>,
    /// How long a value that was read stays valid.
    max_age: Duration,
    /// The spend for each limit, and when it was read.
    cache: Mutex<Vec<Option<(Instant, f64)>>>,
    clock: Clock,
}

/// The connection to the record, which is kept open between requests.
#[derive(Debug)]
enum LedgerConnection {
    /// Not opened yet, or no record exists.
    NotOpened,
    Open(Database),
    /// Opening failed, with time and error.
    Failed(Instant, String),
}

impl SqliteSpendLedger {
    /// Checks `limits` against the record at `path`.
    #[must_use]
    pub fn new(limits: Vec<SpendLimit>, path: PathBuf) -> Self {
        let (connection, cache) = (Mutex::new(LedgerConnection::NotOpened), Mutex::default());
        Self { limits: RwLock::new(limits), path, connection, max_age: Duration::ZERO, cache, clock: Clock::default() }
    }

    /// Reads the time of `clock`, which decides the day and the month.
    #[cfg(test)]
    pub(super) fn with_clock(self, clock: Clock) -> Self {
        Self { clock, ..self }
    }

    /// Reuses a value that was read for up to `max_age`.
    #[must_use]
    pub fn with_max_age(self, max_age: Duration) -> Self {
        Self { max_age, ..self }
    }

    /// Replaces the limits.
    pub fn set_limits(&self, limits: Vec<SpendLimit>) {
        *self.limits.write() = limits;
        self.cache.lock().clear();
    }

    /// The cached spend for the limit at this index, if it is still valid.
    fn cached_spend(&self, limit: usize) -> Option<f64> {
        let cache = self.cache.lock();
        let (read_at, spent) = (*cache.get(limit)?)?;
        (read_at.elapsed() < self.max_age).then_some(spent)
    }

    fn cache_spend(&self, limit: usize, spent: f64) {
        let mut cache = self.cache.lock();
        if cache.len() <= limit {
            cache.resize(limit + 1, None);
        }
        cache[limit] = Some((Instant::now(), spent));
    }

    /// Calls `read` with the open record; `None` if there is no record.
    fn with_database<T>(&self, read: impl FnOnce(&Database) -> Result<T, RecordError>) -> Result<Option<T>, String> {
        let mut connection = self.connection.lock();
        if let LedgerConnection::Failed(failed_at, error) = &*connection
            && failed_at.elapsed() < RETRY_INTERVAL
        {
            return Err(error.clone());
        }
        if !matches!(&*connection, LedgerConnection::Open(database) if !database.is_immutable) || !self.path.exists() {
            *connection = match Database::open_existing_with_timeout(&self.path, OPEN_TIMEOUT) {
                Ok(database) => database.map_or(LedgerConnection::NotOpened, LedgerConnection::Open),
                Err(error) => LedgerConnection::Failed(Instant::now(), error.to_string()),
            };
        }
        match &*connection {
            LedgerConnection::NotOpened => Ok(None),
            LedgerConnection::Open(database) => read(database).map(Some).map_err(|error| error.to_string()),
            LedgerConnection::Failed(_, error) => Err(error.clone()),
        }
    }
}

impl SpendLedger for SqliteSpendLedger {
    fn reached_limit(&self, target: &Target) -> Result<Option<ReachedLimit>, String> {
        let limits = self.limits.read();
        for (index, limit) in limits.iter().enumerate().filter(|(_, limit)| limit.covers(target)) {
            let spent = if let Some(spent) = self.cached_spend(index) {
                spent
            } else {
                let now = self.clock.now().to_zoned(TimeZone::system());
                // Without a record nothing was spent; a limit of 0 is still reached.
                let spent = self.with_database(|database| database.spend_for_limit(limit, &now))?.unwrap_or(0.0);
                self.cache_spend(index, spent);
                spent
            };
            if spent >= limit.amount {
                return Ok(Some(ReachedLimit { limit: limit.clone(), spent }));
            }
        }
        Ok(None)
    }
}

impl Database {
    /// The spend of the client key `client` on the day of `now`, by currency.
    pub fn client_spend(&self, client: &str, now: &Zoned) -> Result<Vec<(String, f64)>, RecordError> {
        let midnight = now.start_of_day().unwrap_or_else(|_| now.clone());
        let query = "SELECT currency, sum(cost) FROM hourly_totals
                     WHERE hour BETWEEN ?1 AND ?2 AND dimension = ?3 AND name = ?4 AND currency != '' GROUP BY currency";
        let parameters = rusqlite::params![
            hour_since_epoch(midnight.timestamp()),
            hour_since_epoch(now.timestamp()),
            BY_CLIENT,
            client
        ];
        let read = || {
            let mut statement = self.connection.prepare(query)?;
            let rows = statement.query_map(parameters, |row| Ok((row.get(0)?, row.get(1)?)))?;
            rows.collect()
        };
        self.map_error(read())
    }

    /// The spend in the period of `limit` that contains `now`. If local midnight is not on a full hour of UTC, the hour
    /// that contains it counts. Costs dated in the future, from a clock that was wrong, do not count.
    pub fn spend_for_limit(&self, limit: &SpendLimit, now: &Zoned) -> Result<f64, RecordError> {
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
        self.map_error(self.connection.query_row(
            "SELECT coalesce(sum(cost), 0.0) FROM hourly_totals WHERE hour BETWEEN ?1 AND ?6 AND dimension = ?2 AND currency = ?3
             AND (?4 IS NULL OR endpoint = ?4) AND (?5 IS NULL OR name = ?5)",
            rusqlite::params![
                hour_since_epoch(start.timestamp()),
                BY_MODEL,
                limit.currency,
                endpoint,
                model,
                hour_since_epoch(now.timestamp())
            ],
            |row| row.get(0),
        ))
    }
}
