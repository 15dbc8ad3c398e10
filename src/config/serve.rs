//! How everything is served to other programs: where, to whom, with which limits. Owns the shape; refuses to serve.

use std::{net::Ipv4Addr, path::PathBuf, time::Duration};

use crate::model::api_key::KeySource;

/// How everything is served.
#[derive(Clone, Debug, PartialEq)]
pub struct Serve {
    /// Address and port, as written.
    pub listen: String,
    /// How long a stream's headers are held back for the first piece of an answer.
    pub hold: Duration,
    /// How long requests under way may take to end when the server is stopped.
    pub drain: Duration,
    /// The largest body that is read, in bytes.
    pub max_body: usize,
    /// Further names of this machine that clients on it may use.
    pub hosts: Vec<String>,
    /// Origins of web pages that may use it.
    pub cors: Vec<String>,
    /// Its certificates and their private key.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// Who may use it; none: whoever is on this machine.
    pub clients: Vec<Client>,
}

/// Somebody who may use it, known by a key.
#[derive(Clone, Debug, PartialEq)]
pub struct Client {
    /// The key's name, for the record.
    pub name: String,
    /// The key.
    pub key: KeySource,
    /// The models and routes it may use; `None`: all.
    pub models: Option<Vec<String>>,
    /// Requests begun in a minute, at most.
    pub rpm: Option<u32>,
    /// Requests under way at once, at most.
    pub max_concurrency: Option<u32>,
    /// What may be spent with it a day, by currency.
    pub spend: Vec<(String, f64)>,
    /// It may read how everybody stands, and all figures.
    pub metrics: bool,
}

impl Serve {
    /// Where it listens unless told otherwise.
    pub const PORT: u16 = 8484;
}

impl Default for Serve {
    fn default() -> Self {
        Self {
            listen: format!("{}:{}", Ipv4Addr::LOCALHOST, Self::PORT),
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
