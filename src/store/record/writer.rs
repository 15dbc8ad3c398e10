//! Writes finished calls to the record on a background thread with one open database.
//!
//! The policy decides the rest: a command writes each call at once, waits for the thread when it ends, and returns the
//! first error; a server writes batches, and never waits: calls that arrive faster than the disk can write them, or
//! while writing fails, are dropped and counted.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use jiff::{Timestamp, Zoned};
use parking_lot::{Mutex, MutexGuard};

use super::{Database, RecordError, RunPlacement, StoredCall, StoredRound};

/// How calls are queued and written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WritePolicy {
    /// The capacity of the queue.
    pub queue_capacity: usize,
    /// What happens to a call when the queue is full.
    pub when_full: WhenFull,
    /// How long to collect calls for a batch.
    pub batch_delay: Duration,
    /// The number of calls in a batch.
    pub max_batch: usize,
    /// The time between attempts to write after a failure; `None`: a call that cannot be written is dropped.
    pub retry_interval: Option<Duration>,
    /// Days to keep prompts and answers; older ones are removed at the end. `None`: nothing is removed.
    pub retention_days: Option<u32>,
}

/// What happens to a call when the queue is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenFull {
    /// The sender waits.
    Wait,
    /// The call is dropped and counted.
    Drop,
}

impl WritePolicy {
    /// For the calls of one command.
    #[must_use]
    pub fn command(retention_days: Option<u32>) -> Self {
        Self {
            queue_capacity: 64,
            when_full: WhenFull::Wait,
            batch_delay: Duration::ZERO,
            max_batch: 1,
            retry_interval: None,
            retention_days,
        }
    }

    /// For the calls of a server.
    #[must_use]
    pub fn server() -> Self {
        Self {
            // Enough for a disk that stalls for a few seconds at some thousand calls per second.
            queue_capacity: 8192,
            when_full: WhenFull::Drop,
            // Writing a thousand calls costs little more than writing one, and the thread is not woken for each call.
            batch_delay: Duration::from_millis(100),
            max_batch: 4096,
            retry_interval: Some(Duration::from_secs(5)),
            retention_days: None,
        }
    }
}

/// Queues calls and writes them in the background.
#[derive(Debug)]
pub struct RecordWriter {
    path: PathBuf,
    policy: WritePolicy,
    state: Mutex<State>,
    dropped: Arc<AtomicU64>,
}

#[derive(Debug)]
enum State {
    NotStarted(Box<Worker>),
    Running { sender: SyncSender<Box<StoredCall>>, thread: JoinHandle<WriteResult> },
    Failed(RecordError),
    Closed,
}

/// Where the content of a run is stored, `None` if it is not; or the first error.
type WriteResult = Result<Option<StoredRound>, RecordError>;

impl RecordWriter {
    /// A writer for one run of a command to the database at `path`; its content is placed by `placement`.
    #[must_use]
    pub fn for_command(path: PathBuf, placement: RunPlacement, retention_days: Option<u32>) -> Self {
        Self::new(path, WritePolicy::command(retention_days), Some(placement), None)
    }

    /// A writer for a server to the database at `path`; failed writes are reported to `on_error` as they happen.
    #[must_use]
    pub fn for_server(path: PathBuf, on_error: impl Fn(&RecordError) + Send + 'static) -> Self {
        Self::new(path, WritePolicy::server(), None, Some(Box::new(on_error)))
    }

    fn new(path: PathBuf, policy: WritePolicy, placement: Option<RunPlacement>, on_error: Option<OnError>) -> Self {
        let dropped = Arc::new(AtomicU64::new(0));
        let worker = Worker {
            path: path.clone(),
            policy,
            placement,
            on_error,
            dropped: Arc::clone(&dropped),
            database: None,
            failed_at: None,
            first_error: None,
            pending: Vec::new(),
        };
        Self { path, policy, state: Mutex::new(State::NotStarted(Box::new(worker))), dropped }
    }

