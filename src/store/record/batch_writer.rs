//! Writes the calls of a server in batches on one background thread with one open database.
//!
//! Requests never wait for it: calls that arrive faster than the disk can write them, or while writing fails, are
//! dropped and counted.

use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use jiff::Zoned;

use super::{Database, RecordError, StoredCall};

/// The capacity of the queue: enough for a disk that stalls for a few seconds at some thousand calls per second.
const QUEUE_CAPACITY: usize = 8192;
/// The number of calls taken from the queue for one transaction.
const MAX_BATCH: usize = 4096;
/// How long to collect calls for a batch: writing a thousand costs little more than writing one, and the thread is not
/// woken for each call.
const BATCH_DELAY: Duration = Duration::from_millis(100);
/// The time between attempts to write after the database failed.
const RETRY_INTERVAL: Duration = Duration::from_secs(5);

/// Queues calls and writes them in the background.
#[derive(Debug)]
pub struct BatchWriter {
    /// `None` once closed.
    sender: Mutex<Option<SyncSender<Box<StoredCall>>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    dropped: Arc<AtomicU64>,
    path: PathBuf,
}

impl BatchWriter {
    /// Starts the thread that writes to the database at `path` and reports errors to `on_error`.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub fn new(path: PathBuf, on_error: impl Fn(&RecordError) + Send + 'static) -> std::io::Result<Self> {
        let (sender, calls) = sync_channel(QUEUE_CAPACITY);
        let dropped = Arc::new(AtomicU64::new(0));
        let worker = Worker {
            path: path.clone(),
            dropped: Arc::clone(&dropped),
            database: None,
            failed_at: None,
            pending: Vec::new(),
            on_error,
        };
        let thread = std::thread::Builder::new().name("record".into()).spawn(move || worker.run(&calls))?;
        Ok(Self { sender: Mutex::new(Some(sender)), thread: Mutex::new(Some(thread)), dropped, path })
    }

    /// Queues a call. It is boxed because the queue is allocated in advance.
    pub fn submit(&self, call: Box<StoredCall>) {
        let sender = self.sender.lock().expect("no code panics while it holds this lock");
        let queued = sender.as_ref().is_some_and(|sender| sender.try_send(call).is_ok());
        if !queued {
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

    /// Writes the queued calls and stops the thread.
    pub fn close(&self) {
        drop(self.sender.lock().expect("no code panics while it holds this lock").take());
        let thread = self.thread.lock().expect("no code panics while it holds this lock").take();
        if let Some(thread) = thread {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        }
    }
}

struct Worker<T> {
    path: PathBuf,
    dropped: Arc<AtomicU64>,
    database: Option<Database>,
    /// The time of the last failure; `None` if the last write succeeded.
    failed_at: Option<Instant>,
    /// Calls to write.
    #[expect(clippy::vec_box, reason = "the queue holds boxes")]
    pending: Vec<Box<StoredCall>>,
    on_error: T,
}

impl<T: Fn(&RecordError)> Worker<T> {
    #[expect(clippy::disallowed_methods, reason = "senders do not wake the thread while it sleeps")]
    fn run(mut self, calls: &Receiver<Box<StoredCall>>) {
        loop {
            // Calls that could not be written are retried even if no new call arrives.
            let next = if self.pending.is_empty() {
                calls.recv().map_err(|_| RecvTimeoutError::Disconnected)
            } else {
                calls.recv_timeout(RETRY_INTERVAL)
            };
            match next {
                Ok(first) => self.pending.push(first),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            std::thread::sleep(BATCH_DELAY);
            self.pending.extend(calls.try_iter().take(MAX_BATCH));
            if self.failed_at.is_none_or(|failed| failed.elapsed() >= RETRY_INTERVAL) {
                self.write_pending();
            }
            self.drop_oldest(self.pending.len().saturating_sub(QUEUE_CAPACITY));
        }
        // Final attempt before the thread ends.
        if !self.pending.is_empty() {
            self.write_pending();
            self.drop_oldest(self.pending.len());
        }
        if let Some(database) = &self.database
            && let Err(error) = database.checkpoint_if_large()
        {
            (self.on_error)(&error);
        }
    }

    /// Writes the pending calls; they stay pending if that fails.
    fn write_pending(&mut self) {
        let pending = std::mem::take(&mut self.pending);
        match self.open_database().and_then(|database| database.insert_calls(pending.iter().map(|call| &**call))) {
            Ok(()) => self.failed_at = None,
            Err(error) => {
                (self.on_error)(&error);
                (self.pending, self.database, self.failed_at) = (pending, None, Some(Instant::now()));
            }
        }
    }

    /// Drops the oldest calls and counts them.
    fn drop_oldest(&mut self, count: usize) {
        self.pending.drain(..count);
        self.dropped.fetch_add(count as u64, Ordering::Relaxed);
    }

    fn open_database(&mut self) -> Result<&mut Database, RecordError> {
        // Data written to a removed file is lost.
        if self.database.is_none() || !self.path.exists() {
            self.database = None;
            self.database = Some(Database::open(&self.path)?);
        }
        Ok(self.database.as_mut().expect("just opened"))
    }
}
