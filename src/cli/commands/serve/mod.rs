//! `mmchat serve`: runs the gateway, an OpenAI-compatible server for all configured models.
//!
//! Handles what surrounds the gateway: the listening address, config reloads, signals, log output and the record.

use std::{convert::Infallible, io, sync::Arc, time::Duration};

use clap::Args;
use tokio::net::TcpListener;

mod key_warnings;
mod reload;

use crate::cli::{CliError, Context, support::exit::Exit};
use crate::{
    config::{Config, Flags},
    engine::Engine,
    gateway::{self, Gateway, GatewayDeps, GatewayLimits, Log, ServeError, Workers},
    model::plural,
    render::Output,
    store::{
        self,
        allocator::prepare_for_large_blocks,
        record::{Database, RecordWriter, SqliteSpendLedger},
    },
    term::{
        file_limit::raise_open_file_limit,
        log::LogWriter,
        output::{Streams, write_stderr},
        server_signals::{ServerSignal, ServerSignals},
        signals::run_with_timeout,
    },
};
use key_warnings::key_warnings;
use reload::ConfigSource;

/// File descriptors reserved for other uses than connections: the record, the log, key sources.
const RESERVED_FILES: usize = 64;
/// A client connection may need an upstream connection too.
const FILES_PER_CLIENT: usize = 2;
/// How long a spend total is reused after it was read.
const SPEND_CACHE_TTL: Duration = Duration::from_millis(250);
/// Interval at which the health file is saved.
const HEALTH_SAVE_INTERVAL: Duration = Duration::from_secs(10);
/// Maximum number of concurrent connections, whatever the limit of open files.
const MAX_CONNECTIONS: usize = 100_000;

/// Serve all configured models at one OpenAI-compatible address
#[derive(Debug, Args)]
#[command(
    after_help = "The base URL is http://127.0.0.1:8484/v1, or the address set by listen under [serve]. Clients request a \
    model or a route by its name. The config is reloaded when the file changes and on SIGHUP. After Ctrl-C or \
    SIGTERM, the server waits for requests in flight, at most for drain under [serve]; a second signal ends them. Each \
    request to a model is logged to stderr as one line of JSON. docs/serve.md lists the settings of common clients.\n\n\
    Examples:\n  \
      mmchat serve\n  \
      mmchat serve --check\n  \
      mmchat serve --listen 127.0.0.1:9000"
)]
pub(crate) struct ServeArgs {
    /// Listen on this address instead of that in the config; port 0 selects a free port
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<String>,
    /// Check the config, address, keys and certificates, and exit
    #[arg(long)]
    check: bool,
}

pub(crate) fn run(args: &ServeArgs, context: &Context) -> Result<Exit, CliError> {
    let (mut config, settings) = context.config(context.settings(Flags::default())?)?;
    if let Some(listen) = &args.listen {
        config.serve.listen.clone_from(listen);
    }
    for warning in config.warnings.iter().cloned().chain(key_warnings(&context.environment, &config)) {
        write_stderr(&format!("warning: {warning}\n"));
    }
    if config.models.is_empty() && config.routes.is_empty() && config.endpoints.is_empty() {
        return Err(CliError::usage("nothing to serve: no endpoints in the config", "run \"mmchat init\""));
    }
    let paths = config.files.clone();
    let source = ConfigSource::new(context.environment.clone(), settings, args.listen.clone(), paths);
    let max_connections =
        (raise_open_file_limit().saturating_sub(RESERVED_FILES) / FILES_PER_CLIENT).clamp(1, MAX_CONNECTIONS);
    let runtime = context.runtime()?;
    let result = runtime.block_on(async {
        if args.check {
            check(context, config).await
        } else {
            Box::pin(serve(context, config, source, max_connections)).await
        }
    });
    // Do not wait for key commands that are still running on blocking threads.
    runtime.shutdown_background();
    result
}

/// Checks that the config can be served, without serving it.
async fn check(context: &Context, config: Config) -> Result<Exit, CliError> {
    let (listener, address) = bind(&config).await?;
    drop(listener);
    let serve = config.serve.clone();
    let (models, routes) = (config.models.len(), config.routes.len());
    let engine = context.long_lived_engine_for(&config, false);
    let deps =
        GatewayDeps { engine, log: Log::new(drop), writer: None, limits: GatewayLimits::default(), ledger: None };
    Gateway::new(config, deps).await?;
    let keys = match serve.clients.len() {
        0 => "no client keys: any local process may use it".to_owned(),
        count => plural(count, "client key"),
    };
    let scheme = if serve.tls.is_some() { "https" } else { "http" };
    let (models, routes) = (plural(models, "model"), plural(routes, "route"));
    write_stderr(&format!("ok: {scheme}://{address}/v1, {models}, {routes}, {keys}\n"));
    Ok(Exit::Ok)
}

