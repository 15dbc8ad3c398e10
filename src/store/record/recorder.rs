//! Listening to a run and writing down what came of it, without keeping anybody waiting.
//!
//! Owns the thread that opens the database and writes: it is started by the first delta, so that nothing of it lies before
//! the answer, and is waited for when the command is over. Refuses the events' meaning for people: that is the views'.

use std::{
    path::PathBuf,
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread::{self, JoinHandle},
};

use jiff::Timestamp;
use tokio::time::Instant;

use super::{CallRecord, Database, GoesOn, Kept, RecordError, RunPlace, Said};
use crate::{
    chat::{Call, Message, Part, Role, Usage},
    engine::{Account, AttemptRecord, Event, EventKind, LaneOutcome, Progress},
    plan::Plan,
    target::TargetId,
};

/// As many answers as may wait for their turn to be written.
const WAITING: usize = 64;

/// What is recorded, and where.
#[derive(Clone, Debug)]
pub struct RecordOptions {
    /// The database; `None`: this system has no place for one.
    pub place: Option<PathBuf>,
    /// Which command it is.
    pub command: &'static str,
    /// What was said is kept, too.
    pub words: bool,
    /// For how many days.
    pub days: Option<u32>,
    /// What is gone on with.
    pub goes_on: GoesOn,
}

/// One lane, as far as it has come.
#[derive(Debug)]
struct Lane {
    asked: String,
    is_route: bool,
    prompt_tokens: u64,
    /// What is asked; the answer is added when there is one.
    said: Said,
    account: Account,
    /// What each request used that said anything, by when it was sent and to whom.
    used: Vec<(Timestamp, TargetId, Usage)>,
    /// How far it has come, in case it is stopped; `None`: it is over.
    progress: Option<Progress>,
}

/// Listens to one run.
#[derive(Debug)]
pub struct Recorder {
    options: RecordOptions,
    lanes: Vec<Lane>,
    writer: Option<Writer>,
    trouble: Option<RecordError>,
}

#[derive(Debug)]
struct Writer {
    sender: SyncSender<CallRecord>,
    thread: JoinHandle<Result<Option<Kept>, RecordError>>,
}

impl Recorder {
    /// A recorder of `plan`.
    #[must_use]
    pub fn new(options: RecordOptions, plan: &Plan) -> Self {
        let lanes = plan.lanes.iter().map(|lane| Lane {
            asked: lane.name.clone(),
            is_route: lane.route.is_some(),
            prompt_tokens: lane.call.estimated_tokens(),
            said: asked_of(&lane.call),
            account: Account::default(),
            used: Vec::new(),
            progress: Some(Progress::new(Instant::now())),
        });
        Self { lanes: lanes.collect(), options, writer: None, trouble: None }
    }

    /// Takes notice of what happened.
    pub fn event(&mut self, event: &Event) {
        if let Some(progress) = self.lanes.get_mut(event.lane).and_then(|lane| lane.progress.as_mut()) {
            progress.event(event);
        }
        match &event.kind {
            EventKind::Deltas(deltas) | EventKind::Held(deltas) => {
                let words = self.options.words;
                let Some(lane) = self.lanes.get_mut(event.lane) else { return };
                for delta in deltas {
                    lane.account.add(delta, words);
                }
                self.writer();
            }
            EventKind::Failed { record, .. } => {
                let Some(lane) = self.lanes.get_mut(event.lane) else { return };
                let used = lane.account.used(lane.prompt_tokens);
                lane.used.extend(used.map(|usage| (record.at, record.target.id.clone(), usage)));
                lane.account.begin_again(&record.target, lane.prompt_tokens);
            }
            EventKind::Finished(outcome) => self.over(event.lane, (**outcome).clone()),
            EventKind::Again => {
                let Some(lane) = self.lanes.get_mut(event.lane) else { return };
                (lane.account, lane.used) = Default::default();
                lane.progress = Some(Progress::new(event.at));
            }
            EventKind::Started(_) | EventKind::Ttft(_) | EventKind::Notice(_) => {}
        }
    }

    /// The person has had enough, or nobody reads on: what came of the lanes that are not over is paid for all the same.
    pub fn stop(&mut self) {
        for lane in 0..self.lanes.len() {
            if let Some(progress) = self.lanes[lane].progress.take() {
                self.over(lane, progress.interrupted(Instant::now()));
            }
        }
    }

