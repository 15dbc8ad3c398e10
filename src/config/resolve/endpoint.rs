//! Validates the endpoints of the config file: URLs, keys, headers, proxies and limits.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use http::HeaderName;
use url::Url;

use super::Resolver;

use crate::{
    config::{
        base_url::parse_base_url,
        convert::timeouts,
        error::Problem,
        file::EndpointEntry,
        names::{is_variable_name, normalize_name},
        values::{KeyEntry, Spanned},
        vendors,
    },
    model::{
        ProtocolId,
        api_key::{ApiKey, KeySource, redact_url},
        endpoint::{ConnectOptions, Endpoint, Limits, Timeouts, is_loopback, may_be_public},
    },
    protocol::PROTOCOLS,
};

/// An endpoint with a base URL, the properties of its vendor, and defaults.
pub(super) fn default_endpoint(name: &str, base_url: Url) -> Endpoint {
    let vendor = vendors::by_url(&base_url);
    Endpoint {
        name: name.to_owned(),
        protocol: ProtocolId("openai"),
        keys: Vec::new(),
        headers: Vec::new(),
        connect: ConnectOptions {
            loopback: is_loopback(&base_url),
            tls: base_url.scheme() == "https",
            ..ConnectOptions::default()
        },
        timeouts: Timeouts::default(),
        limits: Limits::default(),
        gateway: vendor.is_some_and(|vendor| vendor.gateway),
        no_stream_options: vendor.is_some_and(|vendor| vendor.no_stream_options),
        reasoning_models: vendor.map_or(&[], |vendor| &vendor.reasoning),
        gzip: false,
        base_url,
    }
}

/// Warnings about the keys of an endpoint: one that is sent unencrypted, or was written in place of its source.
pub(super) fn key_warnings(endpoint: &Endpoint) -> Vec<String> {
    let name = &endpoint.name;
    let pasted = secrets(endpoint).any(|source| source.pasted_key().is_some()).then(|| {
        format!("endpoint \"{name}\": the name of a variable or file seems to be a key; write api_key = \"KEY\"")
    });
    exposed_key_warning(endpoint).into_iter().chain(pasted).collect()
}

/// The warning about a key that is sent unencrypted over a public network.
pub(crate) fn exposed_key_warning(endpoint: &Endpoint) -> Option<String> {
    let (name, host) = (&endpoint.name, endpoint.authority());
    let is_exposed = endpoint.base_url.scheme() == "http" && may_be_public(&endpoint.base_url);
    (is_exposed && secrets(endpoint).next().is_some())
        .then(|| format!("endpoint \"{name}\": its key is sent to {host} unencrypted; use https if the service has it"))
}

/// The keys of an endpoint, and its headers, which may contain one.
fn secrets(endpoint: &Endpoint) -> impl Iterator<Item = &KeySource> {
    endpoint.keys.iter().chain(endpoint.headers.iter().map(|(_, source)| source))
}

impl Resolver {
    pub(super) fn add_endpoint(&mut self, name: &Spanned<String>, entry: &EndpointEntry) {
        let Some(base_url) = self.base_url(name, entry) else {
            return self.skipped_names.push(normalize_name(&name.value));
        };
        let name = normalize_name(&name.value);
        let mut endpoint = default_endpoint(&name, base_url);
        if let Some(protocol) = &entry.protocol {
            if let Some(known) = PROTOCOLS.iter().find(|known| known.id().0 == protocol.value) {
                endpoint.protocol = known.id();
            } else {
                let ids: Vec<&str> = PROTOCOLS.iter().map(|known| known.id().0).collect();
                self.add_invalid_keyword("protocol", protocol, &ids);
            }
        }
        if let (Some(api_key), Some(first_of_api_keys)) =
            (&entry.api_key, entry.api_keys.as_ref().and_then(|keys| keys.first()))
        {
            let problem = Problem::new(&self.source, "both `api_key` and `api_keys` are set", api_key.span.clone());
            self.push_problem(
                problem.with_secondary_label(first_of_api_keys.span.clone(), "and here").help("remove one of them"),
            );
        }
        let keys = entry.api_key.iter().chain(entry.api_keys.iter().flatten());
        endpoint.keys = keys.filter_map(|key| self.key_source(key)).collect();
        for (header, value) in &entry.headers.0 {
            match header.value.parse::<HeaderName>() {
                Ok(header) => endpoint.headers.extend(self.key_source(value).map(|source| (header, source))),
                Err(_) => {
                    self.add_problem(format!("invalid header name \"{}\"", header.value), &header.span);
                }
            }
        }
        if !endpoint.keys.is_empty()
            && endpoint.headers.iter().any(|(header, _)| *header == http::header::AUTHORIZATION)
        {
            self.config.warnings.push(format!(
                "endpoint \"{name}\": the Authorization header is sent instead of the key; remove one of them"
            ));
        }
        self.config.warnings.extend(key_warnings(&endpoint));
        endpoint.timeouts = timeouts(entry.timeouts);
        endpoint.limits = self.limits(entry);
        endpoint.connect.timeout = endpoint.timeouts.connect;
        endpoint.connect.proxy = entry.proxy.as_ref().and_then(|proxy| self.proxy(proxy));
        endpoint.connect.ca_file = entry.ca_file.as_ref().map(|path| self.resolve_path(&path.value, path));
        endpoint.gateway = entry.gateway.unwrap_or(endpoint.gateway);
        endpoint.gzip = entry.gzip.unwrap_or(false);
        self.config.endpoints.push(Arc::new(endpoint));
    }

