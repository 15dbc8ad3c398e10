//! Lists, searches, reads and deletes stored conversations.

use std::{
    collections::{HashMap, hash_map::Entry},
    time::Duration,
};

use jiff::Timestamp;
use rusqlite::{OptionalExtension, Params, Row, functions::FunctionFlags, params, params_from_iter};

use super::{Database, RecordError};
use crate::store::record::placement;

/// A stored prompt and its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredTurn {
    /// The id of the turn; never reused.
    pub id: i64,
    /// The id of its conversation.
    pub conversation: i64,
    /// The number of its round, from 1.
    pub round: i64,
    /// The number of the answer in the round, from 1.
    pub answer_number: i64,
    /// The turn that it continues.
    pub parent: Option<i64>,
    /// The user picked it among the answers of its round.
    pub picked: bool,
    /// When the call started.
    pub at: Timestamp,
    /// The requested model or route.
    pub requested: String,
    /// The model that answered.
    pub model: Option<String>,
    /// The error class, or `stopped`; `None` if the answer is complete.
    pub class: Option<String>,
    /// The system prompt.
    pub system: Option<String>,
    /// The user message.
    pub prompt: String,
    /// The number of images in the prompt; images are not stored.
    pub image_count: usize,
    /// The answer.
    pub answer: String,
    /// The reasoning of the model.
    pub reasoning: String,
    /// The layout of its conversation.
    pub layout: ConversationLayout,
}

/// The number of rounds and answers of a conversation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConversationLayout {
    /// The number of rounds.
    pub rounds: i64,
    /// The number of answers of the widest round.
    pub max_answers: i64,
    /// Whether `compare` started the conversation: then a picked answer is continued without the others.
    pub is_comparison: bool,
}

impl StoredTurn {
    /// The reference to the turn. In conversation 12, `12@2` is the second answer of the last round, or the answer of round
    /// 2 if no round has several answers; `12.1@2` is the second answer of round 1.
    #[must_use]
    pub fn reference(&self) -> String {
        let Self { conversation, round, answer_number, layout, .. } = self;
        match layout {
            ConversationLayout { max_answers: 1, .. } => format!("{conversation}@{round}"),
            ConversationLayout { rounds, .. } if rounds == round => format!("{conversation}@{answer_number}"),
            _ => format!("{conversation}.{round}@{answer_number}"),
        }
    }
}

/// A conversation in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConversationSummary {
    /// Its id.
    pub id: i64,
    /// When it started.
    pub at: Timestamp,
    /// The command that started it.
    pub command: String,
    /// The number of turns.
    pub turn_count: i64,
    /// The requested models of the first round, separated by commas.
    pub requested: String,
    /// Its first prompt.
    pub prompt: String,
}

/// A turn that matches a search.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SearchHit {
    /// The turn.
    pub turn: StoredTurn,
    /// The match with some context.
    pub excerpt: String,
}

const TURN_COLUMNS: &str = "id, conversation_id, round, answer_no, parent_id, picked_at IS NOT NULL, at, requested, model, end_class, system_prompt, prompt, \
                       image_count, answer, reasoning";
/// The length of the shortest phrase that the trigram index can find, in characters.
const MIN_INDEXED_CHARS: usize = 3;
/// The number of turns to index in one transaction.
const INDEX_BATCH: i64 = 500;
/// Characters of context on each side of a match.
const EXCERPT_CONTEXT: usize = 40;

