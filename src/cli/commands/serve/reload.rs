//! Reloads the config of a running server when the file changes or on SIGHUP. An invalid config changes nothing.

use std::{
    io::{IsTerminal, stdin},
    path::PathBuf,
    pin::pin,
    time::Duration,
};

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use tokio::time::{Instant, sleep};

use super::key_warnings::key_warnings;
use crate::{
    cli::Context,
    config::{Config, ConfigError, ConfigLayers, ConfigText, ResolvedSettings},
    gateway::{Gateway, Log},
    model::environment::Environment,
    store::watch::FileWatcher,
    term::server_signals::{ServerSignal, ServerSignals},
};

/// A changed config is used when it has not changed for this long: a half-written one could lack the limits of a client.
const SETTLE_TIME: Duration = Duration::from_secs(1);
/// The same for a text that looks like the first part of a longer one.
const TRUNCATED_SETTLE_TIME: Duration = Duration::from_secs(10);

/// The source of the config.
pub(super) struct ConfigSource {
    environment: Environment,
    settings: ResolvedSettings,
    /// Overrides `listen` of the file.
    listen_override: Option<String>,
    /// The files of the first config.
    paths: Vec<PathBuf>,
    /// Whether the server was started at a terminal.
    at_terminal: bool,
}

/// The texts of the files; `None` when one is unreadable.
fn texts(layers: &Result<ConfigLayers, ConfigError>) -> Option<Vec<ConfigText>> {
    let layers = layers.as_ref().ok()?;
    Some(layers.system.iter().chain(&layers.user).cloned().collect())
}

impl ConfigSource {
    /// `paths`: the files that the first config was read from.
    pub(super) fn new(
        environment: Environment,
        settings: ResolvedSettings,
        listen_override: Option<String>,
        paths: Vec<PathBuf>,
    ) -> Self {
        Self { environment, settings, listen_override, paths, at_terminal: stdin().is_terminal() }
    }

    /// Keeps the gateway up to date with the config until a stop signal.
    pub(super) async fn follow(&self, gateway: &Gateway, log: &Log, signals: &mut ServerSignals) {
        let mut last_texts = texts(&self.read_layers());
        let mut watchers = self.start_watchers(log);
        let mut requested_meanwhile = false;
        loop {
            let mut is_requested = std::mem::take(&mut requested_meanwhile);
            if !is_requested {
                tokio::select! {
                    signal = self.next_signal(signals) => match signal {
                        ServerSignal::Stop => return,
                        ServerSignal::Reload => is_requested = true,
                    },
                    () = wait_for_change(&mut watchers) => {}
                }
            }
            let layers = loop {
                tokio::select! {
                    layers = self.settled_layers(last_texts.as_ref(), is_requested) => break layers,
                    signal = self.next_signal(signals) => match signal {
                        ServerSignal::Stop => return,
                        ServerSignal::Reload => is_requested = true,
                    },
                }
            };
            let texts = texts(&layers);
            // A notification may be about another file in the folder.
            if is_requested || texts != last_texts {
                // Resolving a key may run a slow command; a stop signal must not wait for it.
                let mut reload = pin!(self.reload(layers, gateway, log));
                loop {
                    tokio::select! {
                        () = reload.as_mut() => break,
                        signal = self.next_signal(signals) => match signal {
                            ServerSignal::Stop => return,
                            ServerSignal::Reload => requested_meanwhile = true,
                        },
                    }
                }
                last_texts = texts;
            }
        }
    }

    /// The next signal. SIGHUP means stop if the terminal of the server was closed.
    async fn next_signal(&self, signals: &mut ServerSignals) -> ServerSignal {
        let signal = signals.next().await;
        let is_closed = self.at_terminal && !stdin().is_terminal();
        if is_closed { ServerSignal::Stop } else { signal }
    }

    async fn reload(&self, layers: Result<ConfigLayers, ConfigError>, gateway: &Gateway, log: &Log) {
        let result = match layers.and_then(|layers| self.resolve(&layers)) {
            Ok(config) => {
                let mut warnings = config.warnings.clone();
                warnings.extend(key_warnings(&self.environment, &config));
                let restart = gateway.settings_that_need_a_restart(&config);
                warnings.extend(restart.iter().map(|setting| format!("{setting} changed: restart to apply it")));
                gateway.reload(config).await.map(|()| warnings).map_err(|error| error.to_string())
            }
            Err(error) => Err(error_text(&error)),
        };
        gateway.count_reload(result.is_ok());
        match result {
            Ok(warnings) => {
                log.event("reloaded", "requests in flight keep the previous config");
                for warning in &warnings {
                    log.event("warning", warning);
                }
            }
            Err(reason) => log.event("reload-refused", &format!("{reason}; the previous config stays active")),
        }
    }

