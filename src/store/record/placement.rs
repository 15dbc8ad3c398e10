//! Determines the conversation, round and number of each stored answer.
//!
//! If two runs continue the same round at once, the first gets the next round, the other a new conversation with a copy
//! of the history. If a conversation is deleted during its run, later answers of the run are not stored.

use std::collections::HashMap;

use rusqlite::{OptionalExtension, Row, Transaction, params};

use super::{StoredCall, Transcript};

/// How a run continues a conversation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Continuation {
    /// Starts a new conversation.
    #[default]
    New,
    /// Appends a round to turns of one conversation.
    Append {
        /// The parent turn of each call; `None` starts without history.
        turns: Vec<Option<i64>>,
        /// Copies the history to a new conversation, without the other answers of the old one.
        fork: bool,
    },
    /// Each call retries the turn at its index.
    Replace(Vec<i64>),
}

impl Continuation {
    fn parent(&self, lane: usize) -> Option<i64> {
        match self {
            Self::Append { turns: exchanges, .. } => exchanges.get(lane).copied().flatten(),
            Self::New | Self::Replace(_) => None,
        }
    }
}

/// The placement of the answers of one run, determined when the first of them is written.
#[derive(Clone, Debug, Default)]
pub struct RunPlacement {
    continuation: Continuation,
    location: Option<RunLocation>,
    /// The id and the answer number of the stored turn of each call.
    turns: Vec<Option<(i64, i64)>>,
    /// The conversation was deleted during the run.
    was_deleted: bool,
}

/// The stored answers of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredRound {
    /// The id of the conversation.
    pub conversation: i64,
    /// The number of the round, from 1.
    pub round: i64,
    /// The id of the turn of each call; trailing calls without a stored turn may be missing.
    pub turns: Vec<Option<i64>>,
    /// The number of each answer in its round, from 1; a retry has the number of the answer it replaces.
    pub answer_numbers: Vec<Option<i64>>,
}

#[derive(Clone, Debug)]
struct RunLocation {
    conversation: i64,
    round: i64,
    /// The ids of copied turns, by the ids of the originals.
    copied_turns: HashMap<i64, i64>,
}

/// A turn that was written.
pub(super) struct WrittenTurn {
    location: RunLocation,
    turn: i64,
    /// The number of the answer in its round, from 1.
    answer_number: i64,
}

impl RunPlacement {
    /// The placement of a run that continues a conversation in this way.
    #[must_use]
    pub fn new(continuation: Continuation) -> Self {
        Self { continuation, ..Self::default() }
    }

    /// The stored answers; `None` if there are none.
    #[must_use]
    pub fn into_stored_round(self) -> Option<StoredRound> {
        let RunLocation { conversation, round, .. } = self.location.filter(|_| !self.was_deleted)?;
        let (exchanges, lanes) =
            self.turns.iter().map(|turn| (turn.map(|turn| turn.0), turn.map(|turn| turn.1))).unzip();
        Some(StoredRound { conversation, round, turns: exchanges, answer_numbers: lanes })
    }

    pub(super) fn mark_deleted(&mut self) {
        self.was_deleted = true;
    }

    /// Whether an answer was not stored because the conversation was deleted during the run.
    pub(super) fn was_deleted(&self) -> bool {
        self.was_deleted
    }

    pub(super) fn add_turn(&mut self, written: WrittenTurn, lane: usize) {
        self.location = Some(written.location);
        if self.turns.len() <= lane {
            self.turns.resize(lane + 1, None);
        }
        self.turns[lane] = Some((written.turn, written.answer_number));
    }
}

/// Writes the turn of call `id`; `None` if its conversation was deleted during the run: then nothing is stored.
pub(super) fn write_turn(
    transaction: &Transaction<'_>,
    id: i64,
    (call, said): (&StoredCall, &Transcript),
    run: &RunPlacement,
) -> rusqlite::Result<Option<WrittenTurn>> {
    if let Continuation::Replace(exchanges) = &run.continuation
        && let Some(&exchange) = exchanges.get(call.index)
    {
        let Some(settled) = find_location(transaction, exchange)? else { return discard_messages(transaction, id) };
        replace_turn(transaction, exchange, id, (call, said), true)?;
        touch_conversation(transaction, settled.conversation, call)?;
        let lane = "SELECT answer_no FROM turns WHERE id = ?1";
        let lane = transaction.query_row(lane, [exchange], |row| row.get(0))?;
        return Ok(Some(WrittenTurn { location: settled, turn: exchange, answer_number: lane }));
    }
    let settled = match &run.location {
        Some(settled) if conversation_exists(transaction, settled.conversation)? => settled.clone(),
        Some(_) => return discard_messages(transaction, id),
        None => choose_location(transaction, call, &run.continuation)?,
    };
    touch_conversation(transaction, settled.conversation, call)?;
    let existing = transaction
        .prepare_cached("SELECT id FROM turns WHERE conversation_id = ?1 AND round = ?2 AND answer_no = ?3")?
        .query_row(params![settled.conversation, settled.round, answer_number(call)], |row| row.get(0))
        .optional()?;
    if let Some(exchange) = existing {
        // A restart within the same run: store what the screen shows.
        replace_turn(transaction, exchange, id, (call, said), false)?;
        return Ok(Some(WrittenTurn { location: settled, turn: exchange, answer_number: answer_number(call) }));
    }
    let after = run.continuation.parent(call.index).map(|after| *settled.copied_turns.get(&after).unwrap_or(&after));
    let exchange = insert_turn(transaction, id, (call, said), (&settled, after))?;
    Ok(Some(WrittenTurn { location: settled, turn: exchange, answer_number: answer_number(call) }))
}

