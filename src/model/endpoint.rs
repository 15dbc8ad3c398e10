//! An endpoint: one base URL, how to reach it, and what it allows.
//!
//! Owns the resolved, checked form. Refuses to know config files: `config::resolve` makes these.

use std::{net::IpAddr, path::PathBuf, time::Duration};

use http::HeaderName;
use url::{Host, Url};

use crate::model::{ProtocolId, api_key::KeySource};

/// One service that can be asked.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// The user's name for it.
    pub name: String,
    /// Where it is; paths such as `chat/completions` are appended to it.
    pub base_url: Url,
    /// Which wire format it speaks.
    pub protocol: ProtocolId,
    /// Its keys, in the order they are tried. Empty: the service wants none.
    pub keys: Vec<KeySource>,
    /// Headers sent with every request; the values are secrets until proven otherwise.
    pub headers: Vec<(HeaderName, KeySource)>,
    /// How a connection to it is made.
    pub connect: ConnectOptions,
    /// How long each step may take.
    pub timeouts: Timeouts,
    /// What we ourselves allow towards it.
    pub limits: Limits,
    /// It is itself a gateway, which has retried already: the same endpoint is not tried twice.
    pub gateway: bool,
    /// It refuses `stream_options`, so usage must not be asked for.
    pub no_stream_options: bool,
    /// Compressed replies are asked for.
    pub gzip: bool,
}

impl Endpoint {
    /// The address of `path` below the base URL: one slash between them, the query kept.
    #[must_use]
    pub fn url(&self, path: &str) -> Url {
        let mut url = self.base_url.clone();
        let joined = format!("{}/{path}", self.base_url.path().trim_end_matches('/'));
        url.set_path(&joined);
        url
    }

    /// Host and port, for messages.
    #[must_use]
    pub fn authority(&self) -> String {
        let host = self.base_url.host_str().unwrap_or("?");
        self.base_url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
    }
}

/// How a connection is made. One HTTP client exists per distinct value.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ConnectOptions {
    /// A proxy for this endpoint alone.
    pub proxy: Option<Url>,
    /// Trusted in place of the system's certificates.
    pub ca_file: Option<PathBuf>,
    /// Limit of name look-up, TCP and TLS together.
    pub timeout: Option<Duration>,
    /// On this machine: never reached through a proxy of the environment.
    pub loopback: bool,
    /// Whether TLS is needed, so that certificates are loaded only then.
    pub tls: bool,
    /// Never reuse a pooled connection (for the repeat after a dropped one).
    pub fresh: bool,
}

/// How long each step of an attempt may take. `None`: the default of the situation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timeouts {
    /// To connect; 10 s unless set.
    pub connect: Option<Duration>,
    /// From sending to the first content, reasoning or tool delta.
    pub first_token: Option<Duration>,
    /// Between two reads of a stream that has begun; 60 s unless set.
    pub idle: Option<Duration>,
    /// For the whole answer; 10 min unless set.
    pub total: Option<Duration>,
}

impl Timeouts {
    /// These, with those of `over` laid on top.
    #[must_use]
    pub fn overlaid(self, over: Self) -> Self {
        Self {
            connect: over.connect.or(self.connect),
            first_token: over.first_token.or(self.first_token),
            idle: over.idle.or(self.idle),
            total: over.total.or(self.total),
        }
    }
}

/// Our own limits towards an endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Requests under way at once.
    pub max_concurrency: Option<usize>,
    /// Requests begun in any minute.
    pub rpm: Option<u32>,
    /// How long a request may wait for its turn; 30 s unless set.
    pub queue: Option<Duration>,
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

/// Whether `url` points to this machine or a private network, where models load slowly and nobody bills.
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

#[cfg(test)]
pub(crate) mod testing {
    //! Endpoints for tests of the floors above.

    use super::*;

    pub(crate) fn endpoint(base_url: &str) -> Endpoint {
        let base_url = Url::parse(base_url).expect("a url");
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
            gzip: false,
            base_url,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).expect("a url")
    }

    #[test]
    fn paths_join_with_one_slash_and_keep_the_query() {
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
    fn loopback_and_private_addresses_are_told_apart() {
        assert!(is_loopback(&url("http://localhost:1")) && is_loopback(&url("http://[::1]:1")));
        assert!(!is_loopback(&url("http://10.0.0.1")) && is_private(&url("http://10.0.0.1")));
        assert!(!is_private(&url("https://api.example.com")));
    }
}