    fn over(&mut self, index: usize, outcome: LaneOutcome) {
        let beside_others = self.lanes.len() > 1;
        let Some(lane) = self.lanes.get_mut(index) else { return };
        lane.progress = None;
        // What was refused before anything was sent is no call; among several answers it has its place all the same.
        if outcome.attempts.is_empty() && !(beside_others && self.options.words) {
            return;
        }
        let mut account = std::mem::take(&mut lane.account);
        let own = account.usage(&outcome, lane.prompt_tokens).filter(|_| outcome.result.is_ok());
        let own = own.or_else(|| account.used(lane.prompt_tokens));
        let last = outcome.attempts.last().zip(own);
        lane.used.extend(last.map(|(attempt, usage)| (attempt.at, attempt.target.id.clone(), usage)));
        account.close(&outcome, lane.prompt_tokens);
        let said = self.options.words.then(|| Said {
            answer: [account.answer.text.as_str(), account.answer.refusal.as_str()].concat(),
            reasoning: account.answer.reasoning.clone(),
            ..lane.said.clone()
        });
        let record = CallRecord {
            at: Timestamp::now().checked_sub(outcome.total).unwrap_or_default(),
            command: self.options.command,
            lane: index,
            asked: lane.asked.clone(),
            is_route: lane.is_route,
            usage: account.usage(&outcome, lane.prompt_tokens),
            used: by_request(&outcome.attempts, std::mem::take(&mut lane.used)),
            outcome,
            said,
        };
        if let Some(writer) = self.writer() {
            // When nobody takes it, the thread has failed, and says so at the end.
            let _ = writer.sender.send(record);
        }
    }

    /// Waits until everything is written: where what was said is now, if it is kept; or why it could not be.
    pub fn close(self) -> Result<Option<Kept>, RecordError> {
        if let Some(trouble) = self.trouble {
            return Err(trouble);
        }
        let Some(Writer { sender, thread }) = self.writer else { return Ok(None) };
        drop(sender);
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    fn writer(&mut self) -> Option<&Writer> {
        let place = self.options.place.as_ref()?;
        if self.writer.is_none() && self.trouble.is_none() {
            let (sender, records) = sync_channel(WAITING);
            let (path, days) = (place.clone(), self.options.days);
            let run = RunPlace::new(self.options.goes_on.clone());
            match thread::Builder::new().spawn(move || write(&path, days, run, &records)) {
                Ok(thread) => self.writer = Some(Writer { sender, thread }),
                Err(source) => self.trouble = Some(RecordError::Folder { path: place.clone(), source }),
            }
        }
        self.writer.as_ref()
    }
}

/// What each request used: those that said nothing used nothing that is known.
fn by_request(attempts: &[AttemptRecord], mut used: Vec<(Timestamp, TargetId, Usage)>) -> Vec<Option<Usage>> {
    let of = |attempt: &AttemptRecord| {
        let place = used.iter().position(|(at, target, _)| *at == attempt.at && *target == attempt.target.id)?;
        Some(used.remove(place).2)
    };
    attempts.iter().map(of).collect()
}

/// Writes what comes, until nothing more does; the first that could not be written is told of then.
pub(super) fn write(
    place: &std::path::Path,
    days: Option<u32>,
    mut run: RunPlace,
    records: &Receiver<CallRecord>,
) -> Result<Option<Kept>, RecordError> {
    let mut database = Database::open(place)?;
    let mut trouble = None;
    for record in records {
        if let Err(error) = database.insert(&record, &mut run) {
            // The next one may be luckier, but is not to wait as long again.
            trouble = trouble.or(Some(error));
            database.hurry()?;
        }
    }
    if let Some(trouble) = trouble {
        return Err(trouble);
    }
    if let Some(days) = days
        && database.prune(days, Timestamp::now())? > 0
        && let Err(error) = database.clear_log()
        // While somebody reads, it stays until the log has grown.
        && !matches!(error, RecordError::InLog { .. })
    {
        return Err(error);
    }
    database.settle()?;
    if run.is_forgotten() {
        return Err(RecordError::Deleted);
    }
    // What was written to a file without a name is lost.
    if place.exists() { Ok(run.kept()) } else { Err(RecordError::Gone { path: place.to_owned() }) }
}

/// What a call asks, for the record.
fn asked_of(call: &Call) -> Said {
    let Call::Chat(chat) = call;
    let text = |role| chat.messages.iter().rfind(|message| message.role == role).map(Message::words);
    let last = chat.messages.iter().rfind(|message| message.role == Role::User);
    let images = last.map_or(0, |message| message.parts.iter().filter(|part| matches!(part, Part::Image(_))).count());
    Said { system: text(Role::System), prompt: text(Role::User).unwrap_or_default(), images, ..Said::default() }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use super::*;
    use crate::{chat::ErrorClass, protocol::ApiError, target::testing};

    #[test]
    fn what_was_used_is_the_requests_that_used_it() {
        let (a, b) = (Arc::new(testing::target("a")), Arc::new(testing::target("b")));
        let at = |second| Timestamp::from_second(second).expect("a date");
        let sent = |target: &Arc<_>, second| AttemptRecord::new(Arc::clone(target), at(second), Duration::ZERO);
        // It was paid for although it said nothing.
        let withheld = AttemptRecord { error: Some(ApiError::new(ErrorClass::Filter, "no")), ..sent(&a, 1) };
        let attempts = [withheld, sent(&a, 2), sent(&b, 3)];
        let tokens = |output| Usage { output: Some(output), ..Usage::default() };
        let used = vec![(at(1), a.id.clone(), tokens(1)), (at(3), b.id.clone(), tokens(3))];
        assert_eq!(by_request(&attempts, used), [Some(tokens(1)), None, Some(tokens(3))]);
    }
}