/// Binds the address; an error when other machines could reach it without a client key.
async fn bind(config: &Config) -> Result<(TcpListener, std::net::SocketAddr), CliError> {
    let listen = &config.serve.listen;
    let failed = |error: io::Error| {
        let source = match error.kind() {
            // `--listen` is not an address; the config has been checked.
            io::ErrorKind::InvalidInput => io::Error::other("expected an address such as 127.0.0.1:8484"),
            _ => error,
        };
        CliError::System { what: format!("cannot listen on {listen}"), source }
    };
    let (listener, address) = gateway::listen(listen).await.map_err(failed)?;
    gateway::check_exposure(&config.serve, address.ip())?;
    Ok((listener, address))
}

async fn serve(
    context: &Context,
    config: Config,
    source: ConfigSource,
    max_connections: usize,
) -> Result<Exit, CliError> {
    let mut signals =
        ServerSignals::listen().map_err(|source| CliError::System { what: "cannot receive signals".into(), source })?;
    let (listener, address) = bind(&config).await?;
    let log_writer = LogWriter::to_stderr()?;
    let new_log = || {
        let log_writer = log_writer.clone();
        Log::new(move |line| log_writer.write_line(line))
    };
    let state_folder = store::state_folder(&context.environment);
    let record_path = state_folder.as_deref().map(Database::path_in);
    let record_log = new_log();
    let on_error = move |error: &store::record::RecordError| record_log.event("record-failed", &error.to_string());
    let writer = record_path.clone().map(|path| RecordWriter::for_server(path, on_error));
    writer
        .as_ref()
        .map_or(Ok(()), RecordWriter::start)
        .map_err(|source| CliError::System { what: "cannot start the thread of the record".into(), source })?;
    let ledger = record_path
        .map(|path| Arc::new(SqliteSpendLedger::new(config.spend.clone(), path).with_max_age(SPEND_CACHE_TTL)));
    let engine = context.server_engine(&config, ledger.clone());
    let scheme = if config.serve.tls.is_some() { "https" } else { "http" };
    let deps =
        GatewayDeps { engine: Arc::clone(&engine), log: new_log(), writer, limits: GatewayLimits::default(), ledger };
    let gateway = Gateway::new(config, deps).await?;
    Streams::stdout().write(&mut Output::data(format!("{scheme}://{address}/v1\n")))?;
    let log = new_log();
    log.event("listening", &format!("{scheme}://{address}/v1"));
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    prepare_for_large_blocks();
    let workers = Workers::start(threads)?;
    let stop_signal = source.follow(&gateway, &log, &mut signals);
    let serving = gateway.serve(listener, &workers, max_connections, async {
        stop_signal.await;
        log.event("stopping", "waiting for requests in flight; a second signal ends them");
    });
    let unfinished = tokio::select! {
        // Both branches receive every signal. The second-signal branch is polled first: it sees the first signal while
        // the gateway is not stopping yet, and so does not take it for the second one.
        biased;
        never = end_at_second_signal(&gateway) => match never {},
        unfinished = serving => unfinished,
        never = save_health_periodically(&engine, &log) => match never {},
        never = gateway.return_freed_memory() => match never {},
    };
    if unfinished > 0 {
        let connections = plural(unfinished, "connection");
        log.event("aborted", &format!("{connections} did not end in time; requests in flight got an error"));
    }
    // Limited in time, so that a blocked disk cannot prevent the exit.
    run_with_timeout(move || gateway.close());
    save_health(&engine, &log);
    log.event("stopped", "");
    log_writer.close();
    Ok(Exit::Ok)
}

/// Saves the health file at intervals, for other processes and the next start; never returns.
async fn save_health_periodically(engine: &Engine, log: &Log) -> Infallible {
    loop {
        tokio::time::sleep(HEALTH_SAVE_INTERVAL).await;
        save_health(engine, log);
    }
}

fn save_health(engine: &Engine, log: &Log) {
    if let Some(error) = engine.persist_health() {
        log.event("health-failed", &error.to_string());
    }
}

/// Ends the requests in flight at the second stop signal; never returns.
async fn end_at_second_signal(gateway: &Gateway) -> Infallible {
    let Ok(mut signals) = ServerSignals::listen() else { return std::future::pending().await };
    loop {
        if signals.next().await == ServerSignal::Stop && gateway.is_stopping() {
            gateway.end_requests();
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
