//! What was said: listing, searching, reading, forgetting.
//!
//! Owns the queries. Refuses to know how it is shown.

use std::{
    collections::{HashMap, hash_map::Entry},
    time::Duration,
};

use jiff::Timestamp;
use rusqlite::{OptionalExtension, Params, Row, functions::FunctionFlags, params, params_from_iter};

use super::{Database, RecordError};
use crate::store::record::placement;

/// One question and its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exchange {
    /// Its own number, which no other ever has.
    pub id: i64,
    /// The conversation it is in.
    pub conversation: i64,
    /// Its round, from 1.
    pub round: i64,
    /// Its place among the answers of the round, from 1.
    pub lane: i64,
    /// The exchange that it goes on with.
    pub after: Option<i64>,
    /// The person chose it among those of its round.
    pub picked: bool,
    /// When it was asked.
    pub at: Timestamp,
    /// The name that was asked for.
    pub asked: String,
    /// The model that answered.
    pub model: Option<String>,
    /// Why it failed; `None`: it did not.
    pub class: Option<String>,
    /// The system text.
    pub system: Option<String>,
    /// What was asked.
    pub prompt: String,
    /// Pictures that were asked about; they are not kept.
    pub images: usize,
    /// The answer.
    pub answer: String,
    /// What the model thought.
    pub reasoning: String,
    /// What the conversation looks like around it.
    pub shape: Shape,
}

/// How a conversation is laid out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shape {
    /// Its rounds.
    pub rounds: i64,
    /// The answers of the widest round.
    pub lanes: i64,
    /// A comparison began it: one that is picked is gone on with alone.
    pub is_comparison: bool,
}

impl Exchange {
    /// How it is written: `12@2` is the second answer, of several models in the last round; `12.1@2` says the round, too.
    #[must_use]
    pub fn place(&self) -> String {
        let Self { conversation, round, lane, shape, .. } = self;
        match shape {
            Shape { lanes: 1, .. } => format!("{conversation}@{round}"),
            Shape { rounds, .. } if rounds == round => format!("{conversation}@{lane}"),
            _ => format!("{conversation}.{round}@{lane}"),
        }
    }
}

/// One conversation, as a list shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conversation {
    /// Its number.
    pub id: i64,
    /// When it began.
    pub at: Timestamp,
    /// The command that began it.
    pub command: String,
    /// How many exchanges are in it.
    pub exchanges: i64,
    /// Whom it was asked of first.
    pub asked: String,
    /// How it began.
    pub prompt: String,
}

/// An exchange that has the words in it that were looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The exchange.
    pub exchange: Exchange,
    /// The words with what is around them.
    pub excerpt: String,
}

const COLUMNS: &str = "id, conversation, round, lane, after, picked IS NOT NULL, at, asked, model, class, system, prompt, \
                       images, answer, reasoning";
/// The trigram index knows nothing shorter.
const SHORTEST_INDEXED: usize = 3;
/// Exchanges that are taken into it in one transaction.
const AT_ONCE: i64 = 500;
/// Characters around what was found.
const AROUND: usize = 40;

impl Database {
    /// The latest conversations, newest first.
    pub fn conversations(&self, most: usize) -> Result<Vec<Conversation>, RecordError> {
        let read = || {
            let mut statement = self.connection.prepare(
                "SELECT c.id, c.at, c.command, (SELECT count(*) FROM exchanges WHERE conversation = c.id),
                 (SELECT group_concat(asked, ', ' ORDER BY lane) FROM exchanges
                  WHERE conversation = c.id AND round = first.round), first.prompt
                 FROM conversations c JOIN exchanges first ON first.id =
                 (SELECT id FROM exchanges WHERE conversation = c.id ORDER BY round, lane LIMIT 1)
                 ORDER BY c.used DESC LIMIT ?1",
            )?;
            let rows = statement.query_map([limit(most)], |row| {
                Ok(Conversation {
                    id: row.get(0)?,
                    at: moment(row, 1)?,
                    command: row.get(2)?,
                    exchanges: row.get(3)?,
                    asked: row.get(4)?,
                    prompt: row.get(5)?,
                })
            })?;
            rows.collect()
        };
        self.told(read())
    }

    /// The exchanges of a conversation, in order; none when there is no such conversation.
    pub fn exchanges(&self, conversation: i64) -> Result<Vec<Exchange>, RecordError> {
        self.told(self.read_exchanges("WHERE conversation = ?1 ORDER BY round, lane", params![conversation]))
    }

    /// Every exchange there is, in order.
    pub fn all_exchanges(&self) -> Result<Vec<Exchange>, RecordError> {
        self.told(self.read_exchanges("ORDER BY conversation, round, lane", params![]))
    }

