//! Writes the calls of one run to the record on a background thread.
//!
//! The first delta starts the thread, which opens the database, so that neither delays the answer. The thread is joined
//! when the command ends.

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
    /// The transcript of each call without its answer; `None` if content is not stored.
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
            // Opening the database takes time: it starts before there is something to write.
            EventKind::Deltas(_) | EventKind::BufferedDeltas(_) => drop(self.ensure_writer()),
            _ => {}
        }
    }

    fn submit(&mut self, index: usize, record: &Arc<CallRecord>) {
        let Some(transcript) = self.calls.get(index) else { return };
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
            transcript: transcript.clone().map(|transcript| transcript.with_answer(record)),
        };
        if let Some(writer) = self.ensure_writer() {
            // If sending fails, the thread has ended with an error, which `close` returns.
            let _ = writer.sender.send(call);
        }
    }

    /// Waits until all calls are written. Returns where their content is stored, `None` if it is not, or the first error.
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
            let (sender, calls) = sync_channel(QUEUE_CAPACITY);
            let (database_path, retention_days) = (path.clone(), self.options.retention_days);
            let placement = RunPlacement::new(self.options.continuation.clone());
            match thread::Builder::new().spawn(move || write_records(&database_path, retention_days, placement, &calls))
            {
                Ok(thread) => self.writer = Some(WriterThread { sender, thread }),
                Err(source) => self.error = Some(RecordError::Open { path: path.clone(), source }),
            }
        }
        self.writer.as_ref()
    }
}

/// Writes calls until the channel is closed. Returns the first error.
pub(super) fn write_records(
    path: &std::path::Path,
    retention_days: Option<u32>,
    mut placement: RunPlacement,
    calls: &Receiver<StoredCall>,
) -> Result<Option<StoredRound>, RecordError> {
    let mut database = Database::open(path)?;
    let mut first_error = None;
    for call in calls {
        if let Err(error) = database.insert_call(&call, &mut placement) {
            // Try the next call, with a shorter timeout.
            first_error = first_error.or(Some(error));
            database.use_short_timeout()?;
        }
    }
    if let Some(error) = first_error {
        return Err(error);
    }
    if let Some(days) = retention_days
        && database.prune(days, Timestamp::now())? > 0
        && let Err(error) = database.purge_deleted()
        // While another process reads, pruned content stays in the WAL until it is checkpointed.
        && !matches!(error, RecordError::StillInLog { .. })
    {
        return Err(error);
    }
    database.checkpoint_if_large()?;
    if placement.was_deleted() {
        return Err(RecordError::ConversationDeleted);
    }
    // Data written to a removed file is lost.
    if path.exists() { Ok(placement.into_stored_round()) } else { Err(RecordError::Removed { path: path.to_owned() }) }
}
