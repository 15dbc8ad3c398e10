//! Endpoints of the file: addresses, keys, headers, proxies and limits, checked.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use http::HeaderName;
use url::Url;

use super::{Resolver, model::timeouts};
use crate::{
    config::{
        error::Problem,
        file::EndpointEntry,
        names::normalised,
        values::{At, KeyEntry},
        vendors,
    },
    model::{
        ProtocolId,
        api_key::{ApiKey, KeySource, masked_url},
        endpoint::{ConnectOptions, Endpoint, Limits, Timeouts, is_loopback},
    },
    protocol::PROTOCOLS,
};

/// An endpoint with nothing but its address, and what its vendor is known for.
pub(super) fn bare_endpoint(name: &str, base_url: Url) -> Endpoint {
    let vendor = vendors::at(&base_url);
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
        gzip: false,
        base_url,
    }
}

impl Resolver {
    pub(super) fn endpoint(&mut self, name: &At<String>, entry: &EndpointEntry) {
        let Some(base_url) = self.base_url(name, entry) else { return };
        let name = normalised(&name.value);
        let mut endpoint = bare_endpoint(&name, base_url);
        if let Some(protocol) = &entry.protocol {
            let ids: Vec<(&str, ProtocolId)> = PROTOCOLS.iter().map(|known| (known.id().0, known.id())).collect();
            endpoint.protocol = self.one_of("protocol", protocol, &ids).unwrap_or(endpoint.protocol);
        }
        if let (Some(one), Some(several)) = (&entry.api_key, entry.api_keys.as_ref().and_then(|keys| keys.first())) {
            let problem = Problem::new(&self.source, "both `api_key` and `api_keys` are set", one.span.clone());
            self.push(problem.also(several.span.clone(), "and here").help("keep one of them"));
        }
        let keys = entry.api_key.iter().chain(entry.api_keys.iter().flatten());
        endpoint.keys = keys.filter_map(|key| self.key(key)).collect();
        for (header, value) in &entry.headers.0 {
            match header.value.parse::<HeaderName>() {
                Ok(header) => endpoint.headers.extend(self.key(value).map(|source| (header, source))),
                Err(_) => {
                    self.problem(format!("`{}` is no header name", header.value), &header.span);
                }
            }
        }
        if !endpoint.keys.is_empty()
            && endpoint.headers.iter().any(|(header, _)| *header == http::header::AUTHORIZATION)
        {
            self.config.warnings.push(format!(
                "endpoint {name}: its header Authorization is sent in place of its key; keep one of them"
            ));
        }
        endpoint.timeouts = timeouts(entry.timeouts);
        endpoint.limits = self.limits(entry);
        endpoint.connect.timeout = endpoint.timeouts.connect;
        endpoint.connect.proxy = entry.proxy.as_ref().and_then(|proxy| self.proxy(proxy));
        endpoint.connect.ca_file = entry.ca_file.as_ref().map(|path| self.path(&path.value));
        endpoint.gateway = entry.gateway.unwrap_or(endpoint.gateway);
        endpoint.gzip = entry.gzip.unwrap_or(false);
        self.config.endpoints.push(Arc::new(endpoint));
    }

    fn base_url(&mut self, name: &At<String>, entry: &EndpointEntry) -> Option<Url> {
        let Some(written) = &entry.base_url else {
            let vendor = vendors::named(&name.value);
            if vendor.is_none() {
                self.problem(format!("endpoint `{}` has no base_url", name.value), &name.span).help =
                    Some("add base_url = \"https://…/v1\"".into());
            }
            return vendor.and_then(|vendor| Url::parse(&vendor.base_url).ok());
        };
        match base_url(&written.value) {
            Ok(url) => Some(self.warn_of_address(&name.value, url)),
            Err(wrong) => {
                let problem = self.problem(format!("base_url {wrong}"), &written.span);
                problem.help = Some("write it like \"https://api.example.com/v1\"".into());
                None
            }
        }
    }

