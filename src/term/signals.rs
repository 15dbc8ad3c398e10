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

use tokio::sync::Notify;

/// Time limit for a command to print its partial answer, and for a process to restore the terminal before it is ended.
const EXIT_TIMEOUT: Duration = Duration::from_secs(1);

/// Signal handler, active until dropped. Must be dropped last: a process that hangs after that cannot be interrupted.
#[derive(Debug)]
pub(crate) struct InterruptHandler {
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
    termination_requested: AtomicBool,
}

impl InterruptHandler {
    /// Installs the handler. A process that does not finish in time calls `cleanup` and exits with `code`.
    pub(crate) fn listen(code: i32, cleanup: impl Fn() + Send + 'static) -> io::Result<Self> {
        let (shared, (ack, acked)) = (Arc::new(Shared::default()), mpsc::channel());
        let state = Arc::clone(&shared);
        on_signals(EndSignals::listen, move |is_termination| {
            state.termination_requested.fetch_or(is_termination, Ordering::Relaxed);
            state.pending.store(true, Ordering::Relaxed);
            state.signal.notify_one();
            let limit = if state.handler_ready.load(Ordering::Relaxed) { EXIT_TIMEOUT } else { Duration::ZERO };
            if acked.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
                cleanup();
                exit_process(code);
            }
        })?;
        Ok(Self { shared, ack })
    }

    /// Lets the process continue after a handled signal, which then cancels only the current work.
    #[cfg(feature = "chat")]
    #[must_use]
    pub(crate) fn keep_process_running(self) -> Self {
        self.shared.process_continues.store(true, Ordering::Relaxed);
        self.shared.handler_ready.store(true, Ordering::Relaxed);
        self
    }

    /// Whether SIGTERM or SIGHUP was received, so that the process itself must end.
    #[cfg(feature = "chat")]
    #[must_use]
    pub(crate) fn is_termination_requested(&self) -> bool {
        self.shared.termination_requested.load(Ordering::Relaxed)
    }

    /// Marks the process as waiting for user input, so that the next signal ends it. Returns whether an unhandled
    /// signal was pending.
    #[cfg(feature = "chat")]
    #[must_use]
    pub(crate) fn enter_idle(&self) -> bool {
        self.shared.handler_ready.store(false, Ordering::Relaxed);
        if !self.shared.pending.load(Ordering::Relaxed) {
            return false;
        }
        self.acknowledge();
        // Discards the stored notification of the pending signal.
        let _ = futures_util::FutureExt::now_or_never(self.shared.signal.notified());
        true
    }

    /// Marks the process as busy and about to await signals.
    pub(crate) fn enter_busy(&self) {
        self.shared.handler_ready.store(true, Ordering::Relaxed);
    }

    /// Resolves on the next signal.
    pub(crate) async fn received(&self) {
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
pub(crate) fn run_with_timeout(action: impl FnOnce() + Send + 'static) {
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

/// Calls `handle` for each signal of `listen`, on a thread of its own, because the main thread may be blocked.
fn on_signals<S: SignalStream>(
    listen: impl FnOnce() -> io::Result<S>,
    handle: impl Fn(S::Signal) + Send + 'static,
) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let mut signals = {
        let _runtime = runtime.enter();
        listen()?
    };
    let run = move || {
        runtime.block_on(async {
            loop {
                handle(signals.next().await);
            }
        });
    };
    std::thread::Builder::new().name("signals".into()).spawn(run)?;
    Ok(())
}

/// A stream of signals that never ends.
pub(super) trait SignalStream: Send + 'static {
    /// What is known of a signal.
    type Signal;

    /// Resolves with the next signal.
    fn next(&mut self) -> impl Future<Output = Self::Signal>;
}

/// The signals that end a process: Ctrl-C, and SIGTERM and SIGHUP on Unix.
pub(super) struct EndSignals {
    #[cfg(unix)]
    signals: [tokio::signal::unix::Signal; 3],
    #[cfg(windows)]
    signals: (tokio::signal::windows::CtrlC, tokio::signal::windows::CtrlBreak, tokio::signal::windows::CtrlClose),
}

#[cfg(unix)]
impl EndSignals {
    pub(super) fn listen() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        let (interrupt, terminate, hangup) = (SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup());
        Ok(Self { signals: [signal(interrupt)?, signal(terminate)?, signal(hangup)?] })
    }
}

#[cfg(windows)]
impl EndSignals {
    pub(super) fn listen() -> io::Result<Self> {
        use tokio::signal::windows::{ctrl_break, ctrl_c, ctrl_close};
        Ok(Self { signals: (ctrl_c()?, ctrl_break()?, ctrl_close()?) })
    }
}

impl SignalStream for EndSignals {
    /// Whether the process itself must end.
    type Signal = bool;

    #[cfg(unix)]
    async fn next(&mut self) -> bool {
        let [interrupt, terminate, hangup] = &mut self.signals;
        tokio::select! {
            _ = interrupt.recv() => false,
            _ = terminate.recv() => true,
            _ = hangup.recv() => true,
        }
    }

    #[cfg(windows)]
    async fn next(&mut self) -> bool {
        let (interrupt, ctrl_break, close) = &mut self.signals;
        tokio::select! {
            _ = interrupt.recv() => false,
            _ = ctrl_break.recv() => false,
            _ = close.recv() => true,
        }
    }
}

