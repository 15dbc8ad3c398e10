//! Determines the conversation, round and number of each stored answer.
//!
//! If two runs continue the same round at the same time, the first gets the next round, the other a new conversation
//! with a copy of the history. If a conversation is deleted during its run, later answers of the run are not stored.

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
    fn parent(&self, call: usize) -> Option<i64> {
        match self {
            Self::Append { turns, .. } => turns.get(call).copied().flatten(),
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
    turn_id: i64,
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
        let (turns, answer_numbers) =
            self.turns.iter().map(|turn| (turn.map(|(id, _)| id), turn.map(|(_, number)| number))).unzip();
        Some(StoredRound { conversation, round, turns, answer_numbers })
    }

    pub(super) fn mark_deleted(&mut self) {
        self.was_deleted = true;
    }

    /// Whether an answer was not stored because the conversation was deleted during the run.
    pub(super) fn was_deleted(&self) -> bool {
        self.was_deleted
    }

    pub(super) fn add_turn(&mut self, written: WrittenTurn, call: usize) {
        self.location = Some(written.location);
        if self.turns.len() <= call {
            self.turns.resize(call + 1, None);
        }
        self.turns[call] = Some((written.turn_id, written.answer_number));
    }
}

/// Writes the turn of call `call_id`; `None` if its conversation was deleted during the run: then nothing is stored.
pub(super) fn write_turn(
    transaction: &Transaction<'_>,
    call_id: i64,
    (call, transcript): (&StoredCall, &Transcript),
    run: &RunPlacement,
) -> rusqlite::Result<Option<WrittenTurn>> {
    if let Continuation::Replace(turns) = &run.continuation
        && let Some(&turn) = turns.get(call.index)
    {
        let Some(location) = find_location(transaction, turn)? else { return discard_messages(transaction, call_id) };
        replace_turn(transaction, turn, call_id, (call, transcript), true)?;
        touch_conversation(transaction, location.conversation, call)?;
        let query = "SELECT answer_no FROM turns WHERE id = ?1";
        let answer_number = transaction.query_row(query, [turn], |row| row.get(0))?;
        return Ok(Some(WrittenTurn { location, turn_id: turn, answer_number }));
    }
    let location = match &run.location {
        Some(location) if conversation_exists(transaction, location.conversation)? => location.clone(),
        Some(_) => return discard_messages(transaction, call_id),
        None => choose_location(transaction, call, &run.continuation)?,
    };
    touch_conversation(transaction, location.conversation, call)?;
    let existing = transaction
        .prepare_cached("SELECT id FROM turns WHERE conversation_id = ?1 AND round = ?2 AND answer_no = ?3")?
        .query_row(params![location.conversation, location.round, answer_number(call)], |row| row.get(0))
        .optional()?;
    if let Some(turn) = existing {
        // The call was restarted within the run: the latest answer replaces the earlier one, as on the screen.
        replace_turn(transaction, turn, call_id, (call, transcript), false)?;
        return Ok(Some(WrittenTurn { location, turn_id: turn, answer_number: answer_number(call) }));
    }
    let parent = run.continuation.parent(call.index);
    let parent = parent.map(|parent| *location.copied_turns.get(&parent).unwrap_or(&parent));
    let turn = insert_turn(transaction, call_id, (call, transcript), (&location, parent))?;
    Ok(Some(WrittenTurn { location, turn_id: turn, answer_number: answer_number(call) }))
}

/// Clears the error messages of a call that is not stored, because they may quote its content.
fn discard_messages(transaction: &Transaction<'_>, call_id: i64) -> rusqlite::Result<Option<WrittenTurn>> {
    transaction.prepare_cached("UPDATE attempts SET error_message = NULL WHERE call_id = ?1")?.execute([call_id])?;
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
    call_id: i64,
    (call, transcript): (&StoredCall, &Transcript),
    (location, parent): (&RunLocation, Option<i64>),
) -> rusqlite::Result<i64> {
    transaction
        .prepare_cached(
            "INSERT INTO turns (conversation_id, round, answer_no, parent_id, call_id, at, requested, model, end_class, system_prompt, prompt, image_count,
             answer, reasoning) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)",
        )?
        .insert(params![
            location.conversation,
            location.round,
            answer_number(call),
            parent,
            call_id,
            call.record.started_at.as_millisecond(),
            call.record.requested,
            call.record.target.as_ref().map(|target| &target.id.0),
            incomplete_reason(call),
            transcript.system,
            transcript.prompt,
            transcript.image_count,
            transcript.answer,
            transcript.reasoning,
        ])
}

