//! Interruption: Ctrl-C everywhere, and the polite requests to end that Unix knows.
//!
//! Owns the promise that they work whatever the process is busy with. A command that heeds them has a second to come to
//! an end of its own; one that cannot (its write is stuck in a pipe nobody reads, it waits for input) is ended.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, RecvTimeoutError},
    },
    time::Duration,
};

use tokio::sync::Notify;

/// How long a command may take to show what arrived.
const PATIENCE: Duration = Duration::from_secs(1);

/// The wish to end, for as long as this is held. To be dropped last: a process that hangs after that cannot be ended.
#[derive(Debug)]
pub struct Interruption {
    shared: Arc<Shared>,
    /// Its end tells the signals' thread that the command came to its own.
    _busy: mpsc::Sender<()>,
}

#[derive(Debug, Default)]
struct Shared {
    signal: Notify,
    /// Somebody waits for it.
    heeded: AtomicBool,
}

impl Interruption {
    /// Listens from now on. `code` is the exit code of a process that must be ended.
    pub fn listen(code: i32) -> io::Result<Self> {
        let (shared, (busy, over)) = (Arc::new(Shared::default()), mpsc::channel());
        let heard = Arc::clone(&shared);
        // On a thread of its own: the one that works may be stuck.
        let listening = ctrlc::set_handler(move || {
            heard.signal.notify_one();
            let limit = if heard.heeded.load(Ordering::Relaxed) { PATIENCE } else { Duration::ZERO };
            if over.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
                end(code);
            }
        });
        listening.map_err(io::Error::other)?;
        Ok(Self { shared, _busy: busy })
    }

    /// Resolves when the person, or the system, wants this process to end.
    pub async fn signalled(&self) {
        self.shared.heeded.store(true, Ordering::Relaxed);
        self.shared.signal.notified().await;
    }
}

#[expect(clippy::disallowed_methods, reason = "whoever could return an exit code is stuck")]
fn end(code: i32) {
    std::process::exit(code);
}
