//! Aggregates calls into hourly totals by model, by route and by client key.
//!
//! Upstream requests count for their models, calls for their route and client key. Rows are merged in memory and
//! upserted once per transaction.

use std::{collections::BTreeMap, time::Duration};

use rusqlite::{OptionalExtension, Transaction, params};

use super::{
    StoredCall,
    convert::{micros, representative_attempt, saturating_i64},
};

use crate::{
    engine::CallRecord,
    model::{ErrorClass, Usage},
    store::histogram::Histogram,
};

/// The dimension of upstream requests by model.
pub(super) const BY_MODEL: i64 = 0;
/// The dimension of calls by route.
pub(super) const BY_ROUTE: i64 = 1;
/// The dimension of calls by client key.
pub(super) const BY_CLIENT: i64 = 2;

/// An event counted beside the error classes: a failover to another model.
pub(super) const FAILOVER: &str = "failover";
/// An event counted beside the error classes: a call stopped before its answer was complete.
pub(super) const STOPPED: &str = "stopped";

/// Totals to add to the database.
#[derive(Default)]
pub(super) struct HourlyRollup(BTreeMap<RollupKey, Totals>);

/// The primary key of a row of `hourly_totals`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct RollupKey {
    hour: i64,
    dimension: i64,
    name: String,
    endpoint: String,
    currency: String,
}

/// The values to add to a row.
#[derive(Default)]
struct Totals {
    calls: i64,
    failures_by_class: BTreeMap<&'static str, i64>,
    /// Counts of other events, by name.
    other_events: BTreeMap<&'static str, i64>,
    usage: UsageTotals,
    estimated: i64,
    ttft: Histogram,
    total: Histogram,
}

/// The values of one call or one upstream request.
struct Sample {
    class: Option<&'static str>,
    /// Whether it counts as a call; not if mmchat canceled it before its first token.
    is_counted: bool,
    failovers: u64,
    stopped: bool,
    /// Tokens and cost, if known.
    usage: Option<UsageTotals>,
    estimated: bool,
    ttft: Option<Duration>,
    /// The duration of a complete answer.
    total: Option<Duration>,
}

#[derive(Clone, Copy, Default)]
struct UsageTotals {
    input: u64,
    output: u64,
    cost: f64,
    output_tokens_timed: u64,
    output_us: i64,
}

impl HourlyRollup {
    /// Adds a call.
    pub(super) fn add(&mut self, call: &StoredCall) {
        let (record, representative) = (&*call.record, representative_attempt(&call.record));
        for attempt in &record.attempts {
            let usage = attempt.usage.as_ref();
            let target = &attempt.target;
            let output_time = if representative.is_some_and(|other| std::ptr::eq(other, attempt)) {
                record.output_duration
            } else {
                Duration::ZERO
            };
            let cost = attempt.cost().map(|(cost, _)| cost).unwrap_or_default();
            let key = RollupKey {
                hour: hour_since_epoch(attempt.sent_at),
                dimension: BY_MODEL,
                name: target.id.0.clone(),
                endpoint: target.endpoint.name.clone(),
                currency: target.price.as_ref().map(|price| price.currency.clone()).unwrap_or_default(),
            };
            self.add_sample(
                key,
                &Sample {
                    class: attempt.class().filter(|class| *class != ErrorClass::LocalLimit).map(ErrorClass::as_str),
                    is_counted: attempt.is_counted(),
                    failovers: 0,
                    stopped: false,
                    usage: usage.map(|usage| UsageTotals { cost, ..UsageTotals::from_usage(usage, output_time) }),
                    estimated: usage.is_some_and(|usage| usage.estimated),
                    ttft: attempt.ttft,
                    total: attempt.error.is_none().then_some(attempt.took),
                },
            );
        }
        if record.attempts.is_empty() {
            return;
        }
        let route = record.is_route.then_some((BY_ROUTE, &record.requested));
        let client = call.client.as_ref().map(|client| (BY_CLIENT, client));
        for (dimension, name) in route.into_iter().chain(client) {
            self.add_call_sample(call, dimension, name);
        }
    }

    /// Adds the call as one sample, however many attempts it took.
    fn add_call_sample(&mut self, call: &StoredCall, dimension: i64, name: &str) {
        let (record, class, cost) = (&*call.record, call.record.class(), call.record.cost());
        let has_output = record.first_output.is_some();
        let key = RollupKey {
            hour: hour_since_epoch(record.started_at),
            dimension,
            name: name.to_owned(),
            endpoint: String::new(),
            currency: cost.map(|(_, currency)| currency.to_owned()).unwrap_or_default(),
        };
        self.add_sample(
            key,
            &Sample {
                // A limit of mmchat is no failure of a model, but one for the client whose answer it ends.
                class: class
                    .filter(|class| *class != ErrorClass::LocalLimit || has_output && !record.stopped)
                    .map(ErrorClass::as_str),
                is_counted: class != Some(ErrorClass::LocalLimit) || has_output,
                failovers: record.failovers(),
                stopped: record.stopped,
                usage: total_usage(record)
                    .map(|totals| UsageTotals { cost: cost.map(|(cost, _)| cost).unwrap_or_default(), ..totals }),
                estimated: record
                    .attempts
                    .iter()
                    .filter_map(|attempt| attempt.usage.as_ref())
                    .any(|usage| usage.estimated),
                // From the start of the call, as the user experiences it.
                ttft: record.first_output,
                total: record.result.is_ok().then_some(record.total),
            },
        );
    }

