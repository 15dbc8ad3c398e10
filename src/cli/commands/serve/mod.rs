//! `mmchat serve`: one OpenAI-compatible address over everything that is configured.
//!
//! Owns what lies around the gateway: its address, its config as it changes, signals, and where its lines and its record go.

use std::{sync::Arc, time::Duration};

use clap::Args;
use tokio::net::TcpListener;

mod reload;

use crate::cli::{CliError, Context, support::exit::Exit};
use crate::{
    config::{Config, Flags},
    engine::Engine,
    gateway::{self, Gateway, Log, Outside, ServeError, Workers},
    render::Output,
    store::{
        self,
        record::{Database, Ledger, Scribe},
    },
    term::{
        files::as_many_as_allowed,
        log::Lines,
        output::{Streams, say},
        signals::{Wish, Wishes, in_time},
    },
};
use reload::Source;

/// Files that are open beside connections: the record, the log, sources of keys.
const OTHER_FILES: usize = 64;
/// Each client's connection may need one to an upstream.
const FILES_A_CLIENT: usize = 2;
/// How long what was spent is good enough once it was read.
const SPENT: Duration = Duration::from_millis(250);
/// How often what is learned of services is written down.
const REMEMBERED: Duration = Duration::from_secs(10);
/// More connections at once are no clients' but somebody's who means harm.
const MOST_CONNECTIONS: usize = 100_000;

/// Serve everything that is configured at one OpenAI-compatible address
#[derive(Debug, Args)]
#[command(
    after_help = "Clients use its base URL, http://127.0.0.1:8484/v1 unless [serve] says otherwise, with the name of a model or a\n\
    route. The config is read again when it changes, and on SIGHUP; Ctrl-C or SIGTERM lets what is under way end, a second\n\
    one does not. One line of JSON for each request goes to stderr. docs/serve.md says what to paste into clients.\n\n\
    mmchat serve --check\n\
    mmchat serve --listen 127.0.0.1:9000"
)]
pub(crate) struct ServeArgs {
    /// Where to listen, in place of `listen` under [serve]; port 0: one that is free
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<String>,
    /// Check that it could be served, keys and certificates among that, and serve nothing
    #[arg(long)]
    check: bool,
}

pub(crate) fn run(args: &ServeArgs, context: &Context) -> Result<Exit, CliError> {
    let layers = context.layers(Flags::default())?;
    let (mut config, layers) = context.config(layers)?;
    if let Some(listen) = &args.listen {
        config.serve.listen.clone_from(listen);
    }
    for warning in &config.warnings {
        say(&format!("warning: {warning}\n"));
    }
    if config.models.is_empty() && config.routes.is_empty() && config.endpoints.is_empty() {
        return Err(CliError::usage("there is nothing to serve", "add an endpoint first: mmchat init"));
    }
    let source = Source::new(context.environment.clone(), layers, args.listen.clone(), config.path.is_some());
    let most = (as_many_as_allowed().saturating_sub(OTHER_FILES) / FILES_A_CLIENT).clamp(1, MOST_CONNECTIONS);
    let runtime = context.runtime()?;
    let served = runtime.block_on(async {
        if args.check { check(context, config).await } else { Box::pin(serve(context, config, source, most)).await }
    });
    // Whatever still waits for a command that gives a key is not waited for.
    runtime.shutdown_background();
    served
}

/// Whether it could be served.
async fn check(context: &Context, config: Config) -> Result<Exit, CliError> {
    let (listener, address) = opened(&config).await?;
    drop(listener);
    let serve = config.serve.clone();
    let (models, routes) = (config.models.len(), config.routes.len());
    let engine = context.resident_engine_for(&config, false);
    let outside = Outside { engine, log: Log::new(drop), scribe: None, ledger: None };
    Gateway::new(config, outside).await?;
    let keys = match serve.clients.len() {
        0 => "no keys: whoever is on this machine may use it".to_owned(),
        count => format!("{count} key(s)"),
    };
    let scheme = if serve.tls.is_some() { "https" } else { "http" };
    say(&format!("ok: {scheme}://{address}/v1, {models} model(s), {routes} route(s), {keys}\n"));
    Ok(Exit::Ok)
}

