//! An endpoint: one base URL, its connection options, timeouts and limits.
//!
//! The values are resolved and validated; `config::resolve` creates them.

use std::{net::IpAddr, path::PathBuf, time::Duration};

use http::HeaderName;
use url::{Host, Url};

use crate::model::{ProtocolId, api_key::KeySource};

/// One service at one base URL.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// Name in the config.
    pub name: String,
    /// Base URL; paths such as `chat/completions` are appended to it.
    pub base_url: Url,
    /// Wire format.
    pub protocol: ProtocolId,
    /// API keys, in the order they are tried. Empty: the service needs none.
    pub keys: Vec<KeySource>,
    /// Headers sent with every request; all values are treated as secrets.
    pub headers: Vec<(HeaderName, KeySource)>,
    /// Connection options.
    pub connect: ConnectOptions,
    /// Timeouts of an attempt.
    pub timeouts: Timeouts,
    /// Local limits on requests to it.
    pub limits: Limits,
    /// The service is a gateway that does its own retries: a request is not retried on this endpoint.
    pub gateway: bool,
    /// The service rejects `stream_options`, so usage is not requested.
    pub no_stream_options: bool,
    /// Prefixes of the ids of its reasoning models.
    pub reasoning_models: &'static [String],
    /// Whether to request compressed responses.
    pub gzip: bool,
}

impl Endpoint {
    /// The URL of `path` below the base URL: joined by one slash, with the query kept.
    #[must_use]
    pub fn url(&self, path: &str) -> Url {
        let mut url = self.base_url.clone();
        let full_path = format!("{}/{path}", self.base_url.path().trim_end_matches('/'));
        url.set_path(&full_path);
        url
    }

    /// Host and port, for messages.
    #[must_use]
    pub fn authority(&self) -> String {
        let host = self.base_url.host_str().unwrap_or("?");
        self.base_url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
    }
}

/// Connection options. Each distinct value has its own HTTP client.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ConnectOptions {
    /// Proxy for this endpoint only.
    pub proxy: Option<Url>,
    /// CA certificates, trusted instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// Limit for name resolution, TCP and TLS together.
    pub timeout: Option<Duration>,
    /// The endpoint is on this machine: proxies from the environment are ignored.
    pub loopback: bool,
    /// Whether TLS is needed. System certificates are loaded only then.
    pub tls: bool,
    /// Never reuse a pooled connection (for the retry after a dropped one).
    pub new_connection: bool,
}

/// Timeouts of an attempt. `None`: the default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timeouts {
    /// To connect; default 10 s.
    pub connect: Option<Duration>,
    /// From sending the request to the first token (text, reasoning or tool call); the default depends on the model and
    /// the other candidates.
    pub first_token: Option<Duration>,
    /// Between two reads after the first delta; default 60 s.
    pub idle: Option<Duration>,
    /// For the complete answer; default 10 min.
    pub total: Option<Duration>,
}

impl Timeouts {
    /// Returns these timeouts with the set values of `overrides` replacing them.
    #[must_use]
    pub fn with_overrides(self, overrides: Self) -> Self {
        Self {
            connect: overrides.connect.or(self.connect),
            first_token: overrides.first_token.or(self.first_token),
            idle: overrides.idle.or(self.idle),
            total: overrides.total.or(self.total),
        }
    }
}

/// Local limits on requests to an endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Maximum number of concurrent requests.
    pub max_concurrency: Option<usize>,
    /// Maximum number of requests started in any minute.
    pub rpm: Option<u32>,
    /// How long a request may wait in the queue; default 30 s.
    pub queue_timeout: Option<Duration>,
}

/// Whether `url` points to this machine.
#[must_use]
pub fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        None => false,
    }
}

/// Whether `url` points to this machine or a private network, where models load slowly and requests cost nothing.
#[must_use]
pub fn is_private(url: &Url) -> bool {
    let ip = match url.host() {
        Some(Host::Ipv4(ip)) => IpAddr::V4(ip),
        Some(Host::Ipv6(ip)) => IpAddr::V6(ip),
        _ => return is_loopback(url) || url.host_str().is_some_and(|name| name.rsplit('.').next() == Some("local")),
    };
    match ip {
        IpAddr::V4(ip) => ip.is_loopback() || ip.is_private() || ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local(),
    }
}

/// Whether `url` may point to a host on the internet: not to a private address, nor to a name of a local network.
#[must_use]
pub fn may_be_public(url: &Url) -> bool {
    const LOCAL_SUFFIXES: [&str; 6] = [".lan", ".internal", ".home.arpa", ".local", ".svc", ".test"];
    let is_local_name = |name: &str| !name.contains('.') || LOCAL_SUFFIXES.iter().any(|suffix| name.ends_with(suffix));
    let is_local = matches!(url.host(), Some(Host::Domain(name)) if is_local_name(name.trim_end_matches('.')));
    !is_local && !is_private(url)
}

#[cfg(test)]
pub(crate) mod testing {
    //! Endpoints for tests of the layers above.

    use super::*;

    pub(crate) fn endpoint(base_url: &str) -> Endpoint {
        let base_url = Url::parse(base_url).expect("valid URL");
        Endpoint {
            name: "test".into(),
            protocol: ProtocolId("openai"),
            keys: Vec::new(),
            headers: Vec::new(),
            connect: ConnectOptions { loopback: is_loopback(&base_url), ..ConnectOptions::default() },
            timeouts: Timeouts::default(),
            limits: Limits::default(),
            gateway: false,
            no_stream_options: false,
            reasoning_models: &[],
            gzip: false,
            base_url,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).expect("valid URL")
    }

    #[test]
    fn paths_are_joined_with_one_slash_and_the_query_is_kept() {
        for (base, want) in [
            ("http://h/v1", "http://h/v1/chat/completions"),
            ("http://h/v1/", "http://h/v1/chat/completions"),
            ("http://h/v1//", "http://h/v1/chat/completions"),
            ("http://h", "http://h/chat/completions"),
            ("http://h/o?api-version=1", "http://h/o/chat/completions?api-version=1"),
        ] {
            let endpoint = super::testing::endpoint(base);
            assert_eq!(endpoint.url("chat/completions").as_str(), want);
        }
    }

    #[test]
    fn loopback_and_private_addresses_are_distinguished() {
        assert!(is_loopback(&url("http://localhost:1")) && is_loopback(&url("http://[::1]:1")));
        assert!(!is_loopback(&url("http://10.0.0.1")) && is_private(&url("http://10.0.0.1")));
        assert!(!is_private(&url("https://api.example.com")));
    }

    #[test]
    fn hosts_of_local_networks_are_not_public() {
        let url = |host: &str| Url::parse(&format!("http://{host}/v1")).expect("valid URL");
        for host in ["localhost", "10.1.2.3", "[fd00::1]", "ollama", "gpu.lan", "api.internal.", "models.prod.svc"] {
            assert!(!may_be_public(&url(host)), "{host}");
        }
        for host in ["api.example.com", "8.8.8.8", "[2001:4860::1]"] {
            assert!(may_be_public(&url(host)), "{host}");
        }
    }
}