impl Database {
    /// The latest conversations, newest first.
    pub fn conversations(&self, max: usize) -> Result<Vec<ConversationSummary>, RecordError> {
        let read = || {
            let mut statement = self.connection.prepare(
                "SELECT c.id, c.at, c.command, (SELECT count(*) FROM turns WHERE conversation_id = c.id),
                 (SELECT group_concat(requested, ', ' ORDER BY answer_no) FROM turns
                  WHERE conversation_id = c.id AND round = first.round), first.prompt
                 FROM conversations c JOIN turns first ON first.id =
                 (SELECT id FROM turns WHERE conversation_id = c.id ORDER BY round, answer_no LIMIT 1)
                 ORDER BY c.last_used DESC LIMIT ?1",
            )?;
            let rows = statement.query_map([sql_limit(max)], |row| {
                Ok(ConversationSummary {
                    id: row.get(0)?,
                    at: read_timestamp(row, 1)?,
                    command: row.get(2)?,
                    turn_count: row.get(3)?,
                    requested: row.get(4)?,
                    prompt: row.get(5)?,
                })
            })?;
            rows.collect()
        };
        self.map_error(read())
    }

    /// The turns of a conversation, in order; empty if it does not exist.
    pub fn turns(&self, conversation: i64) -> Result<Vec<StoredTurn>, RecordError> {
        self.map_error(self.read_turns("WHERE conversation_id = ?1 ORDER BY round, answer_no", params![conversation]))
    }

    /// All turns, in order.
    pub fn all_turns(&self) -> Result<Vec<StoredTurn>, RecordError> {
        self.map_error(self.read_turns("ORDER BY conversation_id, round, answer_no", params![]))
    }

    /// The conversation of the last turn or pick; if `command` is given, among those that it started.
    pub fn latest_conversation(&self, command: Option<&str>) -> Result<Option<i64>, RecordError> {
        let query = "SELECT id FROM conversations c WHERE (?1 IS NULL OR command = ?1)
                     AND EXISTS (SELECT 1 FROM turns WHERE conversation_id = c.id) ORDER BY last_used DESC LIMIT 1";
        self.map_error(self.connection.query_row(query, [command], |row| row.get(0)).optional())
    }

    /// The latest distinct prompts, newest first.
    pub fn recent_prompts(&self, max: usize) -> Result<Vec<String>, RecordError> {
        let read = || {
            // A prompt to several models is stored several times.
            let mut statement = self.connection.prepare(
                "SELECT prompt FROM (SELECT id, prompt FROM turns ORDER BY id DESC LIMIT 4 * ?1)
                 GROUP BY prompt ORDER BY max(id) DESC LIMIT ?1",
            )?;
            let rows = statement.query_map([sql_limit(max)], |row| row.get(0))?;
            rows.collect()
        };
        self.map_error(read())
    }

    /// Picks a turn among the answers of its round, and makes its conversation the latest.
    pub fn pick(&mut self, turn: i64, now: Timestamp) -> Result<(), RecordError> {
        let now = now.as_millisecond();
        self.write_transaction(|transaction| {
            let unpick = "UPDATE turns SET picked_at = NULL WHERE (conversation_id, round) =
                          (SELECT conversation_id, round FROM turns WHERE id = ?1)";
            transaction.execute(unpick, [turn])?;
            transaction.execute("UPDATE turns SET picked_at = ?1 WHERE id = ?2", [now, turn])?;
            let query = "SELECT conversation_id FROM turns WHERE id = ?1";
            let conversation = transaction.query_row(query, [turn], |row| row.get(0)).optional()?;
            conversation.map_or(Ok(()), |conversation| placement::set_last_used(transaction, conversation, now))
        })
    }

