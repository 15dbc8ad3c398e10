//! Serves all configured models and routes over one OpenAI-compatible HTTP address.
//!
//! Retry, failover and load balancing happen in the engine: a request becomes a [`crate::engine::plan::Plan`] of one
//! call, and the events of that call become the response. The caller provides the log output and the stop signal.
//!
//! Flow: [`Gateway::serve`] accepts connections; `routes` dispatches a request; `prepare` authenticates the client
//! (`auth`), checks its quotas (`quota`) and parses the body; `in_flight` runs the call and observes its events;
//! `response` writes them as HTTP, either as a stream (`stream`) or as one body. The log line, the
//! metrics and the stored row of a request are all made from its one `CallRecord`.

use std::{
    convert::Infallible,
    net::IpAddr,
    sync::{Arc, OnceLock},
    time::Duration,
};

use parking_lot::RwLock;
use tokio::time::Instant;

use crate::{
    config::{Config, ServeConfig},
    engine::{Engine, memory::MemoryBudget},
    model::plural,
    store::{
        allocator::return_freed_memory,
        record::{RecordError, RecordWriter, SqliteSpendLedger},
    },
    transport::keys::{KeyError, KeyRing},
};

mod aliases;
mod auth;
mod connection;
mod connections;
mod cors;
mod failure;
mod held_body;
mod in_flight;
mod limits;
mod log;
mod metrics;
mod origin_guard;
mod paths;
mod phase;
mod prepare;
mod quota;
mod rejection;
mod request_context;
mod request_id;
mod response;
mod routes;
mod status;
mod status_numbers;
mod stream;
#[cfg(test)]
mod tests;
mod tls;
mod upload;
mod workers;
mod write_timeout;

pub(crate) use connection::listen;
pub use limits::GatewayLimits;
pub use log::Log;
pub(crate) use tls::TlsError;
pub(crate) use workers::Workers;

use connections::Connections;
use metrics::Metrics;
use phase::{CurrentPhase, Phase};
use quota::ClientQuotas;

/// How often memory is given back to the system, if at least [`MEMORY_RETURN_BYTES`] were freed.
const MEMORY_RETURN_INTERVAL: Duration = Duration::from_millis(500);
const MEMORY_RETURN_BYTES: usize = 32 * 1024 * 1024;

/// Dependencies of a gateway.
pub struct GatewayDeps {
    /// Runs the calls.
    pub engine: Arc<Engine>,
    /// Receives the request log and server events.
    pub log: Log,
    /// Records calls; `None`: calls are not recorded.
    pub writer: Option<RecordWriter>,
    /// Limits of connections and request bodies.
    pub limits: GatewayLimits,
    /// Spend limits; replaced when the config is reloaded.
    pub ledger: Option<Arc<SqliteSpendLedger>>,
}

/// The HTTP server: configuration in force, metrics and client quotas.
pub struct Gateway {
    deps: GatewayDeps,
    current: RwLock<Arc<ConfigGeneration>>,
    metrics: Metrics,
    quotas: ClientQuotas,
    /// The memory for requests and answers.
    memory: MemoryBudget,
    phase: CurrentPhase,
    connections: Arc<Connections>,
    /// IP address of the listener, set by [`Gateway::serve`].
    listen_ip: OnceLock<IpAddr>,
    started_at: Instant,
}

impl std::fmt::Debug for Gateway {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gateway").field("phase", &self.phase).finish_non_exhaustive()
    }
}

/// One generation of the configuration. A request keeps the generation it started with.
struct ConfigGeneration {
    config: Config,
    client_keys: Vec<auth::ClientKey>,
    tls: Option<tokio_rustls::TlsAcceptor>,
    /// Generation number, starting at 1.
    number: u64,
    /// The headers of services that clients get.
    response_headers: Arc<[String]>,
    /// When it was made, in Unix seconds: `created` of its models.
    created: i64,
}

impl ConfigGeneration {
    async fn new(config: Config, number: u64, ring: &KeyRing) -> Result<Self, ServeError> {
        let client_keys = auth::resolve_client_keys(&config.serve.clients, ring).await?;
        let tls = config.serve.tls.as_ref().map(tls::load_acceptor).transpose()?;
        let response_headers = config.serve.response_headers.as_slice().into();
        Ok(Self { config, client_keys, tls, number, response_headers, created: stream::unix_time() })
    }
}

