//! Writes the calls of one run to the record on a background thread.
//!
//! The thread, which opens the database, is started by the first delta so that it does not delay the answer. It is
//! joined when the command ends.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::{self, JoinHandle},
};

use jiff::Timestamp;

use super::{Continuation, Database, RecordError, RunPlacement, StoredCall, StoredRound, Transcript};
use crate::engine::{
    CallRecord, Event, EventKind,
    plan::{Call, Plan},
};

/// The capacity of the queue of finished calls.
const QUEUE_CAPACITY: usize = 64;

/// What to record, and where.
#[derive(Clone, Debug)]
pub struct RecordOptions {
    /// The path of the database; `None` if the system has no state folder.
    pub path: Option<PathBuf>,
    /// The command.
    pub command: &'static str,
    /// Store prompts and answers.
    pub store_content: bool,
    /// How many days to keep prompts and answers; `None` keeps them until they are deleted.
    pub retention_days: Option<u32>,
    /// How the run continues a conversation.
    pub continuation: Continuation,
}

/// Records one run.
#[derive(Debug)]
pub struct RunWriter {
    options: RecordOptions,
    /// The prompt of each call, if content is stored.
    calls: Vec<Option<Transcript>>,
    writer: Option<WriterThread>,
    error: Option<RecordError>,
}

#[derive(Debug)]
struct WriterThread {
    sender: SyncSender<StoredCall>,
    thread: JoinHandle<Result<Option<StoredRound>, RecordError>>,
}

impl RunWriter {
    /// A writer for the calls of `plan`. They must retain their text if content is stored.
    #[must_use]
    pub fn new(options: RecordOptions, plan: &Plan) -> Self {
        let transcript = |call: &Call| options.store_content.then(|| Transcript::of_request(&call.request));
        Self { calls: plan.calls.iter().map(transcript).collect(), options, writer: None, error: None }
    }

    /// Handles an event.
    pub fn on_event(&mut self, event: &Event) {
        match &event.kind {
            EventKind::Finished(record) => self.submit(event.call, record),
            // Opening the database takes a while.
            EventKind::Deltas(_) | EventKind::BufferedDeltas(_) => drop(self.ensure_writer()),
            _ => {}
        }
    }

    fn submit(&mut self, index: usize, record: &Arc<CallRecord>) {
        let Some(prompt) = self.calls.get(index) else { return };
        let has_parallel_calls = self.calls.len() > 1;
        // A call without an attempt is not recorded, unless it is one of several answers: it has a number in the round.
        if record.attempts.is_empty() && !(has_parallel_calls && self.options.store_content) {
            return;
        }
        let call = StoredCall {
            record: Arc::clone(record),
            command: self.options.command,
            client: None,
            index,
            transcript: prompt.clone().map(|prompt| prompt.with_answer(record)),
        };
        if let Some(writer) = self.ensure_writer() {
            // If sending fails, the thread has ended with an error, which `close` returns.
            let _ = writer.sender.send(call);
        }
    }

    /// Waits until all calls are written. Returns where their content is stored, if it is, or the first error.
    pub fn close(self) -> Result<Option<StoredRound>, RecordError> {
        if let Some(error) = self.error {
            return Err(error);
        }
        let Some(WriterThread { sender, thread }) = self.writer else { return Ok(None) };
        drop(sender);
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    fn ensure_writer(&mut self) -> Option<&WriterThread> {
        let path = self.options.path.as_ref()?;
        if self.writer.is_none() && self.error.is_none() {
            let (sender, records) = sync_channel(QUEUE_CAPACITY);
            let (database, days) = (path.clone(), self.options.retention_days);
            let run = RunPlacement::new(self.options.continuation.clone());
            match thread::Builder::new().spawn(move || write_records(&database, days, run, &records)) {
                Ok(thread) => self.writer = Some(WriterThread { sender, thread }),
                Err(source) => self.error = Some(RecordError::Open { path: path.clone(), source }),
            }
        }
        self.writer.as_ref()
    }
}

/// Writes records until the channel is closed. Returns the first error.
pub(super) fn write_records(
    path: &std::path::Path,
    days: Option<u32>,
    mut run: RunPlacement,
    records: &Receiver<StoredCall>,
) -> Result<Option<StoredRound>, RecordError> {
    let mut database = Database::open(path)?;
    let mut first_error = None;
    for record in records {
        if let Err(error) = database.insert_call(&record, &mut run) {
            // Try the next record, with a shorter timeout.
            first_error = first_error.or(Some(error));
            database.use_short_timeout()?;
        }
    }
    if let Some(error) = first_error {
        return Err(error);
    }
    if let Some(days) = days
        && database.prune(days, Timestamp::now())? > 0
        && let Err(error) = database.purge_deleted()
        // While another process reads, pruned content stays in the WAL until it is checkpointed.
        && !matches!(error, RecordError::StillInLog { .. })
    {
        return Err(error);
    }
    database.checkpoint_if_large()?;
    if run.was_deleted() {
        return Err(RecordError::ConversationDeleted);
    }
    // Data written to a removed file is lost.
    if path.exists() { Ok(run.into_stored_round()) } else { Err(RecordError::Removed { path: path.to_owned() }) }
}
