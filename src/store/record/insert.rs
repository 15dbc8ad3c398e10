//! Writing one call: its row, its attempts, the hour's sums and what was said, in one transaction.

use rusqlite::{OptionalExtension, Transaction, TransactionBehavior, params};

use std::time::Duration;

use super::{CallRecord, Database, RecordError, RunPlace, place};
use crate::{
    chat::{ErrorClass, FinishReason, Usage},
    engine::AttemptRecord,
    metrics::Spread,
};

/// The hour's sums are by model, of upstream requests.
pub(super) const BY_MODEL: i64 = 0;
/// The hour's sums are by route, of what was asked for.
pub(super) const BY_ROUTE: i64 = 1;
/// The hour's sums are by the name of the key that was brought, of what was asked for.
pub(super) const BY_CLIENT: i64 = 2;

/// What one call or one request adds to its hour.
struct Sums<'a> {
    hour: i64,
    lane: i64,
    name: &'a str,
    endpoint: &'a str,
    currency: &'a str,
    class: Option<&'a str>,
    /// What we stopped ourselves before it said anything is no call of the service's.
    counted: bool,
    /// Tokens and cost.
    used: Option<Used>,
    ttft: Option<Duration>,
    /// Of a whole answer.
    total: Option<Duration>,
}

#[derive(Clone, Copy, Default)]
struct Used {
    input: u64,
    output: u64,
    estimated: bool,
    cost: f64,
    spoken: u64,
    speaking_us: i64,
}

impl Database {
    /// Writes one call, and what was said in it where that is kept: the calls of one run have one `place`.
    pub fn insert(&mut self, call: &CallRecord, place: &mut RunPlace) -> Result<(), RecordError> {
        let written = self.writing(|transaction| write(transaction, call, place))?;
        match written {
            Some(written) => place.settle(written, call.lane),
            None if call.said.is_some() => place.forget(),
            None => {}
        }
        Ok(())
    }

    /// Writes many calls in one transaction, as fast as it goes.
    pub fn insert_all(&mut self, calls: impl Iterator<Item = CallRecord>) -> Result<(), RecordError> {
        self.writing(|transaction| {
            for call in calls {
                write(transaction, &call, &RunPlace::default())?;
            }
            Ok(())
        })
    }

    /// Writes in one transaction, which waits for its turn from the start: one that has read already could not.
    pub(super) fn writing<T>(
        &mut self,
        act: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, RecordError> {
        let begun = self.connection.transaction_with_behavior(TransactionBehavior::Immediate);
        let written = begun.and_then(|transaction| {
            let done = act(&transaction)?;
            transaction.commit()?;
            Ok(done)
        });
        self.told(written)
    }
}

fn write(
    transaction: &Transaction<'_>,
    call: &CallRecord,
    place: &RunPlace,
) -> rusqlite::Result<Option<place::Written>> {
    let id = write_call(transaction, call)?;
    write_attempts(transaction, id, call)?;
    write_hours(transaction, call)?;
    match &call.said {
        Some(said) => place::write(transaction, id, (call, said), place),
        None => Ok(None),
    }
}

/// The last request to whoever answered, or was cut, or was asked last.
fn telling(call: &CallRecord) -> Option<&AttemptRecord> {
    let target = call.outcome.target.as_ref().map(|target| &target.id);
    call.outcome.attempts.iter().rfind(|attempt| Some(&attempt.target.id) == target)
}

fn write_call(transaction: &Transaction<'_>, call: &CallRecord) -> rusqlite::Result<i64> {
    let CallRecord { outcome, usage, .. } = call;
    let target = outcome.target.as_ref();
    let telling = telling(call);
    let finish = outcome.result.as_ref().ok().and_then(|whole| whole.reason.as_ref()).map(FinishReason::as_str);
    let cost = call.cost();
    let mut statement = transaction.prepare_cached(
        "INSERT INTO calls (at, command, asked, route, model, endpoint, upstream, class, status, finish, ttft_us, total_us,
         generating_us, input, output, cached, reasoning, estimated, cost, currency, key, client)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22)",
    )?;
    statement.insert(params![
        call.at.as_millisecond(),
        call.command,
        call.asked,
        call.is_route.then_some(&call.asked),
        target.map(|target| &target.id.0),
        target.map(|target| &target.endpoint.name),
        target.map(|target| &target.upstream),
        call.class().map(ErrorClass::as_str),
        telling.and_then(|attempt| attempt.status),
        finish,
        outcome.ttft.map(micros),
        micros(outcome.total),
        micros(outcome.generating),
        usage.and_then(|usage| usage.input).map(signed),
        usage.and_then(|usage| usage.output).map(signed),
        usage.and_then(|usage| usage.cached).map(signed),
        usage.and_then(|usage| usage.reasoning).map(signed),
        usage.is_some_and(|usage| usage.estimated),
        cost.map(|(cost, _)| cost),
        cost.map(|(_, currency)| currency),
        telling.and_then(|attempt| attempt.key),
        call.client,
    ])
}

fn write_attempts(transaction: &Transaction<'_>, id: i64, call: &CallRecord) -> rusqlite::Result<()> {
    let mut statement = transaction.prepare_cached(
        "INSERT INTO attempts (call, number, at, model, endpoint, upstream, class, status, took_us, ttft_us, key,
         request_id, message) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)",
    )?;
    for (number, attempt) in (1i64..).zip(&call.outcome.attempts) {
        let AttemptRecord { target, error, .. } = attempt;
        statement.execute(params![
            id,
            number,
            attempt.at.as_millisecond(),
            target.id.0,
            target.endpoint.name,
            target.upstream,
            attempt.class().map(ErrorClass::as_str),
            attempt.status,
            micros(attempt.took),
            attempt.ttft.map(micros),
            attempt.key,
            attempt.request_id,
            // Services quote what they were asked.
            error.as_ref().filter(|_| call.said.is_some()).map(|error| error.message.as_str()),
        ])?;
    }
    Ok(())
}