    /// The turns that contain all of these phrases, newest first.
    pub fn search(&mut self, phrases: &[&str], max: usize) -> Result<Vec<SearchHit>, RecordError> {
        let is_indexed = |phrase: &&str| phrase.chars().count() >= MIN_INDEXED_CHARS;
        // If the index cannot be written, all turns are scanned.
        let use_index = phrases.iter().any(is_indexed) && self.update_search_index().is_ok();
        let (indexed, scanned): (Vec<&str>, Vec<&str>) =
            phrases.iter().partition(|phrase| use_index && is_indexed(phrase));
        let mut parameters = Vec::new();
        let mut conditions = Vec::new();
        if !indexed.is_empty() {
            // Quoted, so that FTS5 does not interpret the phrase as a query.
            let quoted = indexed.iter().map(|phrase| format!("\"{}\"", phrase.replace('"', "\"\"")));
            parameters.push(quoted.collect::<Vec<_>>().join(" AND "));
            conditions.push("id IN (SELECT rowid FROM turn_search WHERE turn_search MATCH ?1)".to_owned());
        }
        if !scanned.is_empty() {
            self.map_error(self.register_lower_case())?;
        }
        for phrase in scanned {
            parameters.push(phrase.to_lowercase());
            let number = parameters.len();
            conditions.push(format!("(instr(lower_case(prompt), ?{number}) OR instr(lower_case(answer), ?{number}))"));
        }
        let clauses = format!("WHERE {} ORDER BY at DESC LIMIT {}", conditions.join(" AND "), sql_limit(max));
        let turns = self.map_error(self.read_turns(&clauses, params_from_iter(parameters)))?;
        Ok(turns.into_iter().map(|turn| SearchHit { excerpt: excerpt(&turn, phrases), turn }).collect())
    }

    /// Registers `lower_case`: SQLite's own `lower` only changes ASCII letters.
    fn register_lower_case(&self) -> rusqlite::Result<()> {
        let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC;
        self.connection.create_scalar_function("lower_case", 1, flags, |call| {
            call.get::<String>(0).map(|text| text.to_lowercase())
        })
    }

