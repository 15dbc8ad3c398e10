//! One OpenAI-compatible address over everything that is configured.
//!
//! Owns HTTP towards clients: who may ask, what they get, how failures are told. Retry, failover and balance are the
//! engine's; a request becomes a lane of one [`crate::engine::plan::Plan`] and its events become the reply. Refuses the terminal and
//! the command line: where its lines are written and when it is to stop is told from outside.
//!
//! The flow: [`Gateway::serve`] accepts connections; `routes` reads a request; `admit` decides who asks and whether
//! they may; `exchange` runs it, listens and keeps the account; `reply` writes what comes as HTTP: `stream` event by event,
//! or whole. Each exchange ends in one record, from which the log's line, the figures of `/metrics` and the record's row are
//! all made, so that they agree.

use std::{
    net::IpAddr,
    sync::{
        Arc, OnceLock, RwLock,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::time::Instant;

use crate::{
    config::{Config, Serve},
    engine::Engine,
    store::record::{Ledger, RecordError, Scribe},
    transport::keys::{KeyError, KeyRing},
};

mod auth;
mod body_budget;
mod connection;
mod error;
mod exchange;
mod log;
mod metrics;
mod origin_guard;
mod reply;
mod routes;
mod status;
mod stream;
#[cfg(test)]
mod tests;
mod tls;
mod workers;

pub use connection::listen;
pub use log::Log;
pub use tls::TlsError;
pub use workers::Workers;

use auth::Clients;
use body_budget::Room;
use metrics::Metrics;

/// What a gateway is given from outside.
pub struct Outside {
    /// What asks.
    pub engine: Arc<Engine>,
    /// Where its lines go.
    pub log: Log,
    /// Where its calls are recorded; `None`: nowhere.
    pub scribe: Option<Scribe>,
    /// The limits of what may be spent, replaced with the config.
    pub ledger: Option<Arc<Ledger>>,
}

/// A gateway.
pub struct Gateway {
    outside: Outside,
    current: RwLock<Arc<Current>>,
    metrics: Metrics,
    clients: Clients,
    bodies: Room,
    stopping: AtomicBool,
    /// What is under way is ended.
    ended: AtomicBool,
    /// The address it listens at, once it does.
    reach: OnceLock<IpAddr>,
    begun: Instant,
}

impl std::fmt::Debug for Gateway {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gateway").field("stopping", &self.stopping).finish_non_exhaustive()
    }
}

/// The configuration in force. A request keeps the one it began with.
struct Current {
    config: Config,
    keys: Vec<auth::ClientKey>,
    tls: Option<tokio_rustls::TlsAcceptor>,
    /// It is the how-manieth, from 1.
    generation: u64,
}

impl Current {
    async fn new(config: Config, generation: u64, ring: &KeyRing) -> Result<Self, ServeError> {
        let keys = auth::resolve(&config.serve.clients, ring).await?;
        let tls = config.serve.tls.as_ref().map(tls::acceptor).transpose()?;
        Ok(Self { config, keys, tls, generation })
    }
}

/// A gateway that cannot be as its config says.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// Its certificates.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A client's key could not be looked up.
    #[error("the key of [serve.keys.{name}] is not to be had: {source}")]
    Key {
        /// The key's name.
        name: String,
        /// Why.
        #[source]
        source: KeyError,
    },
    /// Two clients have the same key.
    #[error("[serve.keys.{first}] and [serve.keys.{second}] have the same key: nobody could tell whose it is")]
    SameKey {
        /// One name.
        first: String,
        /// The other.
        second: String,
    },
    /// What a key has spent today is not to be had.
    #[error("what [serve.keys.{name}] has spent today cannot be read: {source}")]
    Spent {
        /// The key's name.
        name: String,
        /// Why.
        #[source]
        source: RecordError,
    },
    /// A key that anybody could guess.
    #[error("the key of [serve.keys.{name}] is shorter than {} characters", auth::SHORTEST_KEY)]
    ShortKey {
        /// The key's name.
        name: String,
    },
    /// It asked for keys, and would not any more.
    #[error(
        "there is no [serve.keys] any more: a server that asked for keys does not go on without; restart it if that is meant"
    )]
    Keyless,
    /// It can be reached from elsewhere, and asks for no key.
    #[error(
        "{listen} can be reached from other machines, and there is no [serve.keys]: whoever finds it could use your keys"
    )]
    Open {
        /// Where it would listen.
        listen: String,
    },
}

impl Gateway {
    /// A gateway of `config`; nobody can ask it yet.
    pub async fn new(config: Config, outside: Outside) -> Result<Arc<Self>, ServeError> {
        let current = Current::new(config, 1, outside.engine.keys()).await?;
        let clients = Clients::default();
        clients.know(&current.config.serve.clients, outside.scribe.as_ref())?;
        Ok(Arc::new(Self {
            metrics: Metrics::new(),
            current: RwLock::new(Arc::new(current)),
            clients,
            bodies: Room::default(),
            outside,
            stopping: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            reach: OnceLock::new(),
            begun: Instant::now(),
        }))
    }

    /// From now on as `config` says; requests under way go on as they began. Where it cannot be, nothing changes.
    pub async fn reload(&self, config: Config) -> Result<(), ServeError> {
        // A file that is only half written may look so, too.
        if config.serve.clients.is_empty() && !self.current().keys.is_empty() {
            return Err(ServeError::Keyless);
        }
        if let Some(reach) = self.reach.get() {
            check_open(&config.serve, *reach)?;
        }
        // What a key's source gives may be another now; until all is well, the known ones stay.
        let keys = self.outside.engine.keys();
        let next = Current::new(config, self.current().generation + 1, &keys.fresh()).await?;
        self.clients.know(&next.config.serve.clients, self.outside.scribe.as_ref())?;
        keys.forget();
        if let Some(ledger) = &self.outside.ledger {
            ledger.replace(next.config.spend.clone());
        }
        *self.current.write().expect("no code panics while it holds this lock") = Arc::new(next);
        Ok(())
    }

    /// Counts a change of the config, that went well or did not.
    pub fn count_reload(&self, well: bool) {
        self.metrics.reload(well);
    }

    /// Where it is to listen, as configured now.
    #[must_use]
    pub fn listen_at(&self) -> String {
        self.current().config.serve.listen.clone()
    }

    fn current(&self) -> Arc<Current> {
        Arc::clone(&self.current.read().expect("no code panics while it holds this lock"))
    }

    /// From now on whatever ends does so because this server ends, and not because its client left.
    pub fn cut_off(&self) {
        self.ended.store(true, Ordering::Relaxed);
    }

    /// Writes down what is still to be recorded. To be done last.
    pub fn close(&self) {
        let Some(scribe) = &self.outside.scribe else { return };
        scribe.close();
        if scribe.lost() > 0 {
            self.outside.log.event("record-lost", &format!("{} call(s) could not be recorded", scribe.lost()));
        }
    }

    /// Whether it takes no more requests.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }
}

/// Whether only this machine can reach `address`.
pub fn check_open(serve: &Serve, address: IpAddr) -> Result<(), ServeError> {
    if address.is_loopback() || !serve.clients.is_empty() {
        return Ok(());
    }
    Err(ServeError::Open { listen: serve.listen.clone() })
}
