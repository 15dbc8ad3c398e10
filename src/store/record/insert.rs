//! Writing one call: its row, its attempts, the hour's sums and what was said, in one transaction.

use rusqlite::{OptionalExtension, Transaction, TransactionBehavior, params};

use super::{CallRecord, Database, RecordError, Said};
use crate::{
    chat::{ErrorClass, FinishReason},
    engine::AttemptRecord,
    metrics::Spread,
};

/// The hour's sums are by model, of upstream requests.
pub(super) const BY_MODEL: i64 = 0;
/// The hour's sums are by route, of what was asked for.
pub(super) const BY_ROUTE: i64 = 1;

/// What one call or one request adds to its hour.
struct Sums<'a> {
    hour: i64,
    lane: i64,
    name: &'a str,
    endpoint: &'a str,
    currency: &'a str,
    class: Option<&'a str>,
    /// Tokens and cost, of the request that answered.
    used: Option<Used>,
    ttft: Option<std::time::Duration>,
    /// Of a whole answer.
    total: Option<std::time::Duration>,
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
    /// Writes one call; the conversation it is in, when what was said is kept. What the calls of one run say that goes on with
    /// none is in one conversation: `run`.
    pub fn insert(&mut self, call: &CallRecord, run: Option<i64>) -> Result<Option<i64>, RecordError> {
        let written =
            self.connection.transaction_with_behavior(TransactionBehavior::Immediate).and_then(|transaction| {
                let conversation = write(&transaction, call, run)?;
                transaction.commit()?;
                Ok(conversation)
            });
        self.told(written)
    }

    /// Writes many calls in one transaction, as fast as it goes.
    pub fn insert_all<'c>(&mut self, calls: impl Iterator<Item = &'c CallRecord>) -> Result<(), RecordError> {
        let written =
            self.connection.transaction_with_behavior(TransactionBehavior::Immediate).and_then(|transaction| {
                for call in calls {
                    write(&transaction, call, None)?;
                }
                transaction.commit()
            });
        self.told(written)
    }
}

fn write(transaction: &Transaction<'_>, call: &CallRecord, run: Option<i64>) -> rusqlite::Result<Option<i64>> {
    let id = write_call(transaction, call)?;
    write_attempts(transaction, id, call)?;
    write_hours(transaction, call)?;
    call.said.as_ref().map(|said| write_said(transaction, call, said, run)).transpose()
}

fn class_of(call: &CallRecord) -> Option<&'static str> {
    let error = call.outcome.result.as_ref().err()?;
    Some(if call.outcome.cut { ErrorClass::Cut } else { error.class }.as_str())
}

fn write_call(transaction: &Transaction<'_>, call: &CallRecord) -> rusqlite::Result<i64> {
    let CallRecord { outcome, usage, .. } = call;
    let target = outcome.target.as_ref();
    let last = outcome.attempts.last();
    let finish = outcome.result.as_ref().ok().and_then(|whole| whole.reason.as_ref()).map(FinishReason::as_str);
    let cost = call.cost();
    let mut statement = transaction.prepare_cached(
        "INSERT INTO calls (at, command, asked, route, model, endpoint, upstream, class, status, finish, ttft_us, total_us,
         generating_us, input, output, cached, reasoning, estimated, cost, currency, key)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21)",
    )?;
    statement.insert(params![
        call.at.as_millisecond(),
        call.command,
        call.asked,
        call.is_route.then_some(&call.asked),
        target.map(|target| &target.id.0),
        target.map(|target| &target.endpoint.name),
        target.map(|target| &target.upstream),
        class_of(call),
        last.and_then(|attempt| attempt.status),
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
        last.and_then(|attempt| attempt.key),
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
            error.as_ref().map(|error| error.message.as_str()),
        ])?;
    }
    Ok(())
}