fn write_hours(transaction: &Transaction<'_>, call: &CallRecord) -> rusqlite::Result<()> {
    let outcome = &call.outcome;
    let answered = telling(call);
    for (attempt, used) in outcome.attempts.iter().zip(&call.used) {
        let target = &attempt.target;
        let speaking = if answered.is_some_and(|answered| std::ptr::eq(answered, attempt)) {
            outcome.generating
        } else {
            Duration::ZERO
        };
        let cost = used.as_ref().and_then(|used| target.price.as_ref()?.cost(used)).unwrap_or_default();
        let sums = Sums {
            hour: hour(attempt.at),
            lane: BY_MODEL,
            name: &target.id.0,
            endpoint: &target.endpoint.name,
            currency: target.price.as_ref().map_or("", |price| &price.currency),
            class: attempt.class().filter(|class| *class != ErrorClass::Local).map(ErrorClass::as_str),
            counted: call.counts(attempt),
            used: used.as_ref().map(|used| Used::of(used, cost, speaking)),
            ttft: attempt.ttft,
            total: attempt.error.is_none().then_some(attempt.took),
        };
        add(transaction, &sums)?;
    }
    let route = call.is_route.then_some((BY_ROUTE, &call.asked));
    let client = call.client.as_ref().map(|client| (BY_CLIENT, client));
    for (lane, name) in route.into_iter().chain(client).filter(|_| !outcome.attempts.is_empty()) {
        add(transaction, &asked_for(call, lane, name))?;
    }
    Ok(())
}

/// What was asked for, however many requests it took.
fn asked_for<'c>(call: &'c CallRecord, lane: i64, name: &'c str) -> Sums<'c> {
    let (outcome, class, cost) = (&call.outcome, call.class(), call.cost());
    Sums {
        hour: hour(call.at),
        lane,
        name,
        endpoint: "",
        currency: cost.map_or("", |(_, currency)| currency),
        class: class.filter(|class| *class != ErrorClass::Local).map(ErrorClass::as_str),
        counted: class != Some(ErrorClass::Local) || outcome.first.is_some(),
        used: used_in_all(call).map(|used| Used { cost: cost.map(|(cost, _)| cost).unwrap_or_default(), ..used }),
        // As the person felt it.
        ttft: outcome.first,
        total: outcome.result.is_ok().then_some(outcome.total),
    }
}

/// What all requests of a call used. Only the answer itself says how fast it came.
fn used_in_all(call: &CallRecord) -> Option<Used> {
    let own = call.usage.as_ref().map(|usage| Used::of(usage, 0.0, call.outcome.generating));
    let (spoken, speaking_us) = own.map_or((0, 0), |own| (own.spoken, own.speaking_us));
    let each = call.used.iter().flatten().map(|usage| Used::of(usage, 0.0, Duration::ZERO));
    let all = each.reduce(|one, other| Used {
        input: one.input.saturating_add(other.input),
        output: one.output.saturating_add(other.output),
        estimated: one.estimated || other.estimated,
        ..one
    })?;
    Some(Used { spoken, speaking_us, ..all })
}

impl Used {
    fn of(usage: &Usage, cost: f64, speaking: Duration) -> Self {
        let output = usage.output.unwrap_or_default();
        Self {
            input: usage.input.unwrap_or_default(),
            output,
            estimated: usage.estimated,
            cost,
            spoken: if speaking.is_zero() { 0 } else { output.saturating_sub(1) },
            speaking_us: micros(speaking),
        }
    }
}

fn add(transaction: &Transaction<'_>, sums: &Sums<'_>) -> rusqlite::Result<()> {
    if !sums.counted && sums.used.is_none() {
        return Ok(());
    }
    let Sums { hour, lane, name, endpoint, currency, .. } = *sums;
    let kept: Option<(Vec<u8>, Vec<u8>)> = transaction
        .prepare_cached(
            "SELECT ttft, total FROM hours WHERE hour = ?1 AND lane = ?2 AND name = ?3 AND endpoint = ?4 AND currency = ?5",
        )?
        .query_row(params![hour, lane, name, endpoint, currency], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let (ttft, total) = kept.unwrap_or_default();
    let with = |packed: &[u8], time: Option<Duration>| {
        let mut spread = Spread::default();
        spread.add_packed(packed);
        if let Some(time) = time {
            spread.add(time);
        }
        spread.packed()
    };
    let used = sums.used.unwrap_or_default();
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
            sums.class.is_some(),
            signed(used.input),
            signed(used.output),
            used.estimated,
            used.cost,
            signed(used.spoken),
            used.speaking_us,
            with(&ttft, sums.ttft),
            with(&total, sums.total),
            sums.counted,
        ])?;
    if let Some(class) = sums.class {
        transaction
            .prepare_cached(
                "INSERT INTO failures (hour, lane, name, endpoint, class, count) VALUES (?1, ?2, ?3, ?4, ?5, 1)
                 ON CONFLICT DO UPDATE SET count = count + 1",
            )?
            .execute(params![hour, lane, name, endpoint, class])?;
    }
    Ok(())
}

pub(super) fn hour(at: jiff::Timestamp) -> i64 {
    at.as_second().div_euclid(3600)
}

fn micros(time: Duration) -> i64 {
    i64::try_from(time.as_micros()).unwrap_or(i64::MAX)
}

/// SQLite has no larger numbers.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