    /// Starts the thread if it does not run yet. The thread of a command opens the database at once.
    ///
    /// # Errors
    /// If the thread cannot be started; then `close` returns the error too.
    pub fn start(&self) -> io::Result<()> {
        match &*self.started_state() {
            State::Failed(RecordError::Open { source, .. }) => Err(io::Error::new(source.kind(), source.to_string())),
            _ => Ok(()),
        }
    }

    fn started_state(&self) -> MutexGuard<'_, State> {
        let mut state = self.state.lock();
        if matches!(*state, State::NotStarted(_))
            && let State::NotStarted(worker) = std::mem::replace(&mut *state, State::Closed)
        {
            let (sender, calls) = sync_channel(self.policy.queue_capacity);
            let thread = std::thread::Builder::new().name("record".into()).spawn(move || worker.run(&calls));
            *state = match thread {
                Ok(thread) => State::Running { sender, thread },
                Err(source) => State::Failed(RecordError::Open { path: self.path.clone(), source }),
            };
        }
        state
    }

    /// Queues a call. It is boxed because the queue is allocated in advance.
    pub fn submit(&self, call: Box<StoredCall>) {
        let sender = match &*self.started_state() {
            State::Running { sender, .. } => Some(sender.clone()),
            _ => None,
        };
        // Sending fails when the thread has ended with an error, which `close` returns.
        let is_queued = sender.is_some_and(|sender| match self.policy.when_full {
            WhenFull::Wait => sender.send(call).is_ok(),
            WhenFull::Drop => sender.try_send(call).is_ok(),
        });
        if !is_queued {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The number of calls dropped so far.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// The spend of the client key `client` today, by currency.
    pub fn client_spend(&self, client: &str, now: &Zoned) -> Result<Vec<(String, f64)>, RecordError> {
        let database = Database::open_existing(&self.path)?;
        database.map_or(Ok(Vec::new()), |database| database.client_spend(client, now))
    }

    /// Writes the queued calls and stops the thread. Returns where the content of the run is stored, `None` if it is
    /// not, or the first error.
    pub fn close(&self) -> Result<Option<StoredRound>, RecordError> {
        let state = {
            let mut state = self.state.lock();
            std::mem::replace(&mut *state, State::Closed)
        };
        match state {
            State::NotStarted(_) | State::Closed => Ok(None),
            State::Failed(error) => Err(error),
            State::Running { sender, thread } => {
                drop(sender);
                thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            }
        }
    }
}

type OnError = Box<dyn Fn(&RecordError) + Send>;

struct Worker {
    path: PathBuf,
    policy: WritePolicy,
    /// The placement of the content of one run; `None`: the calls are independent.
    placement: Option<RunPlacement>,
    /// Receives the errors of writes as they happen.
    on_error: Option<OnError>,
    dropped: Arc<AtomicU64>,
    database: Option<Database>,
    /// The time of the last failure; `None` if the last write succeeded.
    failed_at: Option<Instant>,
    /// The first error of a call that was dropped.
    first_error: Option<RecordError>,
    /// Calls to write.
    #[expect(clippy::vec_box, reason = "the queue holds boxes")]
    pending: Vec<Box<StoredCall>>,
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker").field("path", &self.path).field("policy", &self.policy).finish_non_exhaustive()
    }
}

impl Worker {
    fn run(mut self, calls: &Receiver<Box<StoredCall>>) -> WriteResult {
        if self.policy.retry_interval.is_none() {
            // The answer is still arriving: opening the database now does not delay the end of the command.
            self.open_database()?;
        }
        while self.receive(calls) {
            self.collect_batch(calls);
            if self.failed_at.is_none_or(|failed| failed.elapsed() >= self.policy.retry_interval.unwrap_or_default()) {
                self.write_pending();
            }
            self.drop_oldest(self.pending.len().saturating_sub(self.policy.queue_capacity));
        }
        // Final attempt before the thread ends.
        if !self.pending.is_empty() {
            self.write_pending();
            self.drop_oldest(self.pending.len());
        }
        self.finish()
    }

