//! Writes log lines to standard error on a background thread, so that callers never block.
//!
//! Lines that the reader does not take fast enough are dropped; a `log-lost` line reports their number.

use std::{
    io::{self, Write},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::JoinHandle,
    time::Duration,
};

use super::signals::run_with_timeout;
use parking_lot::Mutex;

/// Capacity of the line queue.
const QUEUE_CAPACITY: usize = 8192;
/// Maximum size of one write, in bytes.
const MAX_WRITE_BYTES: usize = 256 * 1024;
/// Delay to collect lines for one write, so that the thread is not woken for each line.
const BATCH_DELAY: Duration = Duration::from_millis(10);

/// Handle of the log thread.
#[derive(Clone, Debug)]
pub(crate) struct LogWriter(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// `None` after [`LogWriter::close`].
    sender: Mutex<Option<SyncSender<String>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    lost: Arc<AtomicU64>,
}

impl LogWriter {
    /// Starts the thread for standard error.
    ///
    /// # Errors
    /// If the thread cannot be created.
    pub(crate) fn to_stderr() -> io::Result<Self> {
        Self::new(io::stderr())
    }

    fn new(out: impl Write + Send + 'static) -> io::Result<Self> {
        let (sender, lines) = sync_channel(QUEUE_CAPACITY);
        let lost = Arc::new(AtomicU64::new(0));
        let lost_lines = Arc::clone(&lost);
        let thread =
            std::thread::Builder::new().name("log".into()).spawn(move || run_writer(out, &lines, &lost_lines))?;
        let (sender, thread) = (Mutex::new(Some(sender)), Mutex::new(Some(thread)));
        Ok(Self(Arc::new(Shared { sender, thread, lost })))
    }

    /// Queues a line; drops and counts it if the queue is full.
    pub(crate) fn write_line(&self, line: String) {
        let sender = self.0.sender.lock();
        let queued = sender.as_ref().is_some_and(|sender| sender.try_send(line).is_ok());
        if !queued {
            self.0.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Writes the queued lines, waiting up to 1 s for a slow reader, and drops all later ones.
    pub(crate) fn close(&self) {
        drop(self.0.sender.lock().take());
        let thread = self.0.thread.lock().take();
        if let Some(thread) = thread {
            run_with_timeout(move || drop(thread.join()));
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "while the thread sleeps, queuing a line does not have to wake it")]
fn run_writer(mut out: impl Write, lines: &Receiver<String>, lost: &AtomicU64) {
    while let Ok(first) = lines.recv() {
        std::thread::sleep(BATCH_DELAY);
        let mut text = first + "\n";
        while text.len() < MAX_WRITE_BYTES
            && let Ok(next) = lines.try_recv()
        {
            text.push_str(&next);
            text.push('\n');
        }
        let dropped = lost.swap(0, Ordering::Relaxed);
        if dropped > 0 {
            text.push_str(&serde_json::json!({"event": "log-lost", "lines": dropped}).to_string());
            text.push('\n');
        }
        // A server keeps running when its log is not read.
        let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Sender, channel};

    use super::*;

    /// A writer that blocks until the sender of `unblock` is dropped.
    struct BlockedWriter {
        unblock: Receiver<()>,
        written: Sender<Vec<u8>>,
    }

    impl Write for BlockedWriter {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            // An error means that the sender was dropped.
            let _ = self.unblock.recv();
            self.written.send(bytes.to_vec()).map_err(io::Error::other)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn logging_never_blocks_and_dropped_lines_are_reported() {
        let ((release, unblock), (written, writes)) = (channel(), channel());
        let log = LogWriter::new(BlockedWriter { unblock, written }).expect("thread starts");
        for number in 0..QUEUE_CAPACITY * 2 {
            log.write_line(number.to_string());
        }
        drop(release);
        log.close();
        let text = writes.iter().flatten().collect::<Vec<_>>();
        let text = String::from_utf8(text).expect("valid UTF-8");
        assert!(text.starts_with("0\n1\n"), "{}", &text[..20]);
        assert!(text.contains("log-lost"));
    }
}
