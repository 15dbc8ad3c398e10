//! Where in the record an answer belongs: in which conversation, in which of its rounds, in which lane.
//!
//! Owns what a run goes on with, and that two runs which go on with the same at once do not get into each other's way: the
//! first has the next round, the other a conversation of its own, with what came before. What was deleted while its run
//! went on stays so. Refuses what is read of it.

use std::collections::HashMap;

use rusqlite::{OptionalExtension, Row, Transaction, params};

use super::{CallRecord, Said};

/// What the answers of a run go on with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum GoesOn {
    /// With nothing: they begin a conversation.
    #[default]
    Anew,
    /// With exchanges of one conversation.
    After {
        /// Each lane's, by its place; `None`: that lane begins anew.
        exchanges: Vec<Option<i64>>,
        /// In a conversation of its own: what else is in theirs is not gone on with.
        apart: bool,
    },
    /// Each lane is one more try at an exchange, by its place.
    Instead(Vec<i64>),
}

impl GoesOn {
    fn after(&self, lane: usize) -> Option<i64> {
        match self {
            Self::After { exchanges, .. } => exchanges.get(lane).copied().flatten(),
            Self::Anew | Self::Instead(_) => None,
        }
    }
}

/// Where the answers of one run belong, which is settled when the first of them is written.
#[derive(Clone, Debug, Default)]
pub struct RunPlace {
    goes_on: GoesOn,
    settled: Option<Settled>,
    /// The exchange of each lane that was written, and which lane of its round that is.
    exchanges: Vec<Option<(i64, i64)>>,
    /// The person had it deleted while the run went on.
    is_forgotten: bool,
}

/// Where a run's answers were kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// In which conversation.
    pub conversation: i64,
    /// In which of its rounds, from 1.
    pub round: i64,
    /// The exchange of each lane, by its place; lanes of which nothing was kept may be missing at the end.
    pub exchanges: Vec<Option<i64>>,
    /// How each lane is numbered in its round, from 1: a second try has the number of the first.
    pub lanes: Vec<Option<i64>>,
}

#[derive(Clone, Debug)]
struct Settled {
    conversation: i64,
    round: i64,
    /// Where what came before was copied to.
    copies: HashMap<i64, i64>,
}

/// What writing one answer came to.
pub(super) struct Written {
    settled: Settled,
    exchange: i64,
    /// The lane of its round, from 1.
    lane: i64,
}

impl RunPlace {
    /// The place of a run that goes on with this.
    #[must_use]
    pub fn new(goes_on: GoesOn) -> Self {
        Self { goes_on, ..Self::default() }
    }

    /// Where its answers are; `None`: nothing was kept of them.
    #[must_use]
    pub fn kept(self) -> Option<Kept> {
        let Settled { conversation, round, .. } = self.settled.filter(|_| !self.is_forgotten)?;
        let (exchanges, lanes) =
            self.exchanges.iter().map(|place| (place.map(|place| place.0), place.map(|place| place.1))).unzip();
        Some(Kept { conversation, round, exchanges, lanes })
    }

    pub(super) fn forget(&mut self) {
        self.is_forgotten = true;
    }

    /// Something of it was not kept: its place was deleted meanwhile.
    pub(super) fn is_forgotten(&self) -> bool {
        self.is_forgotten
    }

    pub(super) fn settle(&mut self, written: Written, lane: usize) {
        self.settled = Some(written.settled);
        if self.exchanges.len() <= lane {
            self.exchanges.resize(lane + 1, None);
        }
        self.exchanges[lane] = Some((written.exchange, written.lane));
    }
}

