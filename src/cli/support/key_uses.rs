//! Where a config uses keys, and the names of its key files.

use std::fmt;

use crate::{config::Config, model::api_key::KeySource};

/// One use of a key in a config.
pub(crate) struct KeyUse<'a> {
    pub user: KeyUser<'a>,
    pub source: &'a KeySource,
}

/// What uses a key.
#[derive(Clone, Copy)]
pub(crate) enum KeyUser<'a> {
    /// The endpoint sends it as its key number `index`.
    Endpoint { endpoint: &'a str, index: usize },
    /// The endpoint sends it as the value of this header.
    Header { endpoint: &'a str, header: &'a str },
    /// A client of the server authenticates with it.
    Client(&'a str),
}

impl fmt::Display for KeyUser<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Endpoint { endpoint, .. } => write!(f, "endpoint \"{endpoint}\""),
            Self::Header { endpoint, header } => write!(f, "header {header} of endpoint \"{endpoint}\""),
            Self::Client(name) => write!(f, "[serve.keys.{name}]"),
        }
    }
}

/// All uses of keys, those of endpoints first.
pub(crate) fn key_uses(config: &Config) -> impl Iterator<Item = KeyUse<'_>> {
    let endpoints = config.endpoints.iter().flat_map(|endpoint| {
        let name = endpoint.name.as_str();
        let keys = endpoint.keys.iter().enumerate();
        let keys =
            keys.map(move |(index, source)| KeyUse { user: KeyUser::Endpoint { endpoint: name, index }, source });
        let headers = endpoint.headers.iter().map(move |(header, source)| KeyUse {
            user: KeyUser::Header { endpoint: name, header: header.as_str() },
            source,
        });
        keys.chain(headers)
    });
    let clients = config.serve.clients.iter();
    endpoints.chain(clients.map(|client| KeyUse { user: KeyUser::Client(&client.name), source: &client.key }))
}

/// The names of the files that hold keys of the config.
pub(crate) fn key_file_names(config: &Config) -> Vec<String> {
    let name = |key: KeyUse| match key.source {
        KeySource::File(path) => path.file_name().map(|name| name.to_string_lossy().into_owned()),
        _ => None,
    };
    key_uses(config).filter_map(name).collect()
}
