//! The sources of the keys in a config, and the names of its key files.

use crate::{config::Config, model::api_key::KeySource};

/// The sources of all keys and header values.
pub(crate) fn key_sources(config: &Config) -> impl Iterator<Item = &KeySource> {
    config
        .endpoints
        .iter()
        .flat_map(|endpoint| endpoint.keys.iter().chain(endpoint.headers.iter().map(|(_, source)| source)))
}

/// The names of the files that hold keys of the config's endpoints.
pub(crate) fn key_file_names(config: &Config) -> Vec<String> {
    let name = |source: &KeySource| match source {
        KeySource::File(path) => path.file_name().map(|name| name.to_string_lossy().into_owned()),
        _ => None,
    };
    key_sources(config).filter_map(name).collect()
}
