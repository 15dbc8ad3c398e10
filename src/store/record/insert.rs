//! Writing calls: their rows, their attempts, the hours' sums and what was said, in one transaction.

use std::{borrow::Borrow, time::Duration};

use rusqlite::{Transaction, TransactionBehavior, params};

use super::{CallRecord, Database, RecordError, RunPlace};
use crate::store::record::{placement, rollup::Hours};
use crate::{
    engine::AttemptRecord,
    model::{ErrorClass, FinishReason},
};

impl Database {
    /// Writes one call, and what was said in it where that is kept: the calls of one run have one `place`.
    pub fn insert(&mut self, call: &CallRecord, place: &mut RunPlace) -> Result<(), RecordError> {
        let written = self.writing(|transaction| {
            let mut hours = Hours::default();
            let written = write(transaction, call, place, &mut hours)?;
            hours.write(transaction)?;
            Ok(written)
        })?;
        match written {
            Some(written) => place.settle(written, call.lane),
            None if call.said.is_some() => place.forget(),
            None => {}
        }
        Ok(())
    }

    /// Writes many calls in one transaction, as fast as it goes.
    pub fn insert_all(&mut self, calls: impl Iterator<Item = impl Borrow<CallRecord>>) -> Result<(), RecordError> {
        self.writing(|transaction| {
            let mut hours = Hours::default();
            for call in calls {
                write(transaction, call.borrow(), &RunPlace::default(), &mut hours)?;
            }
            hours.write(transaction)
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
    hours: &mut Hours,
) -> rusqlite::Result<Option<placement::Written>> {
    let id = write_call(transaction, call)?;
    write_attempts(transaction, id, call)?;
    hours.add(call);
    match &call.said {
        Some(said) => placement::write(transaction, id, (call, said), place),
        None => Ok(None),
    }
}

/// The last request to whoever answered, or was cut, or was asked last.
pub(super) fn telling(call: &CallRecord) -> Option<&AttemptRecord> {
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

pub(super) fn micros(time: Duration) -> i64 {
    i64::try_from(time.as_micros()).unwrap_or(i64::MAX)
}

/// SQLite has no larger numbers.
pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