    fn add_sample(&mut self, key: RollupKey, sample: &Sample) {
        if !sample.is_counted && sample.usage.is_none() && sample.failovers == 0 && !sample.stopped {
            return;
        }
        let totals = self.0.entry(key).or_default();
        totals.calls += i64::from(sample.is_counted);
        if let Some(class) = sample.class {
            *totals.failures_by_class.entry(class).or_default() += 1;
        }
        for (name, count) in [(FAILOVER, saturating_i64(sample.failovers)), (STOPPED, i64::from(sample.stopped))] {
            if count > 0 {
                *totals.other_events.entry(name).or_default() += count;
            }
        }
        let usage = sample.usage.unwrap_or_default();
        totals.usage = UsageTotals {
            input: totals.usage.input.saturating_add(usage.input),
            output: totals.usage.output.saturating_add(usage.output),
            cost: totals.usage.cost + usage.cost,
            output_tokens_timed: totals.usage.output_tokens_timed.saturating_add(usage.output_tokens_timed),
            output_us: totals.usage.output_us.saturating_add(usage.output_us),
        };
        totals.estimated += i64::from(sample.estimated);
        if let Some(ttft) = sample.ttft {
            totals.ttft.add(ttft);
        }
        if let Some(total) = sample.total {
            totals.total.add(total);
        }
    }

    /// Adds the totals to the database.
    pub(super) fn write(&self, transaction: &Transaction<'_>) -> rusqlite::Result<()> {
        for (key, totals) in &self.0 {
            key.upsert(transaction, totals)?;
        }
        Ok(())
    }
}

impl RollupKey {
    fn upsert(&self, transaction: &Transaction<'_>, totals: &Totals) -> rusqlite::Result<()> {
        let Self { hour, dimension, name, endpoint, currency } = self;
        let stored: Option<(Vec<u8>, Vec<u8>)> = transaction
            .prepare_cached(
                "SELECT ttft_histogram, total_histogram FROM hourly_totals WHERE hour = ?1 AND dimension = ?2 AND name = ?3 AND endpoint = ?4 AND currency = ?5",
            )?
            .query_row(params![hour, dimension, name, endpoint, currency], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        let (ttft, total) = stored.unwrap_or_default();
        let merged = |encoded: &[u8], new: &Histogram| {
            let mut histogram = new.clone();
            histogram.merge_encoded(encoded);
            histogram.encode()
        };
        let usage = totals.usage;
        transaction
            .prepare_cached(
                "INSERT INTO hourly_totals (hour, dimension, name, endpoint, currency, calls, failed, input_tokens, output_tokens, estimated_calls, cost, output_tokens_timed,
                 output_us, ttft_histogram, total_histogram) VALUES (?1, ?2, ?3, ?4, ?5, ?15, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)
                 ON CONFLICT DO UPDATE SET calls = calls + ?15, failed = failed + ?6, input_tokens = input_tokens + ?7, output_tokens = output_tokens + ?8,
                 estimated_calls = estimated_calls + ?9, cost = cost + ?10, output_tokens_timed = output_tokens_timed + ?11, output_us = output_us + ?12,
                 ttft_histogram = ?13, total_histogram = ?14",
            )?
            .execute(params![
                hour,
                dimension,
                name,
                endpoint,
                currency,
                totals.failures_by_class.values().sum::<i64>(),
                saturating_i64(usage.input),
                saturating_i64(usage.output),
                totals.estimated,
                usage.cost,
                saturating_i64(usage.output_tokens_timed),
                usage.output_us,
                merged(&ttft, &totals.ttft),
                merged(&total, &totals.total),
                totals.calls,
            ])?;
        for (event, count) in totals.failures_by_class.iter().chain(&totals.other_events) {
            transaction
                .prepare_cached(
                    "INSERT INTO hourly_events (hour, dimension, name, endpoint, event, count) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
                     ON CONFLICT DO UPDATE SET count = count + ?6",
                )?
                .execute(params![hour, dimension, name, endpoint, event, count])?;
        }
        Ok(())
    }
}

/// The usage of all attempts of a call. The output speed is that of the answer only.
fn total_usage(call: &CallRecord) -> Option<UsageTotals> {
    let own = call.usage.as_ref().map(|usage| UsageTotals::from_usage(usage, call.output_duration));
    let (output_tokens_timed, output_us) = own.map_or((0, 0), |own| (own.output_tokens_timed, own.output_us));
    let each = call
        .attempts
        .iter()
        .filter_map(|attempt| attempt.usage.as_ref())
        .map(|usage| UsageTotals::from_usage(usage, Duration::ZERO));
    let all = each.reduce(|one, other| UsageTotals {
        input: one.input.saturating_add(other.input),
        output: one.output.saturating_add(other.output),
        ..one
    })?;
    Some(UsageTotals { output_tokens_timed, output_us, ..all })
}

impl UsageTotals {
    fn from_usage(usage: &Usage, output_time: Duration) -> Self {
        let output = usage.output.unwrap_or_default();
        Self {
            input: usage.input.unwrap_or_default(),
            output,
            cost: 0.0,
            output_tokens_timed: if output_time.is_zero() { 0 } else { output.saturating_sub(1) },
            output_us: micros(output_time),
        }
    }
}

/// The hour that contains `at`, counted from 1970.
pub(super) fn hour_since_epoch(at: jiff::Timestamp) -> i64 {
    at.as_second().div_euclid(3600)
}
