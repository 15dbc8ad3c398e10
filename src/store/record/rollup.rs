//! The hours' sums: what calls add to them, put together before it is written.
//!
//! Owns what of a call counts for whom: upstream requests for their models, what was asked for its route and for the key it
//! was asked with. A thousand calls of one hour are one change of each of its rows. Refuses single calls.

use std::{collections::BTreeMap, time::Duration};

use rusqlite::{OptionalExtension, Transaction, params};

use super::{
    CallRecord,
    insert::{micros, signed, telling},
};
use crate::{
    model::{ErrorClass, Usage},
    store::histogram::Spread,
};

/// The hour's sums are by model, of upstream requests.
pub(super) const BY_MODEL: i64 = 0;
/// The hour's sums are by route, of what was asked for.
pub(super) const BY_ROUTE: i64 = 1;
/// The hour's sums are by the name of the key that was brought, of what was asked for.
pub(super) const BY_CLIENT: i64 = 2;

/// Beside the classes of failures: another model was asked because one failed.
pub(super) const FAILOVER: &str = "failover";
/// Beside the classes of failures: whoever asked had enough before the answer was whole.
pub(super) const STOPPED: &str = "stopped";

/// What calls add to their hours.
#[derive(Default)]
pub(super) struct Hours(BTreeMap<Row, Sum>);

/// A row of the sums.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Row {
    hour: i64,
    lane: i64,
    name: String,
    endpoint: String,
    currency: String,
}

/// What is added to it.
#[derive(Default)]
struct Sum {
    calls: i64,
    failures: BTreeMap<&'static str, i64>,
    /// What happened beside failures, by its word.
    beside: BTreeMap<&'static str, i64>,
    used: Used,
    estimated: i64,
    ttft: Spread,
    total: Spread,
}

/// What one call or one request adds.
struct One {
    class: Option<&'static str>,
    /// What we stopped ourselves before it said anything is no call of the service's.
    counted: bool,
    failovers: u64,
    stopped: bool,
    /// Tokens and cost.
    used: Option<Used>,
    estimated: bool,
    ttft: Option<Duration>,
    /// Of a whole answer.
    total: Option<Duration>,
}

#[derive(Clone, Copy, Default)]
struct Used {
    input: u64,
    output: u64,
    cost: f64,
    spoken: u64,
    speaking_us: i64,
}

impl Hours {
    /// Adds a call.
    pub(super) fn add(&mut self, call: &CallRecord) {
        let (outcome, answered) = (&call.outcome, telling(call));
        for (attempt, used) in outcome.attempts.iter().zip(&call.used) {
            let target = &attempt.target;
            let speaking = if answered.is_some_and(|answered| std::ptr::eq(answered, attempt)) {
                outcome.generating
            } else {
                Duration::ZERO
            };
            let cost = used.as_ref().and_then(|used| target.price.as_ref()?.cost(used)).unwrap_or_default();
            let row = Row {
                hour: hour(attempt.at),
                lane: BY_MODEL,
                name: target.id.0.clone(),
                endpoint: target.endpoint.name.clone(),
                currency: target.price.as_ref().map(|price| price.currency.clone()).unwrap_or_default(),
            };
            self.put(
                row,
                &One {
                    class: attempt.class().filter(|class| *class != ErrorClass::Local).map(ErrorClass::as_str),
                    counted: call.counts(attempt),
                    failovers: 0,
                    stopped: false,
                    used: used.as_ref().map(|used| Used { cost, ..Used::of(used, speaking) }),
                    estimated: used.is_some_and(|used| used.estimated),
                    ttft: attempt.ttft,
                    total: attempt.error.is_none().then_some(attempt.took),
                },
            );
        }
        if outcome.attempts.is_empty() {
            return;
        }
        let route = call.is_route.then_some((BY_ROUTE, &call.asked));
        let client = call.client.as_ref().map(|client| (BY_CLIENT, client));
        for (lane, name) in route.into_iter().chain(client) {
            self.asked_for(call, lane, name);
        }
    }

    /// What was asked for, however many requests it took.
    fn asked_for(&mut self, call: &CallRecord, lane: i64, name: &str) {
        let (outcome, class, cost) = (&call.outcome, call.class(), call.cost());
        let row = Row {
            hour: hour(call.at),
            lane,
            name: name.to_owned(),
            endpoint: String::new(),
            currency: cost.map(|(_, currency)| currency.to_owned()).unwrap_or_default(),
        };
        self.put(
            row,
            &One {
                class: class.filter(|class| *class != ErrorClass::Local).map(ErrorClass::as_str),
                counted: class != Some(ErrorClass::Local) || outcome.first.is_some(),
                failovers: call.failovers(),
                stopped: outcome.stopped,
                used: used_in_all(call)
                    .map(|used| Used { cost: cost.map(|(cost, _)| cost).unwrap_or_default(), ..used }),
                estimated: call.used.iter().flatten().any(|used| used.estimated),
                // As the person felt it.
                ttft: outcome.first,
                total: outcome.result.is_ok().then_some(outcome.total),
            },
        );
    }