    /// Updates the search index in batches, so that other processes can write between them.
    fn update_search_index(&mut self) -> Result<(), RecordError> {
        let last = "SELECT max(id) FROM (SELECT id FROM turns WHERE id > (SELECT last_turn_id FROM turn_search_state)
                    ORDER BY id LIMIT ?1)";
        while let Some(last) =
            self.map_error(self.connection.query_row(last, [INDEX_BATCH], |row| row.get::<_, Option<i64>>(0)))?
        {
            self.write_transaction(|transaction| {
                let new =
                    "SELECT id, prompt, answer FROM turns WHERE id > (SELECT last_turn_id FROM turn_search_state) AND id <= ?1";
                transaction.execute(&format!("INSERT INTO turn_search (rowid, prompt, answer) {new}"), [last])?;
                // Another process may have indexed further in the meantime.
                transaction.execute("UPDATE turn_search_state SET last_turn_id = max(last_turn_id, ?1)", [last])?;
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Deletes a conversation; false if it does not exist. Its content stays in the WAL until that is truncated.
    pub fn delete_conversation(&mut self, conversation: i64) -> Result<bool, RecordError> {
        let deleted = self.write_transaction(|transaction| {
            let calls = "SELECT call_id FROM turns WHERE conversation_id = ?1";
            transaction.execute(
                &format!("UPDATE attempts SET error_message = NULL WHERE call_id IN ({calls})"),
                [conversation],
            )?;
            transaction.execute("DELETE FROM conversations WHERE id = ?1", [conversation])
        });
        Ok(deleted? > 0)
    }

    /// Deletes the turns older than `days` and returns their number. Their content stays in the WAL until that is
    /// truncated.
    pub fn prune(&mut self, days: u32, now: Timestamp) -> Result<usize, RecordError> {
        let retention = Duration::from_secs(u64::from(days) * 24 * 3600);
        let oldest = now.checked_sub(retention).unwrap_or(Timestamp::MIN).as_millisecond();
        self.write_transaction(|transaction| {
            let count = transaction.execute("DELETE FROM turns WHERE at < ?1", [oldest])?;
            if count > 0 {
                transaction
                    .execute("DELETE FROM conversations WHERE id NOT IN (SELECT conversation_id FROM turns)", [])?;
            }
            // Error messages may quote the prompt.
            let messages = "UPDATE attempts SET error_message = NULL WHERE at < ?1 AND error_message IS NOT NULL";
            transaction.execute(messages, [oldest])?;
            Ok(count)
        })
    }

    /// Deletes all turns and returns their number. Their content stays in the WAL until that is truncated.
    pub fn delete_all(&mut self) -> Result<usize, RecordError> {
        self.write_transaction(|transaction| {
            let count = transaction.execute("DELETE FROM turns", [])?;
            transaction.execute("DELETE FROM conversations", [])?;
            transaction.execute("UPDATE attempts SET error_message = NULL WHERE error_message IS NOT NULL", [])?;
            Ok(count)
        })
    }

    fn read_turns(&self, clauses: &str, parameters: impl Params) -> rusqlite::Result<Vec<StoredTurn>> {
        let mut statement = self.connection.prepare(&format!("SELECT {TURN_COLUMNS} FROM turns {clauses}"))?;
        let rows = statement.query_map(parameters, |row| {
            Ok(StoredTurn {
                id: row.get(0)?,
                conversation: row.get(1)?,
                round: row.get(2)?,
                answer_number: row.get(3)?,
                parent: row.get(4)?,
                picked: row.get(5)?,
                at: read_timestamp(row, 6)?,
                requested: row.get(7)?,
                model: row.get(8)?,
                class: row.get(9)?,
                system: row.get(10)?,
                prompt: row.get(11)?,
                image_count: row.get(12)?,
                answer: row.get(13)?,
                reasoning: row.get(14)?,
                layout: ConversationLayout::default(),
            })
        })?;
        let mut turns: Vec<StoredTurn> = rows.collect::<Result<_, _>>()?;
        let mut layouts = HashMap::new();
        for turn in &mut turns {
            turn.layout = match layouts.entry(turn.conversation) {
                Entry::Occupied(entry) => *entry.get(),
                Entry::Vacant(entry) => *entry.insert(self.layout(turn.conversation)?),
            };
        }
        Ok(turns)
    }

    fn layout(&self, conversation: i64) -> rusqlite::Result<ConversationLayout> {
        let query = "SELECT max(round), max(answer_no), (SELECT command = 'compare' FROM conversations WHERE id = ?1)
                     FROM turns WHERE conversation_id = ?1";
        let read = |row: &Row<'_>| {
            Ok(ConversationLayout { rounds: row.get(0)?, max_answers: row.get(1)?, is_comparison: row.get(2)? })
        };
        self.connection.prepare_cached(query)?.query_row([conversation], read)
    }
}

/// The SQL value of a limit: SQLite integers are signed 64-bit.
fn sql_limit(max: usize) -> i64 {
    i64::try_from(max).unwrap_or(i64::MAX)
}

fn read_timestamp(row: &Row<'_>, column: usize) -> rusqlite::Result<Timestamp> {
    let milliseconds: i64 = row.get(column)?;
    Ok(Timestamp::from_millisecond(milliseconds).unwrap_or_default())
}

/// The text around the first match of a phrase, on one line; else the start of the prompt.
fn excerpt(turn: &StoredTurn, phrases: &[&str]) -> String {
    let texts = [&turn.prompt, &turn.answer];
    for (text, phrase) in phrases.iter().flat_map(|phrase| texts.map(|text| (text, phrase))) {
        let Some(at) = text.to_lowercase().find(&phrase.to_lowercase()) else { continue };
        // Lowercase letters may have another length, so the position is approximate.
        let match_start = text.char_indices().take_while(|(index, _)| *index < at).count();
        let start = match_start.saturating_sub(EXCERPT_CONTEXT);
        let context: String = text.chars().skip(start).take(EXCERPT_CONTEXT * 2 + phrase.chars().count()).collect();
        let (prefix, suffix) = (
            if start > 0 { "…" } else { "" },
            if start + context.chars().count() < text.chars().count() { "…" } else { "" },
        );
        return format!("{prefix}{}{suffix}", crate::model::sanitize::one_line(&context));
    }
    crate::model::sanitize::one_line(&turn.prompt.chars().take(EXCERPT_CONTEXT * 2).collect::<String>())
}