/// Writes what was said in call `id`; `None`: the person had its place deleted meanwhile, and nothing of it is kept.
pub(super) fn write(
    transaction: &Transaction<'_>,
    id: i64,
    (call, said): (&CallRecord, &Said),
    place: &RunPlace,
) -> rusqlite::Result<Option<Written>> {
    if let GoesOn::Instead(exchanges) = &place.goes_on
        && let Some(&exchange) = exchanges.get(call.lane)
    {
        let Some(settled) = settled_at(transaction, exchange)? else { return forget(transaction, id) };
        replace(transaction, exchange, id, (call, said), true)?;
        use_now(transaction, settled.conversation, call)?;
        let lane = "SELECT lane FROM exchanges WHERE id = ?1";
        let lane = transaction.query_row(lane, [exchange], |row| row.get(0))?;
        return Ok(Some(Written { settled, exchange, lane }));
    }
    let settled = match &place.settled {
        Some(settled) if exists(transaction, settled.conversation)? => settled.clone(),
        Some(_) => return forget(transaction, id),
        None => settle(transaction, call, &place.goes_on)?,
    };
    use_now(transaction, settled.conversation, call)?;
    let before = transaction
        .prepare_cached("SELECT id FROM exchanges WHERE conversation = ?1 AND round = ?2 AND lane = ?3")?
        .query_row(params![settled.conversation, settled.round, lane(call)], |row| row.get(0))
        .optional()?;
    if let Some(exchange) = before {
        // The same run says what the screen shows.
        replace(transaction, exchange, id, (call, said), false)?;
        return Ok(Some(Written { settled, exchange, lane: lane(call) }));
    }
    let after = place.goes_on.after(call.lane).map(|after| *settled.copies.get(&after).unwrap_or(&after));
    let exchange = add(transaction, id, (call, said), (&settled, after))?;
    Ok(Some(Written { settled, exchange, lane: lane(call) }))
}

/// What services said of a call may quote what was said in it.
fn forget(transaction: &Transaction<'_>, call: i64) -> rusqlite::Result<Option<Written>> {
    transaction.prepare_cached("UPDATE attempts SET message = NULL WHERE call = ?1")?.execute([call])?;
    Ok(None)
}

/// How an answer ended that is not whole, in a word.
fn ending(call: &CallRecord) -> Option<&'static str> {
    if call.outcome.stopped { Some("stopped") } else { call.class().map(crate::model::ErrorClass::as_str) }
}

fn lane(call: &CallRecord) -> i64 {
    i64::try_from(call.lane + 1).unwrap_or(i64::MAX)
}

fn add(
    transaction: &Transaction<'_>,
    id: i64,
    (call, said): (&CallRecord, &Said),
    (settled, after): (&Settled, Option<i64>),
) -> rusqlite::Result<i64> {
    transaction
        .prepare_cached(
            "INSERT INTO exchanges (conversation, round, lane, after, call, at, asked, model, class, system, prompt, images,
             answer, reasoning) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)",
        )?
        .insert(params![
            settled.conversation,
            settled.round,
            lane(call),
            after,
            id,
            call.at.as_millisecond(),
            call.asked,
            call.outcome.target.as_ref().map(|target| &target.id.0),
            ending(call),
            said.system,
            said.prompt,
            said.images,
            said.answer,
            said.reasoning,
        ])
}