/// Calls `cleanup` on SIGQUIT (Ctrl-\\), and ends the process with the exit code that a shell reports for this signal.
#[cfg(unix)]
pub(crate) fn on_sigquit(cleanup: impl Fn() + Send + 'static) -> io::Result<()> {
    const SHELL_SIGNAL_BASE: i32 = 128;
    let kind = tokio::signal::unix::SignalKind::quit();
    on_signals(
        || tokio::signal::unix::signal(kind),
        move |()| {
            cleanup();
            exit_process(SHELL_SIGNAL_BASE + kind.as_raw_value());
        },
    )
}

#[cfg(unix)]
impl SignalStream for tokio::signal::unix::Signal {
    type Signal = ();

    async fn next(&mut self) {
        // `recv` never returns `None`: the stream of a signal does not end.
        self.recv().await;
    }
}

/// There is no SIGQUIT on other platforms.
#[cfg(not(unix))]
#[allow(clippy::unnecessary_wraps, reason = "the same signature as on Unix")]
pub(crate) fn on_sigquit(_: impl Fn() + Send + 'static) -> io::Result<()> {
    Ok(())
}

/// Saved terminal mode. Interactive prompts disable the echo and hide the cursor.
#[derive(Clone, Debug)]
pub(crate) struct TerminalState {
    #[cfg(unix)]
    modes: Option<rustix::termios::Termios>,
}

impl TerminalState {
    /// Saves the current mode.
    #[must_use]
    pub(crate) fn save() -> Self {
        Self {
            #[cfg(unix)]
            modes: rustix::termios::tcgetattr(io::stdin()).ok(),
        }
    }

    /// Restores the saved mode and shows the cursor. Errors are ignored: the terminal may be closed.
    #[cfg_attr(not(unix), allow(clippy::unused_self, reason = "only Unix has modes to restore"))]
    pub(crate) fn restore(&self) {
        #[cfg(unix)]
        if let Some(modes) = &self.modes {
            let _ = rustix::termios::tcsetattr(io::stdin(), rustix::termios::OptionalActions::Now, modes);
        }
        super::output::write_terminal("\u{1b}[?25h");
    }
}

/// Receives SIGTSTP (Ctrl-Z), so that the live region can be erased before the process is suspended.
#[cfg(unix)]
#[derive(Debug)]
pub(crate) struct SuspendSignal(tokio::signal::unix::Signal);

/// Whether a SIGTSTP handler was ever installed: from then on the signal no longer suspends the process by default.
#[cfg(unix)]
static SUSPEND_HANDLER_INSTALLED: AtomicBool = AtomicBool::new(false);

#[cfg(unix)]
impl SuspendSignal {
    /// Listens if SIGTSTP was handled before in this process, because its default action is then disabled.
    #[must_use]
    pub(crate) fn listen_if_handled() -> Option<Self> {
        SUSPEND_HANDLER_INSTALLED.load(Ordering::Relaxed).then(|| Self::listen().ok())?
    }

    /// Installs the handler. Must be called in a tokio runtime.
    pub(crate) fn listen() -> io::Result<Self> {
        SUSPEND_HANDLER_INSTALLED.store(true, Ordering::Relaxed);
        let kind = tokio::signal::unix::SignalKind::from_raw(rustix::process::Signal::TSTP.as_raw());
        tokio::signal::unix::signal(kind).map(Self)
    }

    /// Resolves on the next SIGTSTP.
    pub(crate) async fn received(&mut self) {
        self.0.recv().await;
    }
}

/// Handles SIGXFSZ, so that a write over the file size limit (`ulimit -f`) is an I/O error and does not end the
/// process. Must be called in a tokio runtime; lasts until the process ends.
#[cfg(unix)]
pub(crate) fn handle_file_size_signal() {
    let kind = tokio::signal::unix::SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw());
    // On an error, the signal keeps its default action.
    drop(tokio::signal::unix::signal(kind));
}

/// There is no SIGXFSZ on other platforms.
#[cfg(not(unix))]
pub(crate) fn handle_file_size_signal() {}

/// Resolves on the next SIGTSTP; never without a handler.
pub(crate) async fn suspend_requested(signal: &mut Option<SuspendSignal>) {
    match signal {
        Some(signal) => signal.received().await,
        None => std::future::pending().await,
    }
}

/// Suspends this process until SIGCONT.
#[cfg(unix)]
pub(crate) fn suspend_process() {
    // On an error, the process continues.
    let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::STOP);
}

/// There is no SIGTSTP on other platforms.
#[cfg(not(unix))]
#[derive(Debug)]
pub(crate) struct SuspendSignal;

#[cfg(not(unix))]
impl SuspendSignal {
    /// Always `None`.
    #[must_use]
    pub(crate) fn listen_if_handled() -> Option<Self> {
        None
    }

    /// Never fails.
    #[allow(clippy::unnecessary_wraps, reason = "the same signature as on Unix")]
    pub(crate) fn listen() -> io::Result<Self> {
        Ok(Self)
    }

    /// Never resolves.
    #[allow(clippy::unused_self, reason = "the same signature as on Unix")]
    pub(crate) async fn received(&mut self) {
        std::future::pending().await
    }
}

/// Does nothing.
#[cfg(not(unix))]
pub(crate) fn suspend_process() {}

#[expect(clippy::disallowed_methods, reason = "the main thread is blocked and cannot return an exit code")]
fn exit_process(code: i32) {
    std::process::exit(code);
}