    /// The last conversation that something was said in, or picked from; of those that this command began, if one is named.
    pub fn latest(&self, command: Option<&str>) -> Result<Option<i64>, RecordError> {
        let query = "SELECT id FROM conversations c WHERE (?1 IS NULL OR command = ?1)
                     AND EXISTS (SELECT 1 FROM exchanges WHERE conversation = c.id) ORDER BY used DESC LIMIT 1";
        self.told(self.connection.query_row(query, [command], |row| row.get(0)).optional())
    }

    /// What was asked last, the newest first, each once.
    pub fn prompts(&self, most: usize) -> Result<Vec<String>, RecordError> {
        let read = || {
            // Several models may have been asked the same.
            let mut statement = self.connection.prepare(
                "SELECT prompt FROM (SELECT id, prompt FROM exchanges ORDER BY id DESC LIMIT 4 * ?1)
                 GROUP BY prompt ORDER BY max(id) DESC LIMIT ?1",
            )?;
            let rows = statement.query_map([limit(most)], |row| row.get(0))?;
            rows.collect()
        };
        self.told(read())
    }

    /// Chooses `exchange` among those of its round, and makes its conversation the one that is gone on with.
    pub fn pick(&mut self, exchange: i64, now: Timestamp) -> Result<(), RecordError> {
        let now = now.as_millisecond();
        self.writing(|transaction| {
            let others = "UPDATE exchanges SET picked = NULL WHERE (conversation, round) =
                          (SELECT conversation, round FROM exchanges WHERE id = ?1)";
            transaction.execute(others, [exchange])?;
            transaction.execute("UPDATE exchanges SET picked = ?1 WHERE id = ?2", [now, exchange])?;
            let place = "SELECT conversation FROM exchanges WHERE id = ?1";
            let conversation = transaction.query_row(place, [exchange], |row| row.get(0)).optional()?;
            conversation.map_or(Ok(()), |conversation| placement::used(transaction, conversation, now))
        })
    }

    /// The exchanges that have all of these words, or phrases, in them, newest first.
    pub fn search(&mut self, words: &[&str], most: usize) -> Result<Vec<Found>, RecordError> {
        let long = |words: &&str| words.chars().count() >= SHORTEST_INDEXED;
        // Where the index cannot be written, everything is looked at.
        let indexed = words.iter().any(long) && self.index().is_ok();
        let (indexed, looked_for): (Vec<&str>, Vec<&str>) = words.iter().partition(|words| indexed && long(words));
        let mut parameters = Vec::new();
        let mut conditions = Vec::new();
        if !indexed.is_empty() {
            // In quotes: what somebody looks for is no query language.
            let phrases = indexed.iter().map(|words| format!("\"{}\"", words.replace('"', "\"\"")));
            parameters.push(phrases.collect::<Vec<_>>().join(" AND "));
            conditions.push("id IN (SELECT rowid FROM words WHERE words MATCH ?1)".to_owned());
        }
        if !looked_for.is_empty() {
            self.told(self.know_lower_case())?;
        }
        for words in looked_for {
            parameters.push(words.to_lowercase());
            let n = parameters.len();
            conditions.push(format!("(instr(lower_case(prompt), ?{n}) OR instr(lower_case(answer), ?{n}))"));
        }
        let rest = format!("WHERE {} ORDER BY at DESC LIMIT {}", conditions.join(" AND "), limit(most));
        let found = self.told(self.read_exchanges(&rest, params_from_iter(parameters)))?;
        Ok(found.into_iter().map(|exchange| Found { excerpt: excerpt(&exchange, words), exchange }).collect())
    }

    /// SQLite's own `lower` knows ASCII letters only.
    fn know_lower_case(&self) -> rusqlite::Result<()> {
        let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC;
        self.connection.create_scalar_function("lower_case", 1, flags, |call| {
            call.get::<String>(0).map(|text| text.to_lowercase())
        })
    }

