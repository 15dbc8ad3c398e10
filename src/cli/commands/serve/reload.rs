//! Reloads the config of a running server when the file changes or on SIGHUP. An invalid config changes nothing.

use std::{
    io::{IsTerminal, stdin},
    time::Duration,
};

use tokio::time::sleep;

use crate::{
    cli::Context,
    config::{self, Config, ConfigError, ResolvedSettings},
    gateway::{Gateway, Log},
    model::environment::Environment,
    store::watch::FileWatcher,
    term::signals::{ServerSignal, ServerSignals},
};

/// Delay between a change and the reload: the file may still be being written.
const SETTLE_DELAY: Duration = Duration::from_millis(100);

/// The source of the config.
pub(super) struct ConfigSource {
    environment: Environment,
    settings: ResolvedSettings,
    /// Overrides `listen` of the file.
    listen_override: Option<String>,
    /// Whether the first config was read from a file.
    from_file: bool,
    /// Whether the server was started at a terminal.
    at_terminal: bool,
}

impl ConfigSource {
    /// `from_file`: whether the first config was read from the file.
    pub(super) fn new(
        environment: Environment,
        settings: ResolvedSettings,
        listen_override: Option<String>,
        from_file: bool,
    ) -> Self {
        Self { environment, settings, listen_override, from_file, at_terminal: stdin().is_terminal() }
    }

    /// Keeps the gateway up to date with the config until a stop signal.
    pub(super) async fn follow(&self, gateway: &Gateway, log: &Log, signals: &mut ServerSignals) {
        let mut last_text = self.read_text();
        let mut watcher = self.start_watcher(log);
        loop {
            let is_requested = tokio::select! {
                signal = signals.next() => match signal {
                    ServerSignal::Stop => return,
                    // The terminal was closed: SIGHUP means stop.
                    ServerSignal::Reload if self.at_terminal && !stdin().is_terminal() => return,
                    ServerSignal::Reload => true,
                },
                () = wait_for_change(&mut watcher) => false,
            };
            sleep(SETTLE_DELAY).await;
            let text = self.read_text();
            // A notification may be about another file in the directory.
            if is_requested || text != last_text {
                // Resolving a key may run a slow command; a stop signal must not wait for it.
                tokio::select! {
                    () = self.reload(gateway, log) => {}
                    () = wait_for_stop(signals) => return,
                }
                last_text = text;
            }
        }
    }

    async fn reload(&self, gateway: &Gateway, log: &Log) {
        let old_listen = gateway.listen_address();
        let result = match self.load() {
            Ok(config) => {
                let listen = config.serve.listen.clone();
                let warnings = config.warnings.clone();
                gateway.reload(config).await.map(|()| (listen, warnings)).map_err(|error| error.to_string())
            }
            Err(error) => Err(error_text(&error)),
        };
        gateway.count_reload(result.is_ok());
        match result {
            Ok((listen, warnings)) => {
                log.event("reloaded", "requests in flight keep the previous config");
                for warning in &warnings {
                    log.event("warning", warning);
                }
                if listen != old_listen {
                    log.event("warning", "`listen` changed: restart to apply it");
                }
            }
            Err(reason) => log.event("reload-refused", &format!("{reason}; the previous config stays active")),
        }
    }

    fn load(&self) -> Result<Config, ConfigError> {
        let mut config = match Context::read_config(&self.settings)? {
            Some((path, text)) => config::resolve(&text, &path)?,
            // Without the file the server would have no client keys and accept every client.
            None if self.from_file => {
                let path = self.settings.config.value.clone().unwrap_or_default();
                return Err(ConfigError::Read { path, reason: "the file no longer exists".into() });
            }
            None => config::from_environment(&self.environment)?,
        };
        if let Some(listen) = &self.listen_override {
            config.serve.listen.clone_from(listen);
        }
        Ok(config)
    }

    /// The text of the file; `None` when it is missing or unreadable.
    fn read_text(&self) -> Option<String> {
        Context::read_config(&self.settings).ok().flatten().map(|(_, text)| text)
    }

    fn start_watcher(&self, log: &Log) -> Option<FileWatcher> {
        let path = self.settings.config.value.as_ref()?;
        match FileWatcher::new(path) {
            Ok(watcher) => Some(watcher),
            Err(_) if !self.from_file && !path.exists() => None,
            Err(error) => {
                log.event("warning", &format!("cannot watch {}: {error}; send SIGHUP to reload it", path.display()));
                None
            }
        }
    }
}

/// Waits for a stop signal.
async fn wait_for_stop(signals: &mut ServerSignals) {
    while signals.next().await != ServerSignal::Stop {}
}

async fn wait_for_change(watcher: &mut Option<FileWatcher>) {
    match watcher {
        Some(watcher) => watcher.changed().await,
        None => std::future::pending().await,
    }
}

/// All problems of a config, each with its line and column.
fn error_text(error: &ConfigError) -> String {
    let ConfigError::Invalid { path, problems } = error else { return error.to_string() };
    let texts = problems.iter().map(|problem| {
        let (line, column) = problem.line_column();
        format!("{}:{line}:{column}: {problem}", path.display())
    });
    texts.collect::<Vec<_>>().join("; ")
}