/// Clears the error messages of a call that is not stored, because they may quote its content.
fn discard_messages(transaction: &Transaction<'_>, call: i64) -> rusqlite::Result<Option<WrittenTurn>> {
    transaction.prepare_cached("UPDATE attempts SET error_message = NULL WHERE call_id = ?1")?.execute([call])?;
    Ok(None)
}

/// Why an answer is not complete: `stopped` or its error class.
fn incomplete_reason(call: &StoredCall) -> Option<&'static str> {
    if call.record.stopped { Some("stopped") } else { call.record.class().map(crate::model::ErrorClass::as_str) }
}

fn answer_number(call: &StoredCall) -> i64 {
    i64::try_from(call.index + 1).unwrap_or(i64::MAX)
}

fn insert_turn(
    transaction: &Transaction<'_>,
    id: i64,
    (call, said): (&StoredCall, &Transcript),
    (settled, after): (&RunLocation, Option<i64>),
) -> rusqlite::Result<i64> {
    transaction
        .prepare_cached(
            "INSERT INTO turns (conversation_id, round, answer_no, parent_id, call_id, at, requested, model, end_class, system_prompt, prompt, image_count,
             answer, reasoning) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)",
        )?
        .insert(params![
            settled.conversation,
            settled.round,
            answer_number(call),
            after,
            id,
            call.record.started_at.as_millisecond(),
            call.record.requested,
            call.record.target.as_ref().map(|target| &target.id.0),
            incomplete_reason(call),
            said.system,
            said.prompt,
            said.image_count,
            said.answer,
            said.reasoning,
        ])
}