/// One more try takes the place of `exchange`; with `nothing_lost` unless it is whole and the new one is not, or says
/// something and the new one nothing. What services said of the try that is in no exchange any more may quote it, and would
/// not be forgotten with it.
fn replace(
    transaction: &Transaction<'_>,
    exchange: i64,
    id: i64,
    (call, said): (&CallRecord, &Said),
    nothing_lost: bool,
) -> rusqlite::Result<()> {
    let (before, was_whole, said_something): (i64, bool, bool) = transaction
        .prepare_cached("SELECT call, class IS NULL, trim(answer) != '' FROM exchanges WHERE id = ?1")?
        .query_row([exchange], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    let class = ending(call);
    let worse = (was_whole && class.is_some()) || (said_something && said.answer.trim().is_empty());
    let outdated = if nothing_lost && worse { id } else { before };
    transaction.prepare_cached("UPDATE attempts SET message = NULL WHERE call = ?1")?.execute([outdated])?;
    if outdated == id {
        return Ok(());
    }
    transaction
        .prepare_cached(
            "UPDATE exchanges SET call = ?2, at = ?3, asked = ?4, model = ?5, class = ?6, system = ?7, prompt = ?8,
             images = ?9, answer = ?10, reasoning = ?11 WHERE id = ?1",
        )?
        .execute(params![
            exchange,
            id,
            call.at.as_millisecond(),
            call.asked,
            call.outcome.target.as_ref().map(|target| &target.id.0),
            class,
            said.system,
            said.prompt,
            said.images,
            said.answer,
            said.reasoning,
        ])?;
    Ok(())
}

/// The place of an exchange that is there already.
fn settled_at(transaction: &Transaction<'_>, exchange: i64) -> rusqlite::Result<Option<Settled>> {
    transaction
        .prepare_cached("SELECT conversation, round FROM exchanges WHERE id = ?1")?
        .query_row([exchange], |row| {
            Ok(Settled { conversation: row.get(0)?, round: row.get(1)?, copies: HashMap::new() })
        })
        .optional()
}

/// The place of a run that begins to be written: the next round of what it goes on with, if nobody was sooner.
fn settle(transaction: &Transaction<'_>, call: &CallRecord, goes_on: &GoesOn) -> rusqlite::Result<Settled> {
    let anew = || {
        let conversation = begun(transaction, call)?;
        Ok(Settled { conversation, round: 1, copies: HashMap::new() })
    };
    let GoesOn::After { exchanges, apart } = goes_on else { return anew() };
    let mut before: Option<Settled> = None;
    for exchange in exchanges.iter().flatten() {
        if let Some(found) = settled_at(transaction, *exchange)?
            && before.as_ref().is_none_or(|before| before.round < found.round)
        {
            before = Some(found);
        }
    }
    let Some(Settled { conversation, round, .. }) = before else { return anew() };
    let last: i64 = transaction
        .prepare_cached("SELECT max(round) FROM exchanges WHERE conversation = ?1")?
        .query_row([conversation], |row| row.get(0))?;
    if last == round && !apart {
        return Ok(Settled { conversation, round: round + 1, copies: HashMap::new() });
    }
    copy(transaction, call, exchanges.iter().flatten(), *apart)
}

/// A new conversation with `exchanges` and everything that came before them. `apart`: one after the other, in one lane.
fn copy<'e>(
    transaction: &Transaction<'_>,
    call: &CallRecord,
    exchanges: impl Iterator<Item = &'e i64>,
    apart: bool,
) -> rusqlite::Result<Settled> {
    let conversation = begun(transaction, call)?;
    let ids = exchanges.map(i64::to_string).collect::<Vec<_>>().join(", ");
    let mut statement = transaction.prepare(&format!(
        "WITH RECURSIVE chain (id) AS (
             SELECT id FROM exchanges WHERE id IN ({ids})
             UNION SELECT after FROM exchanges JOIN chain USING (id) WHERE after IS NOT NULL
         )
         SELECT id, round, lane, after FROM exchanges JOIN chain USING (id) ORDER BY round, lane"
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
                "INSERT INTO exchanges (conversation, round, lane, after, call, at, asked, model, class, system, prompt,
                 images, answer, reasoning) SELECT ?1, ?2, ?3, ?4, call, at, asked, model, class, system, prompt, images,
                 answer, reasoning FROM exchanges WHERE id = ?5",
            )?
            .insert(params![conversation, round, lane, after, id])?;
        copies.insert(id, copied);
    }
    Ok(Settled { conversation, round: last + 1, copies })
}

fn begun(transaction: &Transaction<'_>, call: &CallRecord) -> rusqlite::Result<i64> {
    transaction
        .prepare_cached("INSERT INTO conversations (at, command, used) VALUES (?1, ?2, 0)")?
        .insert(params![call.at.as_millisecond(), call.command])
}

/// Makes the conversation the last one that was used.
fn use_now(transaction: &Transaction<'_>, conversation: i64, call: &CallRecord) -> rusqlite::Result<()> {
    let until = call.at.as_millisecond().saturating_add(i64::try_from(call.outcome.total.as_millis()).unwrap_or(0));
    used(transaction, conversation, until)
}

/// The same at this time, in milliseconds since 1970. The order is right whatever the clock does.
pub(super) fn used(transaction: &Transaction<'_>, conversation: i64, at: i64) -> rusqlite::Result<()> {
    transaction
        .prepare_cached(
            "UPDATE conversations SET used = max(?2, 1 + (SELECT max(used) FROM conversations)) WHERE id = ?1",
        )?
        .execute(params![conversation, at])?;
    Ok(())
}

fn exists(transaction: &Transaction<'_>, conversation: i64) -> rusqlite::Result<bool> {
    transaction.prepare_cached("SELECT 1 FROM conversations WHERE id = ?1")?.exists([conversation])
}