/// A configuration that the gateway cannot serve.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The TLS certificates cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A client key cannot be resolved.
    #[error("cannot resolve the key of [serve.keys.{name}]: {source}")]
    Key {
        /// The key's name.
        name: String,
        /// Cause.
        #[source]
        source: KeyError,
    },
    /// Two clients have the same key, so that a request cannot be attributed to one of them.
    #[error("[serve.keys.{first}] and [serve.keys.{second}] have the same key; each client needs its own")]
    DuplicateKey {
        /// Name of the first client.
        first: String,
        /// Name of the second client.
        second: String,
    },
    /// Today's spend of a client that has a spend limit cannot be read.
    #[error("cannot read today's spend of [serve.keys.{name}]: {source}")]
    SpendUnavailable {
        /// The key's name.
        name: String,
        /// Cause.
        #[source]
        source: RecordError,
    },
    /// A client key that is short enough to be guessed.
    #[error("the key of [serve.keys.{name}] is shorter than {} characters", ServeConfig::MIN_KEY_CHARS)]
    ShortKey {
        /// The key's name.
        name: String,
    },
    /// A reload would remove all client keys from a server that requires them.
    #[error("the config no longer has [serve.keys]; restart the server to serve without client keys")]
    KeysRemoved,
    /// The listener is reachable from other machines, and no client key is configured.
    #[error(
        "{listen} is reachable from other machines, but there is no [serve.keys]: any client could use your API keys"
    )]
    Exposed {
        /// Address of the listener.
        listen: String,
    },
}

impl Gateway {
    /// Creates a gateway for `config`, which does not listen yet.
    pub async fn new(config: Config, deps: GatewayDeps) -> Result<Arc<Self>, ServeError> {
        let current = ConfigGeneration::new(config, 1, deps.engine.keys()).await?;
        let quotas = ClientQuotas::new(deps.engine.clock());
        quotas.register(&current.config.serve.clients, deps.writer.as_ref())?;
        Ok(Arc::new(Self {
            metrics: Metrics::new(),
            memory: MemoryBudget::new(current.config.serve.memory),
            current: RwLock::new(Arc::new(current)),
            quotas,
            deps,
            phase: CurrentPhase::default(),
            connections: Arc::default(),
            listen_ip: OnceLock::new(),
            started_at: Instant::now(),
        }))
    }

    /// Replaces the configuration for new requests. On an error, the current configuration stays in force.
    pub async fn reload(&self, config: Config) -> Result<(), ServeError> {
        // An empty or partly written config file also has no keys.
        if config.serve.clients.is_empty() && !self.current().client_keys.is_empty() {
            return Err(ServeError::KeysRemoved);
        }
        if let Some(listen_ip) = self.listen_ip.get() {
            check_exposure(&config.serve, *listen_ip)?;
        }
        // Key sources are read again, but cached keys are only dropped once the new configuration is valid.
        let keys = self.deps.engine.keys();
        let next = ConfigGeneration::new(config, self.current().number + 1, &keys.with_empty_cache()).await?;
        self.quotas.register(&next.config.serve.clients, self.deps.writer.as_ref())?;
        keys.clear_cache();
        self.deps.engine.retry_rejected_keys();
        if let Some(ledger) = &self.deps.ledger {
            ledger.set_limits(next.config.spend.clone());
        }
        self.memory.set_limit(next.config.serve.memory);
        *self.current.write() = Arc::new(next);
        Ok(())
    }

    /// Counts a config reload.
    pub fn count_reload(&self, success: bool) {
        self.metrics.count_reload(success);
    }

    /// The settings of `config` that differ from the current configuration and need a restart.
    #[must_use]
    pub fn settings_that_need_a_restart(&self, config: &Config) -> Vec<&'static str> {
        let current = self.current();
        let listen = (current.config.serve.listen != config.serve.listen).then_some("`listen`");
        let policies = "`[retry]`, `[availability]` or `max_answer_mb`";
        listen.into_iter().chain((current.config.policies != config.policies).then_some(policies)).collect()
    }

    fn current(&self) -> Arc<ConfigGeneration> {
        Arc::clone(&self.current.read())
    }

    /// Gives the memory of large requests and answers back to the system; never returns.
    pub async fn return_freed_memory(&self) -> Infallible {
        let mut is_due = false;
        loop {
            tokio::time::sleep(MEMORY_RETURN_INTERVAL).await;
            // What was reserved may be freed some time after it was given back.
            let was_due = std::mem::replace(&mut is_due, self.memory.take_freed(MEMORY_RETURN_BYTES).is_some());
            if is_due || was_due {
                // Takes some milliseconds per hundred megabytes.
                let _ = tokio::task::spawn_blocking(return_freed_memory).await;
            }
        }
    }

    /// Ends the requests in flight with an error.
    pub fn end_requests(&self) {
        self.phase.enter(Phase::Ending);
    }

    /// Writes the pending records. Must be called last.
    pub fn close(&self) {
        let Some(writer) = &self.deps.writer else { return };
        if let Err(error) = writer.close() {
            self.deps.log.event("record-failed", &error.to_string());
        }
        let dropped = usize::try_from(writer.dropped()).unwrap_or(usize::MAX);
        if dropped > 0 {
            self.deps.log.event("record-lost", &format!("{} could not be recorded", plural(dropped, "call")));
        }
    }

    /// Whether the server no longer accepts requests.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.phase.is_draining()
    }
}

/// Rejects a listener that other machines can reach while no client key is configured.
pub(crate) fn check_exposure(serve: &ServeConfig, address: IpAddr) -> Result<(), ServeError> {
    if address.is_loopback() || !serve.clients.is_empty() {
        return Ok(());
    }
    Err(ServeError::Exposed { listen: serve.listen.clone() })
}
