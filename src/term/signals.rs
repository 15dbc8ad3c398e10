//! Handles Ctrl-C on all platforms, and SIGTERM, SIGHUP, SIGQUIT, SIGTSTP and SIGXFSZ on Unix.
//!
//! A command that awaits signals has 1 s to finish. A command that does not finish, such as one blocked in a write, is
//! ended then; one that waits for user input is ended at once.

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

/// Time limit for a command to print its partial answer, and for a process to restore the terminal before it is ended.
const EXIT_TIMEOUT: Duration = Duration::from_secs(1);

/// Signal handler, active until dropped. Must be dropped last: a process that hangs after that cannot be interrupted.
#[derive(Debug)]
pub struct InterruptHandler {
    shared: Arc<Shared>,
    /// Dropping the sender tells the signal thread that the command finished; a message tells it that one of several
    /// signals was handled.
    ack: mpsc::Sender<()>,
}

#[derive(Debug, Default)]
struct Shared {
    signal: Notify,
    /// The command awaits signals, or will do so soon.
    handler_ready: AtomicBool,
    /// The process continues after a handled signal.
    process_continues: AtomicBool,
    /// A signal has not been handled yet.
    pending: AtomicBool,
    /// SIGTERM or SIGHUP was received: the process itself must end.
    termination_requested: Arc<AtomicBool>,
}

impl InterruptHandler {
    /// Installs the handler. A process that does not finish in time calls `cleanup` and exits with `code`.
    pub fn listen(code: i32, cleanup: impl Fn() + Send + 'static) -> io::Result<Self> {
        let (shared, (ack, acked)) = (Arc::new(Shared::default()), mpsc::channel());
        let state = Arc::clone(&shared);
        // Runs on a separate thread, because the main thread may be blocked.
        let installed = ctrlc::set_handler(move || {
            state.pending.store(true, Ordering::Relaxed);
            state.signal.notify_one();
            let limit = if state.handler_ready.load(Ordering::Relaxed) { EXIT_TIMEOUT } else { Duration::ZERO };
            if acked.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
                cleanup();
                exit_process(code);
            }
        });
        installed.map_err(io::Error::other)?;
        Ok(Self { shared, ack })
    }

    /// Lets the process continue after a handled signal, which then cancels only the current work.
    pub fn keep_process_running(self) -> io::Result<Self> {
        self.shared.process_continues.store(true, Ordering::Relaxed);
        self.shared.handler_ready.store(true, Ordering::Relaxed);
        #[cfg(unix)]
        for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGHUP] {
            signal_hook::flag::register(signal, Arc::clone(&self.shared.termination_requested))?;
        }
        Ok(self)
    }

    /// Whether SIGTERM or SIGHUP was received, so that the process itself must end.
    #[must_use]
    pub fn is_termination_requested(&self) -> bool {
        self.shared.termination_requested.load(Ordering::Relaxed)
    }

    /// Marks the process as waiting for user input, so that the next signal ends it. Returns whether an unhandled
    /// signal was pending.
    #[must_use]
    pub fn enter_idle(&self) -> bool {
        self.shared.handler_ready.store(false, Ordering::Relaxed);
        if !self.shared.pending.load(Ordering::Relaxed) {
            return false;
        }
        self.acknowledge();
        // Discards the stored notification of the pending signal.
        let _ = self.shared.signal.notified().now_or_never();
        true
    }

    /// Marks the process as busy and about to await signals.
    pub fn enter_busy(&self) {
        self.shared.handler_ready.store(true, Ordering::Relaxed);
    }

    /// Resolves on the next signal.
    pub async fn received(&self) {
        self.enter_busy();
        self.shared.signal.notified().await;
        self.acknowledge();
    }

    fn acknowledge(&self) {
        self.shared.pending.store(false, Ordering::Relaxed);
        if self.shared.process_continues.load(Ordering::Relaxed) {
            // An error means that the handler does not wait.
            let _ = self.ack.send(());
        }
    }
}

/// Runs `action` on another thread and waits for it up to 1 s: a terminal paused with Ctrl-S blocks writes and must
/// not keep a process from ending.
pub fn run_with_timeout(action: impl FnOnce() + Send + 'static) {
    let (sender, done) = mpsc::channel();
    let spawned = std::thread::Builder::new().spawn(move || {
        action();
        // An error means that the wait timed out.
        let _ = sender.send(());
    });
    if spawned.is_ok() {
        let _ = done.recv_timeout(EXIT_TIMEOUT);
    }
}

/// Calls `cleanup` on SIGQUIT (Ctrl-\\), before its default action ends the process.
#[cfg(unix)]
pub fn on_sigquit(cleanup: impl Fn() + Send + 'static) -> io::Result<()> {
    use signal_hook::{consts::SIGQUIT, iterator::Signals, low_level::emulate_default_handler};
    let mut signals = Signals::new([SIGQUIT])?;
    std::thread::Builder::new().spawn(move || {
        for signal in signals.forever() {
            cleanup();
            // Does not return.
            let _ = emulate_default_handler(signal);
        }
    })?;
    Ok(())
}

/// There is no SIGQUIT on other platforms.
#[cfg(not(unix))]
pub fn on_sigquit(_: impl Fn() + Send + 'static) -> io::Result<()> {
    Ok(())
}