    /// Brings the index of words up to date, some exchanges at a time: others want to write, too.
    fn index(&mut self) -> Result<(), RecordError> {
        let last = "SELECT max(id) FROM (SELECT id FROM exchanges WHERE id > (SELECT up_to FROM indexed)
                    ORDER BY id LIMIT ?1)";
        while let Some(last) =
            self.told(self.connection.query_row(last, [AT_ONCE], |row| row.get::<_, Option<i64>>(0)))?
        {
            self.writing(|transaction| {
                let new =
                    "SELECT id, prompt, answer FROM exchanges WHERE id > (SELECT up_to FROM indexed) AND id <= ?1";
                transaction.execute(&format!("INSERT INTO words (rowid, prompt, answer) {new}"), [last])?;
                // Another process may have been sooner, and further.
                transaction.execute("UPDATE indexed SET up_to = max(up_to, ?1)", [last])?;
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Forgets a conversation; whether there was one. It stays in the log until that is cleared.
    pub fn delete(&mut self, conversation: i64) -> Result<bool, RecordError> {
        let deleted = self.writing(|transaction| {
            let said = "SELECT call FROM exchanges WHERE conversation = ?1";
            transaction
                .execute(&format!("UPDATE attempts SET message = NULL WHERE call IN ({said})"), [conversation])?;
            transaction.execute("DELETE FROM conversations WHERE id = ?1", [conversation])
        });
        Ok(deleted? > 0)
    }

    /// Forgets what was said before so many days; how many exchanges that were. It stays in the log until that is cleared.
    pub fn prune(&mut self, days: u32, now: Timestamp) -> Result<usize, RecordError> {
        let kept = Duration::from_secs(u64::from(days) * 24 * 3600);
        let oldest = now.checked_sub(kept).unwrap_or(Timestamp::MIN).as_millisecond();
        self.writing(|transaction| {
            let count = transaction.execute("DELETE FROM exchanges WHERE at < ?1", [oldest])?;
            if count > 0 {
                transaction
                    .execute("DELETE FROM conversations WHERE id NOT IN (SELECT conversation FROM exchanges)", [])?;
            }
            // Services quote what they were asked.
            let quoted = "UPDATE attempts SET message = NULL WHERE at < ?1 AND message IS NOT NULL";
            transaction.execute(quoted, [oldest])?;
            Ok(count)
        })
    }

    /// Forgets everything that was said; how many exchanges that were. It stays in the log until that is cleared.
    pub fn delete_all(&mut self) -> Result<usize, RecordError> {
        self.writing(|transaction| {
            let count = transaction.execute("DELETE FROM exchanges", [])?;
            transaction.execute("DELETE FROM conversations", [])?;
            transaction.execute("UPDATE attempts SET message = NULL WHERE message IS NOT NULL", [])?;
            Ok(count)
        })
    }

    fn read_exchanges(&self, rest: &str, parameters: impl Params) -> rusqlite::Result<Vec<Exchange>> {
        let mut statement = self.connection.prepare(&format!("SELECT {COLUMNS} FROM exchanges {rest}"))?;
        let rows = statement.query_map(parameters, |row| {
            Ok(Exchange {
                id: row.get(0)?,
                conversation: row.get(1)?,
                round: row.get(2)?,
                lane: row.get(3)?,
                after: row.get(4)?,
                picked: row.get(5)?,
                at: moment(row, 6)?,
                asked: row.get(7)?,
                model: row.get(8)?,
                class: row.get(9)?,
                system: row.get(10)?,
                prompt: row.get(11)?,
                images: row.get(12)?,
                answer: row.get(13)?,
                reasoning: row.get(14)?,
                shape: Shape::default(),
            })
        })?;
        let mut exchanges: Vec<Exchange> = rows.collect::<Result<_, _>>()?;
        let mut shapes = HashMap::new();
        for exchange in &mut exchanges {
            exchange.shape = match shapes.entry(exchange.conversation) {
                Entry::Occupied(known) => *known.get(),
                Entry::Vacant(place) => *place.insert(self.shape(exchange.conversation)?),
            };
        }
        Ok(exchanges)
    }

    fn shape(&self, conversation: i64) -> rusqlite::Result<Shape> {
        let query = "SELECT max(round), max(lane), (SELECT command = 'compare' FROM conversations WHERE id = ?1)
                     FROM exchanges WHERE conversation = ?1";
        let read = |row: &Row<'_>| Ok(Shape { rounds: row.get(0)?, lanes: row.get(1)?, is_comparison: row.get(2)? });
        self.connection.prepare_cached(query)?.query_row([conversation], read)
    }
}

/// SQLite has no larger numbers.
fn limit(most: usize) -> i64 {
    i64::try_from(most).unwrap_or(i64::MAX)
}

fn moment(row: &Row<'_>, column: usize) -> rusqlite::Result<Timestamp> {
    let milliseconds: i64 = row.get(column)?;
    Ok(Timestamp::from_millisecond(milliseconds).unwrap_or_default())
}

/// What is around the first of the words, on one line.
fn excerpt(exchange: &Exchange, words: &[&str]) -> String {
    let texts = [&exchange.prompt, &exchange.answer];
    for (text, words) in words.iter().flat_map(|words| texts.map(|text| (text, words))) {
        let Some(at) = text.to_lowercase().find(&words.to_lowercase()) else { continue };
        // Letters may be longer in the other case: the place is only near.
        let before = text.char_indices().take_while(|(place, _)| *place < at).count();
        let from = before.saturating_sub(AROUND);
        let shown: String = text.chars().skip(from).take(AROUND * 2 + words.chars().count()).collect();
        let (start, end) = (
            if from > 0 { "…" } else { "" },
            if from + shown.chars().count() < text.chars().count() { "…" } else { "" },
        );
        return format!("{start}{}{end}", crate::model::sanitize::one_line(&shown));
    }
    crate::model::sanitize::one_line(&exchange.prompt.chars().take(AROUND * 2).collect::<String>())
}
