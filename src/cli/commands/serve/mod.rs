//! `mmchat serve`: runs the gateway, an OpenAI-compatible server for all configured models.
//!
//! Handles what surrounds the gateway: the listening address, config reloads, signals, log output and the record.

use std::{sync::Arc, time::Duration};

use clap::Args;
use tokio::net::TcpListener;

mod reload;

use crate::cli::{CliError, Context, support::exit::Exit};
use crate::{
    config::{Config, Flags},
    engine::Engine,
    gateway::{self, Gateway, GatewayDeps, Log, ServeError, Workers},
    render::Output,
    store::{
        self,
        record::{BatchWriter, Database, SqliteSpendLedger},
    },
    term::{
        file_limit::raise_open_file_limit,
        log::LogWriter,
        output::{Streams, write_stderr},
        signals::{ServerSignal, ServerSignals, run_with_timeout},
    },
};
use reload::ConfigSource;

/// File descriptors reserved for other uses than connections: the record, the log, key sources.
const RESERVED_FILES: usize = 64;
/// A client connection may need an upstream connection too.
const FILES_PER_CLIENT: usize = 2;
/// How long a read spend total is reused.
const SPEND_CACHE_TTL: Duration = Duration::from_millis(250);
/// Interval at which health records are saved.
const HEALTH_SAVE_INTERVAL: Duration = Duration::from_secs(10);
/// Upper bound of concurrent connections, as a protection against abuse.
const MAX_CONNECTIONS: usize = 100_000;

/// Serve all configured models at one OpenAI-compatible address
#[derive(Debug, Args)]
#[command(after_help = "Clients use the base URL http://127.0.0.1:8484/v1, unless [serve] in the config sets another \
    address, and name a model or a route. The config is reloaded when the file changes and on SIGHUP. Ctrl-C or \
    SIGTERM waits for requests in flight; a second one ends them. Each request is logged to stderr as one line of \
    JSON. docs/serve.md has the settings of common clients.\n\n\
    Examples:\n  \
      mmchat serve\n  \
      mmchat serve --check\n  \
      mmchat serve --listen 127.0.0.1:9000")]
pub(crate) struct ServeArgs {
    /// Listen on this address instead of `listen` of [serve]; port 0 chooses a free port
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<String>,
    /// Check the address, config, keys and certificates, and exit without serving
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
        write_stderr(&format!("warning: {warning}\n"));
    }
    if config.models.is_empty() && config.routes.is_empty() && config.endpoints.is_empty() {
        return Err(CliError::usage("nothing to serve: no endpoints in the config", "run \"mmchat init\""));
    }
    let source = ConfigSource::new(context.environment.clone(), layers, args.listen.clone(), config.path.is_some());
    let most = (raise_open_file_limit().saturating_sub(RESERVED_FILES) / FILES_PER_CLIENT).clamp(1, MAX_CONNECTIONS);
    let runtime = context.runtime()?;
    let served = runtime.block_on(async {
        if args.check { check(context, config).await } else { Box::pin(serve(context, config, source, most)).await }
    });
    // Do not wait for key commands that are still running on blocking threads.
    runtime.shutdown_background();
    served
}

/// Checks that the config can be served, without serving it.
async fn check(context: &Context, config: Config) -> Result<Exit, CliError> {
    let (listener, address) = bind(&config).await?;
    drop(listener);
    let serve = config.serve.clone();
    let (models, routes) = (config.models.len(), config.routes.len());
    let engine = context.long_lived_engine_for(&config, false);
    let outside = GatewayDeps { engine, log: Log::new(drop), writer: None, ledger: None };
    Gateway::new(config, outside).await?;
    let keys = match serve.clients.len() {
        0 => "no client keys: any local process may use it".to_owned(),
        count => format!("{count} client key(s)"),
    };
    let scheme = if serve.tls.is_some() { "https" } else { "http" };
    write_stderr(&format!("ok: {scheme}://{address}/v1, {models} model(s), {routes} route(s), {keys}\n"));
    Ok(Exit::Ok)
}

