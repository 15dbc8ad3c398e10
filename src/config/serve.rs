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
    /// How long a connection may be idle before it is closed.
    pub idle: Duration,
    /// Request headers of clients that are passed on to services, in lowercase; a name may end in `*`.
    pub request_headers: Vec<String>,
    /// Response headers of services that are passed on to clients.
    pub response_headers: Vec<String>,
    /// Maximum size of a request body, in bytes.
    pub max_body: usize,
    /// Additional host names that clients on this machine may use in URLs.
    pub hosts: Vec<String>,
    /// Origins of web pages that may send requests (CORS).
    pub cors: Vec<String>,
    /// The files of the certificates and the private key.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// Memory for requests and answers, in bytes.
    pub memory: usize,
    /// Maximum connections of one client address; `None`: unlimited.
    pub max_connections_per_address: Option<usize>,
    /// Names that clients may send.
    pub aliases: Vec<Alias>,
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
            idle: Duration::from_secs(75),
            request_headers: Vec::new(),
            response_headers: vec!["x-ratelimit-*".to_owned()],
            max_body: 32 * 1024 * 1024,
            hosts: Vec::new(),
            cors: Vec::new(),
            tls: None,
            memory: 512 * 1024 * 1024,
            max_connections_per_address: None,
            aliases: Vec::new(),
            clients: Vec::new(),
        }
    }
}

/// Whether a header has a name of the list, in lowercase; a name in the list may end in `*`.
fn is_listed(names: &[String], header: &str) -> bool {
    names.iter().any(|name| matches_name(name, header))
}

/// The headers with names of the list.
pub(crate) fn listed_headers(headers: &http::HeaderMap, names: &[String]) -> http::HeaderMap {
    let listed = headers.iter().filter(|(name, _)| is_listed(names, name.as_str()));
    listed.map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// Whether `pattern`, which may end in `*`, matches the name of a header.
pub(super) fn matches_name(pattern: &str, header: &str) -> bool {
    pattern.strip_suffix('*').map_or(pattern == header, |stem| header.starts_with(stem))
}

/// A name that clients may send (`[serve.aliases]`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Alias {
    /// The name, with at most one `*` for any text.
    pub pattern: String,
    /// The model or route; a `*` in it stands for the text that the pattern's `*` has matched.
    pub target: String,
}