/// Opens the address, unless it could be reached by anybody.
async fn opened(config: &Config) -> Result<(TcpListener, std::net::SocketAddr), CliError> {
    let listen = &config.serve.listen;
    let unusable = |source| CliError::System { what: format!("{listen} cannot be listened at"), source };
    let (listener, address) = gateway::listen(listen).await.map_err(unusable)?;
    gateway::check_open(&config.serve, address.ip())?;
    Ok((listener, address))
}

async fn serve(context: &Context, config: Config, source: Source, most: usize) -> Result<Exit, CliError> {
    let mut wishes =
        Wishes::listen().map_err(|source| CliError::System { what: "signals cannot be received".into(), source })?;
    let (listener, address) = opened(&config).await?;
    let lines = Lines::to_stderr()?;
    let log = || {
        let lines = lines.clone();
        Log::new(move |line| lines.put(line))
    };
    let state = store::state_folder(&context.environment);
    let place = state.as_deref().map(Database::place);
    let trouble = log();
    let told = move |error: &store::record::RecordError| trouble.event("record-failed", &error.to_string());
    let scribe = place.clone().map(|place| Scribe::new(place, told)).transpose()?;
    let ledger = place.map(|place| Arc::new(Ledger::new(config.spend.clone(), place).good_for(SPENT)));
    let engine = context.serving_engine(&config, ledger.clone());
    let scheme = if config.serve.tls.is_some() { "https" } else { "http" };
    let outside = Outside { engine: Arc::clone(&engine), log: log(), scribe, ledger };
    let gateway = Gateway::new(config, outside).await?;
    Streams::stdout().put(&mut Output::data(format!("{scheme}://{address}/v1\n")))?;
    let events = log();
    events.event("listening", &format!("{scheme}://{address}/v1"));
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let workers = Workers::start(threads)?;
    let stop = source.follow(&gateway, &events, &mut wishes);
    let serving = gateway.serve(listener, &workers, most, async {
        stop.await;
        events.event("stopping", "requests under way may end; a second signal ends them");
    });
    let left = tokio::select! {
        // A signal is heard by both: whoever waits for a second one must see it before the first one has its effect.
        biased;
        () = second(&gateway) => 0,
        left = serving => left,
        () = remembering(&engine, &events) => 0,
    };
    if left > 0 {
        events.event("cut-off", &format!("{left} connection(s) had not ended in time"));
    }
    // A disk that takes nothing does not keep a server from ending.
    in_time(move || gateway.close());
    remember(&engine, &events);
    events.event("stopped", "");
    lines.close();
    Ok(Exit::Ok)
}

/// Writes down what is learned of services, so that other processes and the next one know; never ends.
async fn remembering(engine: &Engine, events: &Log) {
    loop {
        tokio::time::sleep(REMEMBERED).await;
        remember(engine, events);
    }
}

fn remember(engine: &Engine, events: &Log) {
    if let Some(error) = engine.remember() {
        events.event("health-failed", &error.to_string());
    }
}

/// Resolves when the system wants the process to end at once, after it was asked to end.
async fn second(gateway: &Gateway) {
    let Ok(mut wishes) = Wishes::listen() else { return std::future::pending().await };
    loop {
        if wishes.next().await == Wish::Stop && gateway.is_stopping() {
            gateway.cut_off();
            return;
        }
    }
}

impl From<ServeError> for CliError {
    fn from(error: ServeError) -> Self {
        let hint = match &error {
            ServeError::Open { .. } => {
                Some("listen at 127.0.0.1, or add a key: [serve.keys.NAME] api_key = { env = \"NAME_KEY\" }")
            }
            ServeError::ShortKey { .. } => Some("make a long one: openssl rand -hex 24"),
            _ => None,
        };
        Self::Serve { message: error.to_string(), hint: hint.map(str::to_owned) }
    }
}
