//! Writing calls down in a process that lives on and has many.
//!
//! Owns one thread with one open database, and that nobody ever waits for it: calls that come faster than the disk takes
//! them, or while it takes none, are lost and counted. Refuses to know who asks.

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

use super::{CallRecord, Database, RecordError};

/// As many calls as may wait for their turn: what some thousands a second make in as long as a disk may hesitate.
const WAITING: usize = 8192;
/// As many as are written in one transaction.
const AT_ONCE: usize = 4096;
/// How long a call waits for others to be written with: a thousand cost little more than one, and nobody has to wake the
/// thread for each.
const GATHERED: Duration = Duration::from_millis(100);
/// A database that failed is left alone for so long.
const AGAIN: Duration = Duration::from_secs(5);

/// Takes calls and writes them down.
#[derive(Debug)]
pub struct Scribe {
    /// `None`: it is closed.
    sender: Mutex<Option<SyncSender<Box<CallRecord>>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    lost: Arc<AtomicU64>,
    place: PathBuf,
}

impl Scribe {
    /// A scribe who writes to the record at `place`, and tells `trouble` what keeps that from being done.
    ///
    /// # Errors
    /// When the system has no thread for it.
    pub fn new(place: PathBuf, trouble: impl Fn(&RecordError) + Send + 'static) -> std::io::Result<Self> {
        let (sender, calls) = sync_channel(WAITING);
        let lost = Arc::new(AtomicU64::new(0));
        let work = Work {
            place: place.clone(),
            lost: Arc::clone(&lost),
            database: None,
            failed: None,
            waiting: Vec::new(),
            trouble,
        };
        let thread = std::thread::Builder::new().name("record".into()).spawn(move || work.run(&calls))?;
        Ok(Self { sender: Mutex::new(Some(sender)), thread: Mutex::new(Some(thread)), lost, place })
    }

    /// Hands a call over, to be written when its turn comes. Boxed: the room for those that wait is made in advance.
    pub fn write(&self, call: Box<CallRecord>) {
        let sender = self.sender.lock().expect("no code panics while it holds this lock");
        let taken = sender.as_ref().is_some_and(|sender| sender.try_send(call).is_ok());
        if !taken {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many calls could not be written so far.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// What was spent today with the key of this name, by currency.
    pub fn spent_with(&self, client: &str, now: &Zoned) -> Result<Vec<(String, f64)>, RecordError> {
        let database = Database::open_existing(&self.place)?;
        database.map_or(Ok(Vec::new()), |database| database.spent_with(client, now))
    }

    /// Writes what is still waiting, and takes no more.
    pub fn close(&self) {
        drop(self.sender.lock().expect("no code panics while it holds this lock").take());
        let thread = self.thread.lock().expect("no code panics while it holds this lock").take();
        if let Some(thread) = thread {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        }
    }
}

struct Work<T> {
    place: PathBuf,
    lost: Arc<AtomicU64>,
    database: Option<Database>,
    /// When it last could not be used.
    failed: Option<Instant>,
    /// Calls that are still to be written.
    #[expect(clippy::vec_box, reason = "they come in boxes")]
    waiting: Vec<Box<CallRecord>>,
    trouble: T,
}

impl<T: Fn(&RecordError)> Work<T> {
    #[expect(clippy::disallowed_methods, reason = "while it sleeps, nobody who hands something over has to wake it")]
    fn run(mut self, calls: &Receiver<Box<CallRecord>>) {
        loop {
            // What could not be written is tried again, whether or not anything comes.
            let next = if self.waiting.is_empty() {
                calls.recv().map_err(|_| RecvTimeoutError::Disconnected)
            } else {
                calls.recv_timeout(AGAIN)
            };
            match next {
                Ok(first) => self.waiting.push(first),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            std::thread::sleep(GATHERED);
            self.waiting.extend(calls.try_iter().take(AT_ONCE));
            if self.failed.is_none_or(|failed| failed.elapsed() >= AGAIN) {
                self.write();
            }
            self.lose(self.waiting.len().saturating_sub(WAITING));
        }
        // The last chance there is.
        if !self.waiting.is_empty() {
            self.write();
            self.lose(self.waiting.len());
        }
        if let Some(database) = &self.database
            && let Err(error) = database.settle()
        {
            (self.trouble)(&error);
        }
    }

    /// Writes what waits; what cannot be written waits on.
    fn write(&mut self) {
        let waiting = std::mem::take(&mut self.waiting);
        match self.open().and_then(|database| database.insert_all(waiting.iter().map(|call| &**call))) {
            Ok(()) => self.failed = None,
            Err(error) => {
                (self.trouble)(&error);
                (self.waiting, self.database, self.failed) = (waiting, None, Some(Instant::now()));
            }
        }
    }

    /// Counts the oldest as lost.
    fn lose(&mut self, count: usize) {
        self.waiting.drain(..count);
        self.lost.fetch_add(count as u64, Ordering::Relaxed);
    }

    fn open(&mut self) -> Result<&mut Database, RecordError> {
        // What is written to a file without a name is lost.
        if self.database.is_none() || !self.place.exists() {
            self.database = None;
            self.database = Some(Database::open(&self.place)?);
        }
        Ok(self.database.as_mut().expect("it was just opened"))
    }
}
