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
    /// Its end tells the signals' thread that the command came to its own; a word on it, that one of several wishes was
    /// heard.
    busy: mpsc::Sender<()>,
    goes_on: bool,
}

#[derive(Debug, Default)]
struct Shared {
    signal: Notify,
    /// Somebody waits for it.
    heeded: AtomicBool,
}

impl Interruption {
    /// Listens from now on. `code` is the exit code of a process that must be ended, which does `last` first.
    pub fn listen(code: i32, last: impl Fn() + Send + 'static) -> io::Result<Self> {
        let (shared, (busy, over)) = (Arc::new(Shared::default()), mpsc::channel());
        let heard = Arc::clone(&shared);
        // On a thread of its own: the one that works may be stuck.
        let listening = ctrlc::set_handler(move || {
            heard.signal.notify_one();
            let limit = if heard.heeded.load(Ordering::Relaxed) { PATIENCE } else { Duration::ZERO };
            if over.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
                last();
                end(code);
            }
        });
        listening.map_err(io::Error::other)?;
        Ok(Self { shared, busy, goes_on: false })
    }

    /// The process goes on after a signal that was heard: only what it was busy with comes to an end.
    #[must_use]
    pub fn going_on(mut self) -> Self {
        self.goes_on = true;
        self
    }

    /// Nobody heeds it from now on, until somebody waits for it again: the next one ends the process.
    pub fn unheeded(&self) {
        self.shared.heeded.store(false, Ordering::Relaxed);
    }

    /// Resolves when the person, or the system, wants this process to end, or what it is busy with.
    pub async fn signalled(&self) {
        self.shared.heeded.store(true, Ordering::Relaxed);
        self.shared.signal.notified().await;
        if self.goes_on {
            // When nobody takes it, nobody waits for it.
            let _ = self.busy.send(());
        }
    }
}

/// How the terminal was before questions were asked: they switch its echo off and hide its cursor.
#[derive(Clone, Debug)]
pub struct TerminalState {
    #[cfg(unix)]
    modes: Option<rustix::termios::Termios>,
}

impl TerminalState {
    /// As it is now.
    #[must_use]
    pub fn save() -> Self {
        Self {
            #[cfg(unix)]
            modes: rustix::termios::tcgetattr(io::stdin()).ok(),
        }
    }

    /// Makes it so again. When that fails there is nobody left to tell.
    pub fn restore(&self) {
        #[cfg(unix)]
        if let Some(modes) = &self.modes {
            let _ = rustix::termios::tcsetattr(io::stdin(), rustix::termios::OptionalActions::Now, modes);
        }
        super::output::say("\u{1b}[?25h");
    }
}

/// Ctrl-Z: heard, so that what is on the screen can be taken away before the process stops.
#[cfg(unix)]
#[derive(Debug)]
pub struct Suspension(tokio::signal::unix::Signal);

#[cfg(unix)]
impl Suspension {
    /// Listens from now on; inside a runtime.
    pub fn listen() -> io::Result<Self> {
        let kind = tokio::signal::unix::SignalKind::from_raw(rustix::process::Signal::TSTP.as_raw());
        tokio::signal::unix::signal(kind).map(Self)
    }

    /// Resolves when the person wants the process to stop for a while.
    pub async fn signalled(&mut self) {
        self.0.recv().await;
    }
}

/// A file that may not grow any more (`ulimit -f`) is an error of whoever writes it, not the end of the process. Inside a
/// runtime; lasts as long as the process.
#[cfg(unix)]
pub fn survive_file_limits() {
    let kind = tokio::signal::unix::SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw());
    // Where it cannot be, the process ends as it would have.
    drop(tokio::signal::unix::signal(kind));
}

/// Elsewhere than on Unix there is no such limit.
#[cfg(not(unix))]
pub fn survive_file_limits() {}

/// Stops this process until it is told to go on.
#[cfg(unix)]
pub fn stop_for_a_while() {
    // When it cannot be stopped it goes on, as if it had been told to at once.
    let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::STOP);
}

/// Elsewhere than on Unix there is no such key.
#[cfg(not(unix))]
#[derive(Debug)]
pub struct Suspension;

#[cfg(not(unix))]
impl Suspension {
    /// Never fails.
    pub fn listen() -> io::Result<Self> {
        Ok(Self)
    }

    /// Never resolves.
    pub async fn signalled(&mut self) {
        std::future::pending().await
    }
}

/// Does nothing.
#[cfg(not(unix))]
pub fn stop_for_a_while() {}

#[expect(clippy::disallowed_methods, reason = "whoever could return an exit code is stuck")]
fn end(code: i32) {
    std::process::exit(code);
}
