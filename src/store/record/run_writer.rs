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

use super::{CallRecord, Database, GoesOn, Kept, Listener, RecordError, RunPlace};
use crate::engine::{Event, EventKind, plan::Plan};

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

/// Listens to one run.
#[derive(Debug)]
pub struct Recorder {
    options: RecordOptions,
    lanes: Vec<Listener>,
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
        let lanes = plan.lanes.iter().map(|lane| Listener::new(lane, options.words)).collect();
        Self { lanes, options, writer: None, trouble: None }
    }

    /// Takes notice of what happened.
    pub fn event(&mut self, event: &Event) {
        let Some(lane) = self.lanes.get_mut(event.lane) else { return };
        if let Some(record) = lane.event(event) {
            self.over(event.lane, record);
        }
        if let EventKind::Deltas(_) | EventKind::Held(_) = &event.kind {
            self.writer();
        }
    }

    /// The person has had enough, or nobody reads on: what came of the lanes that are not over is paid for all the same.
    pub fn stop(&mut self) {
        for lane in 0..self.lanes.len() {
            if let Some(record) = self.lanes[lane].stop() {
                self.over(lane, record);
            }
        }
    }

    fn over(&mut self, lane: usize, record: CallRecord) {
        let beside_others = self.lanes.len() > 1;
        // What was refused before anything was sent is no call; among several answers it has its place all the same.
        if record.outcome.attempts.is_empty() && !(beside_others && self.options.words) {
            return;
        }
        let record = CallRecord { command: self.options.command, lane, ..record };
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
