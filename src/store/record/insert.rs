//! Writes calls with their attempts, hourly totals and content in one transaction.

use std::borrow::Borrow;

use rusqlite::{Transaction, TransactionBehavior, params};

use super::{
    Database, RecordError, RunPlacement, StoredCall,
    convert::{micros, representative_attempt, saturating_i64},
};

use crate::{
    engine::AttemptRecord,
    model::{ErrorClass, FinishReason},
    store::record::{placement, rollup::HourlyRollup},
};

impl Database {
    /// Writes one call and its content, if stored. All calls of a run share one `run`.
    pub fn insert_call(&mut self, call: &StoredCall, run: &mut RunPlacement) -> Result<(), RecordError> {
        let written = self.write_transaction(|transaction| {
            let mut rollup = HourlyRollup::default();
            let written = insert_rows(transaction, call, run, &mut rollup)?;
            rollup.write(transaction)?;
            Ok(written)
        })?;
        match written {
            Some(written) => run.add_turn(written, call.index),
            None if call.transcript.is_some() => run.mark_deleted(),
            None => {}
        }
        Ok(())
    }

    /// Writes many calls in one transaction. Each stored content starts its own conversation.
    pub fn insert_calls(&mut self, calls: impl Iterator<Item = impl Borrow<StoredCall>>) -> Result<(), RecordError> {
        self.write_transaction(|transaction| {
            let mut rollup = HourlyRollup::default();
            for call in calls {
                insert_rows(transaction, call.borrow(), &RunPlacement::default(), &mut rollup)?;
            }
            rollup.write(transaction)
        })
    }

    /// Runs `act` in one immediate transaction: one that starts as a reader cannot wait for other writers.
    pub(super) fn write_transaction<T>(
        &mut self,
        act: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, RecordError> {
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate);
        let result = transaction.and_then(|transaction| {
            let value = act(&transaction)?;
            transaction.commit()?;
            Ok(value)
        });
        self.map_error(result)
    }
}

fn insert_rows(
    transaction: &Transaction<'_>,
    call: &StoredCall,
    run: &RunPlacement,
    rollup: &mut HourlyRollup,
) -> rusqlite::Result<Option<placement::WrittenTurn>> {
    let id = write_call(transaction, call)?;
    write_attempts(transaction, id, call)?;
    rollup.add(call);
    match &call.transcript {
        Some(transcript) => placement::write_turn(transaction, id, (call, transcript), run),
        None => Ok(None),
    }
}

fn write_call(transaction: &Transaction<'_>, call: &StoredCall) -> rusqlite::Result<i64> {
    let record = &call.record;
    let usage = record.usage.as_ref();
    let target = record.target.as_ref();
    let attempt = representative_attempt(record);
    let finish_reason =
        record.result.as_ref().ok().and_then(|completion| completion.finish_reason.as_ref()).map(FinishReason::as_str);
    let cost = record.cost();
    let mut statement = transaction.prepare_cached(
        "INSERT INTO calls (at, command, requested, route, model, endpoint, upstream, error_class, http_status, finish_reason, ttft_us, total_us,
         output_us, input_tokens, output_tokens, cached_tokens, reasoning_tokens, is_estimated, cost, currency, key_index, client_key)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22)",
    )?;
    statement.insert(params![
        record.started_at.as_millisecond(),
        call.command,
        record.requested,
        record.is_route.then_some(&record.requested),
        target.map(|target| &target.id.0),
        target.map(|target| &target.endpoint.name),
        target.map(|target| &target.upstream_id),
        record.class().map(ErrorClass::as_str),
        attempt.and_then(|attempt| attempt.status),
        finish_reason,
        record.ttft.map(micros),
        micros(record.total),
        micros(record.output_duration),
        usage.and_then(|usage| usage.input).map(saturating_i64),
        usage.and_then(|usage| usage.output).map(saturating_i64),
        usage.and_then(|usage| usage.cached).map(saturating_i64),
        usage.and_then(|usage| usage.reasoning).map(saturating_i64),
        usage.is_some_and(|usage| usage.estimated),
        cost.map(|(cost, _)| cost),
        cost.map(|(_, currency)| currency),
        attempt.and_then(|attempt| attempt.key_index),
        call.client,
    ])
}

fn write_attempts(transaction: &Transaction<'_>, id: i64, call: &StoredCall) -> rusqlite::Result<()> {
    let mut statement = transaction.prepare_cached(
        "INSERT INTO attempts (call_id, attempt_no, at, model, endpoint, upstream, error_class, http_status, total_us, ttft_us, key_index,
         request_id, error_message) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)",
    )?;
    for (attempt_no, attempt) in (1i64..).zip(&call.record.attempts) {
        let AttemptRecord { target, error, .. } = attempt;
        statement.execute(params![
            id,
            attempt_no,
            attempt.sent_at.as_millisecond(),
            target.id.0,
            target.endpoint.name,
            target.upstream_id,
            attempt.class().map(ErrorClass::as_str),
            attempt.status,
            micros(attempt.took),
            attempt.ttft.map(micros),
            attempt.key_index,
            attempt.request_id,
            // Error messages may quote the prompt.
            error.as_ref().filter(|_| call.transcript.is_some()).map(|error| error.message.as_str()),
        ])?;
    }
    Ok(())
}