/// Binds the address; an error when other machines could reach it without a client key.
async fn bind(config: &Config) -> Result<(TcpListener, std::net::SocketAddr), CliError> {
    let listen = &config.serve.listen;
    let unusable = |source| CliError::System { what: format!("cannot listen on {listen}"), source };
    let (listener, address) = gateway::listen(listen).await.map_err(unusable)?;
    gateway::check_exposure(&config.serve, address.ip())?;
    Ok((listener, address))
}

async fn serve(context: &Context, config: Config, source: ConfigSource, most: usize) -> Result<Exit, CliError> {
    let mut wishes =
        ServerSignals::listen().map_err(|source| CliError::System { what: "cannot receive signals".into(), source })?;
    let (listener, address) = bind(&config).await?;
    let lines = LogWriter::to_stderr()?;
    let log = || {
        let lines = lines.clone();
        Log::new(move |line| lines.write_line(line))
    };
    let state = store::state_folder(&context.environment);
    let place = state.as_deref().map(Database::path_in);
    let trouble = log();
    let told = move |error: &store::record::RecordError| trouble.event("record-failed", &error.to_string());
    let scribe = place.clone().map(|place| BatchWriter::new(place, told)).transpose()?;
    let ledger =
        place.map(|place| Arc::new(SqliteSpendLedger::new(config.spend.clone(), place).with_max_age(SPEND_CACHE_TTL)));
    let engine = context.server_engine(&config, ledger.clone());
    let scheme = if config.serve.tls.is_some() { "https" } else { "http" };
    let outside = GatewayDeps { engine: Arc::clone(&engine), log: log(), writer: scribe, ledger };
    let gateway = Gateway::new(config, outside).await?;
    Streams::stdout().write(&mut Output::data(format!("{scheme}://{address}/v1\n")))?;
    let events = log();
    events.event("listening", &format!("{scheme}://{address}/v1"));
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let workers = Workers::start(threads)?;
    let stop = source.follow(&gateway, &events, &mut wishes);
    let serving = gateway.serve(listener, &workers, most, async {
        stop.await;
        events.event("stopping", "waiting for requests in flight; a second signal ends them");
    });
    let left = tokio::select! {
        // Both branches receive every signal. The second-signal branch is polled first, so that it sees the first
        // signal before that takes effect.
        biased;
        () = second_stop_signal(&gateway) => 0,
        left = serving => left,
        () = save_health_periodically(&engine, &events) => 0,
    };
    if left > 0 {
        events.event("cut-off", &format!("{left} connection(s) did not end in time"));
    }
    // Limited in time, so that a blocked disk cannot prevent the exit.
    run_with_timeout(move || gateway.close());
    save_health(&engine, &events);
    events.event("stopped", "");
    lines.close();
    Ok(Exit::Ok)
}

/// Saves health records at intervals, for other processes and the next start; never returns.
async fn save_health_periodically(engine: &Engine, events: &Log) {
    loop {
        tokio::time::sleep(HEALTH_SAVE_INTERVAL).await;
        save_health(engine, events);
    }
}

fn save_health(engine: &Engine, events: &Log) {
    if let Some(error) = engine.persist_health() {
        events.event("health-failed", &error.to_string());
    }
}

/// Resolves at the second stop signal, after closing the connections.
async fn second_stop_signal(gateway: &Gateway) {
    let Ok(mut wishes) = ServerSignals::listen() else { return std::future::pending().await };
    loop {
        if wishes.next().await == ServerSignal::Stop && gateway.is_stopping() {
            gateway.abort_remaining();
            return;
        }
    }
}

impl From<ServeError> for CliError {
    fn from(error: ServeError) -> Self {
        let hint = match &error {
            ServeError::Exposed { .. } => {
                Some("listen on 127.0.0.1, or add a client key: [serve.keys.NAME] api_key = { env = \"NAME_KEY\" }")
            }
            ServeError::ShortKey { .. } => Some("generate a longer key: openssl rand -hex 24"),
            _ => None,
        };
        Self::Serve { message: error.to_string(), hint: hint.map(str::to_owned) }
    }
}