    fn put(&mut self, row: Row, one: &One) {
        if !one.counted && one.used.is_none() && one.failovers == 0 && !one.stopped {
            return;
        }
        let sum = self.0.entry(row).or_default();
        sum.calls += i64::from(one.counted);
        if let Some(class) = one.class {
            *sum.failures.entry(class).or_default() += 1;
        }
        for (word, count) in [(FAILOVER, signed(one.failovers)), (STOPPED, i64::from(one.stopped))] {
            if count > 0 {
                *sum.beside.entry(word).or_default() += count;
            }
        }
        let used = one.used.unwrap_or_default();
        sum.used = Used {
            input: sum.used.input.saturating_add(used.input),
            output: sum.used.output.saturating_add(used.output),
            cost: sum.used.cost + used.cost,
            spoken: sum.used.spoken.saturating_add(used.spoken),
            speaking_us: sum.used.speaking_us.saturating_add(used.speaking_us),
        };
        sum.estimated += i64::from(one.estimated);
        if let Some(ttft) = one.ttft {
            sum.ttft.add(ttft);
        }
        if let Some(total) = one.total {
            sum.total.add(total);
        }
    }

    /// Adds all of it to what is in the database.
    pub(super) fn write(&self, transaction: &Transaction<'_>) -> rusqlite::Result<()> {
        for (row, sum) in &self.0 {
            row.add(transaction, sum)?;
        }
        Ok(())
    }
}

impl Row {
    fn add(&self, transaction: &Transaction<'_>, sum: &Sum) -> rusqlite::Result<()> {
        let Self { hour, lane, name, endpoint, currency } = self;
        let kept: Option<(Vec<u8>, Vec<u8>)> = transaction
            .prepare_cached(
                "SELECT ttft, total FROM hours WHERE hour = ?1 AND lane = ?2 AND name = ?3 AND endpoint = ?4 AND currency = ?5",
            )?
            .query_row(params![hour, lane, name, endpoint, currency], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        let (ttft, total) = kept.unwrap_or_default();
        let with = |packed: &[u8], more: &Spread| {
            let mut spread = more.clone();
            spread.add_packed(packed);
            spread.packed()
        };
        let used = sum.used;
        transaction
            .prepare_cached(
                "INSERT INTO hours (hour, lane, name, endpoint, currency, calls, failed, input, output, estimated, cost, spoken,
                 speaking_us, ttft, total) VALUES (?1, ?2, ?3, ?4, ?5, ?15, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)
                 ON CONFLICT DO UPDATE SET calls = calls + ?15, failed = failed + ?6, input = input + ?7, output = output + ?8,
                 estimated = estimated + ?9, cost = cost + ?10, spoken = spoken + ?11, speaking_us = speaking_us + ?12,
                 ttft = ?13, total = ?14",
            )?
            .execute(params![
                hour,
                lane,
                name,
                endpoint,
                currency,
                sum.failures.values().sum::<i64>(),
                signed(used.input),
                signed(used.output),
                sum.estimated,
                used.cost,
                signed(used.spoken),
                used.speaking_us,
                with(&ttft, &sum.ttft),
                with(&total, &sum.total),
                sum.calls,
            ])?;
        for (class, count) in sum.failures.iter().chain(&sum.beside) {
            transaction
                .prepare_cached(
                    "INSERT INTO failures (hour, lane, name, endpoint, class, count) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
                     ON CONFLICT DO UPDATE SET count = count + ?6",
                )?
                .execute(params![hour, lane, name, endpoint, class, count])?;
        }
        Ok(())
    }
}

/// What all requests of a call used. Only the answer itself says how fast it came.
fn used_in_all(call: &CallRecord) -> Option<Used> {
    let own = call.usage.as_ref().map(|usage| Used::of(usage, call.outcome.generating));
    let (spoken, speaking_us) = own.map_or((0, 0), |own| (own.spoken, own.speaking_us));
    let each = call.used.iter().flatten().map(|usage| Used::of(usage, Duration::ZERO));
    let all = each.reduce(|one, other| Used {
        input: one.input.saturating_add(other.input),
        output: one.output.saturating_add(other.output),
        ..one
    })?;
    Some(Used { spoken, speaking_us, ..all })
}

impl Used {
    fn of(usage: &Usage, speaking: Duration) -> Self {
        let output = usage.output.unwrap_or_default();
        Self {
            input: usage.input.unwrap_or_default(),
            output,
            cost: 0.0,
            spoken: if speaking.is_zero() { 0 } else { output.saturating_sub(1) },
            speaking_us: micros(speaking),
        }
    }
}

/// The hour a moment is in, since 1970.
pub(super) fn hour(at: jiff::Timestamp) -> i64 {
    at.as_second().div_euclid(3600)
}
