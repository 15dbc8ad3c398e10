//! The config of a server that goes on while the file changes.
//!
//! Owns when it is read again (the file is another, or the system says so) and that a bad one changes nothing. Refuses to
//! know what is done with it.

use std::{
    io::{IsTerminal, stdin},
    time::Duration,
};

use tokio::time::sleep;

use crate::{
    cli::Context,
    config::{self, Config, ConfigError, Layers},
    gateway::{Gateway, Log},
    model::environment::Environment,
    store::watch::Watch,
    term::signals::{Wish, Wishes},
};

/// Whoever writes a file may not be done with it.
const SETTLED: Duration = Duration::from_millis(100);

/// Where the config comes from.
pub(super) struct Source {
    environment: Environment,
    layers: Layers,
    /// Where to listen, whatever the file says.
    listen: Option<String>,
    /// There was a file to begin with.
    from_file: bool,
    /// It was started at a terminal.
    at_terminal: bool,
}

impl Source {
    /// `from_file`: the config that is served first was read from it.
    pub(super) fn new(environment: Environment, layers: Layers, listen: Option<String>, from_file: bool) -> Self {
        Self { environment, layers, listen, from_file, at_terminal: stdin().is_terminal() }
    }

    /// Keeps the gateway as the config is, until the system wants it to stop.
    pub(super) async fn follow(&self, gateway: &Gateway, log: &Log, wishes: &mut Wishes) {
        let mut known = self.text();
        let mut watch = self.watch(log);
        loop {
            let asked = tokio::select! {
                wish = wishes.next() => match wish {
                    Wish::Stop => return,
                    // The terminal it was started at is gone.
                    Wish::Reload if self.at_terminal && !stdin().is_terminal() => return,
                    Wish::Reload => true,
                },
                () = changed(&mut watch) => false,
            };
            sleep(SETTLED).await;
            let text = self.text();
            // Whatever else is in its folder may have changed.
            if asked || text != known {
                // A key may take its time to be looked up.
                tokio::select! {
                    () = self.reload(gateway, log) => {}
                    () = stopped(wishes) => return,
                }
                known = text;
            }
        }
    }

    async fn reload(&self, gateway: &Gateway, log: &Log) {
        let before = gateway.listen_at();
        let loaded = match self.load() {
            Ok(config) => {
                let listen = config.serve.listen.clone();
                let warnings = config.warnings.clone();
                gateway.reload(config).await.map(|()| (listen, warnings)).map_err(|error| error.to_string())
            }
            Err(error) => Err(in_words(&error)),
        };
        gateway.count_reload(loaded.is_ok());
        match loaded {
            Ok((listen, warnings)) => {
                log.event("reloaded", "requests under way go on as they began");
                for warning in &warnings {
                    log.event("warning", warning);
                }
                if listen != before {
                    log.event("warning", "`listen` has changed: that takes a restart");
                }
            }
            Err(why) => log.event("reload-refused", &format!("{why}; all goes on as before")),
        }
    }

    fn load(&self) -> Result<Config, ConfigError> {
        let mut config = match Context::read(&self.layers)? {
            Some((path, text)) => config::resolve(&text, &path)?,
            // Without its file a server would have no keys, and let everybody in.
            None if self.from_file => {
                let path = self.layers.config.value.clone().unwrap_or_default();
                return Err(ConfigError::Read { path, reason: "it is not there any more".into() });
            }
            None => config::from_environment(&self.environment)?,
        };
        if let Some(listen) = &self.listen {
            config.serve.listen.clone_from(listen);
        }
        Ok(config)
    }

    /// The file's text; `None`: it is not there, or cannot be read.
    fn text(&self) -> Option<String> {
        Context::read(&self.layers).ok().flatten().map(|(_, text)| text)
    }

    fn watch(&self, log: &Log) -> Option<Watch> {
        let path = self.layers.config.value.as_ref()?;
        match Watch::begin(path) {
            Ok(watch) => Some(watch),
            Err(_) if !self.from_file && !path.exists() => None,
            Err(why) => {
                log.event("warning", &format!("{} cannot be watched: {why}; SIGHUP reads it again", path.display()));
                None
            }
        }
    }
}

/// Resolves when the system wants the server to stop.
async fn stopped(wishes: &mut Wishes) {
    while wishes.next().await != Wish::Stop {}
}

async fn changed(watch: &mut Option<Watch>) {
    match watch {
        Some(watch) => watch.changed().await,
        None => std::future::pending().await,
    }
}

/// Everything that is wrong, each with its line and column.
fn in_words(error: &ConfigError) -> String {
    let ConfigError::Invalid { path, problems } = error else { return error.to_string() };
    let told = problems.iter().map(|problem| {
        let (line, column) = problem.place();
        format!("{}:{line}:{column}: {problem}", path.display())
    });
    told.collect::<Vec<_>>().join("; ")
}