    fn resolve(&self, layers: &ConfigLayers) -> Result<Config, ConfigError> {
        // Without a file of the first config the server could have no client keys and accept every client.
        if let Some(path) = self.paths.iter().find(|path| !layers.paths().contains(&path.as_path())) {
            return Err(ConfigError::Read { path: path.clone(), reason: "the file no longer exists".into() });
        }
        let mut config = layers.resolve()?;
        if let Some(listen) = &self.listen_override {
            config.serve.listen.clone_from(listen);
        }
        Ok(config)
    }

    fn read_layers(&self) -> Result<ConfigLayers, ConfigError> {
        Context::layers(&self.environment, &self.settings)
    }

    /// The files once they have stopped changing. `last`: the texts in use. `is_requested`: a signal asks for
    /// them, so they are complete.
    async fn settled_layers(
        &self,
        last: Option<&Vec<ConfigText>>,
        is_requested: bool,
    ) -> Result<ConfigLayers, ConfigError> {
        let (mut layers, mut unchanged_since) = (self.read_layers(), Instant::now());
        while texts(&layers).as_ref() != last {
            sleep(SETTLE_TIME).await;
            let next = self.read_layers();
            let next_texts = texts(&next);
            if next_texts != texts(&layers) {
                (layers, unchanged_since) = (next, Instant::now());
                continue;
            }
            let is_truncated = !is_requested && may_be_truncated(last, next_texts.as_ref());
            let settle_time = if is_truncated { TRUNCATED_SETTLE_TIME } else { SETTLE_TIME };
            if unchanged_since.elapsed() >= settle_time {
                return next;
            }
        }
        layers
    }

    /// Watches the files of the first config, and the file of the user, which may be created later.
    fn start_watchers(&self, log: &Log) -> Vec<FileWatcher> {
        let user = self.settings.config.value.iter();
        let others = self.paths.iter().filter(|path| Some(*path) != self.settings.config.value.as_ref());
        let start = |path: &PathBuf| match FileWatcher::new(path) {
            Ok(watcher) => Some(watcher),
            Err(_) if !self.paths.contains(path) && !path.exists() => None,
            Err(error) => {
                log.event("warning", &format!("cannot watch {}: {error}; send SIGHUP to reload it", path.display()));
                None
            }
        };
        user.chain(others).filter_map(start).collect()
    }
}

/// Whether one of the new texts may be the first part of one that is still being written.
fn may_be_truncated(old: Option<&Vec<ConfigText>>, new: Option<&Vec<ConfigText>>) -> bool {
    let new_text = |path: &PathBuf| new?.iter().find(|new| new.path == *path).map(|new| new.text.as_str());
    old.is_some_and(|old| old.iter().any(|old| new_text(&old.path).is_some_and(|new| ends_early(&old.text, new))))
}

/// Whether `new` is shorter than `old` and does not end as it does.
fn ends_early(old: &str, new: &str) -> bool {
    fn last_line(text: &str) -> Option<&str> {
        text.trim_end().lines().next_back()
    }
    new.len() < old.len() && last_line(new) != last_line(old)
}

/// Waits for a change of any of the files; never returns without a watcher.
async fn wait_for_change(watchers: &mut [FileWatcher]) {
    let mut changes: FuturesUnordered<_> = watchers.iter_mut().map(FileWatcher::changed).collect();
    if changes.next().await.is_none() {
        std::future::pending::<()>().await;
    }
}

/// All problems of a config, each with its line and column.
fn error_text(error: &ConfigError) -> String {
    let ConfigError::Invalid { problems, .. } = error else { return error.to_string() };
    let texts = problems.iter().map(|problem| {
        let (line, column) = problem.line_column();
        format!("{}:{line}:{column}: {problem}", problem.path().display())
    });
    texts.collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_that_ends_early_may_be_truncated() {
        let old = "[serve.keys.team]\napi_key = \"k\"\nmodels = [\"chat\"]\n";
        for truncated in ["", "[serve.keys.team]\napi_key = \"k\"\n", "[serve.keys.team]\napi_key = \"other\"\nmod"] {
            assert!(ends_early(old, truncated), "{truncated}");
        }
        for complete in [old, "[serve.keys.team]\nmodels = [\"chat\"]\n\n", &format!("{old}rpm = 9\n")] {
            assert!(!ends_early(old, complete), "{complete}");
        }
    }
}