fn write_hours(transaction: &Transaction<'_>, call: &CallRecord) -> rusqlite::Result<()> {
    let outcome = &call.outcome;
    let used = call.usage.as_ref().map(|usage| Used {
        input: usage.input.unwrap_or_default(),
        output: usage.output.unwrap_or_default(),
        estimated: usage.estimated,
        cost: call.cost().map(|(cost, _)| cost).unwrap_or_default(),
        spoken: if outcome.generating.is_zero() { 0 } else { usage.output.unwrap_or_default().saturating_sub(1) },
        speaking_us: micros(outcome.generating),
    });
    let answered = outcome.target.as_ref().map(|target| &target.id);
    let last_of_answered = outcome.attempts.iter().rposition(|attempt| Some(&attempt.target.id) == answered);
    for (place, attempt) in outcome.attempts.iter().enumerate() {
        let target = &attempt.target;
        let sums = Sums {
            hour: hour(attempt.at),
            lane: BY_MODEL,
            name: &target.id.0,
            endpoint: &target.endpoint.name,
            currency: target.price.as_ref().map_or("", |price| &price.currency),
            // What we stopped ourselves is no failure of the service.
            class: attempt.class().filter(|class| *class != ErrorClass::Local).map(ErrorClass::as_str),
            used: used.filter(|_| last_of_answered == Some(place)),
            ttft: attempt.ttft,
            total: attempt.error.is_none().then_some(attempt.took),
        };
        add(transaction, &sums)?;
    }
    if call.is_route {
        let sums = Sums {
            hour: hour(call.at),
            lane: BY_ROUTE,
            name: &call.asked,
            endpoint: "",
            currency: call.cost().map_or("", |(_, currency)| currency),
            class: class_of(call).filter(|class| *class != ErrorClass::Local.as_str()),
            used,
            // As the person felt it: from the start of the search.
            ttft: outcome.ttft.map(|_| outcome.total.saturating_sub(after_first(call))),
            total: outcome.result.is_ok().then_some(outcome.total),
        };
        add(transaction, &sums)?;
    }
    Ok(())
}

/// How long the answer went on after its first delta.
fn after_first(call: &CallRecord) -> std::time::Duration {
    let took = call.outcome.attempts.last().map(|attempt| attempt.took).unwrap_or_default();
    took.saturating_sub(call.outcome.ttft.unwrap_or_default())
}

fn add(transaction: &Transaction<'_>, sums: &Sums<'_>) -> rusqlite::Result<()> {
    let Sums { hour, lane, name, endpoint, currency, .. } = *sums;
    let kept: Option<(Vec<u8>, Vec<u8>)> = transaction
        .prepare_cached(
            "SELECT ttft, total FROM hours WHERE hour = ?1 AND lane = ?2 AND name = ?3 AND endpoint = ?4 AND currency = ?5",
        )?
        .query_row(params![hour, lane, name, endpoint, currency], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let (ttft, total) = kept.unwrap_or_default();
    let with = |packed: &[u8], time: Option<std::time::Duration>| {
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
             speaking_us, ttft, total) VALUES (?1, ?2, ?3, ?4, ?5, 1, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)
             ON CONFLICT DO UPDATE SET calls = calls + 1, failed = failed + ?6, input = input + ?7, output = output + ?8,
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

fn write_said(
    transaction: &Transaction<'_>,
    call: &CallRecord,
    said: &Said,
    run: Option<i64>,
) -> rusqlite::Result<i64> {
    let at = call.at.as_millisecond();
    let conversation = match said.conversation.or(run) {
        Some(known) if exists(transaction, known)? => known,
        _ => transaction
            .prepare_cached("INSERT INTO conversations (at, command) VALUES (?1, ?2)")?
            .insert(params![at, call.command])?,
    };
    transaction
        .prepare_cached(
            "INSERT INTO exchanges (conversation, number, at, asked, model, class, system, prompt, images, answer, reasoning)
             SELECT ?1, coalesce(max(number), 0) + 1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10
             FROM exchanges WHERE conversation = ?1",
        )?
        .execute(params![
            conversation,
            at,
            call.asked,
            call.outcome.target.as_ref().map(|target| &target.id.0),
            class_of(call),
            said.system,
            said.prompt,
            said.images,
            said.answer,
            said.reasoning,
        ])?;
    Ok(conversation)
}

fn exists(transaction: &Transaction<'_>, conversation: i64) -> rusqlite::Result<bool> {
    transaction.prepare_cached("SELECT 1 FROM conversations WHERE id = ?1")?.exists([conversation])
}

pub(super) fn hour(at: jiff::Timestamp) -> i64 {
    at.as_second().div_euclid(3600)
}

fn micros(time: std::time::Duration) -> i64 {
    i64::try_from(time.as_micros()).unwrap_or(i64::MAX)
}

/// SQLite has no larger numbers.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