    /// Waits for the next call, or for the time to try again; returns whether the queue is still open.
    fn receive(&mut self, calls: &Receiver<Box<StoredCall>>) -> bool {
        // Calls that could not be written are retried even if no new call arrives.
        let next = match self.policy.retry_interval {
            Some(interval) if !self.pending.is_empty() => calls.recv_timeout(interval),
            _ => calls.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        match next {
            Ok(call) => self.pending.push(call),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return false,
        }
        true
    }

    #[expect(clippy::disallowed_methods, reason = "senders do not wake the thread while it sleeps")]
    fn collect_batch(&mut self, calls: &Receiver<Box<StoredCall>>) {
        if !self.policy.batch_delay.is_zero() {
            std::thread::sleep(self.policy.batch_delay);
        }
        self.pending.extend(calls.try_iter().take(self.policy.max_batch.saturating_sub(1)));
    }

    /// Writes the pending calls. If that fails, they stay pending, or are dropped if the policy has no retries.
    fn write_pending(&mut self) {
        let pending = std::mem::take(&mut self.pending);
        let result = self.open_database().and_then(|(database, placement)| match placement {
            Some(placement) => pending.iter().try_for_each(|call| database.insert_call(call, placement)),
            None => database.insert_calls(pending.iter().map(|call| &**call)),
        });
        let Err(error) = result else {
            self.failed_at = None;
            return;
        };
        if let Some(on_error) = &self.on_error {
            on_error(&error);
        }
        if self.policy.retry_interval.is_some() {
            (self.pending, self.database, self.failed_at) = (pending, None, Some(Instant::now()));
            return;
        }
        self.dropped.fetch_add(pending.len() as u64, Ordering::Relaxed);
        self.first_error.get_or_insert(error);
        if let Some(database) = &self.database {
            // The next call is tried with a shorter timeout; with the old one if that cannot be set.
            let _ = database.use_short_timeout();
        }
    }

    /// Drops the oldest calls and counts them.
    fn drop_oldest(&mut self, count: usize) {
        self.pending.drain(..count);
        self.dropped.fetch_add(count as u64, Ordering::Relaxed);
    }

    fn open_database(&mut self) -> Result<(&mut Database, Option<&mut RunPlacement>), RecordError> {
        // Data written to a removed file is lost. A run does not go on in a new file: it reports the loss at its end.
        let was_removed = self.placement.is_none() && self.database.is_some() && !self.path.exists();
        if self.database.is_none() || was_removed {
            self.database = None;
            self.database = Some(Database::open(&self.path)?);
        }
        Ok((self.database.as_mut().expect("just opened"), self.placement.as_mut()))
    }

    fn finish(&mut self) -> WriteResult {
        if let Some(error) = self.first_error.take() {
            return Err(error);
        }
        let Some(database) = &mut self.database else { return Ok(None) };
        if let Some(days) = self.policy.retention_days {
            remove_old_content(database, days)?;
        }
        database.checkpoint_if_large()?;
        let Some(placement) = self.placement.take() else { return Ok(None) };
        if placement.was_deleted() {
            return Err(RecordError::ConversationDeleted);
        }
        check_exists(&self.path)?;
        Ok(placement.into_stored_round())
    }
}

fn remove_old_content(database: &mut Database, days: u32) -> Result<(), RecordError> {
    if database.prune(days, Timestamp::now())? == 0 {
        return Ok(());
    }
    match database.purge_deleted() {
        // While another process reads, pruned content stays in the WAL until it is checkpointed.
        Err(RecordError::StillInLog { .. }) => Ok(()),
        result => result,
    }
}

/// Data written to a removed file is lost.
fn check_exists(path: &Path) -> Result<(), RecordError> {
    if path.exists() { Ok(()) } else { Err(RecordError::Removed { path: path.to_owned() }) }
}