/// Replaces a turn with a retry. With `keep_better`, a complete answer is not replaced by an incomplete one, nor a text
/// by an empty one. The error messages of the discarded try are cleared: they may quote it, and deleting the turn would
/// not delete them.
fn replace_turn(
    transaction: &Transaction<'_>,
    exchange: i64,
    id: i64,
    (call, said): (&StoredCall, &Transcript),
    keep_better: bool,
) -> rusqlite::Result<()> {
    let (old_call, was_complete, had_text): (i64, bool, bool) = transaction
        .prepare_cached("SELECT call_id, end_class IS NULL, trim(answer) != '' FROM turns WHERE id = ?1")?
        .query_row([exchange], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    let class = incomplete_reason(call);
    let is_worse = (was_complete && class.is_some()) || (had_text && said.answer.trim().is_empty());
    let discarded = if keep_better && is_worse { id } else { old_call };
    transaction.prepare_cached("UPDATE attempts SET error_message = NULL WHERE call_id = ?1")?.execute([discarded])?;
    if discarded == id {
        return Ok(());
    }
    transaction
        .prepare_cached(
            "UPDATE turns SET call_id = ?2, at = ?3, requested = ?4, model = ?5, end_class = ?6, system_prompt = ?7, prompt = ?8,
             image_count = ?9, answer = ?10, reasoning = ?11 WHERE id = ?1",
        )?
        .execute(params![
            exchange,
            id,
            call.record.started_at.as_millisecond(),
            call.record.requested,
            call.record.target.as_ref().map(|target| &target.id.0),
            class,
            said.system,
            said.prompt,
            said.image_count,
            said.answer,
            said.reasoning,
        ])?;
    Ok(())
}

/// The conversation and round of an existing turn.
fn find_location(transaction: &Transaction<'_>, exchange: i64) -> rusqlite::Result<Option<RunLocation>> {
    transaction
        .prepare_cached("SELECT conversation_id, round FROM turns WHERE id = ?1")?
        .query_row([exchange], |row| {
            Ok(RunLocation { conversation: row.get(0)?, round: row.get(1)?, copied_turns: HashMap::new() })
        })
        .optional()
}

/// Places a run when its first answer is written: in the next round, unless another run has written that already.
fn choose_location(
    transaction: &Transaction<'_>,
    call: &StoredCall,
    goes_on: &Continuation,
) -> rusqlite::Result<RunLocation> {
    let new_conversation = || {
        let conversation = insert_conversation(transaction, call)?;
        Ok(RunLocation { conversation, round: 1, copied_turns: HashMap::new() })
    };
    let Continuation::Append { turns: exchanges, fork: apart } = goes_on else { return new_conversation() };
    let mut latest: Option<RunLocation> = None;
    for exchange in exchanges.iter().flatten() {
        if let Some(found) = find_location(transaction, *exchange)?
            && latest.as_ref().is_none_or(|latest| latest.round < found.round)
        {
            latest = Some(found);
        }
    }
    let Some(RunLocation { conversation, round, .. }) = latest else { return new_conversation() };
    let last_round: i64 = transaction
        .prepare_cached("SELECT max(round) FROM turns WHERE conversation_id = ?1")?
        .query_row([conversation], |row| row.get(0))?;
    if last_round == round && !apart {
        return Ok(RunLocation { conversation, round: round + 1, copied_turns: HashMap::new() });
    }
    copy_history(transaction, call, exchanges.iter().flatten(), *apart)
}

/// Copies turns and their history to a new conversation; for a fork, as a sequence of single answers.
fn copy_history<'e>(
    transaction: &Transaction<'_>,
    call: &StoredCall,
    exchanges: impl Iterator<Item = &'e i64>,
    apart: bool,
) -> rusqlite::Result<RunLocation> {
    let conversation = insert_conversation(transaction, call)?;
    let ids = exchanges.map(i64::to_string).collect::<Vec<_>>().join(", ");
    let mut statement = transaction.prepare(&format!(
        "WITH RECURSIVE chain (id) AS (
             SELECT id FROM turns WHERE id IN ({ids})
             UNION SELECT parent_id FROM turns JOIN chain USING (id) WHERE parent_id IS NOT NULL
         )
         SELECT id, round, answer_no, parent_id FROM turns JOIN chain USING (id) ORDER BY round, answer_no"
    ))?;
    let read = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?));
    let chain: Vec<(i64, i64, i64, Option<i64>)> = statement.query_map([], read)?.collect::<Result<_, _>>()?;
    let (mut copies, mut last) = (HashMap::new(), 0);
    for (id, round, lane, after) in chain {
        let (round, lane) = if apart { (last + 1, 1) } else { (round, lane) };
        last = round;
        let after = after.and_then(|after| copies.get(&after).copied());
        let copied = transaction
            .prepare_cached(
                "INSERT INTO turns (conversation_id, round, answer_no, parent_id, call_id, at, requested, model, end_class, system_prompt, prompt,
                 image_count, answer, reasoning) SELECT ?1, ?2, ?3, ?4, call_id, at, requested, model, end_class, system_prompt, prompt, image_count,
                 answer, reasoning FROM turns WHERE id = ?5",
            )?
            .insert(params![conversation, round, lane, after, id])?;
        copies.insert(id, copied);
    }
    Ok(RunLocation { conversation, round: last + 1, copied_turns: copies })
}

fn insert_conversation(transaction: &Transaction<'_>, call: &StoredCall) -> rusqlite::Result<i64> {
    transaction
        .prepare_cached("INSERT INTO conversations (at, command, last_used) VALUES (?1, ?2, 0)")?
        .insert(params![call.record.started_at.as_millisecond(), call.command])
}

/// Makes the conversation the latest one.
fn touch_conversation(transaction: &Transaction<'_>, conversation: i64, call: &StoredCall) -> rusqlite::Result<()> {
    let end = call
        .record
        .started_at
        .as_millisecond()
        .saturating_add(i64::try_from(call.record.total.as_millis()).unwrap_or(0));
    set_last_used(transaction, conversation, end)
}

/// The same at time `at`, in milliseconds since 1970. The value always increases, even if the clock goes back.
pub(super) fn set_last_used(transaction: &Transaction<'_>, conversation: i64, at: i64) -> rusqlite::Result<()> {
    transaction
        .prepare_cached(
            "UPDATE conversations SET last_used = max(?2, 1 + (SELECT max(last_used) FROM conversations)) WHERE id = ?1",
        )?
        .execute(params![conversation, at])?;
    Ok(())
}

fn conversation_exists(transaction: &Transaction<'_>, conversation: i64) -> rusqlite::Result<bool> {
    transaction.prepare_cached("SELECT 1 FROM conversations WHERE id = ?1")?.exists([conversation])
}
