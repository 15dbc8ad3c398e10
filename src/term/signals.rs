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

use futures_util::FutureExt;
use tokio::sync::Notify;

/// How long a command may take to show what arrived, and a process that must be ended to leave the terminal as it was.
const PATIENCE: Duration = Duration::from_secs(1);

/// The wish to end, for as long as this is held. To be dropped last: a process that hangs after that cannot be ended.
#[derive(Debug)]
pub struct Interruption {
    shared: Arc<Shared>,
    /// Its end tells the signals' thread that the command came to its own; a word on it, that one of several wishes was
    /// heard.
    busy: mpsc::Sender<()>,
}

#[derive(Debug, Default)]
struct Shared {
    signal: Notify,
    /// Somebody waits for it, or will come to it.
    heeded: AtomicBool,
    /// The process goes on after a signal that was heard.
    goes_on: AtomicBool,
    /// There is one that nobody heard yet.
    pending: AtomicBool,
    /// One of them was about the process and not about what it is busy with.
    ended: Arc<AtomicBool>,
}

impl Interruption {
    /// Listens from now on. `code` is the exit code of a process that must be ended, which does `last` first.
    pub fn listen(code: i32, last: impl Fn() + Send + 'static) -> io::Result<Self> {
        let (shared, (busy, over)) = (Arc::new(Shared::default()), mpsc::channel());
        let heard = Arc::clone(&shared);
        // On a thread of its own: the one that works may be stuck.
        let listening = ctrlc::set_handler(move || {
            heard.pending.store(true, Ordering::Relaxed);
            heard.signal.notify_one();
            let limit = if heard.heeded.load(Ordering::Relaxed) { PATIENCE } else { Duration::ZERO };
            if over.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
                last();
                end(code);
            }
        });
        listening.map_err(io::Error::other)?;
        Ok(Self { shared, busy })
    }

    /// The process goes on after a signal that was heard: only what it was busy with comes to an end.
    pub fn going_on(self) -> io::Result<Self> {
        self.shared.goes_on.store(true, Ordering::Relaxed);
        self.shared.heeded.store(true, Ordering::Relaxed);
        #[cfg(unix)]
        for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGHUP] {
            signal_hook::flag::register(signal, Arc::clone(&self.shared.ended))?;
        }
        Ok(self)
    }

    /// Whether the system wants the process itself to end.
    #[must_use]
    pub fn is_end(&self) -> bool {
        self.shared.ended.load(Ordering::Relaxed)
    }

    /// The process waits for a person from now on: the next signal ends it. Whether there was one that nobody heard.
    #[must_use]
    pub fn waits(&self) -> bool {
        self.shared.heeded.store(false, Ordering::Relaxed);
        if !self.shared.pending.load(Ordering::Relaxed) {
            return false;
        }
        self.heard();
        // What was noted for whoever waits next is about the past.
        let _ = self.shared.signal.notified().now_or_never();
        true
    }

    /// It is busy again, and will come to signals.
    pub fn works(&self) {
        self.shared.heeded.store(true, Ordering::Relaxed);
    }

    /// Resolves when the person, or the system, wants this process to end, or what it is busy with.
    pub async fn signalled(&self) {
        self.works();
        self.shared.signal.notified().await;
        self.heard();
    }

    fn heard(&self) {
        self.shared.pending.store(false, Ordering::Relaxed);
        if self.shared.goes_on.load(Ordering::Relaxed) {
            // When nobody takes it, nobody waits for it.
            let _ = self.busy.send(());
        }
    }
}

/// Does `act`, and goes on without it where it takes too long: a terminal that is held (Ctrl-S) takes nothing, and may not
/// keep a process from ending.
pub fn in_time(act: impl FnOnce() + Send + 'static) {
    let (done, wait) = mpsc::channel();
    let acting = std::thread::Builder::new().spawn(move || {
        act();
        // Nobody waits any more where it took too long.
        let _ = done.send(());
    });
    if acting.is_ok() {
        let _ = wait.recv_timeout(PATIENCE);
    }
}

/// Does `last` before the process ends by Ctrl-\\, which is for one that hears nothing else: it ends as it would have.
#[cfg(unix)]
pub fn before_quit(last: impl Fn() + Send + 'static) -> io::Result<()> {
    use signal_hook::{consts::SIGQUIT, iterator::Signals, low_level::emulate_default_handler};
    let mut signals = Signals::new([SIGQUIT])?;
    std::thread::Builder::new().spawn(move || {
        for signal in signals.forever() {
            last();
            // It does not come back.
            let _ = emulate_default_handler(signal);
        }
    })?;
    Ok(())
}

/// Elsewhere than on Unix there is no such key.
#[cfg(not(unix))]
pub fn before_quit(_: impl Fn() + Send + 'static) -> io::Result<()> {
    Ok(())
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

/// Whether Ctrl-Z was ever listened to: it does nothing by itself then, as long as the process lives.
#[cfg(unix)]
static SUSPENSION_HEARD: AtomicBool = AtomicBool::new(false);

#[cfg(unix)]
impl Suspension {
    /// Listens, if somebody did before: then nobody else stops the process.
    #[must_use]
    pub fn again() -> Option<Self> {
        SUSPENSION_HEARD.load(Ordering::Relaxed).then(|| Self::listen().ok())?
    }

    /// Listens from now on; inside a runtime.
    pub fn listen() -> io::Result<Self> {
        SUSPENSION_HEARD.store(true, Ordering::Relaxed);
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

/// Resolves when there is a listener, and the person wants the process to stop for a while.
pub async fn suspended(suspension: &mut Option<Suspension>) {
    match suspension {
        Some(suspension) => suspension.signalled().await,
        None => std::future::pending().await,
    }
}

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
    /// There is nothing to listen to.
    #[must_use]
    pub fn again() -> Option<Self> {
        None
    }

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

/// What the system wants of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// To come to an end.
    Stop,
    /// To read its config again.
    Reload,
}

/// Listens to what the system wants of a server.
#[derive(Debug)]
pub struct Wishes {
    #[cfg(unix)]
    signals: [tokio::signal::unix::Signal; 3],
}

#[cfg(unix)]
impl Wishes {
    /// Listens from now on; inside a runtime.
    ///
    /// # Errors
    /// When signals cannot be received.
    pub fn listen() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        let (interrupt, terminate, hangup) = (SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup());
        Ok(Self { signals: [signal(interrupt)?, signal(terminate)?, signal(hangup)?] })
    }

    /// The next wish.
    pub async fn next(&mut self) -> Wish {
        let [interrupt, terminate, hangup] = &mut self.signals;
        tokio::select! {
            _ = interrupt.recv() => Wish::Stop,
            _ = terminate.recv() => Wish::Stop,
            _ = hangup.recv() => Wish::Reload,
        }
    }
}

#[cfg(not(unix))]
impl Wishes {
    /// Never fails.
    pub fn listen() -> io::Result<Self> {
        Ok(Self {})
    }

    /// The next wish; there is but one.
    pub async fn next(&mut self) -> Wish {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending().await
        }
        Wish::Stop
    }
}
