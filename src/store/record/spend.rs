//! What was spent, from the record, against what may be.

use std::{
    path::PathBuf,
    sync::{Mutex, RwLock},
    time::{Duration, Instant},
};

use jiff::{Timestamp, ToSpan, Zoned, tz::TimeZone};

use super::{Database, RecordError};
use crate::store::record::rollup::{BY_CLIENT, BY_MODEL, hour};
use crate::{
    model::target::Target,
    routing::spend::{Period, Reached, SpendLedger, SpendLimit, SpendScope},
};

/// How long a request waits for another process that opens the record.
const PATIENCE: Duration = Duration::from_millis(500);
/// A record that could not be opened is left alone for so long.
const AGAIN: Duration = Duration::from_secs(10);

/// The limits, and the record they are held against. The record is read for each request: other processes spend, too. A
/// server, which has thousands a second, reads it a few times a second.
#[derive(Debug)]
pub struct Ledger {
    limits: RwLock<Vec<SpendLimit>>,
    place: PathBuf,
    opened: Mutex<Opened>,
    /// For how long what was read is good enough.
    good_for: Duration,
    /// What was spent of each limit, when it was last read.
    known: Mutex<Vec<Option<(Instant, f64)>>>,
}

/// The record, as far as it was opened: it is not for each request anew.
#[derive(Debug)]
enum Opened {
    /// There was none yet, or nobody looked.
    No,
    Yes(Database),
    /// It could not be.
    Failed(Instant, String),
}

impl Ledger {
    /// These limits against the record at `place`.
    #[must_use]
    pub fn new(limits: Vec<SpendLimit>, place: PathBuf) -> Self {
        let (opened, known) = (Mutex::new(Opened::No), Mutex::default());
        Self { limits: RwLock::new(limits), place, opened, good_for: Duration::ZERO, known }
    }

    /// What was read is good enough for so long.
    #[must_use]
    pub fn good_for(self, time: Duration) -> Self {
        Self { good_for: time, ..self }
    }

    /// From now on, these limits.
    pub fn replace(&self, limits: Vec<SpendLimit>) {
        *self.limits.write().expect("no code panics while it holds this lock") = limits;
        self.known.lock().expect("no code panics while it holds this lock").clear();
    }

    /// What was spent of a limit, by its place among them, as far as that is known well enough.
    fn known(&self, limit: usize) -> Option<f64> {
        let known = self.known.lock().expect("no code panics while it holds this lock");
        let (read, spent) = (*known.get(limit)?)?;
        (read.elapsed() < self.good_for).then_some(spent)
    }

    fn know(&self, limit: usize, spent: f64) {
        let mut known = self.known.lock().expect("no code panics while it holds this lock");
        if known.len() <= limit {
            known.resize(limit + 1, None);
        }
        known[limit] = Some((Instant::now(), spent));
    }

    /// What `read` reads of the record; `None`: there is none yet.
    fn read<T>(&self, read: impl FnOnce(&Database) -> Result<T, RecordError>) -> Result<Option<T>, String> {
        let mut opened = self.opened.lock().expect("no code panics while it holds this lock");
        if let Opened::Failed(when, trouble) = &*opened
            && when.elapsed() < AGAIN
        {
            return Err(trouble.clone());
        }
        if !matches!(&*opened, Opened::Yes(database) if !database.is_fixed) || !self.place.exists() {
            *opened = match Database::open_existing_within(&self.place, PATIENCE) {
                Ok(database) => database.map_or(Opened::No, Opened::Yes),
                Err(error) => Opened::Failed(Instant::now(), error.to_string()),
            };
        }
        match &*opened {
            Opened::No => Ok(None),
            Opened::Yes(database) => read(database).map(Some).map_err(|error| error.to_string()),
            Opened::Failed(_, trouble) => Err(trouble.clone()),
        }
    }
}

impl SpendLedger for Ledger {
    fn reached(&self, target: &Target) -> Result<Option<Reached>, String> {
        let limits = self.limits.read().expect("no code panics while it holds this lock");
        for (place, limit) in limits.iter().enumerate().filter(|(_, limit)| limit.covers(target)) {
            let spent = if let Some(spent) = self.known(place) {
                spent
            } else {
                let now = Timestamp::now().to_zoned(TimeZone::system());
                // Where there is no record nothing was spent yet; a limit of nothing is reached all the same.
                let spent = self.read(|database| database.spent(limit, &now))?.unwrap_or(0.0);
                self.know(place, spent);
                spent
            };
            if spent >= limit.amount {
                return Ok(Some(Reached { limit: limit.clone(), spent }));
            }
        }
        Ok(None)
    }
}

impl Database {
    /// What was spent with the key of this name on the day that `now` is in, by currency.
    pub fn spent_with(&self, client: &str, now: &Zoned) -> Result<Vec<(String, f64)>, RecordError> {
        let midnight = now.start_of_day().unwrap_or_else(|_| now.clone());
        let query = "SELECT currency, sum(cost) FROM hours
                     WHERE hour BETWEEN ?1 AND ?2 AND lane = ?3 AND name = ?4 AND currency != '' GROUP BY currency";
        let values = rusqlite::params![hour(midnight.timestamp()), hour(now.timestamp()), BY_CLIENT, client];
        let read = || {
            let mut statement = self.connection.prepare(query)?;
            let rows = statement.query_map(values, |row| Ok((row.get(0)?, row.get(1)?)))?;
            rows.collect()
        };
        self.told(read())
    }

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
