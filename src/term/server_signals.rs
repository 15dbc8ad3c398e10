//! Receives the signals of a server: to stop, and to reload the config.

use std::io;

/// Signal to a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ServerSignal {
    /// Shut down.
    Stop,
    /// Reload the config.
    Reload,
}

/// Receives the signals of a server: SIGINT, SIGTERM and SIGHUP; on Windows Ctrl-C, Ctrl-Break and a closed console.
pub(crate) struct ServerSignals {
    #[cfg(unix)]
    signals: [tokio::signal::unix::Signal; 3],
    #[cfg(windows)]
    signals: super::signals::EndSignals,
}

#[cfg(unix)]
impl ServerSignals {
    /// Installs the handlers. Must be called in a tokio runtime.
    ///
    /// # Errors
    /// If a handler cannot be installed.
    pub(crate) fn listen() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        let (interrupt, terminate, hangup) = (SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup());
        Ok(Self { signals: [signal(interrupt)?, signal(terminate)?, signal(hangup)?] })
    }

    /// Resolves with the next signal.
    pub(crate) async fn next(&mut self) -> ServerSignal {
        let [interrupt, terminate, hangup] = &mut self.signals;
        tokio::select! {
            _ = interrupt.recv() => ServerSignal::Stop,
            _ = terminate.recv() => ServerSignal::Stop,
            _ = hangup.recv() => ServerSignal::Reload,
        }
    }
}

#[cfg(windows)]
impl ServerSignals {
    /// Installs the handlers. Must be called in a tokio runtime.
    ///
    /// # Errors
    /// If a handler cannot be installed.
    pub(crate) fn listen() -> io::Result<Self> {
        super::signals::EndSignals::listen().map(|signals| Self { signals })
    }

    /// Resolves with the next signal; there is none to reload the config.
    pub(crate) async fn next(&mut self) -> ServerSignal {
        super::signals::SignalStream::next(&mut self.signals).await;
        ServerSignal::Stop
    }
}