/// Replaces a turn with a retry. With `keep_better`, a complete answer is not replaced by an incomplete one, nor a text
/// by an empty one. The error messages of the discarded call are cleared: they may quote its content, and deleting the
/// turn would not delete them.
fn replace_turn(
    transaction: &Transaction<'_>,
    turn: i64,
    call_id: i64,
    (call, transcript): (&StoredCall, &Transcript),
    keep_better: bool,
) -> rusqlite::Result<()> {
    let (old_call_id, was_complete, had_text): (i64, bool, bool) = transaction
        .prepare_cached("SELECT call_id, end_class IS NULL, trim(answer) != '' FROM turns WHERE id = ?1")?
        .query_row([turn], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    let class = incomplete_reason(call);
    let is_worse = (was_complete && class.is_some()) || (had_text && transcript.answer.trim().is_empty());
    let discarded = if keep_better && is_worse { call_id } else { old_call_id };
    transaction.prepare_cached("UPDATE attempts SET error_message = NULL WHERE call_id = ?1")?.execute([discarded])?;
    if discarded == call_id {
        return Ok(());
    }
    transaction
        .prepare_cached(
            "UPDATE turns SET call_id = ?2, at = ?3, requested = ?4, model = ?5, end_class = ?6, system_prompt = ?7, prompt = ?8,
             image_count = ?9, answer = ?10, reasoning = ?11 WHERE id = ?1",
        )?
        .execute(params![
            turn,
            call_id,
            call.record.started_at.as_millisecond(),
            call.record.requested,
            call.record.target.as_ref().map(|target| &target.id.0),
            class,
            transcript.system,
            transcript.prompt,
            transcript.image_count,
            transcript.answer,
            transcript.reasoning,
        ])?;
    Ok(())
}

/// The conversation and round of an existing turn.
fn find_location(transaction: &Transaction<'_>, turn: i64) -> rusqlite::Result<Option<RunLocation>> {
    transaction
        .prepare_cached("SELECT conversation_id, round FROM turns WHERE id = ?1")?
        .query_row([turn], |row| {
            Ok(RunLocation { conversation: row.get(0)?, round: row.get(1)?, copied_turns: HashMap::new() })
        })
        .optional()
}

/// Places a run when its first answer is written: in the next round, unless another run has written that already.
fn choose_location(
    transaction: &Transaction<'_>,
    call: &StoredCall,
    continuation: &Continuation,
) -> rusqlite::Result<RunLocation> {
    let new_conversation = || {
        let conversation = insert_conversation(transaction, call)?;
        Ok(RunLocation { conversation, round: 1, copied_turns: HashMap::new() })
    };
    let Continuation::Append { turns, fork } = continuation else { return new_conversation() };
    let mut latest: Option<RunLocation> = None;
    for turn in turns.iter().flatten() {
        if let Some(location) = find_location(transaction, *turn)?
            && latest.as_ref().is_none_or(|latest| latest.round < location.round)
        {
            latest = Some(location);
        }
    }
    let Some(RunLocation { conversation, round, .. }) = latest else { return new_conversation() };
    let last_round: i64 = transaction
        .prepare_cached("SELECT max(round) FROM turns WHERE conversation_id = ?1")?
        .query_row([conversation], |row| row.get(0))?;
    if last_round == round && !fork {
        return Ok(RunLocation { conversation, round: round.saturating_add(1), copied_turns: HashMap::new() });
    }
    copy_history(transaction, call, turns.iter().flatten(), *fork)
}

/// Copies turns and their history to a new conversation; for a fork, as a sequence of single answers.
fn copy_history<'e>(
    transaction: &Transaction<'_>,
    call: &StoredCall,
    turns: impl Iterator<Item = &'e i64>,
    fork: bool,
) -> rusqlite::Result<RunLocation> {
    let conversation = insert_conversation(transaction, call)?;
    let ids = turns.map(i64::to_string).collect::<Vec<_>>().join(", ");
    let mut statement = transaction.prepare(&format!(
        "WITH RECURSIVE chain (id) AS (
             SELECT id FROM turns WHERE id IN ({ids})
             UNION SELECT parent_id FROM turns JOIN chain USING (id) WHERE parent_id IS NOT NULL
         )
         SELECT id, round, answer_no, parent_id FROM turns JOIN chain USING (id) ORDER BY round, answer_no"
    ))?;
    let read = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?));
    let chain: Vec<(i64, i64, i64, Option<i64>)> = statement.query_map([], read)?.collect::<Result<_, _>>()?;
    let (mut copied_turns, mut last_round) = (HashMap::new(), 0);
    for (id, round, answer_number, parent) in chain {
        let (round, answer_number) = if fork { (last_round + 1, 1) } else { (round, answer_number) };
        last_round = round;
        let parent = parent.and_then(|parent| copied_turns.get(&parent).copied());
        let copied = transaction
            .prepare_cached(
                "INSERT INTO turns (conversation_id, round, answer_no, parent_id, call_id, at, requested, model, end_class, system_prompt, prompt,
                 image_count, answer, reasoning) SELECT ?1, ?2, ?3, ?4, call_id, at, requested, model, end_class, system_prompt, prompt, image_count,
                 answer, reasoning FROM turns WHERE id = ?5",
            )?
            .insert(params![conversation, round, answer_number, parent, id])?;
        copied_turns.insert(id, copied);
    }
    Ok(RunLocation { conversation, round: last_round + 1, copied_turns })
}

fn insert_conversation(transaction: &Transaction<'_>, call: &StoredCall) -> rusqlite::Result<i64> {
    transaction
        .prepare_cached("INSERT INTO conversations (at, command, last_used) VALUES (?1, ?2, 0)")?
        .insert(params![call.record.started_at.as_millisecond(), call.command])
}

/// Makes the conversation the latest one, as of the end of `call`.
fn touch_conversation(transaction: &Transaction<'_>, conversation: i64, call: &StoredCall) -> rusqlite::Result<()> {
    let end = call
        .record
        .started_at
        .as_millisecond()
        .saturating_add(i64::try_from(call.record.total.as_millis()).unwrap_or(0));
    set_last_used(transaction, conversation, end)
}

/// Makes the conversation the latest one, as of `at` in milliseconds since 1970. The stored value always increases, even
/// if the clock goes back.
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