/// Saved terminal mode. Interactive prompts disable the echo and hide the cursor.
#[derive(Clone, Debug)]
pub struct TerminalState {
    #[cfg(unix)]
    modes: Option<rustix::termios::Termios>,
}

impl TerminalState {
    /// Saves the current mode.
    #[must_use]
    pub fn save() -> Self {
        Self {
            #[cfg(unix)]
            modes: rustix::termios::tcgetattr(io::stdin()).ok(),
        }
    }

    /// Restores the saved mode and shows the cursor. Errors are ignored: the terminal may be closed.
    pub fn restore(&self) {
        #[cfg(unix)]
        if let Some(modes) = &self.modes {
            let _ = rustix::termios::tcsetattr(io::stdin(), rustix::termios::OptionalActions::Now, modes);
        }
        super::output::write_stderr("\u{1b}[?25h");
    }
}

/// Receives SIGTSTP (Ctrl-Z), so that the live region can be erased before the process is suspended.
#[cfg(unix)]
#[derive(Debug)]
pub struct SuspendSignal(tokio::signal::unix::Signal);

/// Whether a SIGTSTP handler was ever installed: from then on the signal no longer suspends the process by default.
#[cfg(unix)]
static SUSPEND_HANDLER_INSTALLED: AtomicBool = AtomicBool::new(false);

#[cfg(unix)]
impl SuspendSignal {
    /// Listens if SIGTSTP was handled before in this process, because its default action is then disabled.
    #[must_use]
    pub fn listen_if_handled() -> Option<Self> {
        SUSPEND_HANDLER_INSTALLED.load(Ordering::Relaxed).then(|| Self::listen().ok())?
    }

    /// Installs the handler. Must be called in a tokio runtime.
    pub fn listen() -> io::Result<Self> {
        SUSPEND_HANDLER_INSTALLED.store(true, Ordering::Relaxed);
        let kind = tokio::signal::unix::SignalKind::from_raw(rustix::process::Signal::TSTP.as_raw());
        tokio::signal::unix::signal(kind).map(Self)
    }

    /// Resolves on the next SIGTSTP.
    pub async fn received(&mut self) {
        self.0.recv().await;
    }
}

/// Handles SIGXFSZ, so that a write over the file size limit (`ulimit -f`) is an I/O error and does not end the
/// process. Must be called in a tokio runtime; lasts until the process ends.
#[cfg(unix)]
pub fn handle_file_size_signal() {
    let kind = tokio::signal::unix::SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw());
    // On an error, the signal keeps its default action.
    drop(tokio::signal::unix::signal(kind));
}

/// There is no SIGXFSZ on other platforms.
#[cfg(not(unix))]
pub fn handle_file_size_signal() {}

/// Resolves on the next SIGTSTP; never without a handler.
pub async fn suspend_requested(signal: &mut Option<SuspendSignal>) {
    match signal {
        Some(signal) => signal.received().await,
        None => std::future::pending().await,
    }
}

/// Suspends this process until SIGCONT.
#[cfg(unix)]
pub fn suspend_process() {
    // On an error, the process continues.
    let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::STOP);
}

/// There is no SIGTSTP on other platforms.
#[cfg(not(unix))]
#[derive(Debug)]
pub struct SuspendSignal;

#[cfg(not(unix))]
impl SuspendSignal {
    /// Always `None`.
    #[must_use]
    pub fn listen_if_handled() -> Option<Self> {
        None
    }

    /// Never fails.
    pub fn listen() -> io::Result<Self> {
        Ok(Self)
    }

    /// Never resolves.
    pub async fn received(&mut self) {
        std::future::pending().await
    }
}

/// Does nothing.
#[cfg(not(unix))]
pub fn suspend_process() {}

#[expect(clippy::disallowed_methods, reason = "the main thread is blocked and cannot return an exit code")]
fn exit_process(code: i32) {
    std::process::exit(code);
}

/// Signal to a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerSignal {
    /// Shut down.
    Stop,
    /// Reload the config.
    Reload,
}

/// Receives the signals of a server: SIGINT, SIGTERM and SIGHUP.
#[derive(Debug)]
pub struct ServerSignals {
    #[cfg(unix)]
    signals: [tokio::signal::unix::Signal; 3],
}

#[cfg(unix)]
impl ServerSignals {
    /// Installs the handlers. Must be called in a tokio runtime.
    ///
    /// # Errors
    /// If a handler cannot be installed.
    pub fn listen() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        let (interrupt, terminate, hangup) = (SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup());
        Ok(Self { signals: [signal(interrupt)?, signal(terminate)?, signal(hangup)?] })
    }

    /// Resolves with the next signal.
    pub async fn next(&mut self) -> ServerSignal {
        let [interrupt, terminate, hangup] = &mut self.signals;
        tokio::select! {
            _ = interrupt.recv() => ServerSignal::Stop,
            _ = terminate.recv() => ServerSignal::Stop,
            _ = hangup.recv() => ServerSignal::Reload,
        }
    }
}

#[cfg(not(unix))]
impl ServerSignals {
    /// Never fails.
    pub fn listen() -> io::Result<Self> {
        Ok(Self {})
    }

    /// Resolves on Ctrl-C, the only signal on this platform.
    pub async fn next(&mut self) -> ServerSignal {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending().await
        }
        ServerSignal::Stop
    }
}