    fn warn_of_address(&mut self, name: &str, url: Url) -> Url {
        if !url.username().is_empty() || url.password().is_some() {
            self.config.warnings.push(format!(
                "endpoint {name}: the user in base_url is not sent; use api_key, or headers with an Authorization"
            ));
        }
        if url.path().trim_matches('/').is_empty() {
            let shown = masked_url(&url);
            let shown = shown.trim_end_matches('/');
            self.config.warnings.push(format!(
                "endpoint {name}: base_url {shown} has no path; OpenAI-compatible services usually serve below {shown}/v1"
            ));
        }
        url
    }

    fn limits(&mut self, entry: &EndpointEntry) -> Limits {
        Limits {
            max_concurrency: self.at_least_one("max_concurrency", entry.max_concurrency.as_ref()),
            rpm: self.at_least_one("rpm", entry.rpm.as_ref()),
            queue: entry.queue.map(|queue| queue.0),
        }
    }

    pub(super) fn at_least_one<T: Copy + Default + PartialEq>(&mut self, key: &str, most: Option<&At<T>>) -> Option<T> {
        let most = most?;
        if most.value == T::default() {
            self.problem(format!("{key} must be at least 1"), &most.span);
        }
        Some(most.value)
    }

    fn proxy(&mut self, proxy: &At<String>) -> Option<Url> {
        let url = Url::parse(&proxy.value).ok();
        let known = |url: &Url| matches!(url.scheme(), "http" | "https" | "socks4" | "socks4a" | "socks5" | "socks5h");
        if !url.as_ref().is_some_and(known) {
            self.problem("proxy is no address of a proxy", &proxy.span).help =
                Some("write it like \"http://host:port\" or \"socks5h://host:port\"".into());
            return None;
        }
        url
    }

    pub(super) fn key(&mut self, entry: &At<KeyEntry>) -> Option<KeySource> {
        Some(match &entry.value {
            KeyEntry::Literal(value) if value.trim().is_empty() => {
                self.problem("the key is empty", &entry.span).help =
                    Some("leave it out if the service wants none".into());
                return None;
            }
            KeyEntry::Literal(value) => KeySource::Literal(ApiKey::new(value)),
            KeyEntry::Env(name) => KeySource::Env(name.clone()),
            KeyEntry::File(path) => KeySource::File(self.path(path)),
            KeyEntry::Command(words) => KeySource::Command(words.clone()),
            KeyEntry::Shell(line) => KeySource::Shell(line.clone()),
            KeyEntry::Keyring(name) => KeySource::Keyring(name.clone()),
        })
    }

    /// `~` is the home folder; other relative paths start at the config's folder.
    pub(super) fn path(&self, written: &str) -> PathBuf {
        in_folder(&self.folder, written)
    }
}

/// Where a path leads that a person wrote, from `folder` on; `~` is the home folder.
#[must_use]
pub fn in_folder(folder: &Path, written: &str) -> PathBuf {
    let home = || directories::BaseDirs::new().map(|dirs| dirs.home_dir().to_owned());
    match written.strip_prefix("~/").zip(home()) {
        Some((rest, home)) => home.join(rest),
        None => folder.join(written),
    }
}

/// Where a path leads that is written in the config at `config`.
#[must_use]
pub fn path_of(config: &Path, written: &str) -> PathBuf {
    in_folder(config.parent().unwrap_or(Path::new("")), written)
}

/// The address written as `text`, or what is wrong with it.
pub fn base_url(text: &str) -> Result<Url, String> {
    match Url::parse(text) {
        Ok(url) if !matches!(url.scheme(), "http" | "https") => Err("has no http:// or https:// before it".to_owned()),
        Ok(url) if url.host_str().is_none_or(str::is_empty) => Err("names no host".to_owned()),
        Ok(mut url) => {
            // The address of one call is often pasted in place of the address of all of them.
            if let Some(base) = url.path().trim_end_matches('/').strip_suffix("/chat/completions") {
                let base = base.to_owned();
                url.set_path(&base);
            }
            Ok(url)
        }
        Err(error) => Err(format!("is no address: {error}")),
    }
}
