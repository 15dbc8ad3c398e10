//! Settings of `mmchat serve`: address, TLS, clients and limits.

use std::{net::Ipv4Addr, path::PathBuf, time::Duration};

use crate::model::api_key::KeySource;

/// The settings of the server.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ServeConfig {
    /// The address and port, as written.
    pub listen: String,
    /// How long the response headers of a stream are held back until the first chunk of an answer.
    pub hold: Duration,
    /// How long running requests may take to finish when the server stops.
    pub drain: Duration,
    /// Maximum size of a request body, in bytes.
    pub max_body: usize,
    /// Additional host names that clients on this machine may use in URLs.
    pub hosts: Vec<String>,
    /// Origins of web pages that may send requests (CORS).
    pub cors: Vec<String>,
    /// The files of the certificates and the private key.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// The clients; empty: all clients on this machine have access, without a key.
    pub clients: Vec<ClientConfig>,
}

/// A client, identified by its key.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ClientConfig {
    /// The name of the key, used in the record.
    pub name: String,
    /// The key.
    pub key: KeySource,
    /// The models and routes the client may use; `None`: all.
    pub models: Option<Vec<String>>,
    /// Maximum number of requests per minute.
    pub rpm: Option<u32>,
    /// Maximum number of concurrent requests.
    pub max_concurrency: Option<u32>,
    /// Spend limits per day, by currency.
    pub spend: Vec<(String, f64)>,
    /// Whether the client may read `/status` and `/metrics`.
    pub metrics: bool,
}

impl ServeConfig {
    /// Minimum length of a client key, in characters: a shorter one can be guessed.
    pub(crate) const MIN_KEY_CHARS: usize = 8;
    /// The default port.
    pub(crate) const DEFAULT_PORT: u16 = 8484;
}

impl Default for ServeConfig {
    fn default() -> Self {
        Self {
            listen: format!("{}:{}", Ipv4Addr::LOCALHOST, Self::DEFAULT_PORT),
            hold: Duration::from_secs(15),
            drain: Duration::from_secs(30),
            max_body: 32 * 1024 * 1024,
            hosts: Vec::new(),
            cors: Vec::new(),
            tls: None,
            clients: Vec::new(),
        }
    }
}