    fn base_url(&mut self, name: &Spanned<String>, entry: &EndpointEntry) -> Option<Url> {
        let Some(base_url) = &entry.base_url else {
            let Some(vendor) = vendors::by_name(&name.value) else {
                self.add_problem(format!("endpoint \"{}\" has no base_url", name.value), &name.span).help =
                    Some("add base_url = \"https://…/v1\"".into());
                return None;
            };
            return match vendor.effective_base_url(&self.environment) {
                Ok(url) => Some(url),
                Err(error) => {
                    let message = format!("endpoint \"{}\" has no valid base URL: {error}", name.value);
                    self.add_problem(message, &name.span).help = Some("correct the variable, or set base_url".into());
                    None
                }
            };
        };
        match parse_base_url(&base_url.value) {
            Ok(url) => Some(self.warn_about_base_url(&name.value, url)),
            Err(reason) => {
                let problem = self.add_problem(format!("base_url {reason}"), &base_url.span);
                problem.help = Some("use a URL such as \"https://api.example.com/v1\"".into());
                None
            }
        }
    }

    fn warn_about_base_url(&mut self, name: &str, url: Url) -> Url {
        if !url.username().is_empty() || url.password().is_some() {
            self.config.warnings.push(format!(
                "endpoint \"{name}\": the user in base_url is not sent; use api_key, or an Authorization header"
            ));
        }
        if url.path().trim_matches('/').is_empty() {
            let base = redact_url(&url);
            let base = base.trim_end_matches('/');
            self.config.warnings.push(format!(
                "endpoint \"{name}\": base_url {base} has no path; OpenAI-compatible services usually use {base}/v1"
            ));
        }
        url
    }

    fn limits(&mut self, entry: &EndpointEntry) -> Limits {
        Limits {
            max_concurrency: self.at_least_one("max_concurrency", entry.max_concurrency.as_ref()),
            rpm: self.at_least_one("rpm", entry.rpm.as_ref()),
            queue_timeout: entry.queue.map(|queue| queue.0),
        }
    }

    pub(super) fn at_least_one<T: Copy + Default + PartialEq>(
        &mut self,
        key: &str,
        limit: Option<&Spanned<T>>,
    ) -> Option<T> {
        let limit = limit?;
        if limit.value == T::default() {
            self.add_problem(format!("{key} must be at least 1"), &limit.span);
        }
        Some(limit.value)
    }

    fn proxy(&mut self, proxy: &Spanned<String>) -> Option<Url> {
        let url = Url::parse(&proxy.value).ok();
        let is_supported =
            |url: &Url| matches!(url.scheme(), "http" | "https" | "socks4" | "socks4a" | "socks5" | "socks5h");
        if !url.as_ref().is_some_and(is_supported) {
            self.add_problem("proxy is not a valid proxy URL", &proxy.span).help =
                Some("use a URL such as \"http://host:port\" or \"socks5h://host:port\"".into());
            return None;
        }
        url
    }

    pub(super) fn key_source(&mut self, entry: &Spanned<KeyEntry>) -> Option<KeySource> {
        Some(match &entry.value {
            KeyEntry::Literal(value) if value.trim().is_empty() => {
                self.add_problem("the key is empty", &entry.span).help =
                    Some("expected a key, or its source, such as { env = \"NAME\" }".into());
                return None;
            }
            KeyEntry::Literal(value) => KeySource::Literal(ApiKey::new(value)),
            KeyEntry::Env(name) if !is_variable_name(name) => {
                self.add_problem("expected the name of an environment variable", &entry.span);
                return None;
            }
            KeyEntry::File(name) | KeyEntry::Keyring(name) if name.trim().is_empty() => {
                self.add_problem("the name is empty", &entry.span);
                return None;
            }
            KeyEntry::Command(args) if args.first().is_some_and(|program| program.trim().is_empty()) => {
                self.add_problem("the command is empty: expected at least a program", &entry.span);
                return None;
            }
            KeyEntry::Env(name) => KeySource::Env(name.clone()),
            KeyEntry::File(path) => KeySource::File(self.resolve_path(path, entry)),
            KeyEntry::Command(args) => KeySource::Command(args.clone()),
            KeyEntry::Shell(line) => KeySource::Shell(line.clone()),
            KeyEntry::Keyring(name) => KeySource::Keyring(name.clone()),
        })
    }

    /// Expands `~` to the home folder; other relative paths are relative to the folder of the file with `entry`.
    pub(super) fn resolve_path<T>(&self, path: &str, entry: &Spanned<T>) -> PathBuf {
        resolve_config_path(self.source.path_at(entry.span.start), path)
    }
}

/// Resolves a path relative to `folder`; `~` is the home folder.
#[must_use]
fn resolve_path(folder: &Path, path: &str) -> PathBuf {
    let home = || directories::BaseDirs::new().map(|dirs| dirs.home_dir().to_owned());
    match path.strip_prefix("~/").zip(home()) {
        Some((relative, home)) => home.join(relative),
        None => folder.join(path),
    }
}

/// Resolves a path that is written in the config file at `config`.
#[must_use]
pub(crate) fn resolve_config_path(config: &Path, path: &str) -> PathBuf {
    resolve_path(config.parent().unwrap_or(Path::new("")), path)
}
