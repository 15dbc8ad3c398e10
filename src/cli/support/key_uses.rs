//! Where a config uses keys, and the names of its key files.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use crate::{
    config::{Config, template::key_file_path, unique_name},
    model::api_key::{ApiKey, KeySource},
};

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

/// Whether both sources are the same key. A file is the same under each of its paths.
pub(crate) fn is_same_source(a: &KeySource, b: &KeySource) -> bool {
    match (a, b) {
        (KeySource::File(a), KeySource::File(b)) => a == b || real_path(a) == real_path(b),
        _ => a == b,
    }
}

/// Whether removing the file at `a` removes the one at `b`. Unlike for [`is_same_source`], a symbolic link and its target
/// are two files.
pub(crate) fn is_same_file_entry(a: &Path, b: &Path) -> bool {
    let entry = |path: &Path| (path.parent().map(real_path), path.file_name().map(ToOwned::to_owned));
    a == b || entry(a) == entry(b)
}

fn real_path(path: &Path) -> PathBuf {
    std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}

/// A name for the file of `key` in the folder of `config_path`, which is not in `taken`. A file with another key is not
/// replaced: another config in this folder may refer to it.
pub(crate) fn unused_key_file(name: &str, taken: &[String], config_path: &Path, key: &ApiKey) -> String {
    let has_other_content = |name: &str| {
        let path = config_path.with_file_name(key_file_path(name));
        path.exists()
            && !(path.is_file() && std::fs::read_to_string(&path).is_ok_and(|text| ApiKey::new(&text) == *key))
    };
    let mut taken = taken.to_vec();
    loop {
        let free = unique_name(name, &taken);
        if !has_other_content(&free) {
            return free;
        }
        taken.push(free);
    }
}

/// The names of the files that hold keys of the config.
pub(crate) fn key_file_names(config: &Config) -> Vec<String> {
    let name = |key: KeyUse| match key.source {
        KeySource::File(path) => path.file_name().map(|name| name.to_string_lossy().into_owned()),
        _ => None,
    };
    key_uses(config).filter_map(name).collect()
}
